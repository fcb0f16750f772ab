//! What it can take to check a value against a schema that somebody else wrote: 2 KB of references that
//! double are more steps than anybody can wait for. Pure.
//!
//! A schema is a graph. Some of its edges stay *beside* the value (`allOf`, `$ref`), others lead *below*
//! it, to a member or an item. Edges beside the value may not come back, or a check would never end. Edges
//! below may, because the value ends: how often each of its levels is visited is counted beforehand.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use crate::limits::{
    MCP_SCHEMA_BYTES, SCHEMA_DEPTH, SCHEMA_LEVELS, SCHEMA_READING, SCHEMA_STEPS, SOURCE_PATTERNS,
    SOURCE_SCHEMA_BYTES,
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

/// How many schemas are visited at each level of a value, and how deep that gets.
#[derive(Debug)]
pub(super) struct Cost {
    /// Most visits at one value, by how many levels it lies below the arguments.
    visits: Vec<u64>,
    /// Most visits that are within one another, by how many levels the arguments have.
    depth: Vec<u64>,
}

impl Cost {
    /// Of a schema; also gives its regular expressions.
    pub(super) fn of_schema(schema: &Value) -> Result<(Self, BTreeSet<&str>), SchemaExcess> {
        if !schema.is_object() {
            return Ok((Self { visits: vec![1], depth: vec![1] }, BTreeSet::new()));
        }
        let graph = Graph::read(schema)?;
        let own = graph.beside()?;
        Ok((graph.levels(&own)?, graph.patterns))
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

/// What to look for a pattern counts, in visits.
const PATTERN_STEPS: u64 = 8;

/// A way from a value to one that lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step<'a> {
    AnyMember,
    Member(&'a str),
    AnyItem,
    Item(usize),
}

#[derive(Default)]
struct Node<'a> {
    weight: u64,
    /// Whether it asks what the schemas beside it have evaluated, by which they are visited again.
    marks: bool,
    beside: Vec<usize>,
    below: Vec<(Step<'a>, usize)>,
}

/// What one schema takes at a value by itself, without what lies below.
#[derive(Clone, Copy, Default)]
struct Own {
    steps: u64,
    depth: u64,
}

struct Graph<'a> {
    root: &'a Value,
    /// Whether `id` may mean what `$id` does.
    is_old: bool,
    ids: HashMap<usize, usize>,
    unread: Vec<(usize, &'a Map<String, Value>)>,
    nodes: Vec<Node<'a>>,
    patterns: BTreeSet<&'a str>,
}

impl<'a> Graph<'a> {
    /// The root comes first.
    fn read(root: &'a Value) -> Result<Self, SchemaExcess> {
        let mut graph = Self {
            root,
            is_old: root.to_string().contains("draft-04"),
            ids: HashMap::new(),
            unread: Vec::new(),
            nodes: Vec::new(),
            patterns: BTreeSet::new(),
        };
        graph.node(root);
        while let Some((id, map)) = graph.unread.pop() {
            let node = graph.read_node(map, id == 0)?;
            graph.nodes[id] = node;
        }
        Ok(graph)
    }

    /// The place of a schema; none if it's `true` or `false`, or isn't one.
    fn node(&mut self, schema: &'a Value) -> Option<usize> {
        let map = schema.as_object()?;
        let next = self.nodes.len();
        let id = *self.ids.entry(std::ptr::from_ref(map).addr()).or_insert(next);
        if id == next {
            self.nodes.push(Node::default());
            self.unread.push((id, map));
        }
        Some(id)
    }

    fn read_node(
        &mut self,
        map: &'a Map<String, Value>,
        is_root: bool,
    ) -> Result<Node<'a>, SchemaExcess> {
        if !is_root && let Some(name) = self.own_name(map) {
            return Err(SchemaExcess::Reference { reference: name.to_owned() });
        }
        let mut node = Node { weight: 1, ..Node::default() };
        for (word, value) in map {
            match word.as_str() {
                "$ref" => {
                    let target = value.as_str().map(|reference| self.follow(reference));
                    node.beside.extend(target.transpose()?.flatten());
                }
                // They lead elsewhere for each way that a check has come.
                "$dynamicRef" | "$recursiveRef" => {
                    let reference = value.as_str().unwrap_or_default().to_owned();
                    return Err(SchemaExcess::Reference { reference });
                }
                "not" | "if" | "then" | "else" | "contentSchema" => {
                    node.beside.extend(self.node(value));
                }
                "allOf" | "anyOf" | "oneOf" | "dependentSchemas" | "dependencies" => {
                    node.beside.extend(parts(value).filter_map(|(_, part)| self.node(part)));
                }
                "enum" | "const" | "required" => {
                    node.weight = node.weight.saturating_add(size(value));
                }
                "pattern" => {
                    node.weight = node.weight.saturating_add(PATTERN_STEPS);
                    self.patterns.extend(value.as_str());
                }
                _ => self.read_below(word, value, &mut node),
            }
        }
        Ok(node)
    }

    fn read_below(&mut self, word: &str, value: &'a Value, node: &mut Node<'a>) {
        let step = match word {
            "properties" => Step::Member(""),
            "patternProperties"
            | "additionalProperties"
            | "propertyNames"
            | "unevaluatedProperties" => Step::AnyMember,
            "prefixItems" => Step::Item(0),
            "items" if value.is_array() => Step::Item(0),
            "items" | "additionalItems" | "contains" | "unevaluatedItems" => Step::AnyItem,
            _ => return,
        };
        node.marks |= word.starts_with("unevaluated");
        if matches!(step, Step::Member(_) | Step::Item(_)) || word == "patternProperties" {
            for (index, (name, part)) in parts(value).enumerate() {
                node.weight = node.weight.saturating_add(1);
                let step = match step {
                    Step::Member(_) => Step::Member(name),
                    Step::Item(_) => Step::Item(index),
                    any => {
                        node.weight = node.weight.saturating_add(PATTERN_STEPS);
                        self.patterns.insert(name);
                        any
                    }
                };
                node.below.extend(self.node(part).map(|id| (step, id)));
            }
        } else {
            node.below.extend(self.node(value).map(|id| (step, id)));
        }
    }

    /// What a schema calls itself, so that pointers in it begin there.
    fn own_name(&self, map: &'a Map<String, Value>) -> Option<&'a str> {
        let old = || map.get("id").filter(|_| self.is_old);
        map.get("$id").and_then(Value::as_str).or_else(|| old().and_then(Value::as_str))
    }

    /// The schema that a reference leads to; none where there is nothing, which the compiler says.
    fn follow(&mut self, reference: &str) -> Result<Option<usize>, SchemaExcess> {
        let elsewhere = || SchemaExcess::Reference { reference: reference.to_owned() };
        let pointer = match reference.strip_prefix('#') {
            Some("") => return Ok(self.node(self.root)),
            Some(pointer) => pointer.strip_prefix('/').ok_or_else(elsewhere)?,
            None if reference.is_empty() => return Ok(None),
            None => return Err(elsewhere()),
        };
        let pointer = decoded(pointer).ok_or_else(elsewhere)?;
        let mut at = self.root;
        for part in pointer.split('/') {
            let next = match at {
                Value::Object(map) => map.get(&part.replace("~1", "/").replace("~0", "~")),
                Value::Array(items) => part.parse().ok().and_then(|index: usize| items.get(index)),
                _ => None,
            };
            let Some(next) = next else { return Ok(None) };
            at = next;
            if at.as_object().is_some_and(|map| self.own_name(map).is_some()) {
                return Err(elsewhere());
            }
        }
        Ok(self.node(at))
    }

    /// What each schema takes at one value. Those that others are beside of come after them.
    fn beside(&self) -> Result<Vec<Own>, SchemaExcess> {
        let mut above = vec![Vec::new(); self.nodes.len()];
        let mut open: Vec<usize> = self.nodes.iter().map(|node| node.beside.len()).collect();
        for (id, node) in self.nodes.iter().enumerate() {
            node.beside.iter().for_each(|part| above[*part].push(id));
        }
        let mut ready: Vec<usize> = (0..self.nodes.len()).filter(|id| open[*id] == 0).collect();
        let mut own = vec![Own::default(); self.nodes.len()];
        let mut done = 0;
        while let Some(id) = ready.pop() {
            let node = &self.nodes[id];
            let mut sum = Own { steps: node.weight, depth: 1 };
            for part in &node.beside {
                let steps = own[*part].steps.saturating_mul(node.times(own[*part]));
                sum.steps = sum.steps.saturating_add(steps);
                sum.depth = sum.depth.max(own[*part].depth.saturating_add(1));
            }
            own[id] = sum;
            done += 1;
            for above in &above[id] {
                open[*above] -= 1;
                if open[*above] == 0 {
                    ready.push(*above);
                }
            }
        }
        if done < self.nodes.len() {
            return Err(SchemaExcess::Endless);
        }
        if own.iter().any(|own| own.depth > SCHEMA_DEPTH) {
            return Err(SchemaExcess::Depth);
        }
        if own.iter().any(|own| own.steps > SCHEMA_STEPS) {
            return Err(SchemaExcess::Steps);
        }
        Ok(own)
    }

    /// What the whole takes at each level of a value.
    fn levels(&self, own: &[Own]) -> Result<Cost, SchemaExcess> {
        let mut budget = SCHEMA_READING;
        let below = self.nodes.iter().flat_map(|node| node.below.iter().map(|(_, id)| *id));
        let entries: BTreeSet<usize> = below.chain([0]).collect();
        let mut surfaces = Vec::with_capacity(entries.len());
        for id in entries {
            surfaces.push((id, self.surface(id, own, &mut budget)?));
        }
        let mut now = own.to_vec();
        let mut cost = Cost { visits: vec![now[0].steps], depth: vec![now[0].depth] };
        while cost.visits.len() < SCHEMA_LEVELS {
            let mut next = vec![Own::default(); now.len()];
            for (id, surface) in &surfaces {
                budget = budget.checked_sub(surface.len()).ok_or(SchemaExcess::Steps)?;
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
        own: &[Own],
        budget: &mut usize,
    ) -> Result<Surface<'a>, SchemaExcess> {
        let mut surface = BTreeMap::new();
        let mut open = vec![(id, 1_u64, 1_u64)];
        while let Some((id, times, depth)) = open.pop() {
            let node = &self.nodes[id];
            let taken = 1 + node.below.len() + node.beside.len();
            *budget = budget.checked_sub(taken).ok_or(SchemaExcess::Steps)?;
            for way in &node.below {
                let (count, deepest) = surface.entry(*way).or_insert((0_u64, 0_u64));
                *count = count.saturating_add(times);
                *deepest = depth.max(*deepest);
            }
            for part in &node.beside {
                open.push((*part, times.saturating_mul(node.times(own[*part])), depth + 1));
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

/// The parts of a list or an object, with their names.
fn parts(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let items = value.as_array().into_iter().flatten().map(|part| ("", part));
    let members = value.as_object().into_iter().flatten();
    items.chain(members.map(|(name, part)| (name.as_str(), part)))
}

/// How many values a value has in it.
fn size(value: &Value) -> u64 {
    parts(value).fold(1, |sum, (_, part)| sum.saturating_add(size(part)))
}

/// A pointer without its percent signs, as they are in references.
fn decoded(pointer: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(after.first()), digit(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = after.get(2..).unwrap_or_default();
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}
