//! A list of allowed system calls: entries that are known to make sense. How they are read is in
//! [`read`].

mod read;

use std::sync::Arc;

use serde::Deserialize;

use super::error::SeccompError;
use crate::{level::Level, limits};
use read::Written;

/// A list of allowed system calls, as read from TOML. What exists is valid.
///
/// A profile names each call once: in a `group` (allowed), in one or more `rule`s (allowed when its
/// arguments fit one of them) or in an `answer` (refused with an error number, without a report).
/// Every entry says why. All other calls are refused and reported. What the cell's own first
/// process needs is allowed beside it, and is less than every built-in profile has.
///
/// ```
/// use neuroflow_sandbox::SeccompProfile;
///
/// let profile = SeccompProfile::parse(
///     r#"
///     version = 1
///     name = "filter"
///
///     [[group]]
///     name = "streams"
///     why = "Reads its input and writes its output."
///     calls = ["read", "write", "close", "exit_group"]
///
///     [[rule]]
///     call = "ioctl"
///     when = [{ argument = 1, op = "int-eq", value = "TCGETS" }]
///     why = "libc asks whether standard output is a terminal."
///
///     [[answer]]
///     call = "clone3"
///     errno = "ENOSYS"
///     why = "Its flags can't be looked at."
///     "#,
/// )?;
/// assert_eq!(profile.name(), "filter");
/// # Ok::<(), neuroflow_sandbox::SeccompError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompProfile {
    name: String,
    /// Identifies what was read, exactly.
    text: Arc<str>,
    pub(super) groups: Vec<Group>,
    pub(super) rules: Vec<Rule>,
    pub(super) answers: Vec<Answer>,
}

/// Calls that are allowed with all arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) calls: Vec<Call>,
}

/// A call that is allowed when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) call: Call,
    pub(super) option: Option<Choice>,
    pub(super) when: Vec<Condition>,
}

/// A call that is refused without a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) call: Call,
    pub(super) errno: u16,
}

/// A call by name; the number is missing where the architecture doesn't have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) number: Option<u32>,
}

/// What switches a rule on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Choice {
    /// The cell has a loopback device that it may use.
    Inet,
}

/// One argument against a list, of which one has to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) tests: Vec<Test>,
}

/// A comparison that the filter's language has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal(u64),
    Masked { mask: u64, value: u64 },
    Less(u64),
    LessOrEqual(u64),
}

impl Test {
    pub(super) fn holds(self, argument: u64) -> bool {
        match self {
            Self::Equal(value) => argument == value,
            Self::Masked { mask, value } => argument & mask == value,
            Self::Less(value) => argument < value,
            Self::LessOrEqual(value) => argument <= value,
        }
    }
}

impl Rule {
    pub(super) fn holds(&self, args: &[u64; 6]) -> bool {
        self.when.iter().all(|condition| {
            let argument = args.get(usize::from(condition.argument)).copied();
            let argument = argument.unwrap_or_default();
            condition.tests.iter().any(|test| test.holds(argument))
        })
    }
}

impl SeccompProfile {
    /// Reads a profile.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its field.
    pub fn parse(text: &str) -> Result<Self, SeccompError> {
        let most = limits::MAX_SECCOMP_PROFILE_BYTES;
        if text.len() > most {
            return Err(SeccompError::TooLong { bytes: text.len(), most });
        }
        let shape = |path: String, source| SeccompError::Shape { path, source: Box::new(source) };
        let document = toml::Deserializer::parse(text).map_err(|error| shape(".".into(), error))?;
        let written: Written = serde_path_to_error::deserialize(document)
            .map_err(|error| shape(error.path().to_string(), error.into_inner()))?;
        written.check(text)
    }

