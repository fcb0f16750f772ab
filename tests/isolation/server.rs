//! The sandbox actor: what it runs, and when it runs nothing.

use neuroflow_kernel::{Address, ChildSpec, Header, Kernel, Parcel, Request};
use neuroflow_sandbox::{
    ArchivedExecEvent, Exec, ExecRefused, How, LaunchError, Level, Profile, SandboxCommand,
    SandboxServer, Stage,
};

use crate::support::{sh, try_launch};

/// How a program ended, and what its cell did without; refused, if it was.
async fn run(sandbox: &Address<SandboxCommand>) -> Result<(How, Vec<String>), ExecRefused> {
    let parcel = Parcel::archive(&Exec::new(["true"])).expect("a short request");
    let exec = |replies| SandboxCommand::Exec(Request { parcel, replies });
    let mut events = sandbox.stream(Header::new(), exec).await.expect("the sandbox takes it");
    while let Some(event) = events.next().await {
        match event.expect("the stream is whole").get() {
            ArchivedExecEvent::Output { .. } => {}
            ArchivedExecEvent::Ended(ended) => {
                assert_eq!(ended.stages_ns.len(), Stage::ALL.len());
                let degraded = ended.degraded.iter().map(ToString::to_string).collect();
                return Ok((How::from(&ended.how), degraded));
            }
            ArchivedExecEvent::Refused(refused) => return Err(ExecRefused::from(refused)),
        }
    }
    panic!("no last event")
}

/// Mostly nobody as a host has no control groups, which root has.
#[tokio::test]
async fn a_level_with_layers_missing_is_attacked_without_them_and_serves() {
    let missing = match try_launch(Profile::builder(Level::Strict), sh("true")).await {
        Ok(_cell) => Vec::new(),
        Err(LaunchError::Unavailable { layer, .. }) => vec![layer.to_string()],
        Err(other) => panic!("{other:?}"),
    };
    let profile = Profile::builder(Level::Strict).allow_degraded(true).build().expect("a profile");
    let kernel = Kernel::builder().start().await.expect("a kernel");
    let (spec, sandbox) = ChildSpec::new("sandbox", move || {
        SandboxServer::new(profile.clone()).attack_first(true).actor()
    })
    .expect("a name");
    kernel.root().start(spec).await.expect("a sandbox");
    let (how, degraded) = run(&sandbox).await.expect("the program ran");
    assert_eq!(how, How::Exited(0));
    assert_eq!(degraded, missing);
    kernel.stop().await;
}
