//! Cedar policies: checked against the schema when they are read, and evaluated.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId,
    PolicySet, Request, RestrictedExpression, Schema, ValidationMode, Validator,
};
use miette::Diagnostic;
use neuroflow_sandbox::Level;

use super::{Action, Principal, PrincipalKind, Rules, Ruling, Target, file};
use crate::limits::GROUPS;

/// The schema that policies are checked against.
const SCHEMA: &str = include_str!("policy.cedarschema");

/// Policies of a file.
///
/// ```
/// use neuroflow_actors::{Action, CedarPolicies, Principal, Rules, Target};
/// let text = r#"permit(principal in Group::"dev", action == Action::"ask", resource);"#;
/// let policies = CedarPolicies::parse("policies.cedar".as_ref(), text)?;
/// let dev = Principal::token("ci", ["dev"]);
/// assert!(policies.decide(&dev, Action::Ask, &Target::Agent("echo")).allowed);
/// assert!(!policies.decide(&dev, Action::Cancel, &Target::Agent("echo")).allowed);
/// # Ok::<(), neuroflow_actors::PolicyError>(())
/// ```
#[derive(Clone)]
pub struct CedarPolicies(Arc<Inner>);

struct Inner {
    path: PathBuf,
    schema: Schema,
    policies: PolicySet,
    /// Where each policy begins.
    lines: BTreeMap<PolicyId, usize>,
    authorizer: Authorizer,
}

impl fmt::Debug for CedarPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CedarPolicies")
            .field("path", &self.0.path)
            .field("policies", &self.len())
            .finish_non_exhaustive()
    }
}

/// A place in a file of policies.
///
/// ```
/// use neuroflow_actors::PolicyLocation;
/// let place = PolicyLocation { path: "a.cedar".into(), line: 3, column: 7 };
/// assert_eq!(place.to_string(), "a.cedar:3:7");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLocation {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

impl fmt::Display for PolicyLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// Why policies aren't valid.
///
/// ```
/// use neuroflow_actors::CedarPolicies;
/// let error = CedarPolicies::parse("a.cedar".as_ref(), "permit(principal").unwrap_err();
/// assert!(error.to_string().starts_with("a.cedar:1:"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The file isn't UTF-8.
    #[error("{} isn't UTF-8", path.display())]
    Unicode {
        /// The file.
        path: PathBuf,
        /// Where it isn't.
        #[source]
        source: std::str::Utf8Error,
    },
    /// It isn't Cedar.
    #[error("{at}: this isn't a policy")]
    Syntax {
        /// Where.
        at: PolicyLocation,
        /// Why.
        #[source]
        source: Box<cedar_policy::ParseErrors>,
    },
    /// A policy speaks of what there isn't, or compares what can't be compared.
    #[error("{at}: the policy doesn't fit the schema; `neuroflow policy schema` prints it")]
    Invalid {
        /// Where.
        at: PolicyLocation,
        /// Why.
        #[source]
        source: Box<cedar_policy::ValidationError>,
    },
    /// A template, which nothing here fills in.
    #[error("{}: templates (?principal, ?resource) aren't taken; write policies", path.display())]
    Template {
        /// The file.
        path: PathBuf,
    },
    /// The schema of this build is at fault.
    #[error("the schema of this build can't be read")]
    Schema(#[from] Box<cedar_policy::CedarSchemaError>),
}

impl CedarPolicies {
    /// The schema that policies are checked against, as Cedar writes it.
    pub fn schema() -> &'static str {
        SCHEMA
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Says where the file is wrong, or why it can't be read.
    pub fn load(path: &Path) -> Result<Self, super::AccessError> {
        let contents = file::read(path)?;
        Ok(Self::from_bytes(path, &contents.bytes)?)
    }

