//! What a server's tool is called by agents: a name that every model's interface takes.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// Letters, digits, `_` and `-`, 64 at most: what the strictest of the usual interfaces takes.
const LONGEST: usize = 64;

/// Hexadecimal digits that tell long names apart. Dates and versions at the end of ordinary names have fewer.
const DIGITS: usize = 16;

/// What stands between a server and a tool.
const BETWEEN: &str = "__";

/// Whether a server's name ends at the first [`BETWEEN`] of what its tools are called, whatever they are.
/// Otherwise a server could offer what another's name promises.
pub(super) fn divides(server: &str) -> bool {
    !server.contains(BETWEEN) && !server.ends_with('_')
}

/// `server__tool`, with `_` for what a name can't have. A name that had to be changed ends with
/// digits of a hash of the whole, so that two tools don't become one; so does one that looks changed.
pub(super) fn public(server: &str, tool: &str) -> String {
    let whole = format!("{server}{BETWEEN}{tool}");
    let plain: String = whole.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if plain == whole && plain.len() <= LONGEST && !looks_changed(&plain) {
        return plain;
    }
    let mut hasher = DefaultHasher::new();
    whole.hash(&mut hasher);
    let digits = format!("{:0DIGITS$x}", hasher.finish());
    let kept = plain.get(..LONGEST - DIGITS - 1).unwrap_or(&plain);
    format!("{kept}_{digits}")
}

fn looks_changed(name: &str) -> bool {
    name.rsplit_once('_').is_some_and(|(_, end)| {
        end.len() == DIGITS && end.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
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
        for name in ["read_file", "report_20240131", "bash_20250124", "revert_0badf00d"] {
            assert_eq!(public("files", name), format!("files__{name}"));
        }
        let (dotted, dashed) = (public("s", "a.b"), public("s", "a/b"));
        assert!(dotted.starts_with("s__a_b_") && dotted != dashed);
    }

    #[test]
    fn a_server_cannot_offer_what_another_ones_name_promises() {
        assert!(["a", "a_b", "_a"].into_iter().all(divides));
        // `a` could have a tool `b__c`, and `a` one that's called `_b`.
        assert!(!["a__b", "a_", "a__"].into_iter().any(divides));
        let changed = public("s", "a.b");
        let forged = changed.strip_prefix("s__").unwrap();
        assert_ne!(public("s", forged), changed);
    }

    proptest! {
        #[test]
        fn no_two_servers_have_a_tool_of_the_same_name(
            one in "_?a(_?a){0,2}", other in "_?a(_?a){0,2}",
            tool in "[a_]{0,6}", another in "[a_]{0,6}",
        ) {
            prop_assert!(divides(&one) && divides(&other));
            let is_same = (&one, &tool) == (&other, &another);
            prop_assert_eq!(public(&one, &tool) == public(&other, &another), is_same);
        }

        #[test]
        fn any_name_becomes_one_that_models_and_the_tree_take(server in "[a-z]{1,32}", tool in ".{0,300}") {
            let name = public(&server, &tool);
            prop_assert!(name.len() <= LONGEST && name.chars().all(is_plain));
            prop_assert!(neuroflow_kernel::Name::new(&name).is_ok());
        }
    }
}
