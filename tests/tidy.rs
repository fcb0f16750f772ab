//! The laws of the tree, as tests: edges between crates, shape of files, names, docs, licences.
//!
//! Long, because each law has its table and its test here: who adds to the project finds all of them in one place.

#![expect(clippy::expect_used, clippy::panic, reason = "a tree that can't be read fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "shared/untried.rs"]
mod untried;

/// Every crate and its folder.
const CRATES: [(&str, &str); 7] = [
    ("runtime", "."),
    ("kernel", "kernel"),
    ("actors", "actors"),
    ("sandbox", "sandbox"),
    ("transport", "transport"),
    ("telemetry", "telemetry"),
    ("macros", "macros"),
];

/// The only files with unsafe code: each is a thin layer over what has no safe way.
const UNSAFE_FILES: &[&str] = &[
    // Reading a validated archive in place.
    "kernel/src/parcel.rs",
    // The constructor that diverts a zygote before `main`.
    "sandbox/src/zygote/entry.rs",
    // What a program's process does to itself on a Unix that isn't Linux, and how that is reaped.
    "sandbox/src/portable/sys.rs",
    // Forking in the zygote, with the promise that it has one thread.
    "sandbox/src/zygote/owner.rs",
    "sandbox/src/zygote/seedlings.rs",
    "sandbox/src/zygote/stranger.rs",
    "sandbox/src/zygote/start.rs",
];

/// The only folder with unsafe code: system calls that no crate wraps, one file per family.
const UNSAFE_FOLDERS: &[&str] = &["sandbox/src/linux/sys/"];

/// The modules of `actors`, from the ground up, and which of them each may import with all of its files. The
/// bounds are for all of them. None imports one that stands below it here, so there is no cycle.
const MODULES: [(&str, &[&str]); 13] = [
    ("exchange", &[]),
    ("held", &[]),
    ("lock", &[]),
    ("journal", &["lock"]),
    ("audit", &["journal", "lock"]),
    ("access", &["audit", "exchange"]),
    ("tools", &["access", "audit", "journal"]),
    ("agent", &["access", "held", "journal", "tools"]),
    ("builtin", &["agent", "tools"]),
    ("lease", &["journal"]),
    ("sole", &["agent", "builtin", "journal", "lease"]),
    ("gateway", &["access", "agent", "audit", "exchange", "held", "journal"]),
    ("mcp", &["access", "agent", "audit", "exchange", "gateway", "tools"]),
];

/// Files that define a contract, and what each imports beside its own parts and [`CONTRACT_IMPORTS`].
const CONTRACTS: [(&str, &[&str]); 21] = [
    ("actors/src/access.rs", &["crate::audit"]),
    ("actors/src/agent.rs", &["crate::journal"]),
    ("actors/src/audit.rs", &["crate::journal"]),
    ("actors/src/gateway.rs", &["crate::agent", "crate::audit", "crate::journal"]),
    ("actors/src/gateway/push.rs", &["super", "crate::access", "crate::audit"]),
    ("actors/src/journal.rs", &[]),
    ("actors/src/lease.rs", &["crate::journal", "tokio::sync"]),
    ("actors/src/mcp.rs", &["crate::audit", "crate::tools"]),
    ("actors/src/sole.rs", &["crate::agent", "crate::lease", "ring::digest"]),
    ("actors/src/tools.rs", &[]),
    ("sandbox/src/exec.rs", &[]),
    ("transport/src/capability.rs", &["crate::identity"]),
    // The crate's door: it names what a node's links are made of.
    (
        "transport/src/endpoint.rs",
        &[
            "crate::capability",
            "crate::directory",
            "crate::export",
            "crate::identity",
            "crate::join",
            "crate::keyed",
            "crate::link",
            "crate::membership",
            "crate::observer",
            "crate::seed",
            "crate::session",
        ],
    ),
    ("transport/src/export.rs", &["crate::identity", "crate::keyed"]),
    ("transport/src/frame.rs", &["crate::keyed"]),
    ("transport/src/identity.rs", &[]),
    ("transport/src/join.rs", &["base64", "crate::identity"]),
    (
        "transport/src/keyed.rs",
        &["crate::export", "crate::identity", "crate::session", "ring::rand"],
    ),
    ("transport/src/link.rs", &["crate::frame", "crate::identity", "crate::session"]),
    ("transport/src/membership.rs", &["bytes", "crate::identity", "crate::link"]),
    ("transport/src/session.rs", &[]),
];
/// What all modules of the actors may use, and which uses none of them.
const BENEATH: [&str; 1] = ["limits"];

