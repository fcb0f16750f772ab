//! From sources to values: the file, the environment, the flags, the later over the earlier.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use neuroflow::sandbox::{Interpreter, Network, ProfileBuilder, SandboxServer, Warm};
use neuroflow::{Level, Profile};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin, line, without_text};
use super::flags::{Overrides, Source};
use super::mcp::McpServers;
use super::proxy::Proxies;
use super::setting::{PREFIX, Preset, Section, Setting};
use super::value::{Raw, Value};
use super::{Config, SECTIONS, WayOut};
use crate::limits::CONFIG_BYTES;
use crate::owner::{self, Care};

/// The configuration, and where each value that isn't a default came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// The tables `[mcp.NAME]` of the file.
    pub(crate) mcp: McpServers,
    /// The tables `[proxy.NAME]` of the file.
    pub(super) proxies: Proxies,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Reads the sources that the process has.
    pub(crate) fn from_process(
        source: &Source,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut variables: BTreeMap<OsString, OsString> =
            std::env::vars_os().filter(|(name, _)| is_ours(name)).collect();
        variables.remove(&OsString::from(FILE_VARIABLE));
        let mut given = Given::default();
        if let Some(path) = source.named().or_else(default_file) {
            given.read_file(&path)?;
        }
        given.read_variables(variables)?;
        for (setting, text) in &overrides.given {
            let origin = Origin::Flag { name: setting.flag() };
            given.values.insert(setting.key, (Raw::Plain(text.clone()), origin));
        }
        let config = given.config()?;
        let origins = given.values.into_iter().map(|(key, (_, origin))| (key, origin)).collect();
        Ok(Self { config, mcp: given.mcp, proxies: given.proxies, origins })
    }

    /// Where the value of a setting came from.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Whether anybody has set it.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// The sandbox: what cells may use, how many there may be, how many are kept ready.
    pub(crate) fn sandbox(&self) -> Result<SandboxServer, ConfigError> {
        let sandbox = &self.config.sandbox;
        let (least, most) = (sandbox.warm_least, sandbox.warm_most);
        // Level minimal promises next to nothing.
        let attack = sandbox.attack_first && sandbox.level != Level::Minimal;
        let server = SandboxServer::new(self.profile()?)
            .attack_first(attack)
            .cells(sandbox.cells.into(), sandbox.waiting.into());
        let keeps_some = sandbox.level != Level::Minimal && most > 0;
        if !keeps_some {
            return Ok(server);
        }
        let server = server.warm(Warm { least, most });
        let forks = Warm { least: least.clamp(1, most), most };
        let wanted = sandbox.python;
        Ok(if wanted { server.interpreter(Interpreter::python(), forks) } else { server })
    }

    /// What the cells may use.
    pub(crate) fn profile(&self) -> Result<Profile, ConfigError> {
        Ok(self.builder().build()?)
    }

    /// What the cells may use, for whoever adds to it.
    pub(crate) fn builder(&self) -> ProfileBuilder {
        self.builder_at(self.config.sandbox.level)
    }

    /// The same at another level.
    pub(crate) fn builder_at(&self, level: Level) -> ProfileBuilder {
        let sandbox = &self.config.sandbox;
        let is_own = level == sandbox.level;
        let mut profile = Profile::builder(level)
            .allow_degraded(sandbox.allow_degraded)
            .wall_time(sandbox.wall_time)
            .memory(sandbox.memory.bytes())
            .open_files(sandbox.open_files)
            .file_size(sandbox.file_size.bytes())
            .output(sandbox.output.bytes());
        // These mean nothing at level minimal: a default is left out there, and a wish is refused.
        let applies = |key| level != Level::Minimal || (is_own && self.is_set(key));
        if applies("sandbox.processes") {
            profile = profile.processes(sandbox.processes);
        }
        if applies("sandbox.workdir_size") {
            profile = profile.workdir_size(sandbox.workdir_size.bytes());
        }
        // So does this below level strict.
        if level >= Level::Strict || (is_own && self.is_set("sandbox.cpu_milli")) {
            let milli = sandbox.cpu_milli;
            profile = profile.cpu_milli((milli > 0).then_some(milli));
        }
        if !sandbox.allow.is_empty() {
            profile = profile.network(Network::allow(sandbox.allow.iter().map(WayOut::rule)));
        }
        profile
    }
}

/// Names the configuration file.
const FILE_VARIABLE: &str = "NEUROFLOW_CONFIG";

/// The table of MCP servers, which has one table for each.
const MCP_TABLE: &str = "mcp";

