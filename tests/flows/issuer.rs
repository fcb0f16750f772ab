//! An issuer with an RSA key, reached over TLS: by the CA that is configured for it, and by no other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use neuroflow::actors::{AccessConfig, AuditConfig, Issuer, RulesSource};
use neuroflow::{AnyAgent, Echo, Node};
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::access::Files;
use crate::audit::audited;
use crate::client::{Connection, Response, message, request};
use crate::support::{loopback, start};

/// An issuer on loopback, whose certificate is its own CA.
struct Secure {
    url: String,
    ca: String,
}

impl Secure {
    #[expect(clippy::disallowed_methods, reason = "an issuer is a server of its own")]
    async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().expect("a name"))];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind(loopback()).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let url = format!("https://localhost:{port}");
        let document = json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") }).to_string();
        let keys = json!({ "keys": [
            { "kty": "RSA", "kid": "r1", "use": "sig", "alg": "RS256", "n": MODULUS, "e": "AQAB" },
        ] });
        let keys = keys.to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
                        break;
                    }
                }
                let body = if head.starts_with(b"GET /jwks ") { &keys } else { &document };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _gone = stream.write_all(answer.as_bytes()).await;
                let _gone = stream.shutdown().await;
            }
        });
        Self { url, ca: certificate.pem() }
    }

    fn sign(&self, algorithm: Algorithm, change: &Value) -> String {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time").as_secs();
        let mut claims = json!({
            "iss": self.url, "aud": "neuroflow", "sub": "alice", "iat": now, "exp": now + 600,
            "groups": ["dev"],
        });
        for (name, value) in change.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        let mut header = Header::new(algorithm);
        header.kid = Some("r1".to_owned());
        let key = EncodingKey::from_rsa_pem(KEY).expect("a key");
        jsonwebtoken::encode(&header, &claims, &key).expect("a token")
    }

    fn access(&self, files: &Files, ca: Option<PathBuf>) -> AccessConfig {
        let mut issuer = Issuer::new(&self.url, "neuroflow");
        issuer.allow_private = true;
        issuer.ca = ca;
        let mut access = AccessConfig::default();
        access.issuer = Some(issuer);
        let policy = r#"permit(principal in Group::"dev", action, resource);"#;
        access.rules = RulesSource::File(files.write("policy", policy));
        access
    }
}

async fn ask(to: std::net::SocketAddr, token: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let body = request("SendMessage", message(json!([{ "text": "hello" }])));
    let mut connection = Connection::open(to).await;
    connection.post_with("/", &[("authorization", &bearer)], &body).await
}

#[tokio::test]
async fn tokens_of_an_rsa_key_are_believed_when_the_issuer_shows_the_right_certificate() {
    let (files, issuer) = (Files::fresh(), Secure::start().await);
    let ca = files.write("issuer.crt", &issuer.ca);
    let log = files.write("audit.log", "");
    let builder = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    let builder = builder.audit(AuditConfig::new(&log));
    let (node, to) = start(builder.access(issuer.access(&files, Some(ca)))).await;
    for algorithm in [Algorithm::RS256, Algorithm::PS512] {
        let token = issuer.sign(algorithm, &json!({}));
        // A key that is for one algorithm isn't for another.
        let expected = if algorithm == Algorithm::RS256 { 200 } else { 401 };
        let answer = ask(to, &token).await;
        assert_eq!(answer.status, expected, "{algorithm:?} {}", answer.text());
    }
    let other = issuer.sign(Algorithm::RS256, &json!({ "groups": ["others"] }));
    assert_eq!(ask(to, &other).await.status, 404, "known, and with nothing that it may do");
    let mut forged = issuer.sign(Algorithm::RS256, &json!({ "sub": "bob" }));
    let at = forged.rfind('.').expect("a signature") + 1;
    forged.replace_range(at..=at, if forged[at..].starts_with('A') { "B" } else { "A" });
    let refused = ask(to, &forged).await;
    assert_eq!(refused.json()["error"]["data"][0]["metadata"]["code"], "signature");
    node.stop().await;
    // That there are other keys now is in the log once, however often they are read.
    let changes = audited(&log, "config_changed");
    let keys: Vec<_> = changes.iter().filter(|event| event["part"] == "issuer_keys").collect();
    assert!(keys.len() == 1 && keys[0]["verdict"] == "allowed", "{changes:?}");
    let asked = audited(&log, "egress");
    assert!(!asked.is_empty(), "the issuer was asked");
    for egress in asked {
        assert_eq!((&egress["source"], &egress["verdict"]), (&json!("issuer"), &json!("allowed")));
    }
}

#[tokio::test]
async fn keys_of_an_issuer_with_another_certificate_are_not_taken() {
    let (files, issuer) = (Files::fresh(), Secure::start().await);
    let other = files.write("other.crt", &Secure::start().await.ca);
    for ca in [Some(other), None] {
        let builder = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
        let (node, to) = start(builder.access(issuer.access(&files, ca))).await;
        let refused = ask(to, &issuer.sign(Algorithm::RS256, &json!({}))).await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.json()["error"]["data"][0]["metadata"]["code"], "unknown_key");
        node.stop().await;
    }
}

