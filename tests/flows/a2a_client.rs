//! The gateway and the official client of its protocol understand each other.

use std::path::{Path, PathBuf};

use crate::support::{run_program, shell_node, start};
use crate::turns::curious;

/// The client, as the Python package index has it.
const PACKAGE: &str = "a2a-sdk[http-server,grpc]==1.3.0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_agrees_over_every_binding() {
    let packages = match tokio::task::spawn_blocking(install).await.expect("it doesn't panic") {
        Ok(packages) => packages,
        Err(why) if std::env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false") => {
            panic!("{PACKAGE} can't be installed: {why}")
        }
        Err(why) => return eprintln!("SKIPPED: {PACKAGE} can't be installed: {why}"),
    };
    let (node, to) = start(shell_node().agent(curious())).await;
    for binding in ["JSONRPC", "HTTP+JSON", "GRPC"] {
        let packages = packages.to_string_lossy().into_owned();
        let run = move || {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/a2a_client.py");
            let url = format!("http://{to}");
            let environment = [("PYTHONPATH", packages.as_str()), ("NO_PROXY", "*")];
            run_program(&["python3", script, &url, binding], &environment)
        };
        let said = tokio::task::spawn_blocking(run).await.expect("it doesn't panic");
        let said = said.unwrap_or_else(|complaint| panic!("{binding}: {complaint}"));
        assert!(said.ends_with("the official client agrees\n"), "{binding}: {said}");
    }
    node.stop().await;
}

/// Installs the client below the build directory, once; gives the folder with the packages.
fn install() -> Result<PathBuf, String> {
    let name = PACKAGE.replace(['[', ']', ','], "-");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if place.exists() {
        return Ok(place);
    }
    // It comes to its place whole or not at all, whoever else installs it at the same time.
    let partial = place.with_extension(std::process::id().to_string());
    let target = partial.to_string_lossy().into_owned();
    let pip = ["python3", "-m", "pip", "install", "--quiet", "--target", &target, PACKAGE];
    let installed = run_program(&pip, &[]).map(drop);
    if installed.is_err() || std::fs::rename(&partial, &place).is_err() {
        std::fs::remove_dir_all(&partial).ok();
    }
    installed.map(|()| place)
}
