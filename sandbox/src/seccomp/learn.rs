//! From what a program was seen to call to the smallest profile that lets it run.
//!
//! The text is for people to read and shorten. It's a profile of what happened, so a path that the
//! run didn't take is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::{
    SeccompError, SeccompProfile, names,
    profile::{Rule, Test},
    symbols,
};
use crate::{level::Level, limits};

/// The calls of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// Different arguments per call, as far as they matter.
    calls: BTreeMap<u32, BTreeSet<[u64; 6]>>,
}

impl Observed {
    /// Adds a call. Arguments count only where [`watched`] names it.
    pub(crate) fn record(&mut self, number: u32, args: [u64; 6]) {
        let seen = self.calls.entry(number).or_default();
        let args = relevant(number, args);
        if seen.len() <= limits::MAX_SECCOMP_VALUES {
            seen.insert(args);
        }
    }

    /// The profile as text, which [`SeccompProfile::parse`] reads.
    ///
    /// # Errors
    ///
    /// Only if a profile that comes with the crate is broken.
    pub(crate) fn profile(&self, name: &str) -> Result<String, SeccompError> {
        let (widest, reference) = references()?;
        let mut page = Page::default();
        for (number, seen) in &self.calls {
            page.add(*number, seen, &widest, &reference);
        }
        Ok(page.text(name, &reference))
    }
}

/// The calls whose arguments belong into the record.
#[cfg(test)]
pub(crate) fn watched() -> Result<Vec<u32>, SeccompError> {
    let (_, reference) = references()?;
    let rules = reference.rules.iter().filter_map(|rule| rule.call.number);
    let mut numbers: Vec<u32> = rules.chain(LISTED.iter().filter_map(Listed::number)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn references() -> Result<(SeccompProfile, SeccompProfile), SeccompError> {
    Ok((SeccompProfile::builtin(Level::Standard)?, SeccompProfile::builtin(Level::Strict)?))
}

/// A call of which each value that was seen is listed.
struct Listed {
    call: &'static str,
    arguments: &'static [Kind],
}

/// An argument whose values have names.
struct Kind {
    argument: u8,
    /// The bits that count; all of an `int` if there is no name.
    mask: Option<(&'static str, u64)>,
    beginnings: &'static [&'static str],
}

const fn int(argument: u8, beginnings: &'static [&'static str]) -> Kind {
    Kind { argument, mask: None, beginnings }
}

const TYPE: Kind =
    Kind { argument: 1, mask: Some(("SOCK_TYPE_MASK", 0xF)), beginnings: &["SOCK_"] };

const LISTED: &[Listed] = &[
    Listed { call: "socket", arguments: &[int(0, &["AF_"]), TYPE, int(2, &["IPPROTO_"])] },
    Listed { call: "socketpair", arguments: &[int(0, &["AF_"]), TYPE] },
    Listed {
        call: "setsockopt",
        arguments: &[int(1, &["SOL_", "IPPROTO_TCP", "IPPROTO_IPV6"]), int(2, &[])],
    },
    Listed { call: "ioctl", arguments: &[int(1, &["TC", "TIOC", "FI", "FS_IOC", "SIOC"])] },
    Listed { call: "fcntl", arguments: &[int(1, &["F_"])] },
    Listed { call: "prctl", arguments: &[int(0, &["PR_"])] },
    Listed { call: "personality", arguments: &[int(0, &["PER_"])] },
    Listed {
        call: "mmap",
        arguments: &[
            Kind { argument: 2, mask: Some(("PROT_WRITE_EXEC", 0x6)), beginnings: &["PROT_"] },
            Kind { argument: 3, mask: Some(("MAP_HUGETLB", 0x4_0000)), beginnings: &["MAP_"] },
        ],
    },
    Listed {
        call: "memfd_create",
        arguments: &[Kind { argument: 1, mask: Some(("MFD_HUGETLB", 0x4)), beginnings: &["MFD_"] }],
    },
    Listed {
        call: "shmget",
        arguments: &[Kind {
            argument: 2,
            mask: Some(("SHM_HUGETLB", 0x4000)),
            beginnings: &["SHM_"],
        }],
    },
    Listed {
        call: "mprotect",
        arguments: &[Kind { argument: 2, mask: Some(("PROT_EXEC", 0x4)), beginnings: &["PROT_"] }],
    },
];

impl Listed {
    fn number(&self) -> Option<u32> {
        match names::meaning(self.call) {
            names::Meaning::Number(number) => Some(number),
            _ => None,
        }
    }

    fn of(number: u32) -> Option<&'static Self> {
        LISTED.iter().find(|listed| listed.number() == Some(number))
    }
}

