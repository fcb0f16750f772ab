//! The control actor: listens on the socket, checks who asks, and answers.

use std::path::PathBuf;
use std::sync::Arc;

use neuroflow::actors::{AuditEvent, AuditId, Verdict};
use neuroflow::kernel::{Actor, Census, Clock, Context, Header, TraceContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::place::{Files, bind};
use super::{
    ControlAnswer, ControlCommand, ControlError, ControlRequest, Fault, FaultCode, Outcome, Slots,
    Step, Tree, VERSION, cluster, tasks,
};
use crate::limits::{
    CONTROL_ACCEPT_PAUSE, CONTROL_CONNECTIONS, CONTROL_DEADLINE, CONTROL_REQUEST_BYTES,
};
use crate::owner::own_user;

/// The control socket as an actor.
#[derive(Debug)]
pub(super) struct ControlServer {
    path: PathBuf,
    census: Census,
    slots: Arc<Slots>,
    files: Option<Files>,
}

impl ControlServer {
    pub(super) fn new(path: PathBuf, census: Census, slots: Arc<Slots>) -> Self {
        Self { path, census, slots, files: None }
    }
}

impl Actor for ControlServer {
    type Message = ControlCommand;
    type Error = ControlError;
    const KIND: &'static str = "control";

    async fn started(&mut self, context: &mut Context<ControlCommand>) -> Result<(), ControlError> {
        let user = own_user().map_err(ControlError::at(Step::Identify, &self.path))?;
        let bound = bind(&self.path, user)?;
        self.files = Some(bound.files);
        let (census, slots) = (self.census.clone(), Arc::clone(&self.slots));
        let answerer = Answerer { census, slots, clock: context.clock().clone(), user };
        let work = serve(bound.listener, Arc::new(answerer));
        context.task(work).map_err(|_refused| ControlError::NoRoom)
    }

    async fn handle(
        &mut self,
        command: ControlCommand,
        _context: &mut Context<ControlCommand>,
    ) -> Result<(), ControlError> {
        match command {}
    }

    async fn stopping(&mut self, _context: &mut Context<ControlCommand>) {
        self.files = None;
    }
}

/// Accepts until the actor ends.
async fn serve(listener: UnixListener, answerer: Arc<Answerer>) {
    let places = Arc::new(Semaphore::new(CONTROL_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _unnamed)) => stream,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "accept failed");
                answerer.clock.sleep(CONTROL_ACCEPT_PAUSE).await;
                continue;
            }
        };
        let answerer = Arc::clone(&answerer);
        connections.spawn(async move {
            let deadline = answerer.clock.now() + CONTROL_DEADLINE;
            let served = answerer.clock.before(deadline, answerer.serve(stream)).await;
            match served {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "control connection");
                }
                Err(_elapsed) => tracing::debug!("a control connection took too long"),
            }
            drop(place);
        });
    }
}

/// What every connection needs.
struct Answerer {
    census: Census,
    slots: Arc<Slots>,
    clock: Clock,
    user: u32,
}

impl Answerer {
    async fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let peer = stream.peer_cred()?.uid();
        let outcome = if peer == self.user || peer == 0 {
            match read_request(&mut stream).await? {
                Ok(ControlRequest::Tree {}) => {
                    Outcome::Tree(Tree::of(&self.census, self.clock.wall()))
                }
                Ok(ControlRequest::Cluster {}) => {
                    cluster::status(self.slots.links.get(), self.clock.wall())
                }
                Ok(ControlRequest::Drain { node, on }) => {
                    let act = Act {
                        action: if on { "drain" } else { "undrain" },
                        node: AuditId::new(&node),
                        roles: Vec::new(),
                    };
                    let drain = cluster::drain(self.slots.links.get(), &node, on, &self.clock);
                    self.recorded(act, drain).await
                }
                Ok(ControlRequest::Invite(invited)) => {
                    let act = Act {
                        action: "invite",
                        node: AuditId::new(&invited.node),
                        roles: invited.roles.iter().map(AuditId::new).collect(),
                    };
                    let invite = async { cluster::invite(self.slots.links.get(), &invited) };
                    self.recorded(act, invite).await
                }
                Ok(ControlRequest::Tasks(asked)) => {
                    tasks::answer(self.slots.journal.get(), asked).await
                }
                Err(fault) => Outcome::Error(fault),
            }
        } else {
            tracing::warn!(peer, "another user has asked the control socket");
            if let Some(audit) = self.slots.audit.get() {
                let event = AuditEvent::Authentication {
                    scheme: "control_socket",
                    principal: Some(AuditId::new(format!("uid:{peer}"))),
                    peer: None,
                    verdict: Verdict::Denied,
                    reason: "other_user",
                };
                audit.note(TraceContext::NONE, event);
            }
            let message = "only the node's own user and root may ask; use sudo".to_owned();
            Outcome::Error(Fault { code: FaultCode::Denied, message })
        };
        let mut answer = serde_json::to_vec(&ControlAnswer { version: VERSION, outcome })?;
        answer.push(b'\n');
        stream.write_all(&answer).await?;
        stream.shutdown().await
    }
}

