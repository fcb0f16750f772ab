//! The HTTP+JSON binding: a path and a query to a call. No I/O.

use a2a_pb::protojson as pb;
use serde_json::{Map, Value, json};

use super::error::A2aError;
use super::json;
use super::operations::Place;

/// A request of the binding, as its path says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route<'a> {
    pub(super) agent: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) call: Call<'a>,
}

/// What is asked for, with the ids of the path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Call<'a> {
    Send,
    Stream,
    List(Query<'a>),
    Get(String, Query<'a>),
    Cancel(String),
    Subscribe(String),
    CreatePush(String),
    GetPush(String, String),
    ListPush(String, Query<'a>),
    DeletePush(String, String),
    ExtendedCard,
}

/// Why a path leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unrouted {
    /// There is nothing.
    Unknown,
    /// There is something for another method.
    Method { allow: &'static str },
}

impl Route<'_> {
    pub(super) fn place(&self) -> Place<'_> {
        Place { agent: self.agent.as_deref(), tenant: self.tenant.as_deref() }
    }
}

/// Reads `[/agents/{agent}][/{tenant}]/...`.
pub(super) fn route<'a>(
    method: &str,
    path: &str,
    query: Option<&'a str>,
) -> Result<Route<'a>, Unrouted> {
    let decoded: Option<Vec<String>> =
        path.strip_prefix('/').unwrap_or(path).split('/').map(decode).collect();
    let segments = decoded.ok_or(Unrouted::Unknown)?;
    let mut rest: &[String] = &segments;
    let mut agent = None;
    // An agent's own paths go below its name; whatever else begins so is a tenant of that name.
    if let [first, name, below @ ..] = rest
        && first == "agents"
        && !below.is_empty()
    {
        agent = Some(name.clone());
        rest = below;
    }
    let query = Query(query.unwrap_or_default());
    match call(method, rest, query) {
        Ok(call) => Ok(Route { agent, tenant: None, call }),
        Err(Unrouted::Unknown) => {
            let (tenant, below) = rest.split_first().ok_or(Unrouted::Unknown)?;
            let call = call(method, below, query)?;
            Ok(Route { agent, tenant: Some(tenant.clone()), call })
        }
        Err(wrong_method) => Err(wrong_method),
    }
}

fn call<'a>(method: &str, segments: &[String], query: Query<'a>) -> Result<Call<'a>, Unrouted> {
    let texts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let own = |id: &str| id.to_owned();
    let wrong = |allow| Err(Unrouted::Method { allow });
    match (method, texts.as_slice()) {
        ("POST", ["message:send"]) => Ok(Call::Send),
        ("POST", ["message:stream"]) => Ok(Call::Stream),
        (_, ["message:send" | "message:stream"]) => wrong("POST"),
        ("GET", ["tasks"]) => Ok(Call::List(query)),
        ("GET", ["extendedAgentCard"]) => Ok(Call::ExtendedCard),
        (_, ["tasks" | "extendedAgentCard"]) => wrong("GET"),
        (method, ["tasks", task]) => match (method, task.rsplit_once(':')) {
            ("POST", Some((id, "cancel"))) => Ok(Call::Cancel(own(id))),
            (_, Some((_, "cancel"))) => wrong("POST"),
            // The protocol's prose has POST and its definition GET.
            ("GET" | "POST", Some((id, "subscribe"))) => Ok(Call::Subscribe(own(id))),
            (_, Some((_, "subscribe"))) => wrong("GET, POST"),
            ("GET", _) => Ok(Call::Get(own(task), query)),
            _ => wrong("GET"),
        },
        ("POST", ["tasks", task, PUSH]) => Ok(Call::CreatePush(own(task))),
        ("GET", ["tasks", task, PUSH]) => Ok(Call::ListPush(own(task), query)),
        (_, ["tasks", _, PUSH]) => wrong("GET, POST"),
        ("GET", ["tasks", task, PUSH, id]) => Ok(Call::GetPush(own(task), own(id))),
        ("DELETE", ["tasks", task, PUSH, id]) => Ok(Call::DeletePush(own(task), own(id))),
        (_, ["tasks", _, PUSH, _]) => wrong("DELETE, GET"),
        _ => Err(Unrouted::Unknown),
    }
}

