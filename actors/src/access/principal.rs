//! Who asks.

use std::fmt;
use std::sync::Arc;

/// Who asks, as a gateway has made sure of it; cheap to clone.
///
/// ```
/// use neuroflow_actors::{Principal, PrincipalKind};
/// let ci = Principal::token("ci", ["builders"]);
/// assert_eq!(ci.id(), "token:ci");
/// assert_eq!(ci.kind(), PrincipalKind::Token);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal(Arc<Inner>);

#[derive(PartialEq, Eq, Hash)]
struct Inner {
    kind: PrincipalKind,
    id: String,
    name: String,
    groups: Vec<String>,
    /// Further facts that policies may read, such as the client of a user.
    facts: Vec<(&'static str, String)>,
}

impl Principal {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::of(PrincipalKind::Anonymous, "anonymous".to_owned(), Vec::new(), Vec::new())
    }

    /// The holder of a bearer token.
    pub fn token(
        name: impl Into<String>,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        Self::of(PrincipalKind::Token, name.into(), groups, Vec::new())
    }

    /// A subject that an issuer has vouched for. Two issuers may have the same subject, so the name
    /// is both of them.
    pub fn user(
        subject: &str,
        issuer: &str,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        let facts = vec![("subject", subject.to_owned()), ("issuer", issuer.to_owned())];
        Self::of(PrincipalKind::User, format!("{subject}@{issuer}"), groups, facts)
    }

    /// The holder of a client certificate.
    pub fn certificate(
        name: impl Into<String>,
        fingerprint: &str,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        let facts = vec![("fingerprint", fingerprint.to_owned())];
        Self::of(PrincipalKind::Certificate, name.into(), groups, facts)
    }

    fn of(
        kind: PrincipalKind,
        name: String,
        groups: Vec<String>,
        facts: Vec<(&'static str, String)>,
    ) -> Self {
        let id = match kind {
            PrincipalKind::Anonymous => name.clone(),
            _ => format!("{}:{name}", kind.word()),
        };
        Self(Arc::new(Inner { kind, id, name, groups, facts }))
    }

    /// Its kind.
    pub fn kind(&self) -> PrincipalKind {
        self.0.kind
    }

    /// Kind and name: what tasks, logs and limits know it by.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Its name among those of its kind.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The groups that it's in.
    pub fn groups(&self) -> &[String] {
        &self.0.groups
    }

    /// Further facts, by name.
    pub fn facts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.facts.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("id", &self.0.id)
            .field("groups", &self.0.groups)
            .finish_non_exhaustive()
    }
}

/// How a principal is known.
///
/// ```
/// assert_eq!(neuroflow_actors::PrincipalKind::User.entity(), "User");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PrincipalKind {
    /// Not at all.
    Anonymous,
    /// By a bearer token of this node.
    Token,
    /// By a token of an issuer.
    User,
    /// By a client certificate.
    Certificate,
}

impl PrincipalKind {
    /// Its name as the type of an entity in policies.
    pub fn entity(self) -> &'static str {
        match self {
            Self::Anonymous => "Anonymous",
            Self::Token => "Token",
            Self::User => "User",
            Self::Certificate => "Certificate",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Token => "token",
            Self::User => "user",
            Self::Certificate => "certificate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_of_different_kinds_never_have_the_same_id() {
        let none: [&str; 0] = [];
        let all = [
            Principal::anonymous(),
            Principal::token("anonymous", none),
            Principal::user("anonymous", "https://a", none),
            Principal::user("anonymous", "https://b", none),
            Principal::certificate("anonymous", "00", none),
        ];
        let ids: std::collections::BTreeSet<&str> = all.iter().map(Principal::id).collect();
        assert_eq!(ids.len(), all.len());
    }
}