impl Kind {
    fn bits(&self, args: &[u64; 6]) -> u64 {
        let value = args.get(usize::from(self.argument)).copied().unwrap_or_default();
        value & self.mask.map_or(INT, |(_, mask)| mask)
    }
}

/// Leaves what a rule would look at, so that the same call with another pointer isn't another.
fn relevant(number: u32, args: [u64; 6]) -> [u64; 6] {
    let Some(listed) = Listed::of(number) else { return args };
    let mut left = [0; 6];
    for kind in listed.arguments {
        if let Some(place) = left.get_mut(usize::from(kind.argument)) {
            *place = kind.bits(&args);
        }
    }
    left
}

/// The text while it grows.
#[derive(Default)]
struct Page {
    groups: BTreeMap<String, BTreeSet<String>>,
    rules: String,
}

impl Page {
    fn add(
        &mut self,
        number: u32,
        seen: &BTreeSet<[u64; 6]>,
        widest: &SeccompProfile,
        reference: &SeccompProfile,
    ) {
        let name = names::name(number).into_owned();
        if reference.answers.iter().any(|answer| answer.call.number == Some(number)) {
            return;
        }
        let too_many = seen.len() > limits::MAX_SECCOMP_VALUES;
        let rules: Vec<&Rule> =
            reference.rules.iter().filter(|rule| rule.call.number == Some(number)).collect();
        let fits = |args: &[u64; 6]| rules.iter().any(|rule| rule.holds(args));
        match Listed::of(number) {
            Some(listed) if !too_many => self.list(listed, seen),
            None if !too_many && !rules.is_empty() && seen.iter().all(fits) => {
                self.copy(&name, seen, &rules);
            }
            _ => {
                let group = widest
                    .groups
                    .iter()
                    .find(|group| group.calls.iter().any(|call| call.number == Some(number)));
                let ruled = widest.rules.iter().any(|rule| rule.call.number == Some(number));
                let group = match group {
                    Some(group) => group.name.clone(),
                    None if ruled => WIDE.into(),
                    None => NOWHERE.into(),
                };
                self.groups.entry(group).or_default().insert(name);
            }
        }
    }

    /// One rule for each combination that was seen.
    fn list(&mut self, listed: &Listed, seen: &BTreeSet<[u64; 6]>) {
        if let [kind] = listed.arguments {
            let values: BTreeSet<u64> = seen.iter().map(|args| kind.bits(args)).collect();
            let condition = condition(kind, &values);
            return self.rule(listed.call, &[condition]);
        }
        for args in seen {
            let conditions: Vec<String> = listed
                .arguments
                .iter()
                .map(|kind| condition(kind, &BTreeSet::from([kind.bits(args)])))
                .collect();
            self.rule(listed.call, &conditions);
        }
    }

    /// The rules of the level strict, as far as they were needed.
    fn copy(&mut self, name: &str, seen: &BTreeSet<[u64; 6]>, rules: &[&Rule]) {
        let mut needed: Vec<usize> =
            seen.iter().filter_map(|args| rules.iter().position(|rule| rule.holds(args))).collect();
        needed.sort_unstable();
        needed.dedup();
        for rule in needed.into_iter().filter_map(|index| rules.get(index)) {
            let conditions: Vec<String> = rule
                .when
                .iter()
                .map(|condition| tests(condition.argument, &condition.tests))
                .collect();
            self.rule(name, &conditions);
        }
    }

    fn rule(&mut self, call: &str, conditions: &[String]) {
        self.write(format_args!(
            "\n[[rule]]\ncall = \"{call}\"\nwhen = [\n{}]\nwhy = \"Observed with these arguments.\"\n",
            conditions.iter().fold(String::new(), |all, one| all + "  " + one + ",\n"),
        ));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        #[expect(clippy::expect_used, reason = "writing to a string can't fail")]
        self.rules.write_fmt(text).expect("a string grows");
    }

