//! Who has made a push configuration, and whether that may still be told of the task's events.

use rkyv::{Archive, Archived, Serialize};

use crate::access::{Access, Action, Principal, PrincipalKind, Target};
use crate::agent::AgentProfile;

/// Who has made a configuration, as the gateway knew it then.
///
/// ```
/// use neuroflow_actors::{Principal, PushBasis, PushCreator};
/// let ci = Principal::token("ci", ["builders"]);
/// assert_eq!(PushCreator::of(&ci, PushBasis::Read).principal(), ci);
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct PushCreator {
    who: Who,
    basis: PushBasis,
}

/// The right by which its creator is told.
///
/// ```
/// assert_ne!(neuroflow_actors::PushBasis::Ask, neuroflow_actors::PushBasis::Read);
/// ```
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushBasis {
    /// It came with the message: who may ask is told what becomes of that.
    Ask,
    /// To read one's own tasks.
    Read,
    /// To see those of everybody.
    Supervise,
}

#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
enum Who {
    Anonymous,
    Token { name: String, groups: Vec<String> },
    User { subject: String, issuer: String, groups: Vec<String> },
    Certificate { name: String, fingerprint: String, groups: Vec<String> },
}

impl PushCreator {
    /// This principal.
    pub fn of(principal: &Principal, basis: PushBasis) -> Self {
        let fact = |wanted: &str| {
            let found = principal.facts().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let (name, groups) = (principal.name().to_owned(), principal.groups().to_vec());
        let who = match principal.kind() {
            PrincipalKind::Anonymous => Who::Anonymous,
            PrincipalKind::Token => Who::Token { name, groups },
            PrincipalKind::User => {
                Who::User { subject: fact("subject"), issuer: fact("issuer"), groups }
            }
            PrincipalKind::Certificate => {
                Who::Certificate { name, fingerprint: fact("fingerprint"), groups }
            }
        };
        Self { who, basis }
    }

    /// The principal.
    pub fn principal(&self) -> Principal {
        match &self.who {
            Who::Anonymous => Principal::anonymous(),
            Who::Token { name, groups } => Principal::token(name, groups),
            Who::User { subject, issuer, groups } => Principal::user(subject, issuer, groups),
            Who::Certificate { name, fingerprint, groups } => {
                Principal::certificate(name, fingerprint, groups)
            }
        }
    }

    /// Whether its configuration came with a message.
    pub(super) fn came_with_message(&self) -> bool {
        self.basis == PushBasis::Ask
    }

    /// Whether it's this principal, as tasks know it: whatever groups or certificate it has now.
    pub(super) fn is(&self, principal: &Principal) -> bool {
        self.principal().id() == principal.id()
    }

    /// Whether it may still be told of its tasks of this agent: by the policies of this moment, and
    /// for a token with the groups that it has now.
    pub(super) fn is_told(&self, access: Option<&Access>, agent: &AgentProfile) -> bool {
        let Some(access) = access else { return true };
        let Some(principal) = access.known_as(&self.principal()) else { return false };
        // They are there since before the first request was let in.
        let Ok((rules, _)) = access.rules() else { return false };
        let name = agent.name.as_str();
        let may = |action, target: &Target<'_>| rules.ruling(&principal, action, target).allowed;
        let whole = Target::Agent(name);
        let asks = || {
            let mut skills = agent.skills.iter().map(|skill| skill.id.as_str());
            may(Action::Ask, &whole)
                || skills.any(|skill| may(Action::Ask, &Target::Skill { agent: name, skill }))
        };
        let reads = || may(Action::Read, &whole);
        match self.basis {
            PushBasis::Ask => asks() || reads(),
            PushBasis::Read => reads(),
            PushBasis::Supervise => may(Action::Supervise, &whole) && reads(),
        }
    }

    pub(super) fn read(archived: &Archived<Self>) -> Self {
        let texts = |list: &Archived<Vec<String>>| list.iter().map(ToString::to_string).collect();
        let who = match &archived.who {
            ArchivedWho::Anonymous => Who::Anonymous,
            ArchivedWho::Token { name, groups } => {
                Who::Token { name: name.to_string(), groups: texts(groups) }
            }
            ArchivedWho::User { subject, issuer, groups } => Who::User {
                subject: subject.to_string(),
                issuer: issuer.to_string(),
                groups: texts(groups),
            },
            ArchivedWho::Certificate { name, fingerprint, groups } => Who::Certificate {
                name: name.to_string(),
                fingerprint: fingerprint.to_string(),
                groups: texts(groups),
            },
        };
        let basis = match archived.basis {
            ArchivedPushBasis::Ask => PushBasis::Ask,
            ArchivedPushBasis::Read => PushBasis::Read,
            ArchivedPushBasis::Supervise => PushBasis::Supervise,
        };
        Self { who, basis }
    }

    /// Of a configuration that was kept before creators were: what tasks know the caller by says who
    /// it was, but not its groups.
    pub(super) fn of_caller(caller: Option<&str>) -> Self {
        let none: [&str; 0] = [];
        let principal = match caller.and_then(|caller| caller.split_once(':')) {
            Some(("token", name)) => Principal::token(name, none),
            Some(("certificate", name)) => Principal::certificate(name, "", none),
            Some(("user", name)) => {
                let (subject, issuer) = name.rsplit_once('@').unwrap_or((name, ""));
                Principal::user(subject, issuer, none)
            }
            _ => Principal::anonymous(),
        };
        Self::of(&principal, PushBasis::Read)
    }
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::Parcel;

    use super::super::{ArchivedPushRecord, PushConfig, PushRecord};
    use super::*;

    #[test]
    fn every_principal_comes_back_as_it_was() {
        for principal in [
            Principal::anonymous(),
            Principal::token("ci", ["builders", "ops"]),
            Principal::user("alice@example.org", "https://id.example.org", ["dev"]),
            Principal::certificate("spiffe://example/ci", "00ff", ["unit"]),
        ] {
            let creator = PushCreator::of(&principal, PushBasis::Ask);
            assert_eq!(creator.principal(), principal);
            let record = PushRecord::Config {
                config: PushConfig::new("c", "https://example.org/"),
                caller: None,
                creator: Box::new(creator.clone()),
                after: 3,
            };
            let parcel = Parcel::archive(&record).unwrap();
            let ArchivedPushRecord::Config { creator: kept, .. } = parcel.get() else {
                panic!("another record");
            };
            assert_eq!(PushCreator::read(kept), creator);
        }
    }
}