/// What the operator wants of the cluster.
struct Act {
    action: &'static str,
    node: AuditId,
    roles: Vec<AuditId>,
}

impl Act {
    fn event(&self, verdict: Verdict) -> AuditEvent {
        AuditEvent::Membership {
            action: self.action,
            node: self.node.clone(),
            roles: self.roles.clone(),
            by: None,
            verdict,
            reason: "control_socket",
        }
    }
}

impl Answerer {
    /// Does something to the cluster once that's in the audit log, and says there if nothing came of it.
    async fn recorded(&self, act: Act, work: impl Future<Output = Outcome>) -> Outcome {
        let audit = self.slots.audit.get();
        if let Some(audit) = audit {
            let header = Header::new().within(&self.clock, CONTROL_DEADLINE);
            if let Err(error) = audit.decide(header, act.event(Verdict::Allowed)).await {
                let message = format!("nothing is done that isn't in the audit log: {error}");
                return Outcome::Error(Fault { code: FaultCode::Unrecorded, message });
            }
        }
        let outcome = work.await;
        if let (Some(audit), Outcome::Error(_)) = (audit, &outcome) {
            audit.note(TraceContext::NONE, act.event(Verdict::Failed));
        }
        outcome
    }
}

/// Reads up to the end of the line or of the client's side, and no further than the bound.
async fn read_request(stream: &mut UnixStream) -> std::io::Result<Result<ControlRequest, Fault>> {
    let mut bytes = Vec::with_capacity(128);
    loop {
        if bytes.len() > CONTROL_REQUEST_BYTES {
            let message = format!("a request has {CONTROL_REQUEST_BYTES} bytes at most");
            return Ok(Err(Fault { code: FaultCode::RequestTooLarge, message }));
        }
        let room = u64::try_from(CONTROL_REQUEST_BYTES + 1 - bytes.len()).unwrap_or(1);
        let read = (&mut *stream).take(room).read_buf(&mut bytes).await?;
        if read == 0 || bytes.contains(&b'\n') {
            return Ok(parse(&bytes));
        }
    }
}

fn parse(bytes: &[u8]) -> Result<ControlRequest, Fault> {
    serde_json::from_slice(bytes.trim_ascii()).map_err(|error| Fault {
        code: FaultCode::MalformedRequest,
        message: format!("{error}; a request is a line such as {{\"command\":\"tree\"}}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_closed() {
        assert_eq!(parse(b"{\"command\":\"tree\"}\n"), Ok(ControlRequest::Tree {}));
        for bad in ["", "{}", "tree", "{\"command\":\"stop\"}", "{\"command\":\"tree\",\"x\":1}"] {
            let fault = parse(bad.as_bytes()).unwrap_err();
            assert_eq!(fault.code, FaultCode::MalformedRequest, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_request_without_end_is_cut_off() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        client.write_all(&vec![b' '; CONTROL_REQUEST_BYTES + 1]).await.unwrap();
        let fault = read_request(&mut server).await.unwrap().unwrap_err();
        assert_eq!(fault.code, FaultCode::RequestTooLarge);
    }
}