    pub(super) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, PolicyError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|source| PolicyError::Unicode { path: path.to_owned(), source })?;
        Self::parse(path, text)
    }

    /// Reads policies; `path` is what errors call the text.
    ///
    /// # Errors
    /// Says where the text is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, PolicyError> {
        let (schema, _warnings) = Schema::from_cedarschema_str(SCHEMA).map_err(Box::new)?;
        let policies = PolicySet::from_str(text).map_err(|source| {
            let at = source.iter().find_map(|error| offset(error));
            PolicyError::Syntax { at: location(path, text, at), source: Box::new(source) }
        })?;
        if policies.num_of_templates() > 0 {
            return Err(PolicyError::Template { path: path.to_owned() });
        }
        let validation = Validator::new(schema.clone()).validate(&policies, ValidationMode::Strict);
        if let Some(error) = validation.validation_errors().next() {
            let at = location(path, text, offset(error));
            return Err(PolicyError::Invalid { at, source: Box::new(error.clone()) });
        }
        let lines = lines(&policies, text);
        let authorizer = Authorizer::new();
        let path = path.to_owned();
        Ok(Self(Arc::new(Inner { path, schema, policies, lines, authorizer })))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.policies.num_of_policies()
    }

    /// Whether there is none, so that nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn evaluate(
        &self,
        principal: &Principal,
        action: Action,
        target: &Target<'_>,
    ) -> Result<Ruling, String> {
        let (who, mut entities) = principal_entities(principal).map_err(|it| it.to_string())?;
        let (what, resources) = target_entities(target).map_err(|it| it.to_string())?;
        entities.extend(resources);
        let entities = Entities::from_entities(entities, Some(&self.0.schema))
            .map_err(|error| error.to_string())?;
        let action = uid("Action", action.name()).map_err(|it| it.to_string())?;
        let request = Request::new(who, action, what, Context::empty(), Some(&self.0.schema))
            .map_err(|error| error.to_string())?;
        let response = self.0.authorizer.is_authorized(&request, &self.0.policies, &entities);
        let diagnostics = response.diagnostics();
        let mut policies: Vec<String> = diagnostics.reason().map(|id| self.label(id)).collect();
        policies.sort();
        let errors = diagnostics.errors().map(ToString::to_string).collect();
        Ok(Ruling { allowed: response.decision() == Decision::Allow, policies, errors })
    }

    /// What a policy is called: its `@id`, and where it is.
    fn label(&self, id: &PolicyId) -> String {
        let name = self.0.policies.annotation(id, "id").map(|name| format!("{name:?} "));
        let line = self.0.lines.get(id).copied().unwrap_or(1);
        format!(
            "{}at {}:{line}",
            name.unwrap_or_else(|| "the policy ".to_owned()),
            self.0.path.display()
        )
    }
}

impl Rules for CedarPolicies {
    fn decide(&self, principal: &Principal, action: Action, target: &Target<'_>) -> Ruling {
        // What can't be asked isn't allowed.
        let denied = |error| Ruling { errors: vec![error], ..Ruling::by_default() };
        self.evaluate(principal, action, target).unwrap_or_else(denied)
    }
}

type Pair = (EntityUid, Vec<Entity>);

fn principal_entities(principal: &Principal) -> Result<Pair, Unaskable> {
    let who = uid(principal.kind().entity(), principal.name())?;
    let mut parents = HashSet::new();
    let mut entities = Vec::new();
    for group in principal.groups().iter().take(GROUPS) {
        let group = uid("Group", group)?;
        if parents.insert(group.clone()) {
            entities.push(Entity::new_no_attrs(group, HashSet::new()));
        }
    }
    let mut facts: HashMap<String, RestrictedExpression> =
        principal.facts().map(|(name, value)| (name.to_owned(), text(value))).collect();
    if matches!(principal.kind(), PrincipalKind::Token | PrincipalKind::Certificate) {
        facts.insert("name".to_owned(), text(principal.name()));
    }
    entities.push(Entity::new(who.clone(), facts, parents).map_err(Box::new)?);
    Ok((who, entities))
}

