//! Finds the test programs of this very build.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The file of a test program by its target's name: `isolation`, or `neuroflow_sandbox` for the unit
/// tests of that crate. Cargo is asked, because file names in its folders outlive their sources; with
/// `make test`'s own arguments, so that nothing is built a second time.
pub(crate) fn program(target: &str) -> PathBuf {
    static PROGRAMS: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(built);
    programs.get(target).unwrap_or_else(|| panic!("cargo built no test program {target}")).clone()
}

#[expect(clippy::disallowed_methods, reason = "asks cargo what it has built")]
fn built() -> BTreeMap<String, PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--workspace", "--all-features", "--no-run", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // What cargo says to this test of its package, build scripts would hear too, and be run again: all that
    // needs them would be built anew, and once more after this.
    let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "OUT_DIR"];
    for (name, _) in std::env::vars_os() {
        let is_of_package = |prefix: &&str| name.to_string_lossy().starts_with(*prefix);
        if of_package.iter().any(is_of_package) {
            cargo.env_remove(&name);
        }
    }
    let output = cargo
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo can't build the test programs");
    let mut programs = BTreeMap::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: serde_json::Value = serde_json::from_slice(line).expect("cargo writes JSON");
        if let (Some(true), Some(name), Some(file)) = (
            message["profile"]["test"].as_bool(),
            message["target"]["name"].as_str(),
            message["executable"].as_str(),
        ) {
            programs.insert(name.to_owned(), PathBuf::from(file));
        }
    }
    programs
}
