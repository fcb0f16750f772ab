//! The nodes that a node dials when it starts.

use std::net::SocketAddr;

use super::value::{Problem, Raw, Value, distinct};

impl Value for Vec<SocketAddr> {
    const EXPECTED: &'static str = "a list of addresses with ports such as \"10.0.0.7:7946\"";

    fn read(raw: &Raw) -> Result<Self, Problem> {
        distinct(raw)
    }

    fn toml(&self) -> Option<String> {
        let seeds: Option<Vec<String>> = self.iter().map(Value::toml).collect();
        Some(format!("[{}]", seeds?.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_addresses_is_read_and_written() {
        let plain = |text: &str| Vec::<SocketAddr>::read(&Raw::Plain(text.to_owned()));
        assert!(plain("").unwrap().is_empty());
        let two = plain("10.0.0.7:7946, [::1]:7946").unwrap();
        assert_eq!(two.toml().unwrap(), "[\"10.0.0.7:7946\", \"[::1]:7946\"]");
        assert!(matches!(plain("[::1]:1,[::1]:1"), Err(Problem::Twice)));
        assert!(plain("node-b").is_err());
    }
}