/// What every contract may import.
const CONTRACT_IMPORTS: [&str; 9] = [
    "crate::limits",
    "data_encoding",
    "neuroflow_kernel",
    "neuroflow_sandbox",
    "rkyv",
    "schemars",
    "self",
    "serde",
    "std",
];

/// What the kernel may depend on.
const KERNEL_DEPENDENCIES: [&str; 5] = ["futures-util", "ractor", "rkyv", "thiserror", "tokio"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below `folder` with this ending, relative to the root.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                let relative = path.strip_prefix(root()).expect("below the root");
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// The library and binary sources of all crates.
fn sources() -> Vec<String> {
    let folders = CRATES.map(|(_, folder)| match folder {
        "." => "src".to_owned(),
        other => format!("{other}/src"),
    });
    folders.iter().flat_map(|folder| files(folder, ".rs")).collect()
}

/// Fails with every finding, not just the first.
fn none(findings: &[String], law: &str) {
    assert!(findings.is_empty(), "{law}:\n  {}", findings.join("\n  "));
}

/// The lines of a source without its unit tests.
fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()
}

/// The keys of a table of a manifest, such as `dependencies`.
fn table(manifest: &str, name: &str) -> Vec<String> {
    let header = format!("[{name}]");
    let body = manifest.lines().skip_while(|line| line.trim() != header).skip(1);
    body.take_while(|line| !line.starts_with('['))
        .filter(|line| line.contains('=') && !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split(['=', '.', ' ']).next())
        .map(str::to_owned)
        .filter(|key| !key.is_empty())
        .collect()
}

#[test]
fn crate_edges_are_those_of_the_architecture() {
    let architecture = read("docs/ARCHITECTURE.md");
    let mut allowed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let block = architecture.split("```edges").nth(1).and_then(|rest| rest.split("```").next());
    for line in block.expect("docs/ARCHITECTURE.md has a block of edges").lines() {
        if let Some((from, to)) = line.split_once("->") {
            let to = to.split_whitespace().map(str::to_owned).collect();
            allowed.insert(from.trim().to_owned(), to);
        }
    }
    let mut findings = Vec::new();
    for (name, folder) in CRATES {
        let manifest = read(format!("{folder}/Cargo.toml"));
        let edges = table(&manifest, "dependencies");
        let edges = edges.iter().filter_map(|key| key.strip_prefix("neuroflow-"));
        let allowed = allowed.get(name).cloned().unwrap_or_default();
        findings.extend(
            edges.filter(|edge| !allowed.contains(*edge)).map(|edge| format!("{name} -> {edge}")),
        );
    }
    none(&findings, "edges that docs/ARCHITECTURE.md doesn't have");
}

#[test]
fn the_kernel_has_few_dependencies() {
    let direct = table(&read("kernel/Cargo.toml"), "dependencies");
    let surplus: Vec<String> = direct
        .iter()
        .filter(|name| !KERNEL_DEPENDENCIES.contains(&name.as_str()))
        .cloned()
        .collect();
    assert!(!direct.is_empty(), "the kernel's manifest wasn't read");
    none(&surplus, "dependencies that the kernel may not have");
}

#[test]
fn only_boot_names_every_server() {
    let servers = ["SandboxServer", "ToolServer", "AgentServer", "gateway_child"];
    let naming_all: Vec<String> = sources()
        .into_iter()
        .filter(|path| {
            let source = read(path);
            let code: Vec<&str> =
                source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let code = code.join("\n");
            servers.iter().all(|server| code.contains(server))
        })
        .collect();
    assert_eq!(naming_all, ["src/boot.rs"]);
}

