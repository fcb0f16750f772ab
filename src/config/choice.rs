//! Settings that are one or several of a few words: levels, formats, agents.

use neuroflow::Level;
use neuroflow::actors::SyncPolicy;
use neuroflow_telemetry::logs::LogFormat;

use super::value::{Problem, Raw, Value, quoted, text};

/// The level of this name.
pub(crate) fn level(name: &str) -> Option<Level> {
    levels().find(|level| level.to_string() == name)
}

/// Every level, the weakest first.
pub(crate) fn levels() -> impl Iterator<Item = Level> {
    [Level::Minimal, Level::Standard, Level::Strict, Level::Paranoid].into_iter()
}

impl Value for Level {
    const EXPECTED: &'static str = "\"minimal\", \"standard\", \"strict\" or \"paranoid\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        level(text(raw)?).ok_or(Problem::Word)
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Value for LogFormat {
    const EXPECTED: &'static str = "\"text\" or \"json\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        match text(raw)? {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Problem::Word),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(if *self == Self::Json { "json" } else { "text" }))
    }
}

impl Value for SyncPolicy {
    const EXPECTED: &'static str = "\"each\" or \"interval\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        match text(raw)? {
            "each" => Ok(Self::Each),
            "interval" => Ok(Self::Interval),
            _ => Err(Problem::Word),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(if *self == Self::Each { "each" } else { "interval" }))
    }
}

/// An agent that comes with the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    Shell,
    Echo,
    Python,
}

impl Builtin {
    pub(crate) const ALL: [Self; 3] = [Self::Shell, Self::Echo, Self::Python];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Echo => "echo",
            Self::Python => "python",
        }
    }

    /// Whether it runs programs.
    pub(crate) fn needs_cells(self) -> bool {
        matches!(self, Self::Shell | Self::Python)
    }
}

impl Value for Vec<Builtin> {
    const EXPECTED: &'static str = "a list of agents, each once: \"shell\", \"echo\", \"python\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        let names: Vec<&str> = match raw {
            Raw::Plain(text) => text.split(',').map(str::trim).collect(),
            Raw::List(items) => items.iter().map(text).collect::<Result<_, _>>()?,
            _ => return Err(Problem::Type),
        };
        let mut agents = Self::new();
        for name in names {
            let known = Builtin::ALL.into_iter().find(|agent| agent.name() == name);
            let agent = known.ok_or(Problem::Word)?;
            if agents.contains(&agent) {
                return Err(Problem::Twice);
            }
            agents.push(agent);
        }
        if agents.is_empty() { Err(Problem::Empty) } else { Ok(agents) }
    }

    fn toml(&self) -> Option<String> {
        let names: Vec<String> = self.iter().map(|agent| quoted(agent.name())).collect();
        Some(format!("[{}]", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain<T: Value>(text: &str) -> Result<T, Problem> {
        T::read(&Raw::Plain(text.to_owned()))
    }

    #[test]
    fn agents_are_known_and_there_once() {
        assert_eq!(plain::<Vec<Builtin>>("echo").unwrap(), [Builtin::Echo]);
        assert!(matches!(plain::<Vec<Builtin>>(""), Err(Problem::Word)));
        assert!(matches!(plain::<Vec<Builtin>>("echo,echo"), Err(Problem::Twice)));
        assert!(matches!(Vec::<Builtin>::read(&Raw::List(Vec::new())), Err(Problem::Empty)));
    }

    #[test]
    fn levels_are_found_by_their_names() {
        assert_eq!(plain::<Level>("strict").unwrap(), Level::Strict);
        assert!(matches!(plain::<Level>("Strict"), Err(Problem::Word)));
    }
}
