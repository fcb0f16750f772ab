//! What a server's tool is called by agents: a name that every model's interface takes.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// Letters, digits, `_` and `-`, 64 at most: what the strictest of the usual interfaces takes.
const LONGEST: usize = 64;

/// Hexadecimal digits that tell long names apart.
const DIGITS: usize = 8;

/// `server__tool`, with `_` for what a name can't have. A name that had to be changed ends with
/// digits of a hash of the whole, so that two tools don't become one.
pub(super) fn public(server: &str, tool: &str) -> String {
    let whole = format!("{server}__{tool}");
    let plain: String = whole.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if plain == whole && plain.len() <= LONGEST {
        return plain;
    }
    let mut hasher = DefaultHasher::new();
    whole.hash(&mut hasher);
    let digits = format!("{:08x}", hasher.finish() >> 32);
    let kept = plain.get(..LONGEST - DIGITS - 1).unwrap_or(&plain);
    format!("{kept}_{digits}")
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_name_stays_and_another_is_told_apart() {
        assert_eq!(public("files", "read_file"), "files__read_file");
        let (dotted, dashed) = (public("s", "a.b"), public("s", "a/b"));
        assert!(dotted.starts_with("s__a_b_") && dotted != dashed);
    }

    proptest! {
        #[test]
        fn any_name_becomes_one_that_models_and_the_tree_take(server in "[a-z]{1,32}", tool in ".{0,300}") {
            let name = public(&server, &tool);
            prop_assert!(name.len() <= LONGEST && name.chars().all(is_plain));
            prop_assert!(neuroflow_kernel::Name::new(&name).is_ok());
        }
    }
}