    /// The profile that a level brings.
    ///
    /// # Errors
    ///
    /// [`SeccompError::NoFilter`] for [`Level::Minimal`].
    pub fn builtin(level: Level) -> Result<Self, SeccompError> {
        match level {
            Level::Minimal => Err(SeccompError::NoFilter { level }),
            Level::Standard => Self::parse(STANDARD),
            Level::Strict => Self::parse(STRICT),
            Level::Paranoid => Self::parse(PARANOID),
        }
    }

    /// What the cell's first process needs.
    pub(super) fn keeper() -> Result<Self, SeccompError> {
        Self::parse(KEEPER)
    }

    /// Whether a program's process can be made ahead under this list. That takes more than every cell's
    /// first process may do, and no list is widened for it.
    pub(crate) fn has_room_ahead(&self) -> bool {
        let sharing = (libc::CLONE_VM | libc::SIGCHLD).unsigned_abs().into();
        let memory = (libc::PROT_READ | libc::PROT_WRITE).unsigned_abs().into();
        let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unsigned_abs().into();
        let calls = [
            ("clone", [sharing, 0, 0, 0, 0, 0]),
            ("sched_yield", [0; 6]),
            // Its order is read into fresh memory, whichever allocator the host program has.
            ("brk", [0; 6]),
            ("mmap", [0, 0, memory, private, u32::MAX.into(), 0]),
            ("mprotect", [0, 0, memory, 0, 0, 0]),
            ("mremap", [0; 6]),
            ("munmap", [0; 6]),
            ("madvise", [0; 6]),
            ("prctl", [libc::PR_SET_VMA.unsigned_abs().into(), 0, 0, 0, 0, 0]),
        ];
        calls.iter().all(|(name, args)| self.allows(name, args))
    }

    /// Without what an option may add.
    fn allows(&self, name: &str, args: &[u64; 6]) -> bool {
        let mut named = self.groups.iter().flat_map(|group| &group.calls);
        let mut ruled = self.rules.iter().filter(|rule| rule.option.is_none());
        named.any(|call| call.name == name)
            || ruled.any(|rule| rule.call.name == name && rule.holds(args))
    }

    /// The profile's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text that was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn shared_text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }
}

const STANDARD: &str = include_str!("../../profiles/standard.toml");
const STRICT: &str = include_str!("../../profiles/strict.toml");
const PARANOID: &str = include_str!("../../profiles/paranoid.toml");
pub(super) const KEEPER: &str = include_str!("../../profiles/keeper.toml");

#[cfg(test)]
mod tests {
    use super::{
        super::error::{ConditionProblem, Counted},
        *,
    };
    use crate::noise::Noise;

    /// A profile with one wrong entry after a right one.
    fn refused(entry: &str) -> SeccompError {
        let text = format!("{START}{entry}");
        SeccompProfile::parse(&text).expect_err(entry)
    }

    const START: &str = "version = 1\nname = \"x\"\n[[group]]\nname = \"g\"\nwhy = \"w\"\ncalls = \
                         [\"read\"]\n[[rule]]\ncall = \"ioctl\"\nwhy = \"w\"\nwhen = [{ argument \
                         = 1, op = \"eq\", value = 1 }]\n";

    fn rule(when: &str) -> SeccompError {
        refused(&format!("[[rule]]\ncall = \"prctl\"\nwhy = \"w\"\nwhen = [{when}]"))
    }

    #[test]
    fn the_builtin_profiles_are_valid() {
        for level in [Level::Standard, Level::Strict, Level::Paranoid] {
            let profile = SeccompProfile::builtin(level).expect("a valid profile");
            assert_eq!(profile.name(), level.to_string());
            assert_eq!(SeccompProfile::parse(profile.text()), Ok(profile));
        }
        assert!(SeccompProfile::keeper().is_ok());
        let none = SeccompProfile::builtin(Level::Minimal);
        assert_eq!(none, Err(SeccompError::NoFilter { level: Level::Minimal }));
    }

