//! What it can take to check a value against a schema that somebody else wrote: 2 KB of references that
//! double are more steps than anybody can wait for. Pure.
//!
//! Edges beside the value may not come back, or a check would never end. Edges below may, because the value ends:
//! how often each of its levels is visited is counted beforehand.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::graph::{Graph, Node, Step};
use super::loose::loosened;
use crate::limits::{
    MCP_SCHEMA_BYTES, SCHEMA_DEPTH, SCHEMA_LEVELS, SCHEMA_READING, SCHEMA_STEPS, SCHEMA_WORK,
    SOURCE_PATTERNS, SOURCE_SCHEMA_BYTES,
};

/// What is too much about a schema.
///
/// ```
/// use neuroflow_actors::SchemaExcess;
/// let endless = SchemaExcess::Endless;
/// assert_eq!(endless.to_string(), "it refers to itself without a step into the value");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaExcess {
    /// It's too long.
    #[error("it has more than {MCP_SCHEMA_BYTES} bytes")]
    Bytes,
    /// It's too long together with those of the source's other tools.
    #[error("the schemas of its source have more than {SOURCE_SCHEMA_BYTES} bytes")]
    SourceBytes,
    /// There are too many regular expressions in what its source has.
    #[error("the schemas of its source have more than {SOURCE_PATTERNS} patterns")]
    Patterns,
    /// To check a single value would take too long.
    #[error("to check one value takes more than {SCHEMA_STEPS} steps")]
    Steps,
    /// To find out what a check takes would take too long.
    #[error("it takes more than {SCHEMA_READING} steps to find out what a check takes")]
    Reading,
    /// It's nested too deeply.
    #[error("it's nested more than {SCHEMA_DEPTH} deep")]
    Depth,
    /// A check would never end.
    #[error("it refers to itself without a step into the value")]
    Endless,
    /// Where a reference of its leads can't be told beforehand.
    #[error("its reference {reference:?} isn't a pointer into itself")]
    Reference {
        /// The reference.
        reference: String,
    },
}

/// A schema that has been looked at.
pub(super) struct Read<'a> {
    pub(super) cost: Cost,
    /// Its regular expressions.
    pub(super) patterns: BTreeSet<&'a str>,
    /// The schema to check with, if that isn't the schema itself.
    pub(super) loosened: Option<Value>,
}

/// How many schemas are visited at each level of a value, and how deep that gets.
#[derive(Debug)]
pub(super) struct Cost {
    /// Most visits at one value, by how many levels it lies below the arguments.
    visits: Vec<u64>,
    /// Most visits that are within one another, by how many levels the arguments have.
    depth: Vec<u64>,
}

impl Cost {
    /// Of a schema, whose references are pointers.
    pub(super) fn of_schema(schema: &Value) -> Result<Read<'_>, SchemaExcess> {
        if !schema.is_object() {
            let cost = Self { visits: vec![1], depth: vec![1] };
            return Ok(Read { cost, patterns: BTreeSet::new(), loosened: None });
        }
        let mut graph = Graph::read(schema)?;
        let loose = graph.loose();
        let loosened = loose.any.then(|| loosened(schema, &loose));
        graph.merge();
        let beside = graph.beside()?;
        Ok(Read { cost: graph.levels(&beside)?, patterns: graph.patterns, loosened })
    }

    /// The steps that a check of these arguments takes at most.
    pub(super) fn of(&self, arguments: &Value) -> u64 {
        let mut levels = Vec::new();
        weigh(arguments, 0, &mut levels);
        let last = levels.len().min(self.depth.len()).saturating_sub(1);
        let depth = self.depth.get(last).copied().unwrap_or_default();
        if levels.len() > SCHEMA_LEVELS || depth > SCHEMA_DEPTH {
            return u64::MAX;
        }
        let steps = levels.iter().zip(&self.visits);
        steps.fold(0, |sum, (values, visits)| sum.saturating_add(values.saturating_mul(*visits)))
    }
}

/// Counts the values at each level. A long text counts as many, because patterns read all of it.
fn weigh(value: &Value, level: usize, levels: &mut Vec<u64>) {
    if level > SCHEMA_LEVELS {
        return;
    }
    if levels.len() <= level {
        levels.resize(level + 1, 0);
    }
    let mut add = |level: usize, length: usize| {
        if let Some(sum) = levels.get_mut(level) {
            *sum = sum.saturating_add(1 + length as u64 / TEXT_BYTES);
        }
    };
    match value {
        Value::String(text) => add(level, text.len()),
        _ => add(level, 0),
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| weigh(item, level + 1, levels)),
        Value::Object(members) => {
            for (name, member) in members {
                weigh(member, level + 1, levels);
                if let Some(sum) = levels.get_mut(level + 1) {
                    *sum = sum.saturating_add(name.len() as u64 / TEXT_BYTES);
                }
            }
        }
        _ => {}
    }
}

/// Bytes of a text that count as one value.
const TEXT_BYTES: u64 = 64;

/// What one schema takes at a value by itself, without what lies below.
#[derive(Clone, Copy, Default)]
struct Own {
    steps: u64,
    depth: u64,
}

/// What all schemas take at one value.
struct Beside {
    own: Vec<Own>,
    /// All of them, each behind those that are beside it.
    order: Vec<usize>,
    /// The place of each in the order.
    rank: Vec<usize>,
}

