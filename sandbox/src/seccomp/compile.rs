//! From a profile to the bytes that the kernel takes.

use std::{
    fs::File,
    io::{self, Read, Seek},
    sync::{Arc, Mutex, PoisonError},
};

use libseccomp::{
    ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
    error::SeccompError as LibraryError,
};

use super::{
    SeccompError, SeccompProfile,
    profile::{Choice, Condition, Test},
    shorten::shorten,
};
use crate::{errno::Errno, level::Level, limits, linux::sys};

/// A filter program, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    program: Arc<[u8]>,
}

/// What a profile leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FilterOptions {
    /// Whether sockets of the internet families may be made.
    pub(crate) inet: bool,
    /// What happens to calls that the profile doesn't name.
    pub(crate) deny: Deny,
}

/// What happens to a refused call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Deny {
    /// It waits until whoever holds the listener has answered.
    Notify,
    /// It fails with `EPERM`; nobody is told.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "tests load filters that nobody listens to; cells don't")
    )]
    Errno,
}

/// Why a profile didn't become a filter.
///
/// ```
/// fn explain(error: &neuroflow_sandbox::FilterError) -> String {
///     error.to_string()
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// libseccomp refused to begin.
    #[error("libseccomp refuses the filter")]
    Library {
        /// What it says.
        #[source]
        source: LibraryError,
    },
    /// libseccomp refused what the profile says about a call.
    #[error("libseccomp refuses the rule for {call}")]
    Rule {
        /// The call.
        call: String,
        /// What it says.
        #[source]
        source: LibraryError,
    },
    /// The profile refuses a call that the cell's first process can't do without.
    #[error("the profile answers {call} with an error, and the cell's first process needs it")]
    Needed {
        /// The call.
        call: String,
    },
    /// The filter couldn't be carried through a memory file.
    #[error("the filter can't be copied")]
    Copy {
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The filter is longer than the kernel takes.
    #[error("the filter has {instructions} instructions, the kernel takes {most}")]
    TooLong {
        /// Its length.
        instructions: usize,
        /// The bound.
        most: usize,
    },
    /// A list that comes with the crate is broken.
    #[error("a list that comes with the crate")]
    Builtin {
        /// What is wrong with it.
        #[source]
        source: SeccompError,
    },
}

impl Filter {
    /// The instructions, eight bytes each.
    pub(crate) fn program(&self) -> &[u8] {
        &self.program
    }

    pub(crate) fn instructions(&self) -> usize {
        self.program.len() / INSTRUCTION_BYTES
    }

    /// A program that came from somewhere else than the compiler.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, FilterError> {
        let (instructions, most) =
            (bytes.len() / INSTRUCTION_BYTES, limits::MAX_FILTER_INSTRUCTIONS);
        if instructions > most {
            return Err(FilterError::TooLong { instructions, most });
        }
        Ok(Self { program: bytes.into() })
    }
}

/// Compiles a profile, with what the cell's first process needs beside it.
pub(crate) fn compile(
    profile: &SeccompProfile,
    options: FilterOptions,
) -> Result<Filter, FilterError> {
    let (default, table) = decide(profile, options)?;
    build(default, &table)
}

/// The same as libseccomp leaves it.
#[cfg(test)]
pub(super) fn unshortened(
    profile: &SeccompProfile,
    options: FilterOptions,
) -> Result<Vec<u8>, FilterError> {
    let (default, table) = decide(profile, options)?;
    assemble(default, &table)
}

fn decide(
    profile: &SeccompProfile,
    options: FilterOptions,
) -> Result<(ScmpAction, Table), FilterError> {
    let keeper = SeccompProfile::keeper().map_err(|source| FilterError::Builtin { source })?;
    let table = Table::new(profile, &keeper, options)?;
    let default = match options.deny {
        Deny::Notify => ScmpAction::Notify,
        Deny::Errno => ScmpAction::Errno(libc::EPERM),
    };
    Ok((default, table))
}

/// The filter for learning: everything is asked about, but what a process needs to become the
/// program (while whoever answers waits for that) and to end, and what level strict answers, so that
/// the program shows what it falls back to.
pub(crate) fn learning() -> Result<Filter, FilterError> {
    let strict = SeccompProfile::builtin(Level::Strict);
    let strict = strict.map_err(|source| FilterError::Builtin { source })?;
    let mut table = Table::default();
    table.answer(&strict);
    for number in LEARNING_ALLOWS {
        let number = u32::try_from(number).unwrap_or_default();
        table.calls.push(Entry { number, decision: Decision::Allow });
    }
    build(ScmpAction::Notify, &table)
}

/// What the filter does, call by call.
#[derive(Default)]
struct Table {
    calls: Vec<Entry>,
}

struct Entry {
    number: u32,
    decision: Decision,
}

enum Decision {
    Allow,
    /// Allowed if one of the lists of comparisons fits.
    AllowIf(Vec<Vec<(u8, Test)>>),
    Answer(u16),
}

impl Table {
    fn new(
        profile: &SeccompProfile,
        keeper: &SeccompProfile,
        options: FilterOptions,
    ) -> Result<Self, FilterError> {
        let mut table = Self::default();
        table.answer(profile);
        for source in [profile, keeper] {
            for call in source.groups.iter().flat_map(|group| &group.calls) {
                if let Some(number) = call.number {
                    table.allow(number, &call.name)?;
                }
            }
            for rule in &source.rules {
                let switched_on = rule.option.is_none_or(|Choice::Inet| options.inet);
                if let (Some(number), true) = (rule.call.number, switched_on) {
                    table.allow_if(number, &rule.call.name, &rule.when)?;
                }
            }
        }
        Ok(table)
    }

