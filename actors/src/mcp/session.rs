//! One session with an MCP server, from its start to its end: begins, lists the tools, offers them to
//! the router, and lists again when the server says that they have changed.

use std::pin::pin;
use std::sync::Arc;

use neuroflow_kernel::{Address, Clock, Header};
use rmcp::model::{
    ClientConfig, ElicitRequestParams, ElicitResult, ErrorData, Implementation,
    PaginatedRequestParams, ProtocolVersion, ServerNotification, SubscriptionFilter, Tool,
};
use rmcp::service::{ClientLifecycleMode, NotificationContext, Peer, RequestContext, Subscription};
use rmcp::transport::{IntoTransport, StreamableHttpClientTransport};
use rmcp::{ClientHandler, RoleClient};
use tokio::sync::{Notify, Semaphore};

use super::http::Client;
use super::setup::Way;
use super::tool::{McpTool, Server};
use super::{Forms, McpError, McpSource, McpStep, cell, name};
use crate::limits::{MCP_CALLS, MCP_DESCRIPTION_BYTES, MCP_PAGES, MCP_RELIST_PAUSE, MCP_TOOLS};
use crate::tools::{AnyTool, Offer, Offered, ToolsCommand};

/// Holds a session until it ends, and says why it did.
pub(super) async fn hold(
    source: &Arc<McpSource>,
    way: &Way,
    router: &Address<ToolsCommand>,
    clock: &Clock,
) -> McpError {
    let held = match way {
        Way::Cell { command, sandbox } => {
            let header = Header::new().within(clock, source.start);
            match cell::start(command, sandbox, header).await {
                Ok(cell) => {
                    let (transport, carried) = cell.connect(&source.name, clock);
                    tokio::select! {
                        biased;
                        error = carried => Err(error),
                        held = talk(source, router, clock, transport, either_version()) => held,
                    }
                }
                Err(error) => Err(error),
            }
        }
        Way::Http { client, config } => {
            let connect = || {
                let (client, config) = (Client::clone(client), config.clone());
                StreamableHttpClientTransport::with_client(client, config)
            };
            match talk(source, router, clock, connect(), either_version()).await {
                // Some of the earlier version answer the question for the later one with nothing that
                // means "no".
                Err(McpError::Begin(_)) => {
                    let earlier = ClientLifecycleMode::Initialize;
                    talk(source, router, clock, connect(), earlier).await
                }
                held => held,
            }
        }
    };
    match held {
        Ok(()) => McpError::Closed,
        Err(error) => error,
    }
}

/// Asks for the later version, and begins as the earlier one does if the server doesn't know it.
fn either_version() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    }
}

async fn talk<T, E, A>(
    source: &Arc<McpSource>,
    router: &Address<ToolsCommand>,
    clock: &Clock,
    transport: T,
    lifecycle: ClientLifecycleMode,
) -> Result<(), McpError>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    let changed = Arc::new(Notify::new());
    let ears = Ears { changed: Arc::clone(&changed), forms: source.forms };
    let begin = rmcp::service::serve_client_with_lifecycle(ears, transport, lifecycle);
    let begun = clock.before(clock.now() + source.start, begin).await;
    let late = |step| McpError::TimedOut { step, after: source.start };
    let running = begun
        .map_err(|_elapsed| late(McpStep::Start))?
        .map_err(|error| McpError::Begin(Box::new(error)))?;
    let peer = running.peer().clone();
    let server = Arc::new(Server {
        name: source.name.clone(),
        peer: peer.clone(),
        places: Semaphore::new(MCP_CALLS),
        call: source.call,
        forms: source.forms,
        meter: Arc::clone(&source.meter),
    });
    let mut quit = pin!(running.waiting());
    let mut subscription = subscribe(&peer, source, clock).await;
    loop {
        let listed = clock.before(clock.now() + source.start, list(&peer));
        let tools = tokio::select! {
            listed = listed => listed.map_err(|_elapsed| late(McpStep::List))??,
            _quit = &mut quit => return Ok(()),
        };
        offer(source, router, &server, tools).await?;
        source.meter.session(&source.name, true);
        tokio::select! {
            () = changed.notified() => {}
            () = next_change(&mut subscription) => {}
            _quit = &mut quit => return Ok(()),
        }
        tokio::select! {
            () = clock.sleep(MCP_RELIST_PAUSE) => {}
            _quit = &mut quit => return Ok(()),
        }
    }
}

