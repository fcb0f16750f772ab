//! The description that a node serves of itself.

use std::path::PathBuf;

use neuroflow::{AnyAgent, Echo, Node};

use crate::a2a_client::{install, installed};
use crate::client::Connection;
use crate::support::{loopback, run_program, start};

/// The validator, as the Python package index has it.
const PACKAGE: &str = "openapi-spec-validator==0.9.0";

const SCRIPT: &str = "
import json, sys
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
document = json.load(open(sys.argv[1]))
validate(document, cls=OpenAPIV31SpecValidator)
document.pop('info')
assert list(OpenAPIV31SpecValidator(document).iter_errors()), 'the validator finds nothing'
print('valid')
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_is_valid_and_says_where_the_node_is() {
    let node = Node::builder().agent(AnyAgent::new(Echo)).gateway(loopback());
    let (node, to) = start(node).await;
    let mut connection = Connection::open(to).await;
    let answer = connection.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"][0]["url"], format!("http://{to}"));
    // What it says is there is there.
    for path in ["/healthz", "/agents", "/v1/models", "/.well-known/agent-card.json"] {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
        assert_eq!(connection.get(path).await.status, 200, "{path}");
    }
    node.stop().await;

    let Some(packages) = installed(PACKAGE, install_validator).await else { return };
    let file = std::env::temp_dir().join(format!("openapi-{}.json", std::process::id()));
    std::fs::write(&file, &answer.body).expect("a temporary file");
    let path = file.to_string_lossy().into_owned();
    let run = move || {
        let packages = packages.to_string_lossy().into_owned();
        run_program(&["python3", "-c", SCRIPT, &path], &[("PYTHONPATH", packages.as_str())])
    };
    let said = tokio::task::spawn_blocking(run).await.expect("it doesn't panic");
    std::fs::remove_file(file).expect("the file is there");
    assert_eq!(said.unwrap_or_else(|complaint| panic!("{complaint}")), "valid\n");
}

fn install_validator() -> Result<PathBuf, String> {
    install("openapi-spec-validator", |target| {
        let pip = ["python3", "-m", "pip", "install", "--quiet", "--target", target, PACKAGE];
        run_program(&pip, &[]).map(drop)
    })
}
