//! Reading a profile: TOML to entries that are known to make sense.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    super::{
        error::{ConditionProblem, Counted, Place, SeccompError, Section},
        names::{self, Meaning},
        symbols,
    },
    Answer, Call, Choice, Condition, Group, Rule, SeccompProfile, Test,
};
use crate::limits;

/// The only version of the schema.
const VERSION: u64 = 1;

/// The text's shape.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    version: u64,
    name: String,
    #[serde(default)]
    group: Vec<WrittenGroup>,
    #[serde(default)]
    rule: Vec<WrittenRule>,
    #[serde(default)]
    answer: Vec<WrittenAnswer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGroup {
    name: String,
    why: String,
    calls: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    call: String,
    option: Option<Choice>,
    when: Vec<WrittenCondition>,
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAnswer {
    call: String,
    errno: String,
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCondition {
    argument: u64,
    op: Comparison,
    mask: Option<Value>,
    value: Values,
}

/// How an argument is compared.
///
/// Arguments have 64 bits, and the kernel takes the lower half of those that are an `int` to it. In
/// an allow-list a comparison must therefore not be true for a value whose upper half alone makes
/// the difference. So there is no "greater", and "not equal" means the lower halves.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Comparison {
    /// All 64 bits.
    Eq,
    /// The lower 32 bits.
    IntEq,
    /// The lower 32 bits differ.
    Ne,
    /// All 64 bits.
    Lt,
    /// All 64 bits.
    Le,
    /// The bits of the mask.
    MaskedEq,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(Value),
    Several(Vec<Value>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Number(i64),
    Name(String),
}

/// What has been read so far.
#[derive(Default)]
struct Progress {
    decided: BTreeMap<String, Place>,
    alternatives: usize,
}

impl Written {
    pub(super) fn check(self, text: &str) -> Result<SeccompProfile, SeccompError> {
        if self.version != VERSION {
            return Err(SeccompError::Version { found: self.version, known: VERSION });
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(plain) {
            return Err(SeccompError::Name { name: self.name });
        }
        let mut progress = Progress::default();
        let groups =
            each(self.group, Section::Group, |index, group| group.check(index, &mut progress))?;
        let rules = each(self.rule, Section::Rule, |index, rule| rule.check(index, &mut progress))?;
        let answers =
            each(self.answer, Section::Answer, |index, answer| answer.check(index, &mut progress))?;
        Ok(SeccompProfile { name: self.name, text: text.into(), groups, rules, answers })
    }
}

fn each<W, C>(
    entries: Vec<W>,
    section: Section,
    mut check: impl FnMut(usize, W) -> Result<C, SeccompError>,
) -> Result<Vec<C>, SeccompError> {
    let most = limits::MAX_SECCOMP_ENTRIES;
    if entries.len() > most {
        let at = Place::new(section, most, "name");
        return Err(SeccompError::TooMany { at, what: Counted::Entries, most });
    }
    entries.into_iter().enumerate().map(|(index, entry)| check(index, entry)).collect()
}

impl WrittenGroup {
    fn check(self, index: usize, progress: &mut Progress) -> Result<Group, SeccompError> {
        let place = |field| Place::new(Section::Group, index, field);
        says_something(place("name"), &self.name)?;
        says_something(place("why"), &self.why)?;
        let at = place("calls");
        if self.calls.is_empty() {
            return Err(SeccompError::Empty { at });
        }
        // A group may hold every call that there is.
        let most = usize::try_from(limits::MAX_SYSTEM_CALL).unwrap_or(usize::MAX);
        if self.calls.len() > most {
            return Err(SeccompError::TooMany { at, what: Counted::Values, most });
        }
        let mut calls = Vec::with_capacity(self.calls.len());
        for (item, name) in self.calls.into_iter().enumerate() {
            let at = at.item(item);
            progress.decide(at, &name)?;
            calls.push(call(at, name)?);
        }
        Ok(Group { name: self.name, calls })
    }
}

impl WrittenRule {
    fn check(self, index: usize, progress: &mut Progress) -> Result<Rule, SeccompError> {
        let place = |field| Place::new(Section::Rule, index, field);
        says_something(place("why"), &self.why)?;
        if self.when.is_empty() {
            return Err(SeccompError::Empty { at: place("when") });
        }
        progress.decide(place("call"), &self.call)?;
        let call = call(place("call"), self.call)?;
        let mut when: Vec<Condition> = Vec::new();
        let mut alternatives: usize = 1;
        for (item, written) in self.when.into_iter().enumerate() {
            let at = place("when").item(item);
            let condition = written.check(at)?;
            let argument = condition.argument;
            if when.iter().any(|earlier| earlier.argument == argument) {
                let problem = ConditionProblem::SameArgument { argument };
                return Err(SeccompError::Condition { at, problem });
            }
            alternatives = alternatives.saturating_mul(condition.tests.len());
            when.push(condition);
        }
        progress.count(place("when"), alternatives)?;
        Ok(Rule { call, option: self.option, when })
    }
}

impl WrittenAnswer {
    fn check(self, index: usize, progress: &mut Progress) -> Result<Answer, SeccompError> {
        let place = |field| Place::new(Section::Answer, index, field);
        says_something(place("why"), &self.why)?;
        progress.decide(place("call"), &self.call)?;
        let call = call(place("call"), self.call)?;
        let Some(errno) = symbols::errno(&self.errno) else {
            return Err(SeccompError::UnknownErrno { at: place("errno"), errno: self.errno });
        };
        Ok(Answer { call, errno })
    }
}

impl WrittenCondition {
    fn check(self, at: Place) -> Result<Condition, SeccompError> {
        let wrong = |problem| SeccompError::Condition { at, problem };
        let argument = u8::try_from(self.argument).ok().filter(|number| *number < ARGUMENTS);
        let Some(argument) = argument else {
            return Err(wrong(ConditionProblem::NoArgument { argument: self.argument }));
        };
        let written = match self.value {
            Values::One(value) => vec![value],
            Values::Several(values) => values,
        };
        if written.is_empty() {
            return Err(SeccompError::Empty { at });
        }
        let most = limits::MAX_SECCOMP_VALUES;
        if written.len() > most {
            return Err(SeccompError::TooMany { at, what: Counted::Values, most });
        }
        let mut values = Vec::with_capacity(written.len());
        for value in written {
            let value = value.read(at)?;
            if values.contains(&value) {
                return Err(wrong(ConditionProblem::SameValue { value }));
            }
            values.push(value);
        }
        let mask = self.mask.map(|mask| mask.read(at)).transpose()?;
        let tests = tests(self.op, mask, &values).map_err(wrong)?;
        Ok(Condition { argument, tests })
    }
}

impl Value {
    fn read(self, at: Place) -> Result<u64, SeccompError> {
        match self {
            Self::Number(value) => u64::try_from(value).map_err(|_negative| {
                SeccompError::Condition { at, problem: ConditionProblem::Negative { value } }
            }),
            Self::Name(name) => {
                symbols::value(&name).ok_or(SeccompError::UnknownValue { at, name })
            }
        }
    }
}

fn tests(op: Comparison, mask: Option<u64>, values: &[u64]) -> Result<Vec<Test>, ConditionProblem> {
    match (op, mask) {
        (Comparison::MaskedEq, None) => return Err(ConditionProblem::NoMask),
        (Comparison::MaskedEq, Some(_)) | (_, None) => {}
        (_, Some(_)) => return Err(ConditionProblem::Mask),
    }
    let mask = mask.unwrap_or(INT);
    let outside = values.iter().find(|value| **value & !mask != 0);
    let tests: Vec<Test> = match op {
        Comparison::Eq => values.iter().map(|value| Test::Equal(*value)).collect(),
        Comparison::IntEq | Comparison::Ne if outside.is_some() => {
            let value = outside.copied().unwrap_or_default();
            return Err(ConditionProblem::NotAnInt { value });
        }
        Comparison::MaskedEq if outside.is_some() => {
            let value = outside.copied().unwrap_or_default();
            return Err(ConditionProblem::OutsideMask { value, mask });
        }
        Comparison::IntEq | Comparison::MaskedEq => {
            values.iter().map(|value| Test::Masked { mask, value: *value }).collect()
        }
        Comparison::Ne => match values {
            // One bit that differs is enough.
            [value] => (0..32)
                .map(|bit| Test::Masked { mask: 1 << bit, value: !value & (1 << bit) })
                .collect(),
            _ => return Err(ConditionProblem::SeveralUnequal),
        },
        Comparison::Lt if values.contains(&0) => return Err(ConditionProblem::LessThanZero),
        Comparison::Lt => values.iter().map(|value| Test::Less(*value)).collect(),
        Comparison::Le => values.iter().map(|value| Test::LessOrEqual(*value)).collect(),
    };
    Ok(tests)
}

impl Progress {
    /// Rules of one call belong together; everything else decides a call alone.
    fn decide(&mut self, at: Place, call: &str) -> Result<(), SeccompError> {
        match self.decided.get(call) {
            Some(earlier) if earlier.section != Section::Rule || at.section != Section::Rule => {
                let call = call.to_owned();
                Err(SeccompError::Contradiction { at, call, earlier: *earlier })
            }
            Some(_) => Ok(()),
            None => {
                self.decided.insert(call.to_owned(), at);
                Ok(())
            }
        }
    }

    fn count(&mut self, at: Place, alternatives: usize) -> Result<(), SeccompError> {
        let most = limits::MAX_SECCOMP_ALTERNATIVES;
        self.alternatives = self.alternatives.saturating_add(alternatives);
        if self.alternatives > most {
            return Err(SeccompError::TooMany { at, what: Counted::Alternatives, most });
        }
        Ok(())
    }
}

fn says_something(at: Place, text: &str) -> Result<(), SeccompError> {
    if text.trim().is_empty() { Err(SeccompError::Empty { at }) } else { Ok(()) }
}

fn call(at: Place, name: String) -> Result<Call, SeccompError> {
    match names::meaning(&name) {
        Meaning::Number(number) => Ok(Call { name, number: Some(number) }),
        Meaning::Elsewhere => Ok(Call { name, number: None }),
        Meaning::Unknown => {
            let near = names::near(&name);
            Err(SeccompError::UnknownCall { at, call: name, near })
        }
    }
}

/// A system call's arguments.
const ARGUMENTS: u8 = 6;
/// The bits of an `int`.
const INT: u64 = 0xFFFF_FFFF;