/// Made for this test, and for nothing else.
const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
    MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDFSn4RicSTFHuT\n\
    tz1oB+guFzZEztkyqkuRakhXKYXtwBpzF9lgavYKPaKGNTn+UpATKBPM49yS11Rh\n\
    FET9WvL0jEwF4YaESnvK+ygcGgXa6o6qveii+lMQoF50qNR7sKhKC/bYcMYwUzw6\n\
    eacOCZJ1gGWcPcTgJA4yvh1nNdEXGlil9FOMgCShOWyy2x49JsknRJoOh7RYen75\n\
    wNqqkuFBC0A4+IrI14jdIQf19aRbkGlPgU7HeqRrYKtLaSrUgVdI3MgpYMA2vtHa\n\
    Dr4FCO7rENiAppTNbJKY96tDWo0b81KlJtcySo5BGe1AXmMtEcq0mAQIuBF1BwE8\n\
    8YWeH79RAgMBAAECggEAEKMH/4WdGIQNKbc1i+zCxQQ7FNFWmoGmzrPmNsdvHk3p\n\
    TRRRReKvLczlxCh/4/TlZmAmT0xVwOI8oNUbPjwpqbqc/I/4jnZTexnz127QWJYY\n\
    Asjx8bBnScskO/Uyud17S4c3wSe9ZrzWIt44WqQvAA6cQvEohXg05E2I4De3EpoF\n\
    vxn4D03sFWRmG78jwA25gUuO52yDywMsIg0KK1uUAJoR4XZi7FXkqBkKUu9OURSw\n\
    y0DaChj8KJ536kGTufXywcjtm2ORV41qJMNZZzvABkz05cqKmvQxAgugHCwdy1qX\n\
    I4zlFHNQsEHXw4oEPV2yw7mX32p/xxjguOAhLM1XoQKBgQDl0vTI25Rz57TuRpOZ\n\
    3p5DCtctNzfXVHdquIlPG4MbUOxluxNxTgfWEqf0w8+POwkb1CXhE535k7O71Z4H\n\
    5YlF0g7mQoEgoSrwvfZ7/OeeycSWr1Wob3FdwknZRgcWJ8ZS9yJiBazz8L8lUQio\n\
    g9KZFLE3bSHQvG0rC8EGTBwPKQKBgQDbwvXyEdnQrCeGaCUrVDRgczuA8hz34Z6N\n\
    lejDkTRCKnu1D9gQqxCA7OeIt3VOG9OT/Ki0I0/trkHt68zCMAswcWA+HWMBexe0\n\
    E4aFN+eJhWDEyEk9FXkin3rV3ei3b49679EOn7s4LUOYgaF57mK9eZ9vbhq5u8o6\n\
    iaAhtMu76QKBgFfnj39AFZEboCW/Uvd4odoMzG7b/vzaru5f9Q0P/d613iWvH2mo\n\
    KfEko59IQhyLvRkq1O45HaR3bTi8JTzp+8574P0LlO5RFuaMEjosar9ed1YXbFEH\n\
    hzoQdUSot08vGXlkU39gol2PyNzSGNizyxqIQpxrnpKDb9IWJddtxxG5AoGBANph\n\
    SY/spztS59ALi+wbuBSkTdwcPCcjgDCIaI52q6yYlOffP8GIjFThlk9op1wgEMc9\n\
    StP/Rz0UbhWkvYu2vFe+QnpXL3xYOrzKrmGRpTcmYHwL36OgxAhg3GrMIqauaLEs\n\
    wN08Y4o2iLZzEuicuGg7BPFxQ4OQFizHeGYmSFKJAoGAVIXjenWsRv3Od/kRYsOu\n\
    hQDaoehLL5mOoTuBbb8B2OLdbBfZI0oL/girndv5gly62SEBWg1YbEfTnS7u+nTT\n\
    Uj3xJBpAe+QLN8Id6OQBI7mbjAi7YVas/rwgdW8tOq3AEwQd2u5BMFIqBUKlCzqG\n\
    TVjHD6NP61bBWUpHgW8UuLs=\n\
    -----END PRIVATE KEY-----\n";

/// Its modulus, as a key set has it.
const MODULUS: &str = "\
    xUp-EYnEkxR7k7c9aAfoLhc2RM7ZMqpLkWpIVymF7cAacxfZYGr2Cj2ihjU5_lKQEygTzOPcktdUYRRE_Vry\
    9IxMBeGGhEp7yvsoHBoF2uqOqr3oovpTEKBedKjUe7CoSgv22HDGMFM8OnmnDgmSdYBlnD3E4CQOMr4dZzXR\
    FxpYpfRTjIAkoTlsstsePSbJJ0SaDoe0WHp--cDaqpLhQQtAOPiKyNeI3SEH9fWkW5BpT4FOx3qka2CrS2kq\
    1IFXSNzIKWDANr7R2g6-BQju6xDYgKaUzWySmPerQ1qNG_NSpSbXMkqOQRntQF5jLRHKtJgECLgRdQcBPPGF\
    nh-_UQ";
