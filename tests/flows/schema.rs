//! Values of a JSON Schema: whole ones, and each that has one thing wrong with it.

use serde_json::{Map, Value, json};

use crate::fuzz::Dice;

/// A way to a place in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Member(String),
    /// The first of a list.
    Item,
}

/// One thing that is different from what the schema says, or unusual by it.
#[derive(Clone, Debug)]
pub(crate) struct Flaw {
    pub(crate) at: Vec<Step>,
    /// What is there; nothing if it's left out.
    pub(crate) put: Option<Value>,
    pub(crate) kind: FlawKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlawKind {
    /// A required field isn't there.
    Absent,
    /// It's of another type.
    Type,
    /// It's out of its range: a number, a length, a count, a format, an unknown word of a list.
    Range,
    /// Nothing is wrong with it, or that depends on who reads it.
    Odd,
}

/// A value that fits. With a way, that leads to a place in it.
pub(crate) fn whole(dice: &mut Dice, schema: &Value, way: &[Step]) -> Value {
    for name in ["examples", "enum"] {
        if let Some(choices) = schema[name].as_array() {
            return choices[dice.below(choices.len())].clone();
        }
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    match types(schema).first().copied() {
        Some("string") if schema["format"] == "date-time" => json!("2026-01-02T03:04:05.678Z"),
        Some("string") if schema["format"] == "byte" => json!("AAECAw=="),
        Some("string") => json!(format!("text-{}", dice.below(1_000))),
        Some("integer") => {
            let least = schema["minimum"].as_i64().unwrap_or(0);
            let most = schema["maximum"].as_i64().unwrap_or(least + 50);
            let span = usize::try_from(most - least + 1).expect("a range");
            json!(least + i64::try_from(dice.below(span)).expect("a small number"))
        }
        Some("number") => json!(0.5),
        Some("boolean") => json!(dice.below(2) == 0),
        Some("array") => {
            let (further, most) = (way.get(1..).unwrap_or_default(), &schema["maxItems"]);
            let items = if *most == 1 { 1 } else { 1 + dice.below(2) };
            let items = (0..items).map(|_| whole(dice, &schema["items"], further));
            Value::Array(items.collect())
        }
        Some("object") => object(dice, schema, way),
        _ => json!({ "any": [1, -2.5, null, "x", { "deep": true }] }),
    }
}

fn object(dice: &mut Dice, schema: &Value, way: &[Step]) -> Value {
    let wanted = match way.first() {
        Some(Step::Member(name)) => Some(name.as_str()),
        _ => None,
    };
    // Of those that exclude each other, one.
    let branches: Vec<&str> = branches(schema).collect();
    let chosen = match wanted {
        Some(wanted) if branches.contains(&wanted) => Some(wanted),
        _ if branches.is_empty() => None,
        _ => Some(branches[dice.below(branches.len())]),
    };
    let mut members = Map::new();
    for (name, property) in properties(schema) {
        let is_wanted = wanted == Some(name);
        let is_branch = branches.contains(&name);
        let is_there = if is_branch {
            chosen == Some(name)
        } else {
            is_wanted || is_required(schema, name) || dice.below(3) > 0
        };
        if is_there {
            let further = if is_wanted { &way[1..] } else { &[] };
            members.insert(name.to_owned(), whole(dice, property, further));
        }
    }
    Value::Object(members)
}

/// Everything that can be wrong with one place of a value, for each place.
pub(crate) fn flaws(schema: &Value) -> Vec<Flaw> {
    let mut all = Vec::new();
    walk(schema, &[], false, &mut all);
    all
}

fn walk(schema: &Value, at: &[Step], is_required: bool, all: &mut Vec<Flaw>) {
    let mut add = |put: Option<Value>, kind| all.push(Flaw { at: at.to_vec(), put, kind });
    if is_required {
        add(None, FlawKind::Absent);
    }
    let types = types(schema);
    if !types.is_empty() {
        let null =
            if types.contains(&"null") || !is_required { FlawKind::Odd } else { FlawKind::Type };
        add(Some(Value::Null), null);
        for (is_of, value) in [
            (&["string"][..], json!("x")),
            (&["integer", "number"], json!(7)),
            (&["number"], json!(1.5)),
            (&["boolean"], json!(true)),
            (&["object"], json!({ "x": 1 })),
            (&["array"], json!([1])),
        ] {
            if !is_of.iter().any(|one| types.contains(one)) {
                add(Some(value), FlawKind::Type);
            }
        }
    }
    if schema.get("enum").is_some() {
        add(Some(json!("NO_SUCH_WORD")), FlawKind::Range);
        if types.contains(&"integer") {
            add(Some(json!(9_999)), FlawKind::Range);
        }
    }
    let number = |name: &str| schema[name].as_i64();
    if let Some(least) = number("minimum") {
        add(Some(json!(least - 1)), FlawKind::Range);
    }
    if let Some(most) = number("maximum") {
        add(Some(json!(most + 1)), FlawKind::Range);
    }
    let length = |name: &str| schema[name].as_u64().and_then(|it| usize::try_from(it).ok());
    if let Some(most) = length("maxLength") {
        add(Some(json!("x".repeat(most + 1))), FlawKind::Range);
        add(Some(json!("a\u{1}b")), FlawKind::Range);
    }
    if length("minLength").is_some_and(|least| least > 0) {
        add(Some(json!("")), FlawKind::Range);
    }
    if schema["format"] == "date-time" {
        add(Some(json!("yesterday")), FlawKind::Range);
    }
    if length("minItems").is_some_and(|least| least > 0) {
        add(Some(json!([])), FlawKind::Range);
    }
    if let Some(most) = length("maxItems") {
        let one = whole(&mut Dice(1), &schema["items"], &[]);
        add(Some(Value::Array(vec![one; most + 1])), FlawKind::Range);
    }
    let branches: Vec<&str> = branches(schema).collect();
    if let [first, second, ..] = branches[..] {
        add(Some(json!({})), FlawKind::Absent);
        let mut both = Map::new();
        for name in [first, second] {
            both.insert(name.to_owned(), whole(&mut Dice(1), &schema["properties"][name], &[]));
        }
        add(Some(Value::Object(both)), FlawKind::Range);
    }
    let below = |step: Step| [at, &[step]].concat();
    for (name, property) in properties(schema) {
        let required = self::is_required(schema, name);
        walk(property, &below(Step::Member(name.to_owned())), required, all);
    }
    if types.contains(&"object") && schema.get("properties").is_some() {
        let at = below(Step::Member("noSuchField".to_owned()));
        all.push(Flaw { at, put: Some(json!(1)), kind: FlawKind::Odd });
    }
    if schema.get("items").is_some() {
        walk(&schema["items"], &below(Step::Item), false, all);
    }
}

impl Flaw {
    /// A value that is whole but for this.
    pub(crate) fn value(&self, dice: &mut Dice, schema: &Value) -> Value {
        let mut value = whole(dice, schema, &self.at);
        let Some((last, way)) = self.at.split_last() else {
            return self.put.clone().unwrap_or_default();
        };
        let mut place = &mut value;
        for step in way {
            place = match step {
                Step::Member(name) => &mut place[name.as_str()],
                Step::Item => &mut place[0],
            };
        }
        match (last, &self.put) {
            (Step::Member(name), Some(put)) => place[name.as_str()] = put.clone(),
            (Step::Member(name), None) => {
                place.as_object_mut().expect("an object").remove(name);
            }
            (Step::Item, put) => place[0] = put.clone().unwrap_or_default(),
        }
        value
    }

    /// Whether it's at a member of this name at the top, or below it.
    pub(crate) fn is_at(&self, name: &str) -> bool {
        self.at.first() == Some(&Step::Member(name.to_owned()))
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = schema["properties"].as_object().into_iter().flatten();
    all.map(|(name, property)| (name.as_str(), property))
}

fn is_required(schema: &Value, name: &str) -> bool {
    schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name))
}

/// The members of which there is exactly one.
fn branches(schema: &Value) -> impl Iterator<Item = &str> {
    let all = schema["oneOf"].as_array().into_iter().flatten();
    all.filter_map(|branch| branch["required"][0].as_str())
}