/// Asks to be told of changes, of a server of the version that has to be asked to.
async fn subscribe(
    peer: &Peer<RoleClient>,
    source: &McpSource,
    clock: &Clock,
) -> Option<Subscription> {
    let info = peer.peer_info()?;
    if info.protocol_version < ProtocolVersion::V_2026_07_28
        || info.capabilities.tools.as_ref()?.list_changed != Some(true)
    {
        return None;
    }
    let filter = SubscriptionFilter::builder().tools_list_changed().build();
    let listened = clock.before(clock.now() + source.start, peer.listen(filter)).await;
    match listened {
        Ok(Ok(subscription)) => Some(subscription),
        Ok(Err(error)) => {
            tracing::debug!(server = %source.name, %error, "changes of tools aren't told");
            None
        }
        Err(_elapsed) => None,
    }
}

/// Returns at the next change; never once the subscription has ended.
async fn next_change(subscription: &mut Option<Subscription>) {
    while let Some(listening) = subscription {
        match listening.next().await {
            Ok(Some(ServerNotification::ToolListChangedNotification(_))) => return,
            Ok(Some(_other)) => {}
            Ok(None) | Err(_) => *subscription = None,
        }
    }
    std::future::pending::<()>().await;
}

async fn list(peer: &Peer<RoleClient>) -> Result<Vec<Tool>, McpError> {
    let mut tools = Vec::new();
    let mut cursor = None;
    for _ in 0..MCP_PAGES {
        let page = cursor.map(|cursor| PaginatedRequestParams::default().with_cursor(Some(cursor)));
        let listed = peer.list_tools(page).await;
        let listed = listed.map_err(|error| McpError::List(Box::new(error)))?;
        tools.extend(listed.tools);
        if tools.len() > MCP_TOOLS {
            break;
        }
        cursor = listed.next_cursor;
        if cursor.is_none() {
            return Ok(tools);
        }
    }
    Err(McpError::TooManyTools { limit: MCP_TOOLS })
}

/// Gives the router what the filter lets in. A tool that isn't fit is left out, with a word in the log.
async fn offer(
    source: &McpSource,
    router: &Address<ToolsCommand>,
    server: &Arc<Server>,
    tools: Vec<Tool>,
) -> Result<(), McpError> {
    let mut found = Vec::new();
    for tool in tools.into_iter().filter(|tool| source.filter.lets_in(&tool.name)) {
        let schema = tool.schema_as_json_value();
        let mut description = tool.description.unwrap_or_default().into_owned();
        description.truncate(description.floor_char_boundary(MCP_DESCRIPTION_BYTES));
        let tool = McpTool {
            name: name::public(&source.name, &tool.name),
            remote: tool.name.into_owned(),
            description,
            schema,
            server: Arc::clone(server),
        };
        found.push(AnyTool::of(tool));
    }
    let (tools, unfit) = Offered::compile(source.agents.clone(), found).await;
    let count = tools.len();
    let origin = source.origin();
    let offer = |reply| ToolsCommand::Offer(Offer { source: origin, tools, unfit, reply });
    for unfit in router.call(Header::new(), offer).await? {
        let error = &unfit as &dyn std::error::Error;
        tracing::warn!(server = %source.name, error, "a tool of an MCP server can't be offered");
    }
    tracing::info!(server = %source.name, tools = count, "an MCP server's tools are offered");
    Ok(())
}

/// What we say of ourselves, and what we listen to.
struct Ears {
    changed: Arc<Notify>,
    forms: Forms,
}

impl ClientHandler for Ears {
    fn get_info(&self) -> ClientConfig {
        let we = Implementation::new("neuroflow", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(self.forms.capabilities(), we)
    }

    async fn create_elicitation(
        &self,
        asked: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(self.forms.answer(&asked))
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}
