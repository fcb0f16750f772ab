//! How many values a JSON text has, found out without building any.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Whether a text has at most so many values, the whole included; names aren't counted. What is within is read as a
/// reader of values would: texts and numbers that none can hold are errors.
///
/// # Errors
/// It isn't JSON.
pub(crate) fn has_values_within(json: &[u8], bound: usize) -> Result<bool, serde_json::Error> {
    let mut left = Some(bound);
    let mut reader = serde_json::Deserializer::from_slice(json);
    match Count(&mut left).deserialize(&mut reader).and_then(|()| reader.end()) {
        Err(_too_many) if left.is_none() => Ok(false),
        read => read.map(|()| true),
    }
}

/// How many more there may be; none once there was one too many.
struct Count<'a>(&'a mut Option<usize>);

impl Count<'_> {
    fn one<E: Error>(&mut self) -> Result<(), E> {
        *self.0 = self.0.and_then(|left| left.checked_sub(1));
        if self.0.is_some() { Ok(()) } else { Err(E::custom("too many values")) }
    }
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.one()
    }

    fn visit_bool<E: Error>(mut self, _: bool) -> Result<(), E> {
        self.one()
    }

    fn visit_i64<E: Error>(mut self, _: i64) -> Result<(), E> {
        self.one()
    }

    fn visit_u64<E: Error>(mut self, _: u64) -> Result<(), E> {
        self.one()
    }

    fn visit_f64<E: Error>(mut self, _: f64) -> Result<(), E> {
        self.one()
    }

    fn visit_str<E: Error>(mut self, _: &str) -> Result<(), E> {
        self.one()
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.one()?;
        while items.next_element_seed(Count(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.one()?;
        while members.next_key::<IgnoredAny>()?.is_some() {
            members.next_value_seed(Count(&mut *self.0))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_and_no_name() {
        for (json, values) in [
            ("0", 1),
            ("[]", 1),
            (r#"{"":0}"#, 2),
            (r#" {"a":[1,-2,0.5,true,null,"x,y"],"b":{"c":{}}} "#, 10),
        ] {
            assert!(has_values_within(json.as_bytes(), values).unwrap(), "{json}");
            assert!(!has_values_within(json.as_bytes(), values - 1).unwrap(), "{json}");
        }
    }

    #[test]
    fn what_no_reader_of_values_takes_is_an_error() {
        for json in ["", "{", "[1,]", "1 2", r#"["\ud800"]"#, r#"{"\ud800":1}"#, "1e999"] {
            assert!(has_values_within(json.as_bytes(), 100).is_err(), "{json}");
        }
        assert!(has_values_within("[".repeat(100_000).as_bytes(), usize::MAX).is_err());
    }
}