fn target_entities(target: &Target<'_>) -> Result<Pair, Unaskable> {
    let agent = |name: &str| -> Result<(EntityUid, Entity), Unaskable> {
        let agent = uid("Agent", name)?;
        Ok((agent.clone(), named(agent, name, HashSet::new())?))
    };
    let within = |kind: &str, name: &str, above: Option<&str>| -> Result<Pair, Unaskable> {
        let what = uid(kind, name)?;
        let (mut parents, mut entities) = (HashSet::new(), Vec::new());
        if let Some(above) = above {
            let (above, entity) = agent(above)?;
            parents.insert(above);
            entities.push(entity);
        }
        entities.push(named(what.clone(), name, parents)?);
        Ok((what, entities))
    };
    match target {
        Target::Agent(name) => {
            let (what, entity) = agent(name)?;
            Ok((what, vec![entity]))
        }
        Target::Skill { agent, skill } => within("Skill", skill, Some(agent)),
        Target::Tool { agent, tool } => within("Tool", tool, *agent),
        Target::Level(level) => {
            let what = uid("Level", &level.to_string())?;
            let rank = RestrictedExpression::new_long(rank(*level));
            let facts = HashMap::from([("rank".to_owned(), rank)]);
            let entity = Entity::new(what.clone(), facts, HashSet::new()).map_err(Box::new)?;
            Ok((what, vec![entity]))
        }
    }
}

fn named(what: EntityUid, name: &str, parents: HashSet<EntityUid>) -> Result<Entity, Unaskable> {
    let facts = HashMap::from([("name".to_owned(), text(name))]);
    Ok(Entity::new(what, facts, parents).map_err(Box::new)?)
}

fn rank(level: Level) -> i64 {
    match level {
        Level::Minimal => 0,
        Level::Standard => 1,
        Level::Strict => 2,
        Level::Paranoid => 3,
    }
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn uid(kind: &str, name: &str) -> Result<EntityUid, Unaskable> {
    let kind = EntityTypeName::from_str(kind).map_err(Box::new)?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(name)))
}

