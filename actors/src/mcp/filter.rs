//! Which tools of a server are let in: names, and beginnings of names.

/// Names of tools, each whole or with a `*` at its end.
///
/// ```
/// use neuroflow_actors::ToolFilter;
/// let filter = ToolFilter::only(["read_*", "list"]);
/// assert!(filter.lets_in("read_file") && filter.lets_in("list"));
/// assert!(!filter.lets_in("list_all") && !filter.lets_in("write_file"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolFilter {
    /// None lets everything in.
    patterns: Option<Vec<String>>,
}

impl ToolFilter {
    /// Lets everything in.
    pub fn all() -> Self {
        Self::default()
    }

    /// Lets in what one of the patterns fits; a `*` elsewhere than at the end stands for itself.
    pub fn only(patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { patterns: Some(patterns.into_iter().map(Into::into).collect()) }
    }

    /// Whether a tool is let in.
    pub fn lets_in(&self, tool: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => tool.starts_with(beginning),
            None => tool == pattern,
        };
        self.patterns.as_ref().is_none_or(|patterns| patterns.iter().any(fits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_let_in_by_an_empty_list_and_everything_without_one() {
        assert!(!ToolFilter::only([""; 0]).lets_in("read"));
        assert!(ToolFilter::all().lets_in("read"));
        assert!(ToolFilter::only(["*"]).lets_in("read"));
    }

    #[test]
    fn a_star_within_stands_for_itself() {
        let filter = ToolFilter::only(["a*b"]);
        assert!(filter.lets_in("a*b") && !filter.lets_in("axb"));
    }
}