/// The table of agents of other nodes, which has one table for each.
const PROXY_TABLE: &str = "proxy";

/// What a configuration file is called if nobody names one.
const FILE: &str = "neuroflow.toml";

/// The machine's folder of configurations.
const MACHINE: &str = "/etc";

/// Edits between a variable's name and that of a setting below which it's taken for a slip. Further
/// away are names that others choose, such as those that Kubernetes sets for a service `neuroflow`.
const SLIP: usize = 2;

fn is_ours(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

impl Source {
    /// The file that somebody names.
    fn named(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os(FILE_VARIABLE).filter(|it| !it.is_empty());
        self.config.clone().or_else(|| variable().map(PathBuf::from))
    }

    /// The file in the current directory, if there is one and it isn't read because nobody names any.
    pub(crate) fn left_out(&self) -> Option<&'static Path> {
        let here = Path::new(FILE);
        if self.named().is_some() || !here.is_file() {
            return None;
        }
        let read = default_file().and_then(|path| path.canonicalize().ok());
        (here.canonicalize().ok() != read).then_some(here)
    }
}

/// The file that is read if none is named.
fn default_file() -> Option<PathBuf> {
    places(|name| std::env::var_os(name)).find(|path| path.is_file())
}

/// Where it's looked for: the user's own place, then the machine's. Not in the current directory, which may be
/// somebody else's folder that a program is to work on: its files don't decide how that is confined.
fn places(variable: impl Fn(&str) -> Option<OsString>) -> impl Iterator<Item = PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(absolute("HOME")?.join(".config"));
    let user = absolute("XDG_CONFIG_HOME").or_else(home);
    let folders = user.into_iter().chain([PathBuf::from(MACHINE)]);
    folders.map(|folder| folder.join("neuroflow").join(FILE))
}

fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

/// What the sources give, by key.
#[derive(Debug, Default)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, (Raw, Origin)>,
    mcp: McpServers,
    proxies: Proxies,
}

impl Given {
    /// The value of a setting, or its preset.
    pub(super) fn value<T: Value>(
        &self,
        key: &'static str,
        preset: Preset,
    ) -> Result<T, ConfigError> {
        let given = self.values.get(key).cloned();
        let (raw, origin) = match (given, preset, T::absent()) {
            (Some(given), _, _) => given,
            (None, Preset::Unset(_), Some(absent)) => return Ok(absent),
            (None, Preset::Value(text) | Preset::Unset(text), _) => {
                (Raw::Plain(text.to_owned()), Origin::Default)
            }
        };
        T::read(&raw).map_err(|problem| ConfigError::Value {
            key,
            found: T::shown(&raw),
            origin,
            expected: T::EXPECTED,
            problem: Box::new(problem),
        })
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        owner::check(path, &file, Care::Obeyed)?;
        let mut text = String::new();
        file.take(CONFIG_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > CONFIG_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned(), most: CONFIG_BYTES });
        }
        self.read_toml(path, &text)
    }

    fn read_toml(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table = DeTable::parse(text).map_err(|mut source| {
            let line = without_text(&mut source, text);
            ConfigError::Syntax { path: path.to_owned(), line, source: Box::new(source) }
        })?;
        let at = |start: usize| Origin::File { path: path.to_owned(), line: line(text, start) };
        for (name, value) in table.get_ref() {
            let origin = at(name.span().start);
            if name.get_ref() == MCP_TABLE {
                self.mcp = McpServers::read(path, text)?;
                continue;
            }
            if name.get_ref() == PROXY_TABLE {
                self.proxies = Proxies::read(path, text)?;
                continue;
            }
            let Some(section) = SECTIONS.iter().find(|section| section.name == name.get_ref())
            else {
                return Err(unknown(name.get_ref(), origin));
            };
            let DeValue::Table(table) = value.get_ref() else {
                return Err(ConfigError::Section { section: section.name, origin });
            };
            self.read_section(section, table, at)?;
        }
        Ok(())
    }

    fn read_section(
        &mut self,
        section: &Section,
        table: &DeTable<'_>,
        at: impl Fn(usize) -> Origin,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let origin = at(name.span().start);
            let known = section.settings.iter().find(|setting| setting.name == name.get_ref());
            let Some(setting) = known else {
                return Err(unknown(&format!("{}.{}", section.name, name.get_ref()), origin));
            };
            self.values.insert(setting.key, (raw(value), origin));
        }
        Ok(())
    }

    /// Takes the variables that name a setting; one that nearly does is an error.
    fn read_variables(
        &mut self,
        variables: BTreeMap<OsString, OsString>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            let origin = Origin::Variable { name: name.clone() };
            let Some(setting) = settings().find(|setting| setting.variable() == name) else {
                let near = settings()
                    .find(|known| strsim::damerau_levenshtein(&known.variable(), &name) <= SLIP);
                match near {
                    Some(near) => {
                        let nearest = near.variable();
                        return Err(ConfigError::UnknownKey { key: name, origin, nearest });
                    }
                    None => continue,
                }
            };
            // As for OpenTelemetry's variables, an empty one counts as none.
            if value.is_empty() {
                continue;
            }
            let Ok(value) = value.into_string() else {
                return Err(ConfigError::Unicode { origin });
            };
            self.values.insert(setting.key, (Raw::Plain(value), origin));
        }
        Ok(())
    }
}

