//! One session with an MCP server, from its start to its end: begins, lists the tools, offers them to
//! the router, and lists again when the server says that they have changed.

use std::sync::Arc;

use neuroflow_kernel::{Address, Clock, Header};
use rmcp::model::{
    ClientConfig, ElicitRequestParams, ElicitResult, ErrorData, Implementation,
    PaginatedRequestParams, ProtocolVersion, ServerNotification, SubscriptionFilter, Tool,
};
use rmcp::service::{
    ClientCacheConfig, ClientLifecycleMode, NotificationContext, Peer, RequestContext, Subscription,
};
use rmcp::transport::{IntoTransport, StreamableHttpClientTransport};
use rmcp::{ClientHandler, RoleClient};
use tokio::sync::{Notify, Semaphore};

use super::gate::{Gate, Unsent};
use super::http::Client;
use super::pulse::Pulse;
use super::setup::Way;
use super::tool::{McpTool, Server};
use super::{Forms, McpError, McpSource, McpStep, cell, name};
use crate::limits::{
    MCP_CALLS, MCP_DESCRIPTION_BYTES, MCP_PAGES, MCP_RELIST_MAX, MCP_RELIST_PAUSE, MCP_TOOLS,
    MCP_UNSENT_GRACE,
};
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
    let unsent = Arc::new(Unsent::new(clock.clone()));
    let pulse = Arc::new(Pulse::default());
    let transport = Gate::new(transport.into_transport(), Arc::clone(&unsent), Arc::clone(&pulse));
    // They are large, and one after the other is kept.
    let begin = Box::pin(rmcp::service::serve_client_with_lifecycle(ears, transport, lifecycle));
    let begun = clock.before(clock.now() + source.start, begin).await;
    let running = begun
        .map_err(|_elapsed| late(source, McpStep::Start))?
        .map_err(|error| McpError::Begin(Box::new(error)))?;
    let peer = running.peer().clone();
    // A list is asked for when there may be another, and then what it was is of no use.
    peer.set_response_cache_config(ClientCacheConfig::disabled()).await;
    let server = Arc::new(Server {
        name: source.name.clone(),
        peer: peer.clone(),
        places: Semaphore::new(MCP_CALLS),
        call: source.call,
        forms: source.forms,
        meter: Arc::clone(&source.meter),
        pulse: Arc::clone(&pulse),
    });
    // Over HTTP a message is taken when its answer begins.
    let after = source.call.max(source.start) + MCP_UNSENT_GRACE;
    tokio::select! {
        kept = Box::pin(keep(source, router, clock, &server, &changed)) => kept,
        error = pulse.stopped(&peer, clock) => Err(error),
        () = unsent.stuck(after) => Err(McpError::Unread { after }),
        _quit = running.waiting() => Ok(()),
    }
}

fn late(source: &McpSource, step: McpStep) -> McpError {
    McpError::TimedOut { step, after: source.start }
}

/// Offers what the server has, again whenever it has something else.
async fn keep(
    source: &McpSource,
    router: &Address<ToolsCommand>,
    clock: &Clock,
    server: &Arc<Server>,
    changed: &Notify,
) -> Result<(), McpError> {
    let peer = &server.peer;
    let mut pause = MCP_RELIST_PAUSE;
    loop {
        // Before the list, so that no change comes between them.
        let mut changes = subscribe(peer, source, clock).await;
        loop {
            let listed = clock.before(clock.now() + source.start, list(peer)).await;
            let tools = listed.map_err(|_elapsed| late(source, McpStep::List))??;
            let begun = clock.now();
            offer(source, router, server, tools).await?;
            let took = clock.now().since(begun);
            source.meter.session(&source.name, true);
            let told = tokio::select! {
                () = changed.notified() => true,
                told = changes.next() => told,
            };
            if !told {
                break;
            }
            pause = MCP_RELIST_PAUSE;
            // A server whose list takes us long, and changes all the time, has a fifth of a thread.
            clock.sleep(pause.max(took * 4)).await;
        }
        // Nobody tells of changes any more, and there may have been some.
        tracing::debug!(server = %source.name, ?pause, "changes of tools are asked for again");
        clock.sleep(pause).await;
        pause = (pause * 2).min(MCP_RELIST_MAX);
    }
}

/// How changes of tools are heard of.
enum Changes {
    /// By notifications that come by themselves, if at all.
    Unasked,
    Told(Box<Subscription>),
    /// The server was to tell them, and doesn't.
    Untold,
}

impl Changes {
    /// Returns at the next one, or with `false` where none is told any more.
    async fn next(&mut self) -> bool {
        let listening = match self {
            Self::Unasked => return std::future::pending().await,
            Self::Untold => return false,
            Self::Told(listening) => listening,
        };
        loop {
            match listening.next().await {
                Ok(Some(ServerNotification::ToolListChangedNotification(_))) => return true,
                Ok(Some(_other)) => {}
                Ok(None) | Err(_) => return false,
            }
        }
    }
}

/// Asks to be told of changes, of a server of the version that has to be asked to.
async fn subscribe(peer: &Peer<RoleClient>, source: &McpSource, clock: &Clock) -> Changes {
    let has_to_be_asked = peer.peer_info().is_some_and(|info| {
        info.protocol_version >= ProtocolVersion::V_2026_07_28
            && info.capabilities.tools.as_ref().and_then(|tools| tools.list_changed) == Some(true)
    });
    if !has_to_be_asked {
        return Changes::Unasked;
    }
    let filter = SubscriptionFilter::builder().tools_list_changed().build();
    let listened = clock.before(clock.now() + source.start, peer.listen(filter)).await;
    match listened {
        Ok(Ok(subscription)) => Changes::Told(Box::new(subscription)),
        Ok(Err(error)) => {
            tracing::debug!(server = %source.name, %error, "changes of tools aren't told");
            Changes::Untold
        }
        Err(_elapsed) => Changes::Untold,
    }
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
