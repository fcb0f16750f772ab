//! Why a system call profile is refused, and where in it.

use std::fmt;

/// Where in a profile something is wrong.
///
/// ```
/// use neuroflow_sandbox::{SeccompError, SeccompProfile};
///
/// let text = "version = 1\nname = \"x\"\n[[group]]\nname = \"g\"\nwhy = \"w\"\ncalls = [\"raed\"]";
/// let Err(SeccompError::UnknownCall { at, .. }) = SeccompProfile::parse(text) else { panic!() };
/// assert_eq!(at.to_string(), "group[0].calls[0]");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which kind of entry.
    pub section: Section,
    /// Which of them, from 0.
    pub index: usize,
    /// The field of the entry.
    pub field: &'static str,
    /// Which item of the field, where it is a list.
    pub item: Option<usize>,
}

/// The three kinds of entries of a profile.
///
/// ```
/// assert_eq!(neuroflow_sandbox::Section::Answer.to_string(), "answer");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// Calls that are allowed whatever their arguments are.
    Group,
    /// A call that is allowed when its arguments fit.
    Rule,
    /// A call that is answered with an error, without a report.
    Answer,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "group",
            Self::Rule => "rule",
            Self::Answer => "answer",
        })
    }
}

impl Place {
    pub(super) fn new(section: Section, index: usize, field: &'static str) -> Self {
        Self { section, index, field, item: None }
    }

    pub(super) fn item(self, item: usize) -> Self {
        Self { item: Some(item), ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}].{}", self.section, self.index, self.field)?;
        self.item.map_or(Ok(()), |item| write!(f, "[{item}]"))
    }
}

/// Why a system call profile is refused.
///
/// ```
/// use neuroflow_sandbox::{SeccompError, SeccompProfile};
///
/// let refused = SeccompProfile::parse("version = 7\nname = \"x\"");
/// assert!(matches!(refused, Err(SeccompError::Version { found: 7, known: 1 })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// The level has no system call filter.
    #[error("level {level} has no system call filter: use standard, strict or paranoid")]
    NoFilter {
        /// The level.
        level: crate::Level,
    },
    /// The text is longer than [`crate::limits::MAX_SECCOMP_PROFILE_BYTES`].
    #[error(
        "the profile has {bytes} bytes, at most {most} are read: split it or shorten its texts"
    )]
    TooLong {
        /// The text's length.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// The text isn't TOML, or a field is missing, unknown or of the wrong type.
    #[error("{path}: {source}")]
    Shape {
        /// The field, or `.` for the text as a whole.
        path: String,
        /// What the parser says.
        source: Box<toml::de::Error>,
    },
    /// The schema is another version's.
    #[error("version: {found} is not known, write version = {known}")]
    Version {
        /// The profile's.
        found: u64,
        /// The only one that is read.
        known: u64,
    },
    /// The profile's name is empty, too long, or not of small letters, digits and hyphens.
    #[error("name: {name:?} is not 1 to 64 small letters, digits or hyphens")]
    Name {
        /// The name.
        name: String,
    },
    /// More entries, values or alternatives than are taken.
    #[error("{at}: the profile grows past {most} {what}: remove some or split the profile")]
    TooMany {
        /// Where the bound is passed.
        at: Place,
        /// What there is too much of.
        what: Counted,
        /// The bound.
        most: usize,
    },
    /// A text or list that must say something is empty.
    #[error("{at} is empty: say why the calls are allowed, and name at least one")]
    Empty {
        /// The field.
        at: Place,
    },
    /// Nobody knows a system call of this name.
    #[error("{at}: no system call is named {call:?}{}", Near(.near.as_deref()))]
    UnknownCall {
        /// The field.
        at: Place,
        /// The name.
        call: String,
        /// The closest name that there is.
        near: Option<String>,
    },
    /// A call is named twice, or by two entries that contradict each other.
    #[error("{at}: {call} was decided by {earlier} already: keep one of the two")]
    Contradiction {
        /// The field.
        at: Place,
        /// The call.
        call: String,
        /// The entry before it.
        earlier: Place,
    },
    /// A condition that makes no sense.
    #[error("{at}: {problem}")]
    Condition {
        /// The condition.
        at: Place,
        /// What is wrong with it.
        problem: ConditionProblem,
    },
    /// A name that stands for no value.
    #[error("{at}: no value is named {name:?}: write the number")]
    UnknownValue {
        /// The condition.
        at: Place,
        /// The name.
        name: String,
    },
    /// An error number that answers don't have.
    #[error("{at}: {errno:?} is not one of {}", super::symbols::errnos().collect::<Vec<_>>().join(", "))]
    UnknownErrno {
        /// The field.
        at: Place,
        /// What it says.
        errno: String,
    },
}

/// What a profile has too much of.
///
/// ```
/// assert_eq!(neuroflow_sandbox::Counted::Alternatives.to_string(), "alternatives");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Counted {
    /// Groups, rules and answers.
    Entries,
    /// Values of one condition, or calls of one group.
    Values,
    /// Combinations of values, over all rules.
    Alternatives,
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entries => "entries",
            Self::Values => "values",
            Self::Alternatives => "alternatives",
        })
    }
}

/// What is wrong with a condition.
///
/// ```
/// use neuroflow_sandbox::ConditionProblem;
///
/// assert!(ConditionProblem::SameArgument { argument: 1 }.to_string().contains("argument 1"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConditionProblem {
    /// System calls have six arguments.
    #[error("argument {argument} doesn't exist: they are numbered 0 to 5")]
    NoArgument {
        /// The number given.
        argument: u64,
    },
    /// Two conditions of a rule name the same argument.
    #[error("a rule can compare argument {argument} once: use a list of values, or a second rule")]
    SameArgument {
        /// The argument.
        argument: u8,
    },
    /// A masked comparison without a mask.
    #[error("masked-eq needs a mask")]
    NoMask,
    /// A mask beside another comparison.
    #[error("only masked-eq takes a mask")]
    Mask,
    /// The value has bits that the mask takes away, so nothing is ever equal to it.
    #[error("value {value:#x} has bits outside of mask {mask:#x}, so nothing equals it")]
    OutsideMask {
        /// The value.
        value: u64,
        /// The mask.
        mask: u64,
    },
    /// An `int` has 32 bits.
    #[error("{value:#x} has more than the 32 bits of an int: use eq, or a smaller value")]
    NotAnInt {
        /// The value.
        value: u64,
    },
    /// Nothing is less than zero.
    #[error("nothing is less than 0")]
    LessThanZero,
    /// Negative numbers mean different things to `eq` and `int-eq`.
    #[error("{value} is negative: write the bits, as in 0xffff_ffff")]
    Negative {
        /// The number given.
        value: i64,
    },
    /// The same value twice in one list.
    #[error("value {value:#x} is there twice")]
    SameValue {
        /// The value.
        value: u64,
    },
    /// A list of alternatives that must all differ from the argument.
    #[error("ne takes one value: allow-lists name what is allowed")]
    SeveralUnequal,
}

/// Adds a suggestion to a message.
struct Near<'a>(Option<&'a str>);

impl fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(near) => write!(f, ": did you mean {near:?}?"),
            None => f.write_str(": strace prints them as they are written here"),
        }
    }
}