const PUSH: &str = "pushNotificationConfigs";

impl Call<'_> {
    /// Its name in the protocol.
    pub(super) fn operation(&self) -> &'static str {
        match self {
            Self::Send => "SendMessage",
            Self::Stream => "SendStreamingMessage",
            Self::List(_) => "ListTasks",
            Self::Get(..) => "GetTask",
            Self::Cancel(_) => "CancelTask",
            Self::Subscribe(_) => "SubscribeToTask",
            Self::CreatePush(_) => "CreateTaskPushNotificationConfig",
            Self::GetPush(..) => "GetTaskPushNotificationConfig",
            Self::ListPush(..) => "ListTaskPushNotificationConfigs",
            Self::DeletePush(..) => "DeleteTaskPushNotificationConfig",
            Self::ExtendedCard => "GetExtendedAgentCard",
        }
    }

    /// Whether it has a body, which must be there.
    pub(super) fn has_body(&self) -> bool {
        matches!(self, Self::Send | Self::Stream | Self::CreatePush(_))
    }

    /// Whether it may have a body.
    pub(super) fn takes_body(&self) -> bool {
        self.has_body() || matches!(self, Self::Cancel(_) | Self::Subscribe(_))
    }
}

/// Reads the body of a cancellation, which may be empty; what it names must be what the path does.
pub(super) fn cancel(id: &str, body: &[u8]) -> Result<pb::CancelTaskRequest, A2aError> {
    let mut request: pb::CancelTaskRequest =
        if body.is_empty() { pb::CancelTaskRequest::default() } else { json::read(body, "body")? };
    same("id", &request.id, id)?;
    id.clone_into(&mut request.id);
    Ok(request)
}

/// Reads the body of a subscription, which may be empty; what it names must be what the path does.
pub(super) fn subscribe(id: &str, body: &[u8]) -> Result<pb::SubscribeToTaskRequest, A2aError> {
    let mut request: pb::SubscribeToTaskRequest = if body.is_empty() {
        pb::SubscribeToTaskRequest::default()
    } else {
        json::read(body, "body")?
    };
    same("id", &request.id, id)?;
    id.clone_into(&mut request.id);
    Ok(request)
}

/// Reads the body of a configuration; what it names must be what the path does.
pub(super) fn push(task: &str, body: &[u8]) -> Result<pb::TaskPushNotificationConfig, A2aError> {
    let mut request: pb::TaskPushNotificationConfig = json::read(body, "body")?;
    same("taskId", &request.task_id, task)?;
    task.clone_into(&mut request.task_id);
    Ok(request)
}

fn same(field: &str, body: &str, path: &str) -> Result<(), A2aError> {
    if body.is_empty() || body == path {
        return Ok(());
    }
    Err(A2aError::invalid(field, "isn't what the path says"))
}

/// The query of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Query<'a>(&'a str);

