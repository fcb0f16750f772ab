//! Things that an agent does once: their results are journaled before anybody sees them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use neuroflow_kernel::CallError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AgentCommand, AgentError, TaskContext};
use crate::journal::AppendError;
use crate::limits::JOURNAL_DEADLINE;

/// Results of effects that are in the journal, by key.
pub(super) type Effects = Arc<Mutex<HashMap<String, String>>>;

/// Why a result isn't kept or given back.
///
/// ```
/// use neuroflow_actors::EffectError;
/// fn key(error: &EffectError) -> Option<&str> {
///     match error {
///         EffectError::Json { key, .. } => Some(key),
///         _ => None,
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EffectError {
    /// It isn't JSON, or the journaled one isn't of this type.
    #[error("the result of effect {key:?} can't be written or read as JSON")]
    Json {
        /// The effect.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The journal doesn't keep it.
    #[error("the journal doesn't keep the result of effect {key:?}")]
    Journal {
        /// The effect.
        key: String,
        /// Why.
        #[source]
        source: AppendError,
    },
    /// The agent's own actor doesn't answer.
    #[error("the agent doesn't keep the result of effect {key:?}")]
    Server {
        /// The effect.
        key: String,
        /// What became of the call.
        #[source]
        source: CallError,
    },
}

impl TaskContext {
    /// Does something that must not be done twice. Its result is journaled before it's given back;
    /// when the task is run again after a crash, the journaled result is given back and `work` isn't
    /// run. A key stands for one effect of the task: a second one of the same key gets the first
    /// one's result.
    ///
    /// What was begun and not journaled when the node crashed is begun again: hand the key on to
    /// whoever does it, if they know such keys. An error isn't kept.
    ///
    /// ```
    /// use neuroflow_actors::{AgentError, Answer, Incoming, TaskContext};
    /// async fn pay(order: String) -> Result<u64, AgentError> {
    ///     Ok(order.len() as u64)
    /// }
    /// async fn run(ask: Incoming, context: TaskContext) -> Result<Answer, AgentError> {
    ///     let receipt: u64 = context.effect("pay", pay(ask.text())).await?;
    ///     Ok(Answer::text(format!("Paid: receipt {receipt}")))
    /// }
    /// ```
    ///
    /// # Errors
    /// The error of `work`, or why its result can't be kept.
    pub async fn effect<T, F>(&self, key: &str, work: F) -> Result<T, AgentError>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, AgentError>>,
    {
        let json = |source| EffectError::Json { key: key.to_owned(), source };
        let kept = self.effects.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(kept) = kept {
            return Ok(serde_json::from_str(&kept).map_err(json)?);
        }
        let result = work.await?;
        let text = serde_json::to_string(&result).map_err(json)?;
        let header = self.header.clone().within(&self.clock, JOURNAL_DEADLINE);
        let keep = |reply| AgentCommand::Keep {
            task: self.task.clone(),
            key: key.to_owned(),
            json: text.clone(),
            reply,
        };
        let answer = self.server.call(header, keep).await;
        let answer =
            answer.map_err(|source| EffectError::Server { key: key.to_owned(), source })?;
        answer.map_err(|source| EffectError::Journal { key: key.to_owned(), source })?;
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), text);
        Ok(result)
    }
}
