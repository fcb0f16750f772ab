//! `echo`: answers with what it was told.

use crate::agent::{
    Agent, AgentError, AgentProfile, Answer, Artifact, Incoming, TaskContext, read,
};

/// An agent that answers with the parts of the message that it was sent.
///
/// ```
/// use neuroflow_actors::{Agent, Echo};
/// assert_eq!(Echo.profile().name, "echo");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Agent for Echo {
    fn profile(&self) -> AgentProfile {
        let mut profile = AgentProfile::new("echo", "Answers with what it was told.");
        profile.input_modes = vec!["*/*".to_owned()];
        profile.output_modes = vec!["*/*".to_owned()];
        profile
    }

    async fn run(&self, ask: Incoming, _: TaskContext) -> Result<Answer, AgentError> {
        let parts = ask.get().turn.parts.iter().map(read::part).collect();
        Ok(Answer::artifact(Artifact::new("echo", parts)))
    }
}