#[test]
fn every_source_is_in_the_build() {
    let mut reachable = BTreeSet::new();
    let mut open: Vec<String> = Vec::new();
    for (_, folder) in CRATES {
        let folder = if folder == "." { String::new() } else { format!("{folder}/") };
        open.extend(["lib.rs", "main.rs"].map(|name| format!("{folder}src/{name}")));
    }
    while let Some(path) = open.pop() {
        if !root().join(&path).exists() || !reachable.insert(path.clone()) {
            continue;
        }
        let stem = path.trim_end_matches(".rs");
        let is_root = stem.ends_with("/lib") || stem.ends_with("/main") || stem == "src/lib";
        let folder = if is_root || stem == "src/main" {
            Path::new(&path).parent().unwrap_or(Path::new("")).to_string_lossy().into_owned()
        } else {
            stem.to_owned()
        };
        for line in read(&path).lines() {
            let line = line.trim_start();
            let module = ["mod ", "pub mod ", "pub(crate) mod ", "pub(super) mod "]
                .iter()
                .find_map(|prefix| line.strip_prefix(prefix))
                .and_then(|rest| rest.split(';').next().filter(|_| rest.contains(';')));
            if let Some(module) = module {
                open.push(format!("{folder}/{}.rs", module.trim()));
            }
        }
    }
    let lost: Vec<String> =
        sources().into_iter().filter(|path| !reachable.contains(path)).collect();
    assert!(reachable.len() > 30, "the walk found {} files only", reachable.len());
    none(&lost, "files that no crate root reaches");
}

#[test]
fn every_file_opens_with_what_it_is() {
    let places = [
        "src",
        "tests",
        "benches",
        "examples",
        "kernel",
        "actors",
        "sandbox",
        "transport",
        "telemetry",
        "macros",
    ];
    let silent: Vec<String> = places
        .iter()
        .flat_map(|place| files(place, ".rs"))
        .filter(|path| !read(path).starts_with("//!"))
        .collect();
    none(&silent, "files that don't open with //!");
}

#[test]
fn names_say_what_things_are() {
    let banned = [
        "util", "utils", "helper", "helpers", "common", "misc", "base", "manager", "enhanced",
        "simple", "advanced", "new", "v2",
    ];
    let mut findings = Vec::new();
    for path in sources() {
        let stem = Path::new(&path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if stem == "mod" || stem.split('_').any(|word| banned.contains(&word)) {
            findings.push(path.clone());
        }
        for line in read(&path).lines() {
            let line = line.trim_start();
            let item = ["pub struct ", "pub enum ", "pub trait ", "struct ", "enum ", "trait "]
                .iter()
                .find_map(|prefix| line.strip_prefix(prefix));
            let name: String = item
                .unwrap_or_default()
                .chars()
                .take_while(|character| character.is_alphanumeric())
                .collect();
            let words = ["Util", "Helper", "Manager", "Enhanced", "Advanced", "Misc"];
            if words.iter().any(|word| name.contains(word)) || name.ends_with("V2") {
                findings.push(format!("{path}: {name}"));
            }
        }
    }
    none(&findings, "names that say nothing");
}

#[test]
fn unsafe_code_is_where_it_is_expected() {
    let mut findings = Vec::new();
    for path in sources() {
        let listed = UNSAFE_FILES.contains(&path.as_str())
            || UNSAFE_FOLDERS.iter().any(|folder| path.starts_with(folder));
        let source = read(&path);
        let has = source.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "#[unsafe("]
                .iter()
                .any(|word| code.contains(word))
        });
        if has && !listed {
            findings.push(path);
        }
    }
    none(&findings, "unsafe code outside of the listed files");
    for path in UNSAFE_FILES {
        assert!(root().join(path).exists(), "{path} is listed and isn't there");
    }
}

#[test]
fn modules_of_the_actors_import_only_those_below_them() {
    let mut findings = Vec::new();
    for (at, (module, imports)) in MODULES.iter().enumerate() {
        let is_below = |import: &&&str| MODULES[..at].iter().any(|(below, _)| below == *import);
        let upward = imports.iter().filter(|import| !is_below(import));
        findings.extend(upward.map(|import| format!("the table has {module} -> {import}")));
    }
    for path in files("actors/src", ".rs") {
        let inner = path.trim_start_matches("actors/src/").trim_end_matches(".rs");
        let module = inner.split('/').next().unwrap_or_default();
        if module == "lib" || BENEATH.contains(&module) {
            continue;
        }
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else {
            findings.push(format!("{path}: the table doesn't have {module}"));
            continue;
        };
        let source = read(&path);
        for line in without_tests(&source).lines() {
            let code = line.split("//").next().unwrap_or_default();
            for named in code.split("crate::").skip(1) {
                let end = named.find(|it: char| !it.is_alphanumeric() && it != '_');
                let named = &named[..end.unwrap_or(named.len())];
                if named != module && !BENEATH.contains(&named) && !allowed.contains(&named) {
                    findings.push(format!("{path}: {}", line.trim()));
                }
            }
        }
    }
    none(&findings, "imports that the table of modules doesn't have");
}

