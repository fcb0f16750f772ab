//! What a cell may reach: nothing, itself, or what a list of rules names.
//!
//! A cell with rules still has no route. The one way out is a proxy on its own loopback, which the
//! host serves and which looks at each request. The rules are compiled by `check`, so an allow-list
//! with a mistake never starts a cell.

mod bounds;
mod error;
mod rule;
mod secret;

use std::sync::Arc;

pub use bounds::{EgressLimit, EgressLimits};
pub use error::{NetworkError, RuleField};
pub use rule::Rule;
pub use secret::Secret;

#[cfg(target_os = "linux")]
use crate::egress::Resolve;
use crate::egress::{Names, Policy};

/// What a cell may reach. By default nothing.
///
/// ```
/// use neuroflow_sandbox::{Network, Rule, Secret};
///
/// let network = Network::allow([
///     Rule::host("api.example.com")
///         .method("GET")
///         .path_prefix("/v1/")
///         .inject("authorization", Secret::from("Bearer 12345"))
///         .upstream_tls(),
///     Rule::host("*.pypi.org"),
/// ]);
/// assert_ne!(network, Network::none());
/// let in_clear = Rule::host("api.example.com").port(80).inject("x-api-key", "12345");
/// assert!(Network::allow([in_clear]).check().is_err());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network(Access);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Access {
    #[default]
    None,
    Loopback,
    Allow {
        rules: Arc<[Rule]>,
        limits: EgressLimits,
        names: Names,
    },
}

impl Network {
    /// Nothing, not even the cell's own loopback.
    pub fn none() -> Self {
        Self(Access::None)
    }

    /// The cell's own `127.0.0.1` and `::1`, which are not the host's.
    pub fn loopback() -> Self {
        Self(Access::Loopback)
    }

    /// What the rules name, through the proxy, with the bounds of [`EgressLimits::default`]. The
    /// first rule that fits a request holds.
    pub fn allow(rules: impl IntoIterator<Item = Rule>) -> Self {
        let rules = rules.into_iter().collect();
        Self(Access::Allow { rules, limits: EgressLimits::default(), names: Names::default() })
    }

    /// Bounds of an allow-list; without effect on the other two.
    #[must_use]
    pub fn limits(mut self, bounds: EgressLimits) -> Self {
        if let Access::Allow { limits, .. } = &mut self.0 {
            *limits = bounds;
        }
        self
    }

    /// Has somebody else look names up, to see what an answer of theirs leads to.
    #[cfg(target_os = "linux")]
    pub(crate) fn looked_up_by(mut self, resolver: Arc<dyn Resolve>) -> Self {
        if let Access::Allow { names, .. } = &mut self.0 {
            names.0 = Some(resolver);
        }
        self
    }

    /// Whether the cell's own loopback works.
    pub fn has_loopback(&self) -> bool {
        self.0 != Access::None
    }

    /// Checks every rule and bound.
    ///
    /// # Errors
    ///
    /// The first that is malformed, out of its range, or would send a secret in clear.
    pub fn check(&self) -> Result<(), NetworkError> {
        self.policy().map(|_policy| ())
    }

    /// The rules in the form that the proxy uses; `None` without an allow-list.
    pub(crate) fn policy(&self) -> Result<Option<Arc<Policy>>, NetworkError> {
        match &self.0 {
            Access::None | Access::Loopback => Ok(None),
            Access::Allow { rules, limits, names } => {
                let policy = Policy::compile(rules, limits)?;
                Ok(Some(Arc::new(Policy { names: names.clone(), ..policy })))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_compare_by_value_and_show_no_secret() {
        let network = |secret: &str| {
            Network::allow([Rule::host("a.example").inject("x-key", secret).upstream_tls()])
        };
        assert_eq!(network("abc-def"), network("abc-def"));
        assert_ne!(network("abc-def"), network("abc-deg"));
        assert_ne!(network("abc-def"), Network::none());
        assert!(!format!("{:?}", network("abc-def")).contains("abc-def"));
        let tighter = network("x").limits(EgressLimits::default().connections(1));
        assert_ne!(tighter, network("x"));
        assert_eq!(Network::default(), Network::none());
    }

    #[test]
    fn only_a_cell_without_network_has_no_loopback() {
        assert!(!Network::none().has_loopback());
        assert!(Network::loopback().has_loopback());
        assert!(Network::allow([Rule::host("a.example")]).has_loopback());
        assert!(Network::none().policy().unwrap().is_none());
        assert!(Network::loopback().policy().unwrap().is_none());
    }
}
