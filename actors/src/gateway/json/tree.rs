//! A document as a tree, read as `ProtoJSON` has it where the generated readers are stricter: a member that is null
//! isn't there, whatever its type; numbers in free JSON are doubles, however large; a whole number may be written
//! with a fraction of zero; and the data of a part may be null.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, UnitDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

/// A value with all that its text says: members in order, also those that are there twice.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Flag(bool),
    Whole(i64),
    Large(u64),
    Number(f64),
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Planter)
    }
}

struct Planter;

impl<'de> Visitor<'de> for Planter {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Whole(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Tree, E> {
        Ok(i64::try_from(number).map_or(Tree::Large(number), Tree::Whole))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Tree, E> {
        Ok(Tree::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Tree::Object(object))
    }
}

/// What of the protocol a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A message's field, or one of a list of them.
    Field,
    /// Anything that JSON can say, which means itself.
    Free,
}

impl Kind {
    /// Of a member of a message. These two names are no other fields' in what clients send.
    fn of(self, name: &str) -> Self {
        if matches!(name, "data" | "metadata") { Self::Free } else { self }
    }
}

/// The tree as its reader sees it.
pub(super) struct Reading {
    tree: Tree,
    kind: Kind,
}

impl From<Tree> for Reading {
    fn from(tree: Tree) -> Self {
        Self { tree, kind: Kind::Field }
    }
}

/// Numbers that a double can hold to the last digit.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl<'de> Deserializer<'de> for Reading {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let kind = self.kind;
        match self.tree {
            Tree::Null => visitor.visit_unit(),
            Tree::Flag(flag) => visitor.visit_bool(flag),
            #[expect(clippy::cast_precision_loss, reason = "so the protocol has it")]
            Tree::Whole(number) if kind == Kind::Free => visitor.visit_f64(number as f64),
            #[expect(clippy::cast_precision_loss, reason = "so the protocol has it")]
            Tree::Large(number) if kind == Kind::Free => visitor.visit_f64(number as f64),
            Tree::Whole(number) => visitor.visit_i64(number),
            Tree::Large(number) => visitor.visit_u64(number),
            #[expect(clippy::cast_possible_truncation, reason = "whole, and within 2^53")]
            Tree::Number(number)
                if kind == Kind::Field && number.fract() == 0.0 && number.abs() <= EXACT =>
            {
                visitor.visit_i64(number as i64)
            }
            Tree::Number(number) => visitor.visit_f64(number),
            Tree::Text(text) => visitor.visit_string(text),
            Tree::List(items) => {
                let items = Items { items: items.into_iter(), kind };
                SeqAccessDeserializer::new(items).deserialize_any(visitor)
            }
            Tree::Object(members) => {
                let members = Members { members: members.into_iter(), value: None, kind };
                MapAccessDeserializer::new(members).deserialize_any(visitor)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match (&self.tree, self.kind) {
            (Tree::Null, Kind::Field) => visitor.visit_none(),
            (Tree::Null, Kind::Free) => visitor.visit_some(UnitDeserializer::new()),
            _ => visitor.visit_some(self),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Items {
    items: std::vec::IntoIter<Tree>,
    kind: Kind,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = serde_json::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Self::Error> {
        let kind = self.kind;
        self.items.next().map(|tree| seed.deserialize(Reading { tree, kind })).transpose()
    }
}

struct Members {
    members: std::vec::IntoIter<(String, Tree)>,
    value: Option<Reading>,
    kind: Kind,
}

impl<'de> MapAccess<'de> for Members {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        for (name, tree) in self.members.by_ref() {
            let kind = self.kind.of(&name);
            // Data that is null is data. Metadata isn't: that is an object.
            let is_there = tree != Tree::Null || self.kind == Kind::Free || name == "data";
            if is_there {
                self.value = Some(Reading { tree, kind });
                return seed.deserialize(name.into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, Self::Error> {
        let value = self.value.take();
        seed.deserialize(value.ok_or_else(|| Error::custom("a value without a name"))?)
    }
}
