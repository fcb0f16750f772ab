//! The actor of one MCP server: holds its session, and fails with it, so that its supervisor begins
//! another.

use std::sync::Arc;

use neuroflow_kernel::{
    Actor, Address, ChildSpec, Clock, Context, Header, Message, Name, NameError, Restart, Rights,
};

use super::setup::Way;
use super::{McpError, McpSource, session};
use crate::tools::{ToolSource, ToolsCommand};

/// The client of one MCP server, as an actor below the tool router.
#[derive(Debug)]
struct McpClient {
    source: Arc<McpSource>,
    way: Way,
    clock: Clock,
    router: Address<ToolsCommand>,
}

pub(super) fn source(source: McpSource, way: Way, clock: Clock) -> Result<ToolSource, NameError> {
    let name = Name::new(&source.name)?;
    let source = Arc::new(source);
    Ok(ToolSource::new(name, move |router| {
        let (source, way, clock) = (Arc::clone(&source), way.clone(), clock.clone());
        let make = move || McpClient {
            source: Arc::clone(&source),
            way: way.clone(),
            clock: clock.clone(),
            router: router.clone(),
        };
        let (spec, _nobody_sends) = ChildSpec::new("client", make)?;
        Ok(spec.restart(Restart::Transient))
    }))
}

/// What an MCP client's actor is told, by itself alone: that its session has ended.
#[derive(Debug)]
struct McpEnded(McpError);

impl Message for McpEnded {
    fn name(&self) -> &'static str {
        "ended"
    }

    fn required_rights(&self) -> Rights {
        Rights::bit(31)
    }
}

impl Actor for McpClient {
    type Message = McpEnded;
    type Error = McpError;
    const KIND: &'static str = "mcp";

    async fn started(&mut self, context: &mut Context<McpEnded>) -> Result<(), McpError> {
        let (source, clock) = (Arc::clone(&self.source), self.clock.clone());
        let way = self.way.clone();
        let (router, me) = (self.router.clone(), context.address());
        let session = async move {
            let error = session::hold(&source, &way, &router, &clock).await;
            source.meter.session(&source.name, false);
            // If the actor has ended itself, nobody asks why.
            let _ended = me.tell(Header::new(), McpEnded(error)).await;
        };
        // A fresh actor has no other task.
        context.task(session).map_err(|_refused| McpError::Closed)
    }

    async fn handle(
        &mut self,
        McpEnded(error): McpEnded,
        _context: &mut Context<McpEnded>,
    ) -> Result<(), McpError> {
        tracing::warn!(
            server = %self.source.name,
            code = error.code(),
            error = &error as &dyn std::error::Error,
            "an MCP server's session ended; another will be begun"
        );
        Err(error)
    }
}
