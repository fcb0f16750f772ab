//! A schema that somebody else wrote, as a graph. Some of its edges stay *beside* the value (`allOf`, `$ref`),
//! others lead *below* it, to a member or an item. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::cost::SchemaExcess;
use super::loose::looks_around;

/// What to look for a pattern counts, in visits. So does a format, and to compare an item with the others.
const PATTERN_STEPS: u64 = 8;

/// A way from a value to one that lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step<'a> {
    AnyMember,
    Member(&'a str),
    AnyItem,
    Item(usize),
}

#[derive(Debug, Default)]
pub(super) struct Node<'a> {
    pub(super) weight: u64,
    /// Whether it asks what the schemas beside it have evaluated, by which they are visited again.
    pub(super) marks: bool,
    /// Whether it has a pattern itself that isn't checked.
    looks: bool,
    pub(super) beside: Vec<usize>,
    pub(super) below: Vec<(Step<'a>, usize)>,
}

/// All that a check can come to. The root comes first.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    root: &'a Value,
    /// Whether `id` may mean what `$id` does.
    is_old: bool,
    ids: HashMap<usize, usize>,
    unread: Vec<(usize, &'a Map<String, Value>)>,
    pub(super) nodes: Vec<Node<'a>>,
    /// What `true` and `false` take.
    leaf: Option<usize>,
    /// What it takes to look at all of a value.
    whole: Option<usize>,
    pub(super) patterns: BTreeSet<&'a str>,
}

impl<'a> Graph<'a> {
    pub(super) fn read(root: &'a Value) -> Result<Self, SchemaExcess> {
        let mut graph = Self {
            root,
            is_old: root.to_string().contains("draft-04"),
            ids: HashMap::new(),
            unread: Vec::new(),
            nodes: Vec::new(),
            leaf: None,
            whole: None,
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

    /// The place of what isn't written down as a schema of its own.
    fn add(&mut self, node: Node<'a>) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The place of a schema that each of many values is looked at with: `false` is too.
    fn node_of_each(&mut self, schema: &'a Value) -> usize {
        if let Some(id) = self.node(schema) {
            return id;
        }
        let leaf = self.leaf.unwrap_or_else(|| self.add(Node { weight: 1, ..Node::default() }));
        *self.leaf.insert(leaf)
    }

    /// A value with all that lies in it, compared with another.
    fn whole(&mut self) -> usize {
        if let Some(whole) = self.whole {
            return whole;
        }
        let id = self.nodes.len();
        let below = vec![(Step::AnyItem, id), (Step::AnyMember, id)];
        self.whole = Some(self.add(Node { weight: PATTERN_STEPS, below, ..Node::default() }));
        id
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
                    for (_, part) in parts(value) {
                        match self.node(part) {
                            Some(id) => node.beside.push(id),
                            None => node.take(size(part)),
                        }
                    }
                }
                "enum" | "const" | "required" => node.take(size(value)),
                "pattern" => match value.as_str() {
                    Some(pattern) if looks_around(pattern) => node.looks = true,
                    pattern => {
                        node.take(PATTERN_STEPS);
                        self.patterns.extend(pattern);
                    }
                },
                "format" | "contentEncoding" | "contentMediaType" => node.take(PATTERN_STEPS),
                "uniqueItems" if value.as_bool() == Some(true) => {
                    node.below.push((Step::AnyItem, self.whole()));
                }
                _ => self.read_below(word, map, value, &mut node),
            }
        }
        Ok(node)
    }