    fn answer(&mut self, profile: &SeccompProfile) {
        for answer in &profile.answers {
            if let Some(number) = answer.call.number {
                let decision = Decision::Answer(answer.errno);
                self.calls.push(Entry { number, decision });
            }
        }
    }

    fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        self.calls.iter_mut().find(|entry| entry.number == number)
    }

    fn allow(&mut self, number: u32, call: &str) -> Result<(), FilterError> {
        match self.entry(number) {
            Some(Entry { decision: Decision::Answer(_), .. }) => {
                Err(FilterError::Needed { call: call.to_owned() })
            }
            Some(entry) => {
                entry.decision = Decision::Allow;
                Ok(())
            }
            None => {
                self.calls.push(Entry { number, decision: Decision::Allow });
                Ok(())
            }
        }
    }

    fn allow_if(&mut self, number: u32, call: &str, when: &[Condition]) -> Result<(), FilterError> {
        let alternatives = alternatives(when);
        match self.entry(number) {
            Some(Entry { decision: Decision::Answer(_), .. }) => {
                Err(FilterError::Needed { call: call.to_owned() })
            }
            Some(Entry { decision: Decision::Allow, .. }) => Ok(()),
            Some(Entry { decision: Decision::AllowIf(known), .. }) => {
                for alternative in alternatives {
                    if !known.contains(&alternative) {
                        known.push(alternative);
                    }
                }
                Ok(())
            }
            None => {
                let decision = Decision::AllowIf(alternatives);
                self.calls.push(Entry { number, decision });
                Ok(())
            }
        }
    }
}

/// Each combination of one comparison per condition.
fn alternatives(when: &[Condition]) -> Vec<Vec<(u8, Test)>> {
    when.iter().fold(vec![Vec::new()], |so_far, condition| {
        let longer = |shorter: &Vec<(u8, Test)>| {
            let shorter = shorter.clone();
            condition.tests.iter().map(move |test| {
                let mut longer = shorter.clone();
                longer.push((condition.argument, *test));
                longer
            })
        };
        so_far.iter().flat_map(longer).collect()
    })
}

fn build(default: ScmpAction, table: &Table) -> Result<Filter, FilterError> {
    let whole = assemble(default, table)?;
    match shorten(&whole) {
        Some(shorter) => Filter::from_bytes(&shorter),
        None => Filter::from_bytes(&whole),
    }
}

/// The program as the library writes it.
fn assemble(default: ScmpAction, table: &Table) -> Result<Vec<u8>, FilterError> {
    // The library keeps what it found out about the kernel in variables of its own.
    let _alone = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    let library = |source| FilterError::Library { source };
    // The context begins with the native architecture. Others would triple the filter; their
    // entries, and x32's numbers, are killed instead.
    let mut context = ScmpFilterContext::new(default).map_err(library)?;
    context.set_act_badarch(ScmpAction::KillProcess).map_err(library)?;
    for entry in &table.calls {
        add(&mut context, entry)?;
    }
    // A tree by number instead of a chain. The library can't do that with no rules at all.
    if !table.calls.is_empty() {
        context.set_ctl_optimize(BINARY_TREE).map_err(library)?;
    }
    export(&context)
}

fn add(context: &mut ScmpFilterContext, entry: &Entry) -> Result<(), FilterError> {
    let call = ScmpSyscall::from(i32::try_from(entry.number).unwrap_or(-1));
    let refused = |source| {
        let call = super::names::name(entry.number).into_owned();
        FilterError::Rule { call, source }
    };
    match &entry.decision {
        Decision::Allow => context.add_rule_exact(ScmpAction::Allow, call).map_err(refused)?,
        Decision::Answer(errno) => {
            context.add_rule_exact(ScmpAction::Errno(i32::from(*errno)), call).map_err(refused)?
        }
        Decision::AllowIf(alternatives) => {
            for alternative in alternatives {
                let comparisons: Vec<ScmpArgCompare> = alternative.iter().map(comparison).collect();
                context
                    .add_rule_conditional_exact(ScmpAction::Allow, call, &comparisons)
                    .map_err(refused)?;
            }
            context
        }
    };
    Ok(())
}

fn comparison((argument, test): &(u8, Test)) -> ScmpArgCompare {
    let (op, value) = match test {
        Test::Equal(value) => (ScmpCompareOp::Equal, *value),
        Test::Masked { mask, value } => (ScmpCompareOp::MaskedEqual(*mask), *value),
        Test::Less(value) => (ScmpCompareOp::Less, *value),
        Test::LessOrEqual(value) => (ScmpCompareOp::LessOrEqual, *value),
    };
    ScmpArgCompare::new(u32::from(*argument), op, value)
}

fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, FilterError> {
    let copy = |source| FilterError::Copy { source };
    let file = sys::file::memory(c"filter").map_err(|errno: Errno| copy(errno.into()))?;
    let mut file = File::from(file);
    context.export_bpf(&file).map_err(|source| FilterError::Library { source })?;
    let mut bytes = Vec::new();
    file.rewind().map_err(copy)?;
    file.read_to_end(&mut bytes).map_err(copy)?;
    Ok(bytes)
}

static LIBRARY: Mutex<()> = Mutex::new(());
const INSTRUCTION_BYTES: usize = 8;
const BINARY_TREE: u32 = 2;
const LEARNING_ALLOWS: [libc::c_long; 4] =
    [libc::SYS_execve, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_rt_sigreturn];