impl Query<'_> {
    /// A message of these fields, read as its JSON would be. Fields may be named as in JSON or as in
    /// the protocol's definition; what isn't a field is left out.
    pub(super) fn read<T: serde::de::DeserializeOwned>(
        self,
        fields: &[(&'static str, Kind)],
    ) -> Result<T, A2aError> {
        let mut object = Map::new();
        for pair in self.0.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let unreadable = || A2aError::invalid("query", "isn't UTF-8 in percent encoding");
            let name = decode_form(name).ok_or_else(unreadable)?;
            let value = decode_form(value).ok_or_else(unreadable)?;
            let is_it = |field: &&(&'static str, Kind)| field.0 == name || snake(field.0) == name;
            let Some((field, kind)) = fields.iter().find(is_it) else { continue };
            if object.insert((*field).to_owned(), kind.value(field, value)?).is_some() {
                return Err(A2aError::invalid(*field, "is given twice"));
            }
        }
        json::read(json!(object).to_string().as_bytes(), "query")
    }
}

/// The tenant that a query names. By the protocol's definition that is a parameter of every operation
/// without a body; of the others it's read too, because leaving it out would answer for another agent.
#[derive(Debug, Default)]
pub(super) struct Tenant(String);

impl Tenant {
    pub(super) fn read(query: Option<&str>) -> Result<Self, A2aError> {
        let query = query.unwrap_or_default();
        // Most have none.
        if query.is_empty() {
            return Ok(Self::default());
        }
        let request: pb::GetExtendedAgentCardRequest =
            Query(query).read(&[("tenant", Kind::Text)])?;
        Ok(Self(request.tenant))
    }

    /// Puts it into a request, which must not name another.
    pub(super) fn put_in(self, tenant: &mut String) -> Result<(), A2aError> {
        if self.0.is_empty() {
            return Ok(());
        }
        if !tenant.is_empty() && *tenant != self.0 {
            return Err(A2aError::invalid("tenant", "isn't the tenant of the query"));
        }
        *tenant = self.0;
        Ok(())
    }
}

/// What a field of a query is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Number,
    Flag,
    /// A name, or its number.
    Enum,
}

impl Kind {
    fn value(self, field: &str, text: String) -> Result<Value, A2aError> {
        match self {
            Self::Text => Ok(Value::String(text)),
            Self::Enum => Ok(text.parse::<i32>().map_or(Value::String(text), Value::from)),
            Self::Number => text
                .parse::<i32>()
                .map(Value::from)
                .map_err(|_not| A2aError::invalid(field, "must be a whole number of 32 bits")),
            Self::Flag => match text.as_str() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(A2aError::invalid(field, "must be true or false")),
            },
        }
    }
}

/// The fields of each query.
pub(super) const GET: &[(&str, Kind)] = &[("historyLength", Kind::Number)];
pub(super) const LIST: &[(&str, Kind)] = &[
    ("contextId", Kind::Text),
    ("status", Kind::Enum),
    ("pageSize", Kind::Number),
    ("pageToken", Kind::Text),
    ("historyLength", Kind::Number),
    ("statusTimestampAfter", Kind::Text),
    ("includeArtifacts", Kind::Flag),
];
pub(super) const LIST_PUSH: &[(&str, Kind)] =
    &[("pageSize", Kind::Number), ("pageToken", Kind::Text)];

fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn decode_form(text: &str) -> Option<String> {
    decode(&text.replace('+', " "))
}

