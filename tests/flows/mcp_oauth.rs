//! An MCP server that demands tokens of an issuer that replaces each refresh token, and nodes that use it
//! one after the other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use neuroflow::actors::{
    AuditConfig, AuthorizationServer, McpSource, McpTransport, Mount, OAuth, OAuthGrant, mcp_routes,
};
use neuroflow::sandbox::{Network, Rule};
use neuroflow::{AnyAgent, Echo, GatewayConfig, Node};
use serde_json::{Value, json};

use crate::access::Files;
use crate::audit::audited;
use crate::mcp_fixture::Fixture;
use crate::mcp_tools::caller;
use crate::support::{eventually, loopback, pause, start};

/// What the issuer knows.
#[derive(Debug)]
struct Issued {
    refresh: String,
    access: String,
    /// Refresh tokens that it was shown, and whether it took them.
    shown: Vec<(String, bool)>,
}

#[derive(Clone, Debug)]
struct Issuer(Arc<Mutex<Issued>>);

impl Issuer {
    fn new() -> Self {
        let (refresh, access) = ("refresh-0".to_owned(), "none".to_owned());
        Self(Arc::new(Mutex::new(Issued { refresh, access, shown: Vec::new() })))
    }

    fn known(&self) -> MutexGuard<'_, Issued> {
        self.0.lock().expect("no panic")
    }

    fn shown(&self) -> Vec<(String, bool)> {
        self.known().shown.clone()
    }

    /// Takes a refresh token once, and gives another one with an access token.
    fn token(&self, form: &str) -> (StatusCode, Value) {
        let field = |name: &str| {
            form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        assert_eq!(field("grant_type"), Some("refresh_token"), "{form}");
        let token = field("refresh_token").expect("a token").to_owned();
        let mut known = self.known();
        let is_good = token == known.refresh;
        known.shown.push((token, is_good));
        if !is_good {
            return (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }));
        }
        let number = known.shown.iter().filter(|(_, taken)| *taken).count();
        known.refresh = format!("refresh-{number}");
        known.access = format!("access-{number}");
        let given = json!({
            "access_token": known.access, "token_type": "Bearer", "expires_in": 3600,
            "refresh_token": known.refresh,
        });
        (StatusCode::OK, given)
    }

    /// The issuer, and a server that demands its tokens.
    fn routes(&self, address: SocketAddr) -> Router {
        let url = format!("http://{address}");
        let resource = json!({ "resource": format!("{url}/mcp"), "authorization_servers": [url] });
        let server = json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "response_types_supported": ["code"],
            "grant_types_supported": ["refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
        });
        let document = |value: Value| get(move || async move { value.to_string() });
        let issuer = self.clone();
        let token = post(move |body: String| async move {
            let (status, given) = issuer.token(&body);
            let json = [("content-type", "application/json"), ("cache-control", "no-store")];
            (status, json, given.to_string())
        });
        let documents = "/.well-known/oauth-protected-resource/mcp";
        mcp_routes(|| Fixture)
            .layer(from_fn_with_state((self.clone(), url), demanded))
            .route(documents, document(resource))
            .route("/.well-known/oauth-authorization-server", document(server))
            .route("/token", token)
    }
}

async fn demanded(
    State((issuer, url)): State<(Issuer, String)>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let wanted = format!("Bearer {}", issuer.known().access);
    if shown == Some(wanted.as_str()) {
        return next.run(request).await;
    }
    let place = format!("{url}/.well-known/oauth-protected-resource/mcp");
    let challenge = [("www-authenticate", format!("Bearer resource_metadata=\"{place}\""))];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}

/// A node whose agent uses the server, with the refresh token that it was given once.
async fn client(to: SocketAddr, kept: Option<PathBuf>, log: &AuditConfig) -> Node {
    let rule = Rule::host("127.0.0.1").port(to.port()).allow_private("127.0.0.0/8");
    let network = Some(Network::allow([rule]));
    let url = format!("http://{to}/mcp");
    let transport = McpTransport::Http { url, headers: Vec::new(), network };
    let (client, token) = ("neuroflow".to_owned(), "refresh-0".to_owned());
    let grant = OAuthGrant::RefreshToken { client, secret: None, token, kept };
    let by = AuthorizationServer::Only(format!("http://{to}"));
    let oauth = OAuth::new(by, grant).allow_private(true);
    let source = McpSource::new("crm", transport).agents(["caller"]).oauth(oauth);
    let node = Node::builder().agent(caller("caller")).mcp(source).audit(log.clone());
    node.start().await.expect("it starts")
}

const TOOL: &str = "crm__test_simple_text";

/// What the agent gets of the tool, once it's there.
async fn called(node: &Node) -> String {
    for _ in 0..1_000 {
        let tools = node.tools().await.expect("the router answers");
        if tools.iter().any(|tool| tool.name == TOOL) {
            let asked = json!({ "tool": TOOL, "arguments": {} }).to_string();
            return node.ask("caller", &asked).await.expect("an answer").text();
        }
        pause(20).await;
    }
    panic!("the tool didn't come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_refresh_token_is_there_after_a_restart_and_its_use_is_in_the_log() {
    let (files, issuer) = (Files::fresh(), Issuer::new());
    let mut gateway = GatewayConfig::new(loopback());
    let own = issuer.clone();
    gateway.mounts.push(Mount::new(move |address| own.routes(address)));
    let (server, to) =
        start(Node::builder().agent(AnyAgent::new(Echo)).gateway_with(gateway)).await;
    let log = AuditConfig::new(files.path().join("audit.log"));
    let kept = files.path().join("crm.token");

    let mut shown = Vec::new();
    for number in 0..3 {
        let node = client(to, Some(kept.clone()), &log).await;
        let said = called(&node).await;
        assert_eq!(said, "done: This is a simple text response for testing.");
        node.stop().await;
        // Each life begins with what the one before it was given.
        shown.push((format!("refresh-{number}"), true));
        assert_eq!(issuer.shown(), shown);
    }
    // Whoever keeps nothing has the first one, which isn't good any more.
    let node = client(to, None, &log).await;
    eventually("a fourth request", || issuer.shown().len() > shown.len()).await;
    assert_eq!(issuer.shown().get(3), Some(&("refresh-0".to_owned(), false)));
    let text = || std::fs::read_to_string(&log.file).expect("a log");
    let uses = |purpose: &str| {
        let (text, purpose) = (text(), format!("\"purpose\":\"{purpose}\""));
        let lines = text.lines().filter(|line| line.contains("credential_use"));
        let lines = lines.filter(|line| line.contains("\"mcp/crm/oauth\""));
        lines.filter(|line| line.contains(&purpose)).count()
    };
    eventually("a record of each", || uses("token") > shown.len()).await;
    node.stop().await;
    assert!(uses("request") >= shown.len(), "{}", text());
    assert!(!text().contains("refresh-") && !text().contains("access-"), "{}", text());
    // So is each connection, to the server and to who issues its tokens.
    let egress = audited(&log.file, "egress");
    assert!(egress.len() > 2 * shown.len(), "{egress:?}");
    for event in egress {
        assert_eq!((&event["source"], &event["verdict"]), (&json!("mcp/crm"), &json!("allowed")));
        assert_eq!((&event["host"], &event["port"]), (&json!("127.0.0.1"), &json!(to.port())));
    }
    server.stop().await;
}
