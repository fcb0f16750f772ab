//! Cards: where they are, how they are kept, and who can check who signed them.

use std::path::PathBuf;

use neuroflow::actors::{CardKey, ExtendedProfile, SecurityScheme};
use neuroflow::{AgentBuilder, Answer, AnyAgent, Echo, GatewayConfig, Node};
use serde_json::{Value, json};

use crate::a2a_client::{install_javascript, install_python, installed};
use crate::access::{self, ALL, Files, token};
use crate::client::Connection;
use crate::protocol::{Binding, Peer};
use crate::support::{loopback, run_program, start};
use crate::turns::curious;

fn node(config: GatewayConfig) -> neuroflow::NodeBuilder {
    Node::builder().agent(AnyAgent::new(Echo)).agent(curious()).gateway_with(config)
}

fn interfaces(card: &Value) -> Vec<[&str; 3]> {
    let text = |value: &'_ Value| -> &'static str {
        Box::leak(value.as_str().unwrap_or_default().to_owned().into_boxed_str())
    };
    let all = card["supportedInterfaces"].as_array().expect("interfaces");
    all.iter()
        .map(|one| [text(&one["protocolBinding"]), text(&one["url"]), text(&one["tenant"])])
        .collect()
}

#[tokio::test]
async fn every_agent_has_a_card_and_the_directory_has_all_of_them() {
    let (node, to) = start(node(GatewayConfig::new(loopback()))).await;
    let mut connection = Connection::open(to).await;
    let root = connection.get("/.well-known/agent-card.json").await.json();
    let base = format!("http://{to}");
    let (address, rpc) = (to.to_string(), format!("{base}/"));
    let expected = [["JSONRPC", &rpc, ""], ["HTTP+JSON", &base, ""], ["GRPC", &address, ""]];
    assert_eq!(interfaces(&root), expected);
    let own = connection.get("/agents/curious/.well-known/agent-card.json").await.json();
    let url = format!("{base}/agents/curious");
    let expected = [["JSONRPC", &url, ""], ["HTTP+JSON", &url, ""], ["GRPC", &address, "curious"]];
    assert_eq!(interfaces(&own), expected);
    assert_eq!(own["capabilities"]["streaming"], true);
    let directory = connection.get("/agents").await.json();
    let names: Vec<_> = directory["agents"].as_array().expect("agents").iter().collect();
    assert_eq!(names.iter().map(|card| &card["name"]).collect::<Vec<_>>(), ["echo", "curious"]);
    assert_eq!(*names[1], own);
    let missing = connection.get("/agents/nobody/.well-known/agent-card.json").await;
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &404.into()));
    assert_eq!(connection.get("/.well-known/jwks.json").await.status, 404, "nothing is signed");
    node.stop().await;
}

/// What a gateway listens on need not be what anybody can ask.
#[tokio::test]
async fn a_card_leads_to_the_gateway_whatever_it_listens_on() {
    for any in ["0.0.0.0:0", "[::]:0"] {
        let config = GatewayConfig::new(any.parse().expect("an address"));
        // A machine may be without the later protocol.
        let Ok(node) = node(config).start().await else { continue };
        let port = node.gateway().expect("a gateway").port();
        let near = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let mut connection = Connection::open(near).await;
        for path in ["/.well-known/agent-card.json", "/agents", "/openapi.json"] {
            let answer = connection.get(path).await;
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(!said.contains("0.0.0.0") && !said.contains("[::]"), "{any}: {said}");
        }
        let card = connection.get("/.well-known/agent-card.json").await.json();
        let [_, [_, url, _], [_, authority, _]] = interfaces(&card)[..] else {
            panic!("{any}: {card}");
        };
        assert_eq!(url, format!("http://{authority}"));
        let told = authority.parse().unwrap_or_else(|error| panic!("{authority}: {error}"));
        assert_eq!(Connection::open(told).await.get("/healthz").await.status, 200, "{told}");
        node.stop().await;
    }
    // What is known is said.
    let mut config = GatewayConfig::new("0.0.0.0:0".parse().expect("an address"));
    config.public_url = Some("https://agents.example.org".to_owned());
    config.door.hosts = vec!["localhost".to_owned()];
    let node = node(config).start().await.expect("a node");
    let near = ([127, 0, 0, 1], node.gateway().expect("a gateway").port()).into();
    let card = Connection::open(near).await.get("/.well-known/agent-card.json").await.json();
    assert_eq!(interfaces(&card)[1][1], "https://agents.example.org");
    node.stop().await;
}

