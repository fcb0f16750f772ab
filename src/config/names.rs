//! A setting that is a list of names.

use super::value::{Problem, Raw, Value, quoted, text};

/// Names, such as hosts; none if the list is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(Vec<String>);

impl Names {
    pub(crate) fn list(&self) -> &[String] {
        &self.0
    }
}

impl Value for Names {
    const EXPECTED: &'static str = "a list such as [\"agents.example.org\", \"https://a.example\"]";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        let names: Vec<&str> = match raw {
            Raw::Plain(plain) if plain.is_empty() => Vec::new(),
            Raw::Plain(plain) => plain.split(',').map(str::trim).collect(),
            Raw::List(items) => items.iter().map(text).collect::<Result<_, _>>()?,
            _ => return Err(Problem::Type),
        };
        if names.iter().any(|name| name.is_empty()) {
            return Err(Problem::Empty);
        }
        Ok(Self(names.into_iter().map(str::to_owned).collect()))
    }

    fn toml(&self) -> Option<String> {
        let names: Vec<String> = self.0.iter().map(|name| quoted(name)).collect();
        Some(format!("[{}]", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_be_empty_but_no_name_may() {
        let plain = |text: &str| Names::read(&Raw::Plain(text.to_owned()));
        assert_eq!(plain("").unwrap().list(), [""; 0]);
        assert_eq!(plain("a, b").unwrap().list(), ["a", "b"]);
        assert!(matches!(plain("a,,b"), Err(Problem::Empty)));
        assert_eq!(plain("a").unwrap().toml().unwrap(), "[\"a\"]");
        assert!(matches!(Names::read(&Raw::Integer(1)), Err(Problem::Type)));
    }
}