impl<'a> Graph<'a> {
    fn beside(&self) -> Result<Beside, SchemaExcess> {
        let mut above = vec![Vec::new(); self.nodes.len()];
        let mut open: Vec<usize> = self.nodes.iter().map(|node| node.beside.len()).collect();
        for (id, node) in self.nodes.iter().enumerate() {
            node.beside.iter().for_each(|part| above[*part].push(id));
        }
        let mut ready: Vec<usize> = (0..self.nodes.len()).filter(|id| open[*id] == 0).collect();
        let mut own = vec![Own::default(); self.nodes.len()];
        let (mut order, mut rank) = (Vec::new(), vec![0; self.nodes.len()]);
        while let Some(id) = ready.pop() {
            let node = &self.nodes[id];
            let mut sum = Own { steps: node.weight, depth: 1 };
            for part in &node.beside {
                let steps = own[*part].steps.saturating_mul(node.times(own[*part]));
                sum.steps = sum.steps.saturating_add(steps);
                sum.depth = sum.depth.max(own[*part].depth.saturating_add(1));
            }
            own[id] = sum;
            rank[id] = order.len();
            order.push(id);
            for above in &above[id] {
                open[*above] -= 1;
                if open[*above] == 0 {
                    ready.push(*above);
                }
            }
        }
        if order.len() < self.nodes.len() {
            return Err(SchemaExcess::Endless);
        }
        if own.iter().any(|own| own.depth > SCHEMA_DEPTH) {
            return Err(SchemaExcess::Depth);
        }
        if own.iter().any(|own| own.steps > SCHEMA_STEPS) {
            return Err(SchemaExcess::Steps);
        }
        Ok(Beside { own, order, rank })
    }

    /// What the whole takes at each level of a value.
    fn levels(&self, beside: &Beside) -> Result<Cost, SchemaExcess> {
        let mut budget = SCHEMA_READING;
        let below = self.nodes.iter().flat_map(|node| node.below.iter().map(|(_, id)| *id));
        let entries: BTreeSet<usize> = below.chain([0]).collect();
        let mut surfaces = Vec::with_capacity(entries.len());
        for id in entries {
            surfaces.push((id, self.surface(id, beside, &mut budget)?));
        }
        let mut now = beside.own.clone();
        let mut cost = Cost { visits: vec![now[0].steps], depth: vec![now[0].depth] };
        // A value that reaches a level past these bounds isn't checked, whatever lies below.
        while cost.visits.len() < SCHEMA_LEVELS
            && now[0].steps <= SCHEMA_WORK
            && now[0].depth <= SCHEMA_DEPTH
        {
            let mut next = vec![Own::default(); now.len()];
            for (id, surface) in &surfaces {
                budget = budget.checked_sub(surface.len()).ok_or(SchemaExcess::Reading)?;
                next[*id] = deeper(surface, &now);
            }
            now = next;
            if now[0].steps == 0 {
                break;
            }
            let before = cost.depth.last().copied().unwrap_or_default();
            cost.visits.push(now[0].steps);
            cost.depth.push(now[0].depth.max(before));
        }
        Ok(cost)
    }

    /// All ways from a value that this schema, and those beside it, look at.
    fn surface(
        &self,
        id: usize,
        beside: &Beside,
        budget: &mut usize,
    ) -> Result<Surface<'a>, SchemaExcess> {
        let mut surface = BTreeMap::new();
        // Those that others lead to come once all of these have been seen.
        let mut open = BTreeMap::from([(beside.rank[id], (1_u64, 1_u64))]);
        while let Some((rank, (times, depth))) = open.pop_last() {
            let node = &self.nodes[beside.order[rank]];
            let taken = 1 + node.below.len() + node.beside.len();
            *budget = budget.checked_sub(taken).ok_or(SchemaExcess::Reading)?;
            for way in &node.below {
                let (count, deepest) = surface.entry(*way).or_insert((0_u64, 0_u64));
                *count = count.saturating_add(times);
                *deepest = depth.max(*deepest);
            }
            for part in &node.beside {
                let (count, deepest) = open.entry(beside.rank[*part]).or_insert((0, 0));
                let more = times.saturating_mul(node.times(beside.own[*part]));
                *count = count.saturating_add(more);
                *deepest = (depth + 1).max(*deepest);
            }
        }
        Ok(surface)
    }
}

impl Node<'_> {
    /// How often a schema beside this one is visited: to mark what has been evaluated, everything beside
    /// it is looked at once more at each of its levels.
    fn times(&self, part: Own) -> u64 {
        if self.marks { part.depth.saturating_add(2) } else { 1 }
    }
}

/// Ways with the schema that each leads to, how often it's gone, and how deep within the others.
type Surface<'a> = BTreeMap<(Step<'a>, usize), (u64, u64)>;

/// One level further: what all ways to the same member or item take together, for the worst of them.
fn deeper(surface: &Surface<'_>, now: &[Own]) -> Own {
    let (mut sums, mut depth) = (BTreeMap::new(), 0);
    for ((step, id), (times, deepest)) in surface {
        let target = now[*id];
        let sum = sums.entry(*step).or_insert(0_u64);
        *sum = sum.saturating_add(times.saturating_mul(target.steps));
        if target.steps > 0 {
            depth = depth.max(target.depth.saturating_add(*deepest));
        }
    }
    let most = |is_one: fn(&Step<'_>) -> bool| {
        sums.iter().filter(|(step, _)| is_one(step)).map(|(_, sum)| *sum).max().unwrap_or(0)
    };
    let any = |step| sums.get(&step).copied().unwrap_or(0);
    let member = any(Step::AnyMember).saturating_add(most(|step| matches!(step, Step::Member(_))));
    let item = any(Step::AnyItem).saturating_add(most(|step| matches!(step, Step::Item(_))));
    Own { steps: member.max(item), depth }
}