#[test]
fn contracts_import_only_what_a_contract_may() {
    let mut findings = Vec::new();
    for (path, own) in CONTRACTS {
        let source = read(path);
        let parts = source.lines().filter_map(|line| line.split("mod ").nth(1)?.strip_suffix(';'));
        let allowed: Vec<&str> = parts.chain(own.iter().copied()).chain(CONTRACT_IMPORTS).collect();
        for line in without_tests(&source).lines() {
            let ways = ["use ", "pub use ", "pub(crate) use "];
            let Some(import) = ways.iter().find_map(|way| line.strip_prefix(way)) else { continue };
            let begins = |path: &&str| {
                import.strip_prefix(*path).is_some_and(|rest| rest.starts_with([':', ';']))
            };
            if !allowed.iter().any(begins) {
                findings.push(format!("{path}: {line}"));
            }
        }
    }
    let servers = ["actors/src", "transport/src"].map(|folder| files(folder, "server.rs")).concat();
    for server in servers.iter().filter(|path| path.ends_with("/server.rs")) {
        let contract = server.replace("/server.rs", ".rs");
        if !CONTRACTS.iter().any(|(path, _)| *path == contract) {
            findings.push(format!("{contract} has an actor behind it and isn't listed"));
        }
    }
    none(&findings, "imports that a contract may not have");
}

#[test]
fn no_error_variant_holds_only_a_text() {
    let mut findings = Vec::new();
    for path in sources() {
        let source = read(&path);
        let mut name = None;
        for line in source.lines() {
            if let Some(rest) = line.strip_prefix("pub enum ") {
                let item: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                name = item.ends_with("Error").then_some(item);
            } else if line == "}" {
                name = None;
            } else if let Some(name) = &name {
                let line = line.trim();
                let texts = ["(String)", "(&'static str)", "(Cow<'static, str>)"];
                if texts.iter().any(|text| line.contains(text)) {
                    findings.push(format!("{path}: {name}: {line}"));
                }
            }
        }
    }
    none(&findings, "error variants that hold only a text");
}