    fn text(mut self, name: &str, reference: &SeccompProfile) -> String {
        // These aren't asked about while learning.
        let always = ["execve", "exit", "exit_group", "rt_sigreturn"];
        for group in self.groups.values_mut() {
            group.retain(|call| !always.contains(&call.as_str()));
        }
        self.groups.retain(|_, calls| !calls.is_empty());
        let always = always.iter().map(|call| (*call).to_owned()).collect();
        self.groups.insert(ALWAYS.into(), always);
        for answer in &reference.answers {
            let (call, errno) = (&answer.call.name, symbols::errno_name(answer.errno));
            self.write(format_args!(
                "\n[[answer]]\ncall = \"{call}\"\nerrno = \"{errno}\"\nwhy = \"As at level strict: \
                 callers fall back to what can be checked.\"\n",
            ));
        }
        let mut text = format!(
            "# Learned from one run. What the run didn't do is missing.\n\nversion = 1\nname = \
             \"{}\"\n",
            plain(name)
        );
        for (group, calls) in &self.groups {
            let why = match group.as_str() {
                ALWAYS => "Every program starts and ends.",
                NOWHERE => {
                    "Observed, and in no level: decide about each before you keep it, because it \
                     reaches further than the cell."
                }
                WIDE => {
                    "Observed with arguments that level strict refuses, or with too many different \
                     ones to list: narrow it to a rule."
                }
                _ => "Observed.",
            };
            text += "\n[[group]]\nname = \"";
            text += group;
            text += "\"\nwhy = \"";
            text += why;
            text += "\"\ncalls = [\n";
            text = calls.iter().fold(text, |all, call| all + "  \"" + call + "\",\n");
            text += "]\n";
        }
        text + &self.rules
    }
}

/// What a profile's name may consist of.
fn plain(name: &str) -> String {
    let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    let plain: String = name.to_ascii_lowercase().chars().filter(fits).take(64).collect();
    if plain.is_empty() { "learned".into() } else { plain }
}

fn condition(kind: &Kind, values: &BTreeSet<u64>) -> String {
    let values: Vec<String> = values
        .iter()
        .map(|value| match symbols::name(kind.beginnings, *value) {
            Some(name) => format!("\"{name}\""),
            None => format!("{value:#x}"),
        })
        .collect();
    let (argument, values) = (kind.argument, values.join(", "));
    match kind.mask {
        Some((mask, _)) => format!(
            "{{ argument = {argument}, op = \"masked-eq\", mask = \"{mask}\", value = [{values}] }}"
        ),
        None => format!("{{ argument = {argument}, op = \"int-eq\", value = [{values}] }}"),
    }
}

/// The value that a condition forbids, if it forbids one: then its tests are a bit each.
fn unequal(tests: &[Test]) -> Option<u64> {
    if tests.len() != 32 {
        return None;
    }
    let bits = tests.iter().zip(0_u32..).map(|(test, bit)| match test {
        Test::Masked { mask, value } if *mask == 1 << bit => Some(!value & mask),
        _ => None,
    });
    bits.sum()
}

/// A condition of a rule that exists. Its tests are all of one kind.
fn tests(argument: u8, tests: &[Test]) -> String {
    if let Some(value) = unequal(tests) {
        return format!("{{ argument = {argument}, op = \"ne\", value = {value:#x} }}");
    }
    let (op, mask) = match tests.first() {
        Some(Test::Masked { mask: INT, .. }) => ("int-eq", None),
        Some(Test::Masked { mask, .. }) => ("masked-eq", Some(*mask)),
        Some(Test::Less(_)) => ("lt", None),
        Some(Test::LessOrEqual(_)) => ("le", None),
        Some(Test::Equal(_)) | None => ("eq", None),
    };
    let values: Vec<String> = tests
        .iter()
        .map(|test| match test {
            Test::Equal(value)
            | Test::Masked { value, .. }
            | Test::Less(value)
            | Test::LessOrEqual(value) => format!("{value:#x}"),
        })
        .collect();
    let mask = mask.map_or(String::new(), |mask| format!(", mask = {mask:#x}"));
    let values = values.join(", ");
    format!("{{ argument = {argument}, op = \"{op}\"{mask}, value = [{values}] }}")
}