#[tokio::test]
async fn a_card_that_a_client_has_is_not_sent_again() {
    let (node, to) = start(node(GatewayConfig::new(loopback()))).await;
    for path in
        ["/.well-known/agent-card.json", "/agents/echo/.well-known/agent-card.json", "/agents"]
    {
        let mut connection = Connection::open(to).await;
        let first = connection.get(path).await;
        assert_eq!(first.header("cache-control"), Some("max-age=300"));
        let tag = first.header("etag").expect("a tag").to_owned();
        let modified = first.header("last-modified").expect("a time").to_owned();
        for (name, value) in [("if-none-match", &tag), ("if-modified-since", &modified)] {
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{name}: {value}\r\n\r\n");
            connection.send(request.as_bytes()).await.expect("it is sent");
            let again = connection.receive().await.expect("an answer");
            assert_eq!((again.status, again.body.len()), (304, 0), "{name}");
            assert_eq!(again.header("etag"), Some(tag.as_str()));
        }
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nif-none-match: \"old\"\r\n\r\n");
        connection.send(request.as_bytes()).await.expect("it is sent");
        assert_eq!(connection.receive().await.expect("an answer").status, 200);
    }
    node.stop().await;
}

/// An agent that has more to say to those who have proved who they are.
fn discreet() -> AnyAgent {
    AgentBuilder::new("discreet", "Has secrets.")
        .profile(|profile| profile.extended = Some(ExtendedProfile::default()))
        .on_ask(|_, _| async { Ok(Answer::done()) })
}

#[tokio::test]
async fn an_extended_card_is_not_for_everybody() {
    let mut known = GatewayConfig::new(loopback());
    known.security = vec![SecurityScheme::Bearer { format: None }];
    for (config, reason, codes) in [
        (GatewayConfig::new(loopback()), "EXTENDED_AGENT_CARD_NOT_CONFIGURED", [-32007, 400, 9]),
        (known, "UNAUTHENTICATED", [-32600, 401, 16]),
    ] {
        let (node, to) = start(node(config).agent(discreet())).await;
        for (binding, code) in Binding::ALL.into_iter().zip(codes) {
            let peer = Peer::new(binding, to, Some("discreet"));
            let fault = peer.call("GetExtendedAgentCard", json!({})).await.expect_err("refused");
            assert_eq!(
                (fault.code, fault.reason.as_str()),
                (code, reason),
                "{binding:?}: {fault:?}"
            );
        }
        let card =
            Connection::open(to).await.get("/agents/discreet/.well-known/agent-card.json").await;
        assert_eq!(card.json()["capabilities"]["extendedAgentCard"], true);
        node.stop().await;
    }
}

/// The official clients check the signatures with the key set that the card names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_card_is_found_right_by_the_official_client_and_a_changed_one_wrong() {
    let Some(packages) = installed("the client in Python", install_python).await else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/signed_card.py");
    verified_by(["python3", script], ("PYTHONPATH", packages)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_card_is_found_right_by_the_official_client_in_javascript() {
    let found = installed("the client in JavaScript", install_javascript).await;
    let Some(packages) = found else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/signed_card.mjs");
    verified_by(["node", script], ("A2A_PACKAGES", packages)).await;
}

/// Runs a client's script against nodes that let nobody in, or whoever proves it one way or any: what their cards
/// say of that is empty in parts, which clients take out before they check.
async fn verified_by(command: [&'static str; 2], packages: (&'static str, PathBuf)) {
    let bearer = SecurityScheme::Bearer { format: None };
    let openid = SecurityScheme::OpenIdConnect { url: "https://issuer.example".to_owned() };
    let all = vec![bearer.clone(), openid.clone(), SecurityScheme::MutualTls];
    let files = Files::fresh();
    let known = token("known", &[]);
    for security in [vec![], vec![bearer], vec![openid], vec![SecurityScheme::MutualTls], all] {
        let mut config = GatewayConfig::new(loopback());
        config.card_key = Some(CardKey::from_pem(KEY).expect("a key"));
        config.security.clone_from(&security);
        let mut node = node(config).agent(discreet());
        let mut arguments = ["", "/agents/echo", "/agents/curious", "/agents/discreet"]
            .map(|path| format!("{path}/.well-known/agent-card.json"))
            .to_vec();
        let mut secret = String::new();
        if !security.is_empty() {
            let tokens = files.write("tokens", known.line());
            node = node.access(access::config(&tokens, &files.write("policy", ALL)));
            known.secret().clone_into(&mut secret);
            arguments.push("/agents/discreet/extendedAgentCard".to_owned());
        }
        let (node, to) = start(node).await;
        let place = packages.1.to_string_lossy().into_owned();
        let run = move || {
            let url = format!("http://{to}");
            let mut line = vec![command[0], command[1], &url, &secret];
            line.extend(arguments.iter().map(String::as_str));
            run_program(&line, &[(packages.0, place.as_str()), ("NO_PROXY", "*")])
        };
        let said = tokio::task::spawn_blocking(run).await.expect("it doesn't panic");
        let said = said.unwrap_or_else(|complaint| panic!("{security:?}: {complaint}"));
        assert_eq!(said, "the signatures are right\n", "{security:?}");
        node.stop().await;
    }
}

/// Made for this test, and for nothing else.
const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg+c2R+FNk3tdhsVvp\n\
    67Q+kxTLgGSmi9nsQmWQV7ug9pOhRANCAAR/G26ml2KknTgyHfnIDYPOaiMRHm97\n\
    jDCmHdCeBDZZ8uxbPJlOYpQzFqyb/XpWCcSBuxpbFmA5nZQrfthmDBxx\n\
    -----END PRIVATE KEY-----\n\n";