    #[test]
    fn shape_errors_name_the_field() {
        for (text, path) in [
            ("version = ", "."),
            ("version = 1\nname = \"x\"\nextra = 1", "extra"),
            ("version = \"1\"\nname = \"x\"", "version"),
            ("name = \"x\"", "."),
            ("version = 1\nname = \"x\"\n[[group]]\nname = \"g\"\ncalls = []", "group[0]"),
            ("version = 1\nname = \"x\"\n[[rule]]\ncall = 1", "rule[0].call"),
            (
                "version = 1\nname = \"x\"\n[[rule]]\ncall = \"dup\"\nwhy = \"w\"\nwhen = [{ \
                 argument = 0, op = \"gt\", value = 1 }]",
                "rule[0].when[0].op",
            ),
            ("version = 1\nname = \"x\"\n[[rule]]\noption = \"net\"", "rule[0].option"),
        ] {
            match SeccompProfile::parse(text) {
                Err(SeccompError::Shape { path: found, .. }) => assert_eq!(found, path, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn entries_make_sense() {
        let messages = [
            (
                refused("[[group]]\nname = \"h\"\nwhy = \"w\"\ncalls = [\"write\", \"opnat\"]"),
                "group[1].calls[1]: no system call is named \"opnat\": did you mean \"openat\"?",
            ),
            (
                refused("[[group]]\nname = \"h\"\nwhy = \" \"\ncalls = [\"write\"]"),
                "group[1].why is empty: say why the calls are allowed, and name at least one",
            ),
            (
                refused("[[group]]\nname = \"h\"\nwhy = \"w\"\ncalls = []"),
                "group[1].calls is empty: say why the calls are allowed, and name at least one",
            ),
            (
                refused("[[group]]\nname = \"h\"\nwhy = \"w\"\ncalls = [\"read\"]"),
                "group[1].calls[0]: read was decided by group[0].calls[0] already: keep one of \
                 the two",
            ),
            (
                refused("[[group]]\nname = \"h\"\nwhy = \"w\"\ncalls = [\"dup\", \"dup\"]"),
                "group[1].calls[1]: dup was decided by group[1].calls[0] already: keep one of the \
                 two",
            ),
            (
                refused(
                    "[[rule]]\ncall = \"read\"\nwhy = \"w\"\nwhen = [{ argument = 1, op = \
                     \"eq\", value = 1 }]",
                ),
                "rule[1].call: read was decided by group[0].calls[0] already: keep one of the two",
            ),
            (
                refused("[[answer]]\ncall = \"ioctl\"\nwhy = \"w\"\nerrno = \"ENOTTY\""),
                "answer[0].call: ioctl was decided by rule[0].call already: keep one of the two",
            ),
            (
                refused("[[answer]]\ncall = \"dup\"\nwhy = \"w\"\nerrno = \"EWHAT\""),
                "answer[0].errno: \"EWHAT\" is not one of EPERM, ENOENT, EACCES, EINVAL, ENOTTY, \
                 ENOSYS, EOPNOTSUPP, EAFNOSUPPORT",
            ),
        ];
        for (error, message) in messages {
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn conditions_make_sense() {
        use ConditionProblem as Problem;
        let problem = |when: &str| match rule(when) {
            SeccompError::Condition { at, problem } => {
                assert!(at.to_string().starts_with("rule[1].when["), "{at}");
                problem
            }
            other => panic!("{when}: {other:?}"),
        };
        for (when, expected) in [
            ("{ argument = 6, op = \"eq\", value = 1 }", Problem::NoArgument { argument: 6 }),
            ("{ argument = 0, op = \"masked-eq\", value = 1 }", Problem::NoMask),
            ("{ argument = 0, op = \"eq\", mask = 1, value = 1 }", Problem::Mask),
            (
                "{ argument = 0, op = \"masked-eq\", mask = 6, value = 1 }",
                Problem::OutsideMask { value: 1, mask: 6 },
            ),
            (
                "{ argument = 0, op = \"int-eq\", value = 0x1_0000_0000 }",
                Problem::NotAnInt { value: 1 << 32 },
            ),
            ("{ argument = 0, op = \"lt\", value = 0 }", Problem::LessThanZero),
            ("{ argument = 0, op = \"eq\", value = -1 }", Problem::Negative { value: -1 }),
            ("{ argument = 0, op = \"eq\", value = [1, 2, 1] }", Problem::SameValue { value: 1 }),
            ("{ argument = 0, op = \"ne\", value = [1, 2] }", Problem::SeveralUnequal),
            (
                "{ argument = 3, op = \"eq\", value = 1 }, { argument = 3, op = \"le\", value = 2 }",
                Problem::SameArgument { argument: 3 },
            ),
        ] {
            assert_eq!(problem(when), expected, "{when}");
        }
        assert!(matches!(rule(""), SeccompError::Empty { .. }));
        let empty = rule("{ argument = 0, op = \"eq\", value = [] }");
        assert!(matches!(empty, SeccompError::Empty { .. }), "{empty}");
        let unknown = rule("{ argument = 0, op = \"eq\", value = \"PR_WHAT\" }");
        assert!(matches!(unknown, SeccompError::UnknownValue { .. }), "{unknown}");
    }

    #[test]
    fn everything_is_bounded() {
        let long = "#".repeat(limits::MAX_SECCOMP_PROFILE_BYTES + 1);
        assert!(matches!(SeccompProfile::parse(&long), Err(SeccompError::TooLong { .. })));
        let values: Vec<String> =
            (0..=limits::MAX_SECCOMP_VALUES).map(|value| value.to_string()).collect();
        let (all, few) = (values.join(", "), values[..100].join(", "));
        let many = rule(&format!("{{ argument = 0, op = \"eq\", value = [{all}] }}"));
        assert!(matches!(many, SeccompError::TooMany { what: Counted::Values, .. }), "{many}");
        let product = rule(
            &[0, 1, 2, 3, 4, 5]
                .map(|n| format!("{{ argument = {n}, op = \"eq\", value = [{few}] }}"))
                .join(", "),
        );
        let combined = matches!(product, SeccompError::TooMany { what: Counted::Alternatives, .. });
        assert!(combined, "{product}");
        let one = "[[rule]]\ncall = \"prctl\"\nwhy = \"w\"\nwhen = [{ argument = 0, op = \"eq\", \
                   value = 1 }]\n";
        let entries = refused(&one.repeat(limits::MAX_SECCOMP_ENTRIES));
        assert!(matches!(entries, SeccompError::TooMany { what: Counted::Entries, .. }));
        for name in ["", "Strict", "a b", &"a".repeat(65)] {
            let named = SeccompProfile::parse(&format!("version = 1\nname = \"{name}\""));
            assert!(matches!(named, Err(SeccompError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn broken_text_is_refused_and_never_more() {
        let mut noise = Noise::new(3);
        let (mut read, mut refused) = (0, 0);
        for round in 0..600 {
            let source = [STRICT, PARANOID, KEEPER][round % 3];
            let mut bytes = source.as_bytes().to_vec();
            for _ in 0..=noise.next() % 3 {
                let at = usize::try_from(noise.next()).unwrap_or_default() % bytes.len();
                match noise.next() % 4 {
                    0 => bytes[at] = noise.next().to_le_bytes()[0],
                    1 => bytes.truncate(at.max(1)),
                    2 => bytes.insert(at, noise.bytes(1).first().copied().unwrap_or(b'"')),
                    _ => {
                        let piece = bytes[at..bytes.len().min(at + 40)].to_vec();
                        bytes.splice(at..at, piece);
                    }
                }
            }
            match SeccompProfile::parse(&String::from_utf8_lossy(&bytes)) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(read > 20 && refused > 100, "{read} read, {refused} refused");
    }
}
