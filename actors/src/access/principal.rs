//! Who asks.

use std::fmt;
use std::sync::Arc;

use neuroflow_kernel::WireMessage;
use rkyv::{Archive, Serialize};

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
        let facts = vec![(SUBJECT, subject.to_owned()), (ISSUER, issuer.to_owned())];
        Self::of(PrincipalKind::User, format!("{subject}@{issuer}"), groups, facts)
    }

    /// The holder of a client certificate.
    pub fn certificate(
        name: impl Into<String>,
        fingerprint: &str,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        let facts = vec![(FINGERPRINT, fingerprint.to_owned())];
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

    /// It as it's kept with a task.
    pub(crate) fn record(&self) -> PrincipalRecord {
        PrincipalRecord {
            kind: self.0.kind.word().to_owned(),
            name: self.0.name.clone(),
            groups: self.0.groups.clone(),
            facts: self.facts().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
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

const SUBJECT: &str = "subject";
const ISSUER: &str = "issuer";
const FINGERPRINT: &str = "fingerprint";

/// A principal as it's kept with a task, for rules that are asked after a restart.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrincipalRecord {
    kind: String,
    name: String,
    groups: Vec<String>,
    facts: Vec<(String, String)>,
}

impl WireMessage for PrincipalRecord {
    const NAME: &'static str = "neuroflow.access.principal";
    const VERSION: u16 = 1;
}

impl ArchivedPrincipalRecord {
    /// The principal; none if this build doesn't know its kind or one of its facts, for a rule could
    /// depend on that.
    pub(crate) fn principal(&self) -> Option<Principal> {
        let kind = PrincipalKind::ALL.into_iter().find(|kind| self.kind == kind.word())?;
        let known =
            |given: &str| [SUBJECT, ISSUER, FINGERPRINT].into_iter().find(|known| *known == given);
        let facts = self.facts.iter().map(|fact| Some((known(&fact.0)?, fact.1.to_string())));
        let facts = facts.collect::<Option<Vec<_>>>()?;
        let groups = self.groups.iter().map(ToString::to_string).collect();
        Some(Principal::of(kind, self.name.to_string(), groups, facts))
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
    const ALL: [Self; 4] = [Self::Anonymous, Self::Token, Self::User, Self::Certificate];

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
    use neuroflow_kernel::Parcel;

    use super::*;

    #[test]
    fn what_is_kept_of_a_principal_is_all_of_it() {
        let groups = ["builders", "night shift"];
        for principal in [
            Principal::anonymous(),
            Principal::token("ci", groups),
            Principal::user("ann", "https://id.example", groups),
            Principal::certificate("robot", "00ff", groups),
        ] {
            let kept = Parcel::archive(&principal.record()).unwrap();
            assert_eq!(kept.get().principal(), Some(principal));
        }
        let mut strange = Principal::anonymous().record();
        strange.facts.push(("shoe size".to_owned(), "43".to_owned()));
        assert_eq!(Parcel::archive(&strange).unwrap().get().principal(), None);
    }

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