/// Why a question can't be put; each is a fault of this file, and means no.
#[derive(Debug, thiserror::Error)]
enum Unaskable {
    #[error("the name of a type isn't one: {0}")]
    Kind(#[from] Box<cedar_policy::ParseErrors>),
    #[error("an attribute isn't one: {0}")]
    Attribute(#[from] Box<cedar_policy::EntityAttrEvaluationError>),
}

/// Where an error points to, in bytes.
fn offset(error: &dyn Diagnostic) -> Option<usize> {
    error.labels()?.next().map(|label| label.offset())
}

fn location(path: &Path, text: &str, offset: Option<usize>) -> PolicyLocation {
    let before = text.get(..offset.unwrap_or(0)).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.chars().rev().take_while(|char| *char != '\n').count() + 1;
    PolicyLocation { path: path.to_owned(), line, column }
}

/// Where each policy begins. Parsing numbers them in their order, and keeps their texts.
fn lines(policies: &PolicySet, text: &str) -> BTreeMap<PolicyId, usize> {
    let mut lines = BTreeMap::new();
    let mut from = 0;
    for index in 0..policies.num_of_policies() {
        let id = PolicyId::new(format!("policy{index}"));
        let Some(policy) = policies.policy(&id) else { continue };
        let written = policy.to_string();
        if let Some(at) = text.get(from..).and_then(|rest| rest.find(&written)) {
            let start = from + at;
            let before = text.get(..start).unwrap_or_default();
            lines.insert(id, before.bytes().filter(|byte| *byte == b'\n').count() + 1);
            from = start + written.len();
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(text: &str) -> CedarPolicies {
        CedarPolicies::parse(Path::new("p.cedar"), text).unwrap_or_else(|error| {
            panic!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string))
        })
    }

    const TEXT: &str = r#"
// Everybody in dev may use echo and what it uses.
@id("dev-echo")
permit(principal in Group::"dev", action, resource in Agent::"echo");

permit(
  principal == User::"alice@https://id.example",
  action == Action::"run_level",
  resource
) when { resource.rank >= 2 };

forbid(principal, action == Action::"call_tool", resource)
when { resource.name like "shell*" };
"#;

    #[test]
    fn what_no_policy_permits_is_denied_and_forbid_wins() {
        let policies = policies(TEXT);
        let dev = Principal::token("ci", ["dev", "dev"]);
        let nobody = Principal::anonymous();
        let ask = |who: &Principal, what: &Target<'_>, action| policies.decide(who, action, what);
        let echo = Target::Agent("echo");
        let ruling = ask(&dev, &echo, Action::Ask);
        assert!(ruling.allowed);
        assert_eq!(ruling.policies, ["\"dev-echo\" at p.cedar:3"]);
        assert!(ask(&dev, &Target::Skill { agent: "echo", skill: "s" }, Action::Ask).allowed);
        assert!(!ask(&dev, &Target::Agent("shell"), Action::Ask).allowed);
        assert_eq!(ask(&nobody, &echo, Action::Ask), Ruling::by_default());
        let tool = |tool| Target::Tool { agent: Some("echo"), tool };
        assert!(ask(&dev, &tool("exec"), Action::CallTool).allowed);
        let forbidden = ask(&dev, &tool("shell_x"), Action::CallTool);
        assert_eq!(forbidden.policies, ["the policy at p.cedar:12"]);
        assert!(!forbidden.allowed);
        assert!(!ask(&dev, &Target::Tool { agent: None, tool: "exec" }, Action::CallTool).allowed);
    }

    #[test]
    fn levels_have_ranks_and_users_their_issuer() {
        let policies = policies(TEXT);
        let none: [&str; 0] = [];
        let alice = Principal::user("alice", "https://id.example", none);
        let other = Principal::user("alice", "https://evil.example", none);
        let may = |who: &Principal, level| {
            policies.decide(who, Action::RunLevel, &Target::Level(level)).allowed
        };
        assert!(may(&alice, Level::Strict) && may(&alice, Level::Paranoid));
        assert!(!may(&alice, Level::Standard) && !may(&other, Level::Strict));
    }

    #[test]
    fn every_action_and_kind_of_principal_can_be_asked_for() {
        let policies = policies("permit(principal, action, resource);");
        let none: [&str; 0] = [];
        for who in [
            Principal::anonymous(),
            Principal::token("a", none),
            Principal::user("a", "https://i", none),
            Principal::certificate("a", "00", none),
        ] {
            for action in Action::ALL {
                let target = match action {
                    Action::CallTool => Target::Tool { agent: None, tool: "exec" },
                    Action::RunLevel => Target::Level(Level::Strict),
                    _ => Target::Agent("echo"),
                };
                let ruling = policies.decide(&who, action, &target);
                assert!(ruling.allowed && ruling.errors.is_empty(), "{who:?} {ruling:?}");
            }
        }
    }

    #[test]
    fn errors_name_line_and_column() {
        let parse = |text: &str| CedarPolicies::parse(Path::new("p.cedar"), text).unwrap_err();
        let error = parse("permit(principal, action, resource);\n\npermit(principal, resource);");
        assert!(error.to_string().starts_with("p.cedar:3:"), "{error}");
        assert!(matches!(error, PolicyError::Syntax { .. }));
        let unknown = "\npermit(principal, action == Action::\"aks\", resource);";
        let error = parse(unknown);
        assert!(error.to_string().starts_with("p.cedar:2:"), "{error}");
        assert!(matches!(error, PolicyError::Invalid { .. }));
        let attribute = "permit(principal, action == Action::\"ask\", resource)\n\
                         when { principal.admin };";
        assert!(matches!(parse(attribute), PolicyError::Invalid { .. }));
        let template = "permit(principal == ?principal, action, resource);";
        assert!(matches!(parse(template), PolicyError::Template { .. }));
        assert!(policies("").is_empty());
    }
}