#[test]
fn nothing_is_unfinished() {
    let words = ["todo", "fixme", "placeholder", "for now", "in a real implementation", "xxx"];
    let mut findings = Vec::new();
    for path in sources() {
        for (number, line) in read(&path).lines().enumerate() {
            let lower = line.to_lowercase();
            let found = words.iter().any(|word| {
                lower.match_indices(word).any(|(at, _)| {
                    let before = lower[..at].chars().next_back();
                    let after = lower[at + word.len()..].chars().next();
                    !before.is_some_and(char::is_alphanumeric)
                        && !after.is_some_and(char::is_alphanumeric)
                })
            });
            if found {
                findings.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(&findings, "words of unfinished work");
}

#[test]
fn processes_start_in_the_sandbox_only() {
    let findings: Vec<String> = sources()
        .into_iter()
        .filter(|path| !path.starts_with("sandbox/"))
        .filter(|path| {
            let source = read(path);
            let code = without_tests(&source);
            ["process::Command", "Command::new(", "libc::fork", "posix_spawn"].iter().any(|call| {
                code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(call))
            })
        })
        .filter(|path| !read(path).contains("clap::Command"))
        .collect();
    none(&findings, "processes started outside of the sandbox");
}

#[test]
fn the_kernel_knows_nothing_of_what_is_above_it() {
    let words = ["http", "quic", "prompt", "json", "a2a", "mcp"];
    let mut findings = Vec::new();
    for path in files("kernel/src", ".rs") {
        for line in without_tests(&read(&path)).lines() {
            let code = line.split("//").next().unwrap_or_default().to_lowercase();
            if words
                .iter()
                .any(|word| code.split(|c: char| !c.is_alphanumeric()).any(|w| w == *word))
            {
                findings.push(format!("{path}: {}", line.trim()));
            }
        }
    }
    none(&findings, "what the kernel may not know");
}

#[test]
fn no_test_is_switched_off() {
    let places =
        ["tests", "kernel", "actors", "sandbox", "transport", "telemetry", "macros", "src"];
    let switch = concat!("#[ign", "ore");
    let findings: Vec<String> = places
        .iter()
        .flat_map(|place| files(place, ".rs"))
        .filter(|path| read(path).lines().any(|line| line.trim_start().starts_with(switch)))
        .collect();
    none(&findings, "tests that don't run");
}

/// Where a test has no right to do its work, it says so by `untried`, which fails where everything has to be tried;
/// and only that knows where this is.
#[test]
fn what_is_not_tried_is_said_in_one_way() {
    let home = "tests/shared/untried.rs";
    let variable = format!("\"{}\"", untried::EVERYTHING);
    assert!(read(home).contains(&variable), "{home} was moved");
    let places =
        ["tests", "kernel", "actors", "sandbox", "transport", "telemetry", "macros", "src"];
    let mut findings = Vec::new();
    let all = places.iter().flat_map(|place| files(place, ".rs"));
    // This one has what it looks for.
    for path in all.filter(|path| path != "tests/tidy.rs") {
        let source = read(&path);
        if path != home && source.contains(&variable) {
            findings.push(format!("{path} reads {variable}"));
        }
        let silent = silent_for_want_of_root(&source);
        findings.extend(silent.into_iter().map(|line| format!("{path}:{line}")));
    }
    none(&findings, "tests that decide by themselves what needn't be tried");
}

/// Numbers of the lines that ask for root, and end a test without a word if it isn't there.
fn silent_for_want_of_root(source: &str) -> Vec<usize> {
    let lines: Vec<&str> = source.lines().collect();
    let line = |at: usize| lines.get(at).copied().unwrap_or_default();
    let returns = |at: usize| line(at).trim() == "return;";
    let ends_its_test = |at: usize| {
        let end = (at..lines.len()).find(|at| line(*at).starts_with("    }"));
        end.is_some_and(|end| line(end) == "    }" && line(end + 1) == "}")
    };
    let is_silent = |at: &usize| {
        let text = line(*at);
        let leaves = ["return,", "return;", "return }"].iter().any(|word| text.contains(word));
        text.contains("is_root()") && (leaves || returns(at + 1) || returns(at + 2))
            || text == "    if is_root() {" && ends_its_test(*at)
    };
    (0..lines.len()).filter(is_silent).map(|at| at + 1).collect()
}

#[test]
fn a_test_without_a_word_for_want_of_root_is_found() {
    for silent in [
        "    if !is_root() {\n        return;\n    }\n",
        "    if !is_root()\n    {\n        return;\n    }\n",
        "    if !is_root() { return; }\n",
        "        Err(_) if !is_root() => return,\n",
        "    if is_root() {\n        attack();\n    }\n}\n",
    ] {
        assert_eq!(silent_for_want_of_root(silent), [1], "{silent}");
    }
    for told in [
        "    if !is_root() {\n        return untried(what, why);\n    }\n",
        "    if is_root() {\n        attack();\n    }\n    more();\n}\n",
        "    if is_root() {\n        attack();\n    } else {\n        other();\n    }\n}\n",
    ] {
        assert_eq!(silent_for_want_of_root(told), [0; 0], "{told}");
    }
}

const UNTRIED: &str = "role_untried";
const ROLE: &str = "TIDY_ROLE";

#[test]
fn what_is_not_tried_is_heard_and_fails_where_everything_has_to_be() {
    let run = |test: &str, variables: &[(&str, &str)]| {
        let own = std::env::current_exe().expect("this program has a path");
        #[expect(clippy::disallowed_methods, reason = "the harness of another process is asked")]
        let mut command = std::process::Command::new(own);
        for name in [untried::EVERYTHING, untried::LACKING] {
            command.env_remove(name);
        }
        let variables = variables.iter().copied().chain([(ROLE, test)]);
        let ran = command.args(["--exact", UNTRIED]).envs(variables).output().expect("an end");
        (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let all = (untried::EVERYTHING, "true");
    for (test, variables, passes, said) in [
        ("untried", &[][..], true, "NOT TRIED: it: for two reasons"),
        ("untried", &[all], false, "NOT TRIED: it: for two reasons"),
        ("untried", &[(all.0, "1")], false, "NOT TRIED: it: for two reasons"),
        ("untried", &[(all.0, "false")], true, "NOT TRIED: it: for two reasons"),
        ("untried", &[all, (untried::LACKING, "as nobody")], true, "NOT TRIED (as nobody): it: "),
        ("not here", &[all], true, "NOT TRIED (by design): it: for two reasons"),
        ("said on", &[all], true, "NOT TRIED: elsewhere"),
    ] {
        let (passed, heard) = run(test, variables);
        assert_eq!(passed, passes, "{test} {variables:?}: {heard}");
        assert!(heard.lines().any(|line| line.starts_with(said)), "{test} {variables:?}: {heard}");
    }
}

#[test]
fn role_untried() {
    match std::env::var(ROLE).as_deref() {
        Ok("untried") => untried::untried("it", "for two\n  reasons"),
        Ok("not here") => untried::not_here("it", "for two reasons"),
        Ok("said on") => untried::say_on(b"of no interest\nNOT TRIED: elsewhere\r\n"),
        _ => {}
    }
}

#[test]
fn public_items_have_examples() {
    let mut findings = Vec::new();
    for path in sources() {
        if path == "src/main.rs" || path.starts_with("src/cli") || path.starts_with("macros/") {
            continue;
        }
        let source = read(&path);
        let mut doc = String::new();
        for line in source.lines() {
            if line.starts_with("///") {
                doc.push_str(line);
                doc.push('\n');
            } else if line.starts_with("#[") || line.starts_with("    ") || line.starts_with(")]") {
                // An attribute between the doc comment and its item.
            } else {
                let item = ["pub struct ", "pub enum ", "pub trait ", "pub fn ", "pub async fn "]
                    .iter()
                    .find_map(|prefix| line.strip_prefix(prefix));
                if let Some(item) = item
                    && !doc.contains("```")
                {
                    findings.push(format!("{path}: {item}"));
                }
                doc.clear();
            }
        }
    }
    none(&findings, "public items without an example");
}

#[test]
fn rust_in_the_documents_is_compiled() {
    let library = read("src/lib.rs");
    let findings: Vec<String> = files(".", ".md")
        .into_iter()
        .filter(|path| !path.contains("/src/"))
        .filter(|path| read(path).contains("```rust"))
        .filter(|path| !library.contains(&format!("include_str!(\"../{path}\")")))
        .collect();
    none(&findings, "documents whose Rust nobody compiles");
}

#[test]
fn figures_name_the_command_that_prints_them() {
    let units = [" µs", " ms", " MB", " MiB", " KiB", " requests/s", " messages/s"];
    let mut findings = Vec::new();
    for path in ["README.md", "docs/BENCHMARKS.md"] {
        if !root().join(path).exists() {
            continue;
        }
        for section in read(path).split("\n## ") {
            let names_command = section.contains("make bench") || section.contains("cargo bench");
            let figure = section.lines().find(|line| {
                units.iter().any(|unit| {
                    line.match_indices(unit).any(|(at, _)| {
                        line[..at].chars().next_back().is_some_and(|c| c.is_ascii_digit())
                    })
                })
            });
            if let Some(line) = figure
                && !names_command
            {
                findings.push(format!("{path}: {line}"));
            }
        }
    }
    none(&findings, "figures without the command that prints them");
}

#[test]
fn the_example_is_short() {
    let example = read("examples/embedded.rs");
    let lines = example.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 25, "examples/embedded.rs has {lines} lines");
    let readme = read("README.md");
    let shown = |line: &&str| {
        !line.trim().is_empty() && !line.starts_with("//!") && !line.starts_with("#![")
    };
    for line in example.lines().filter(shown) {
        assert!(readme.contains(line), "README's example isn't examples/embedded.rs: {line}");
    }
}

#[test]
fn the_architecture_fits_on_a_few_pages_and_names_tests_that_exist() {
    let architecture = read("docs/ARCHITECTURE.md");
    let lines = architecture.lines().count();
    assert!(lines <= 300, "docs/ARCHITECTURE.md has {lines} lines");
    let tests: String = ["tests", "kernel", "actors", "sandbox", "telemetry", "transport", "src"]
        .iter()
        .flat_map(|place| files(place, ".rs"))
        .map(read)
        .collect();
    let mut named = 0;
    let mut findings = Vec::new();
    for line in architecture.lines().filter(|line| line.starts_with('|')) {
        let Some(cell) = line.split('|').rev().nth(1) else { continue };
        for test in cell.split('`').skip(1).step_by(2).filter(|text| text.contains("::")) {
            named += 1;
            let function = test.rsplit("::").next().unwrap_or_default();
            if !tests.contains(&format!("fn {function}(")) {
                findings.push(test.to_owned());
            }
        }
    }
    assert!(named >= 10, "docs/ARCHITECTURE.md names {named} tests only");
    none(&findings, "tests that docs/ARCHITECTURE.md names and nobody wrote");
}

/// A text of a source as the compiler reads it, and what follows it. None of a metric has quotes in it.
fn literal(source: &str) -> Option<(String, &str)> {
    let (text, rest) = source.trim_start().strip_prefix('"')?.split_once('"')?;
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    Some((lines.fold(first, |all, line| all + line.trim_start()), rest))
}

/// The row of the document that a metric has, which is registered by this.
fn metric(kind: &str, call: &str) -> Option<String> {
    let (name, rest) = literal(call)?;
    let (help, rest) = literal(rest.strip_prefix(',')?)?;
    let labels = rest.trim_start_matches(|letter: char| letter == ',' || letter.is_whitespace());
    let labels = match labels.strip_prefix('[') {
        Some(labels) => labels.split(']').next()?.split('"').skip(1).step_by(2).collect(),
        // Those of a link, which are made by a function.
        None => vec!["peer"],
    };
    let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
    Some(format!("| `{name}` | {kind} | {} | {help} |", labels.join(", ")))
}

#[test]
fn every_metric_is_in_the_document_and_nothing_else() {
    let mut registered = BTreeSet::new();
    for path in sources() {
        let source = read(&path);
        let code =
            without_tests(&source).lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = code.collect::<Vec<_>>().join("\n");
        for kind in ["counter", "gauge", "histogram"] {
            let made = format!("{kind}(");
            registered.extend(code.split(&made).skip(1).filter_map(|call| metric(kind, call)));
        }
    }
    assert!(registered.len() > 60, "{} metrics only", registered.len());
    let document = read("docs/METRICS.md");
    let rows = document.lines().filter(|line| line.starts_with("| `")).map(str::to_owned);
    let rows: BTreeSet<String> = rows.collect();
    let missing: Vec<String> = registered.difference(&rows).cloned().collect();
    none(&missing, "rows that docs/METRICS.md doesn't have");
    let surplus: Vec<String> = rows.difference(&registered).cloned().collect();
    none(&surplus, "rows of docs/METRICS.md that no metric has");
}

#[test]
fn every_fuzz_target_is_built_and_calls_what_is_there() {
    // Only the fuzzer's own compiler builds them; what they call is in every build of the tests.
    let manifest = read("fuzz/Cargo.toml");
    let doors = ["transport/src/lib.rs", "sandbox/src/lib.rs"].map(read).concat();
    let mut findings = Vec::new();
    let targets = files("fuzz/fuzz_targets", ".rs");
    assert!(!targets.is_empty(), "no target");
    for target in targets {
        let name = target.trim_start_matches("fuzz/");
        if !manifest.contains(&format!("path = \"{name}\"")) {
            findings.push(format!("{target} isn't in fuzz/Cargo.toml"));
        }
        let source = read(&target);
        let words = source.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for word in words.filter(|word| word.starts_with("fuzz_") && *word != "fuzz_target") {
            if !doors.contains(&format!("::fuzz as {word};")) {
                findings.push(format!("{target} calls {word}, which no crate has"));
            }
        }
    }
    none(&findings, "fuzz targets are built, and call what there is");
}

#[test]
fn licences_are_allowed() {
    let allowed = read("deny.toml");
    let allowed: Vec<&str> = allowed
        .split("allow = [")
        .nth(1)
        .and_then(|rest| rest.split(']').next())
        .unwrap_or_default()
        .split('"')
        .skip(1)
        .step_by(2)
        .collect();
    #[expect(clippy::disallowed_methods, reason = "asks cargo what the tree is made of")]
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let mut findings = Vec::new();
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        let expression = licence.replace('/', " OR ").replace(['(', ')'], "");
        let fits = expression
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|choice| allowed.contains(&choice.trim())));
        if !fits {
            findings.push(format!("{}: {licence}", package["name"]));
        }
    }
    assert!(packages.len() > 50, "cargo metadata named {} packages only", packages.len());
    none(&findings, "licences that deny.toml doesn't allow");
}