/// The bits of an `int`.
const INT: u64 = 0xFFFF_FFFF;
const ALWAYS: &str = "start and end";
const NOWHERE: &str = "in no level";
const WIDE: &str = "wider than a rule";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        noise::Noise,
        seccomp::{
            Deny, FilterOptions,
            compile::compile,
            evaluate::{Call, Program, Verdict},
            names::Meaning,
        },
    };

    fn number(name: &str) -> u32 {
        match names::meaning(name) {
            Meaning::Number(number) => number,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn program(observed: &Observed) -> Program {
        let text = observed.profile("Run 1").expect("a text");
        let profile =
            SeccompProfile::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(profile.name(), "run1");
        let options = FilterOptions { inet: false, deny: Deny::Notify };
        Program::of(&compile(&profile, options).expect("a filter"))
    }

    #[test]
    fn what_was_seen_is_allowed_and_nothing_beside_it() {
        let seen: &[(&str, &[u64])] = &[
            ("read", &[0, 0x7000, 4096]),
            ("openat", &[0xFFFF_FF9C, 0x7000, 0, 0]),
            ("openat", &[0xFFFF_FF9C, 0x7000, 0o101, 0o644]),
            ("ioctl", &[1, 0x5401]),
            ("ioctl", &[1, 0x1234]),
            ("socket", &[2, 0x80001, 6]),
            ("socket", &[1, 0x80802, 0]),
            ("prctl", &[15, 0x7000]),
            ("clone", &[0x003D_0F00]),
            ("mmap", &[0, 4096, 3]),
            ("mmap", &[0, 4096, 7]),
            ("memfd_create", &[0x7000, 1]),
            ("keyctl", &[1]),
            ("fcntl", &[3, 1, 0]),
            ("fcntl", &[9, 6, 0x7000]),
            ("sched_setaffinity", &[7, 8, 0x7000]),
            ("clone3", &[1]),
        ];
        let mut observed = Observed::default();
        let padded = |args: &[u64]| {
            let mut all = [0; 6];
            all[..args.len()].copy_from_slice(args);
            all
        };
        for (name, args) in seen {
            observed.record(number(name), padded(args));
            observed.record(number(name), padded(args));
        }
        let program = program(&observed);
        let answer =
            |name: &str, args: &[u64]| program.answer(&Call::of(number(name), padded(args)));
        for (name, args) in seen {
            let expected = if *name == "clone3" { Verdict::Errno(38) } else { Verdict::Allow };
            assert_eq!(answer(name, args), expected, "{name} {args:x?}");
        }
        for (name, args) in [
            ("pread64", &[] as &[u64]),
            ("ioctl", &[1, 0x5402]),
            ("socket", &[2, 2, 17]),
            ("socket", &[16, 3, 0]),
            ("prctl", &[38]),
            ("clone", &[0x1000_0011]),
            ("openat", &[0, 0, 0o101, 0o4755]),
            ("mmap", &[0, 4096, 5]),
            ("mmap", &[0, 4096, 3, 0x4_0022]),
            ("memfd_create", &[0x7000, 5]),
            ("fcntl", &[3, 1024, 0]),
            ("sched_setaffinity", &[1, 8, 0x7000]),
        ] {
            assert_eq!(answer(name, args), Verdict::Notify, "{name} {args:x?}");
        }
        let text = observed.profile("x").expect("a text");
        assert!(text.contains("\"in no level\"") && text.contains("\"keyctl\""), "{text}");
        assert!(text.contains("[\"TCGETS\", 0x1234]") || text.contains("0x1234, \"TCGETS\""));
    }

    #[test]
    fn every_record_gives_a_profile_that_is_read_again() {
        let mut noise = Noise::new(11);
        let watched = watched().expect("numbers");
        for _ in 0..20 {
            let mut observed = Observed::default();
            let mut seen = Vec::new();
            for _ in 0..200 {
                let number = u32::try_from(noise.next() % 480).expect("small");
                let args: [u64; 6] = std::array::from_fn(|_| noise.next() % 64);
                observed.record(number, args);
                seen.push(Call::of(number, args));
                let ruled = watched[usize::try_from(noise.next()).unwrap_or(0) % watched.len()];
                observed.record(ruled, args);
                seen.push(Call::of(ruled, args));
            }
            let program = program(&observed);
            for call in seen {
                let answer = program.answer(&call);
                assert!(matches!(answer, Verdict::Allow | Verdict::Errno(38)), "{call:?}");
            }
        }
        program(&Observed::default());
    }

    #[test]
    fn too_many_arguments_become_a_call_without_a_rule() {
        let mut observed = Observed::default();
        for request in 0..1000 {
            observed.record(number("ioctl"), [0, request, 0, 0, 0, 0]);
        }
        let text = observed.profile("").expect("a text");
        assert!(text.contains("\"wider than a rule\"") && text.contains("name = \"learned\""));
        assert!(SeccompProfile::parse(&text).is_ok());
    }
}