/// Reads percent encoding; nothing if it isn't UTF-8 then.
fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: &str, path: &str) -> (Option<String>, Option<String>, &'static str) {
        let route = route(method, path, None).unwrap_or_else(|error| panic!("{path}: {error:?}"));
        (route.agent, route.tenant, route.call.operation())
    }

    #[test]
    fn every_path_of_the_protocol_leads_to_its_operation_below_each_prefix() {
        let paths = [
            ("POST", "/message:send", "SendMessage"),
            ("POST", "/message:stream", "SendStreamingMessage"),
            ("GET", "/tasks", "ListTasks"),
            ("GET", "/tasks/a-b", "GetTask"),
            ("GET", "/tasks/a:b", "GetTask"),
            ("POST", "/tasks/a:b:cancel", "CancelTask"),
            ("GET", "/tasks/a:subscribe", "SubscribeToTask"),
            ("POST", "/tasks/a:subscribe", "SubscribeToTask"),
            ("POST", "/tasks/a/pushNotificationConfigs", "CreateTaskPushNotificationConfig"),
            ("GET", "/tasks/a/pushNotificationConfigs", "ListTaskPushNotificationConfigs"),
            ("GET", "/tasks/a/pushNotificationConfigs/c", "GetTaskPushNotificationConfig"),
            ("DELETE", "/tasks/a/pushNotificationConfigs/c", "DeleteTaskPushNotificationConfig"),
            ("GET", "/extendedAgentCard", "GetExtendedAgentCard"),
        ];
        let (x, y) = (Some("x".to_owned()), Some("y".to_owned()));
        for (method, path, operation) in paths {
            assert_eq!(at(method, path), (None, None, operation));
            assert_eq!(at(method, &format!("/y{path}")), (None, y.clone(), operation));
            assert_eq!(at(method, &format!("/agents/x{path}")), (x.clone(), None, operation));
            assert_eq!(
                at(method, &format!("/agents/x/y{path}")),
                (x.clone(), y.clone(), operation)
            );
        }
    }

    #[test]
    fn ids_are_decoded_after_the_path_was_split() {
        let found = route("POST", "/tasks/a%2Fb%3A:cancel", None).unwrap();
        assert_eq!(found.call, Call::Cancel("a/b:".into()));
        for path in ["/tasks/%ff", "/tasks/%4", "/tasks/%zz", "/", "", "/a/b/c/tasks", "/x"] {
            assert_eq!(route("GET", path, None).unwrap_err(), Unrouted::Unknown, "{path}");
        }
        let wrong = route("PUT", "/tasks/a:cancel", None).unwrap_err();
        assert_eq!(wrong, Unrouted::Method { allow: "POST" });
    }

    #[test]
    fn a_tenant_of_the_query_is_no_others() {
        let read = |query: &str, mut tenant: String| {
            let named = Tenant::read(Some(query)).unwrap();
            named.put_in(&mut tenant).map(|()| tenant).map_err(|error| error.to_string())
        };
        let text = str::to_owned;
        assert_eq!(read("", text("echo")), Ok(text("echo")));
        assert_eq!(read("a=b&tenant=echo", text("")), Ok(text("echo")));
        assert_eq!(read("tenant=ec%68o", text("echo")), Ok(text("echo")));
        assert_eq!(read("a=tenant", text("")), Ok(text("")));
        let refused = read("tenant=echo", text("shell")).unwrap_err();
        assert!(refused.starts_with("tenant "), "{refused}");
        assert!(Tenant::read(Some("tenant=a&tenant=b")).is_err());
    }

    #[test]
    fn a_query_is_read_as_its_json_would_be() {
        let text = "context_id=a%20b+c&pageSize=7&includeArtifacts=true&other=1\
                    &status=TASK_STATE_WORKING&statusTimestampAfter=2023-11-14T22:13:20.127Z";
        let request: pb::ListTasksRequest = Query(text).read(LIST).unwrap();
        assert_eq!((request.context_id.as_str(), request.page_size), ("a b c", Some(7)));
        assert_eq!(request.include_artifacts, Some(true));
        assert_eq!(request.status(), pb::TaskState::Working);
        assert_eq!(request.status_timestamp_after.unwrap().seconds, 1_700_000_000);
        let request: pb::ListTasksRequest = Query("status=2").read(LIST).unwrap();
        assert_eq!(request.status(), pb::TaskState::Working);
        for (wrong, field) in [
            ("pageSize=x", "pageSize"),
            ("pageSize=1&page_size=2", "pageSize"),
            ("includeArtifacts=1", "includeArtifacts"),
            ("status=TASK_STATE_ASLEEP", "status"),
            ("statusTimestampAfter=yesterday", "statusTimestampAfter"),
            ("contextId=%ff", "query"),
        ] {
            let error = Query(wrong).read::<pb::ListTasksRequest>(LIST).unwrap_err();
            assert!(error.to_string().starts_with(field), "{wrong}: {error}");
            assert_eq!(error.code(), -32602);
        }
    }
}