/// A key that isn't in the table, and the one that was probably meant: the nearest, or one of the
/// same name in another section.
fn unknown(key: &str, origin: Origin) -> ConfigError {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |known: &str| {
        let whole = strsim::damerau_levenshtein(known, key);
        let name = strsim::damerau_levenshtein(&last(known), &last(key));
        whole.min(name + 1)
    };
    // A name without a dot is rather a section, one with a dot a setting.
    let sections = SECTIONS.iter().map(|section| section.name).filter(|_| !key.contains('.'));
    let candidates = sections.chain(settings().map(|setting| setting.key));
    let nearest = candidates.min_by_key(|known| distance(known)).unwrap_or_default().to_owned();
    ConfigError::UnknownKey { key: key.to_owned(), origin, nearest }
}

fn raw(value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("a number beyond all bounds"), Raw::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or(Raw::Other("a number beyond all bounds"), Raw::Float)
        }
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(items) => Raw::List(items.iter().map(raw).collect()),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let mut given = Given::default();
        given.read_toml(Path::new("test.toml"), file)?;
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        given.read_variables(variables.collect())?;
        let config = given.config()?;
        let origins = given.values.into_iter().map(|(key, (_, origin))| (key, origin)).collect();
        Ok(Loaded { config, mcp: given.mcp, proxies: given.proxies, origins })
    }

    fn message(file: &str) -> String {
        load(file, &[]).unwrap_err().to_string()
    }

    #[test]
    fn the_printed_default_is_the_default_and_has_every_key() {
        let mut printed = Vec::new();
        super::super::write_default(&mut printed).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert_eq!(load(&printed, &[]).unwrap().config, load("", &[]).unwrap().config);
        // With the examples switched on it's valid too, and nothing is missing.
        let examples = printed.lines().map(|line| {
            let example = line.strip_prefix('#').filter(|line| !line.starts_with(' '));
            example.unwrap_or(line)
        });
        let full: Vec<&str> = examples.collect();
        let loaded = load(&full.join("\n"), &[]).unwrap();
        for setting in settings() {
            assert!(loaded.is_set(setting.key), "{} isn't printed", setting.key);
        }
    }

    #[test]
    fn a_file_that_nobody_names_is_the_users_or_the_machines() {
        let of = |set: &[(&str, &str)]| -> Vec<String> {
            let set: Vec<(String, String)> =
                set.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let variable =
                |name: &str| Some(set.iter().find(|(set, _)| set == name)?.1.clone().into());
            places(variable).map(|path| path.display().to_string()).collect()
        };
        let machine = "/etc/neuroflow/neuroflow.toml";
        assert_eq!(of(&[]), [machine]);
        let home = ("HOME", "/home/me");
        assert_eq!(of(&[home]), ["/home/me/.config/neuroflow/neuroflow.toml", machine]);
        let own = of(&[home, ("XDG_CONFIG_HOME", "/own")]);
        assert_eq!(own, ["/own/neuroflow/neuroflow.toml", machine]);
        assert_eq!(of(&[("XDG_CONFIG_HOME", "."), ("HOME", "")]), [machine]);
    }

    #[test]
    fn a_later_source_wins() {
        let file = "[gateway]\nlisten = \"127.0.0.1:1\"\n";
        let loaded = load(file, &[("NEUROFLOW_GATEWAY_LISTEN", "127.0.0.1:2")]).unwrap();
        assert_eq!(loaded.config.gateway.listen.port(), 2);
        let loaded = load(file, &[("NEUROFLOW_GATEWAY_LISTEN", "")]).unwrap();
        assert_eq!(loaded.config.gateway.listen.port(), 1);
        let origin = Origin::File { path: "test.toml".into(), line: 2 };
        assert_eq!(loaded.origin("gateway.listen"), origin);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_and_its_line() {
        let error = message("[gateway]\n\nlisen = \"127.0.0.1:1\"\n");
        assert!(error.contains("\"gateway.lisen\"") && error.contains("test.toml:3"), "{error}");
        assert!(error.contains("nearest is \"gateway.listen\""), "{error}");
        assert!(message("[gatway]\n").contains("nearest is \"gateway\""));
        assert!(message("[gateway]\nsocket = 1").contains("nearest is \"control.socket\""));
    }

    #[test]
    fn a_broken_line_is_numbered_and_not_shown() {
        for broken in
            ["url = postgres://me:hunter2@db", "url = \"hunter2", "url = \"hunter2\" hunter2"]
        {
            let error = load(&format!("[journal]\n\n{broken}\n"), &[]).unwrap_err();
            assert!(error.to_string().starts_with("test.toml:3 isn't valid TOML"), "{error}");
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                let told = format!("{error} {error:?}");
                assert!(!told.contains("hunter2"), "{told}");
                cause = error.source();
            }
        }
    }

    #[test]
    fn a_slip_in_a_variable_is_an_error_and_a_stranger_is_not() {
        let error = load("", &[("NEUROFLOW_GATEWAY_LISTN", "x")]).unwrap_err().to_string();
        assert!(error.contains("NEUROFLOW_GATEWAY_LISTEN"), "{error}");
        assert!(load("", &[("NEUROFLOW_GATEWAY_SERVICE_HOST", "10.0.0.1")]).is_ok());
    }

    #[test]
    fn a_wrong_value_says_what_it_is_and_where() {
        let error = message("[sandbox]\nwall_time = 60\n");
        assert!(error.starts_with("sandbox.wall_time is 60 (test.toml:2)"), "{error}");
        assert!(error.contains("a duration such as"), "{error}");
        assert!(message("sandbox = 3").contains("[sandbox]"));
        assert!(message("[sandbox]\nmemory = { a = 1 }").contains("a table"));
        let error = load("", &[("NEUROFLOW_SANDBOX_PROCESSES", "many")]).unwrap_err().to_string();
        assert!(error.contains("variable NEUROFLOW_SANDBOX_PROCESSES"), "{error}");
    }

    #[test]
    fn a_setting_that_the_level_cannot_have_is_refused_only_if_it_is_set() {
        let minimal = "[sandbox]\nlevel = \"minimal\"\n";
        assert!(load(minimal, &[]).unwrap().profile().is_ok());
        let wished = load(minimal, &[("NEUROFLOW_SANDBOX_PROCESSES", "8")]).unwrap();
        assert!(matches!(wished.profile(), Err(ConfigError::Sandbox(_))));
    }

    #[test]
    fn others_are_let_in_only_on_purpose() {
        let check = |file: &str| {
            let loaded = load(file, &[]).unwrap();
            loaded.config.check_exposure(&loaded)
        };
        assert!(check("").is_ok());
        assert!(check("[gateway]\nlisten = \"[::1]:80\"").is_ok());
        assert!(check("[gateway]\nlisten = \"[::ffff:127.0.0.1]:80\"").is_ok());
        assert!(matches!(
            check("[telemetry]\nmetrics_listen = \"0.0.0.0:9464\""),
            Err(ConfigError::RemoteMetrics { .. })
        ));
        let remote = "[gateway]\nlisten = \"0.0.0.0:80\"\n";
        assert!(matches!(check(remote), Err(ConfigError::Remote { .. })));
        let known = "[auth]\ntokens = \"t\"\n[policy]\nfile = \"p\"\n";
        let plain = check(&format!("{remote}{known}"));
        assert!(matches!(plain, Err(ConfigError::RemotePlain { .. })));
        let proxied = check(&format!("{remote}{known}[tls]\nterminated_upstream = true"));
        assert!(proxied.is_ok());
        let tls = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        assert!(check(&format!("{remote}{known}{tls}")).is_ok());
        let allowed = "allow_remote_without_authentication = true";
        assert!(check(&format!("[gateway]\nlisten = \"0.0.0.0:80\"\n{allowed}")).is_ok());
    }

    #[test]
    fn settings_that_need_each_other_are_there_together() {
        let check = |file: &str| {
            let loaded = load(file, &[]).unwrap();
            loaded.config.check_exposure(&loaded).unwrap_err().to_string()
        };
        assert!(check("[tls]\ncertificate = \"c\"").starts_with("tls.certificate needs tls.key"));
        assert!(check("[tls]\nclient_ca = \"c\"").contains("needs tls.certificate"));
        assert!(check("[auth]\nissuer = \"https://i.example\"").contains("auth.audience"));
        assert!(check("[auth]\ntokens = \"t\"").contains("policy.file"));
    }

    #[test]
    fn an_agent_of_other_nodes_that_cannot_be_offered_is_named_with_its_remedy() {
        let check = |file: &str| {
            let loaded =
                load(&format!("[cluster]\nlisten = \"127.0.0.1:0\"\n{file}"), &[]).unwrap();
            loaded.proxies().map_err(|error| {
                let problem = std::error::Error::source(&error).map(ToString::to_string);
                format!("{error}: {}", problem.unwrap_or_default())
            })
        };
        let offered = check(
            "[proxy.bills]\nagent = \"agent://*/billing\"\nskills = [\"refund\"]\ntask = \"10m\"",
        );
        assert_eq!(
            offered.unwrap().iter().map(neuroflow::ProxyAgent::name).collect::<Vec<_>>(),
            ["bills"]
        );
        let billing = "agent = \"agent://b/billing\"";
        for (file, told) in [
            (format!("[proxy.echo]\n{billing}"), "an agent of that name itself"),
            (format!("[proxy.\"a b\"]\n{billing}"), "its name isn't valid"),
            ("[proxy.bills]\nagent = \"billing\"".to_owned(), "agent://*/NAME"),
            ("[proxy.bills]\nagent = \"agent://b/billing#2\"".to_owned(), "one life"),
            (format!("[proxy.bills]\n{billing}\nskills = []"), "skills is empty"),
            (format!("[proxy.bills]\n{billing}\ntask = \"soon\""), "task isn't a whole number"),
        ] {
            let error = check(&file).unwrap_err();
            assert!(error.starts_with("proxy.") && error.contains(told), "{error}");
        }
        let alone = load(&format!("[proxy.bills]\n{billing}"), &[]).unwrap().proxies();
        let alone = std::error::Error::source(&alone.unwrap_err()).map(ToString::to_string);
        assert!(alone.is_some_and(|problem| problem.contains("set cluster.listen")));
    }

    #[test]
    fn what_a_cluster_cannot_have_is_named_with_its_remedy() {
        let check = |cluster: &str| {
            let loaded = load(&format!("[cluster]\n{cluster}"), &[]).unwrap();
            loaded.config.check_exposure(&loaded).map_err(|error| error.to_string())
        };
        let refused = |cluster: &str| check(cluster).unwrap_err();
        assert!(refused("advertise = \"10.0.0.7:7946\"").contains("needs cluster.listen"));
        assert!(refused("authority = \"a\"").contains("needs cluster.listen"));
        let on = |more: &str| format!("listen = \"127.0.0.1:0\"\nidentity = \"n\"\n{more}");
        assert!(refused("listen = \"127.0.0.1:0\"").contains("cluster.identity"));
        assert!(refused("identity = \"n\"").contains("needs cluster.listen"));
        assert!(refused("seeds = [\"10.0.0.7:7946\"]").contains("needs cluster.listen"));
        assert!(check(&on("advertise = \"10.0.0.7:7946\"\ncapacity = 0")).is_ok());
        for nowhere in ["0.0.0.0:7946", "[::]:7946", "10.0.0.7:0"] {
            let said = refused(&on(&format!("advertise = \"{nowhere}\"")));
            assert!(
                said.contains("cluster.advertise is") && said.contains("test.toml:4"),
                "{said}"
            );
        }
        assert!(refused(&on("leases = \"journal\"")).contains("journal.url"));
        let leases = "leases = \"postgres://me:secret@db/x\"";
        assert!(check(&on(leases)).is_ok());
        let short = refused(&on(&format!("{leases}\nlease_term = \"10ms\"")));
        assert!(short.contains("cluster.lease_term") && short.contains("1s"), "{short}");
        assert!(refused(&on("singletons = [\"python\"]")).contains("needs cluster.leases"));
        let twice = refused(&on(&format!("{leases}\nsharded = [\"echo\"]")));
        assert!(twice.contains("agents.enabled") && twice.contains("cluster.sharded"), "{twice}");
        assert!(check(&on(&format!("{leases}\nsharded = [\"python\"]"))).is_ok());
        let file = load("[cluster]\nleases = \"file:///x\"", &[]).unwrap_err().to_string();
        assert!(file.contains("cluster.leases is"), "{file}");
        let shown = load(&format!("[cluster]\n{leases}"), &[]).unwrap();
        assert!(!shown.config.toml("cluster.leases").unwrap().contains("secret"));
    }
}