    fn read_below(
        &mut self,
        word: &str,
        map: &'a Map<String, Value>,
        value: &'a Value,
        node: &mut Node<'a>,
    ) {
        node.marks |= word.starts_with("unevaluated");
        match word {
            "properties" => {
                for (name, part) in parts(value) {
                    node.take(1);
                    node.below.extend(self.node(part).map(|id| (Step::Member(name), id)));
                }
            }
            "prefixItems" | "items" if value.is_array() => {
                for (index, (_, part)) in parts(value).enumerate() {
                    node.take(1);
                    node.below.extend(self.node(part).map(|id| (Step::Item(index), id)));
                }
            }
            "patternProperties" => {
                // Whoever asks for the members that are left looks for all patterns again.
                let rest = ["additionalProperties", "unevaluatedProperties"];
                let again = 1 + rest.iter().filter(|rest| map.contains_key(**rest)).count() as u64;
                let mut names = Node::default();
                for (pattern, part) in parts(value) {
                    node.take(1 + PATTERN_STEPS);
                    names.take(PATTERN_STEPS * again);
                    node.below.extend(self.node(part).map(|id| (Step::AnyMember, id)));
                    if looks_around(pattern) {
                        node.looks = true;
                    } else {
                        self.patterns.insert(pattern);
                    }
                }
                let names = self.add(names);
                node.below.push((Step::AnyMember, names));
            }
            "additionalProperties" | "propertyNames" | "unevaluatedProperties" => {
                let each = self.node_of_each(value);
                node.below.push((Step::AnyMember, each));
            }
            "items" | "additionalItems" | "contains" | "unevaluatedItems" => {
                let each = self.node_of_each(value);
                node.below.push((Step::AnyItem, each));
            }
            // Nothing is checked by them.
            "title" | "description" | "default" | "examples" | "$comment" | "$defs"
            | "definitions" => {}
            // A word by itself is little beside the schema that it stands in; lists of them aren't.
            _ => node.take(size(value) - 1),
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

    /// Which schemas have a pattern that isn't checked, or lead to one that has.
    pub(super) fn loose(&self) -> Loose<'_> {
        let mut above = vec![Vec::new(); self.nodes.len()];
        for (id, node) in self.nodes.iter().enumerate() {
            let below = node.below.iter().map(|(_, part)| part);
            node.beside.iter().chain(below).for_each(|part| above[*part].push(id));
        }
        let mut are: Vec<bool> = self.nodes.iter().map(|node| node.looks).collect();
        let mut open: Vec<usize> = (0..are.len()).filter(|id| are[*id]).collect();
        let any = !open.is_empty();
        while let Some(id) = open.pop() {
            for above in &above[id] {
                if !std::mem::replace(&mut are[*above], true) {
                    open.push(*above);
                }
            }
        }
        Loose { ids: &self.ids, are, any }
    }

    /// Takes schemas that look the same for one: those of a union are written down once for each member, and
    /// there would be as many ways from each of them to all the others. Later ones are mostly parts of earlier ones.
    pub(super) fn merge(&mut self) {
        let mut one: Vec<usize> = (0..self.nodes.len()).collect();
        let mut seen = BTreeMap::new();
        for id in (1..self.nodes.len()).rev() {
            let node = &mut self.nodes[id];
            node.lead(&one);
            let looks = (node.weight, node.marks, node.beside.clone(), node.below.clone());
            one[id] = *seen.entry(looks).or_insert(id);
        }
        self.nodes.iter_mut().for_each(|node| node.lead(&one));
    }
}

impl Node<'_> {
    fn take(&mut self, steps: u64) {
        self.weight = self.weight.saturating_add(steps);
    }

    /// Has its edges lead to the one that stands for all that look like it.
    fn lead(&mut self, one: &[usize]) {
        let below = self.below.iter_mut().map(|(_, part)| part);
        self.beside.iter_mut().chain(below).for_each(|part| *part = one[*part]);
        self.beside.sort_unstable();
        self.below.sort_unstable();
    }
}

/// Schemas of which less is checked than they say.
pub(super) struct Loose<'a> {
    ids: &'a HashMap<usize, usize>,
    are: Vec<bool>,
    pub(super) any: bool,
}

impl Loose<'_> {
    /// Whether this is one.
    pub(super) fn has(&self, schema: &Value) -> bool {
        let place = |map| self.ids.get(&std::ptr::from_ref::<Map<String, Value>>(map).addr());
        let id = schema.as_object().and_then(place);
        id.is_some_and(|id| self.are.get(*id).copied().unwrap_or_default())
    }
}

/// The parts of a list or an object, with their names.
pub(super) fn parts(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
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
