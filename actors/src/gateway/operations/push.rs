//! Push notification configurations: who may keep them, and the protocol's words for them.

use a2a_pb::protojson as pb;
use neuroflow_kernel::Address;

use super::{Visit, required, unanswered};
use crate::access::Principal;
use crate::agent::READ;
use crate::gateway::convert;
use crate::gateway::error::A2aError;
use crate::gateway::http::Served;
use crate::gateway::push::{
    PushBasis, PushCommand, PushConfig, PushCreator, PushError, PushPlace, PushSecret, PushTask,
};
use crate::gateway::task_view::TaskView;

impl Visit<'_> {
    /// Has a configuration that comes with a message checked, and a place held for it, before the
    /// message is sent: what is refused has begun nothing.
    pub(super) async fn reserve_inline_push(
        &self,
        served: &Served,
        task: Option<&str>,
        config: Option<pb::TaskPushNotificationConfig>,
    ) -> Result<Option<ReservedPush>, A2aError> {
        let Some(config) = config else { return Ok(None) };
        let push = self.pushes(served)?;
        let mut config = read(config, INLINE)?;
        if let (true, Some(task)) = (config.id.is_empty(), task) {
            task.clone_into(&mut config.id);
        }
        let agent = served.agent.profile.name.clone();
        let (named, by, checked) = (task.map(str::to_owned), self.creator(), config.clone());
        let command =
            |reply| PushCommand::Reserve { agent, task: named, by, config: checked, reply };
        let place = match push.call(self.soon(), command).await.map_err(unanswered)? {
            Ok(place) => place,
            Err(error) => {
                // What a task has already is told to who may see the task.
                if let (PushError::TooMany | PushError::Taken, Some(task)) = (&error, task) {
                    self.read(served, task).await?;
                }
                return Err(refused(&error, INLINE));
            }
        };
        Ok(Some(ReservedPush { config, place }))
    }

    /// Keeps a configuration that came with a message, for the task that it is about, whose event of this
    /// generation the message is. Says whether that was done: the message is taken, and its client must
    /// learn of the task, come what may.
    pub(super) async fn keep_inline_push(
        &self,
        served: &Served,
        (task, generation): (&str, u64),
        reserved: Option<ReservedPush>,
    ) -> bool {
        let Some(ReservedPush { mut config, place }) = reserved else { return true };
        // Clients send the same one with each message: there is one of a task, unless it has a name of its own.
        if config.id.is_empty() {
            task.clone_into(&mut config.id);
        }
        let kept = self.keep(served, task, config, Wish::WithMessage(generation, place)).await;
        if let Err(error) = &kept {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, task, "a push configuration isn't kept, though its message is");
        }
        kept.is_ok()
    }

    pub(in crate::gateway) async fn create_push(
        &self,
        request: pb::TaskPushNotificationConfig,
    ) -> Result<pb::TaskPushNotificationConfig, A2aError> {
        let served = self.enter(&request.tenant, READ).await?;
        self.pushes(served)?;
        let (tenant, task) = (request.tenant.clone(), request.task_id.clone());
        required("taskId", &task)?;
        let mut config = read(request, "")?;
        if config.id.is_empty() {
            config.id = uuid::Uuid::new_v4().to_string();
        }
        self.keep(served, &task, config.clone(), Wish::OfItsOwn).await?;
        Ok(written(config, tenant, task))
    }

    pub(in crate::gateway) async fn get_push(
        &self,
        request: pb::GetTaskPushNotificationConfigRequest,
    ) -> Result<pb::TaskPushNotificationConfig, A2aError> {
        let served = self.enter(&request.tenant, READ).await?;
        let id = required("id", &request.id)?;
        let configs = self.configs(served, &request.task_id).await?;
        let found = configs.into_iter().find(|config| config.id == id);
        let missing = || A2aError::PushConfigNotFound {
            task: request.task_id.clone(),
            config: request.id.clone(),
        };
        let config = found.ok_or_else(missing)?;
        Ok(written(config, request.tenant, request.task_id))
    }

    pub(in crate::gateway) async fn list_push(
        &self,
        request: pb::ListTaskPushNotificationConfigsRequest,
    ) -> Result<pb::ListTaskPushNotificationConfigsResponse, A2aError> {
        let served = self.enter(&request.tenant, READ).await?;
        let size = match usize::try_from(request.page_size) {
            Ok(0) => usize::MAX,
            Ok(size) => size,
            Err(_negative) => return Err(A2aError::invalid("pageSize", "must not be negative")),
        };
        convert::client_id("pageToken", &request.page_token)?;
        let configs = self.configs(served, &request.task_id).await?;
        // They are ordered by id, and a token is the last id of the page before.
        let after = |config: &PushConfig| config.id > request.page_token;
        let mut rest: Vec<PushConfig> = configs.into_iter().filter(after).collect();
        let more = rest.len() > size;
        rest.truncate(size);
        let last = rest.last().map(|config| config.id.clone()).unwrap_or_default();
        let next_page_token = if more { last } else { String::new() };
        let (tenant, task) = (&request.tenant, &request.task_id);
        let configs =
            rest.into_iter().map(|config| written(config, tenant.clone(), task.clone())).collect();
        Ok(pb::ListTaskPushNotificationConfigsResponse { configs, next_page_token })
    }

    /// Deleting what isn't there is fine: a configuration ends by itself with its task.
    pub(in crate::gateway) async fn delete_push(
        &self,
        request: pb::DeleteTaskPushNotificationConfigRequest,
    ) -> Result<(), A2aError> {
        let served = self.enter(&request.tenant, READ).await?;
        let push = self.pushes(served)?;
        let id = required("id", &request.id)?.to_owned();
        let task = self.own_task(served, &request.task_id).await?;
        let by = self.creator();
        let command = |reply| PushCommand::Delete { task, by, id, reply };
        let deleted = push.call(self.soon(), command).await.map_err(unanswered)?;
        deleted.map(|_was_there| ()).map_err(|error| refused(&error, ""))
    }

    /// The way to the server, for an agent that lets its tasks be followed that way.
    fn pushes(&self, served: &Served) -> Result<&Address<PushCommand>, A2aError> {
        let push = self.shared.push().filter(|_| served.agent.profile.push_notifications);
        push.ok_or(A2aError::PushNotificationNotSupported)
    }

    /// A task that the client may see.
    async fn own_task(&self, served: &Served, task: &str) -> Result<PushTask, A2aError> {
        self.read(served, required("taskId", task)?).await?;
        let agent = served.agent.profile.name.clone();
        Ok(PushTask { agent, task: task.to_owned() })
    }

    /// Whose configurations there are for the client: none but its own.
    fn creator(&self) -> Principal {
        self.admitted.principal().clone()
    }

    async fn configs(&self, served: &Served, task: &str) -> Result<Vec<PushConfig>, A2aError> {
        let push = self.pushes(served)?;
        let task = self.own_task(served, task).await?;
        let by = self.creator();
        let command = |reply| PushCommand::List { task, by, reply };
        let configs = push.call(self.soon(), command).await.map_err(unanswered)?;
        configs.map_err(|error| refused(&error, ""))
    }

    async fn keep(
        &self,
        served: &Served,
        task: &str,
        config: PushConfig,
        wish: Wish,
    ) -> Result<(), A2aError> {
        let push = self.pushes(served)?;
        let (root, caller, basis, after, place) = match wish {
            // What the message leads to is all told, however fast the agent was; and to who has asked
            // as its caller, whatever else that may see.
            Wish::WithMessage(generation, place) => {
                (INLINE, self.caller(), PushBasis::Ask, generation.saturating_sub(1), place)
            }
            Wish::OfItsOwn => {
                let view = TaskView::of(&self.read(served, task).await?);
                // Who asks to be told of a task that has just ended is told of its end.
                let ended = u64::from(view.state().is_terminal());
                let owner = self.owner();
                let sees_all = owner.is_none() && self.caller().is_some();
                let basis = if sees_all { PushBasis::Supervise } else { PushBasis::Read };
                ("", owner, basis, view.generation().saturating_sub(ended), None)
            }
        };
        let agent = served.agent.profile.name.clone();
        let task = PushTask { agent, task: task.to_owned() };
        let creator = Box::new(PushCreator::of(&self.creator(), basis));
        let command =
            |reply| PushCommand::Create { task, caller, creator, config, after, place, reply };
        let kept = push.call(self.soon(), command).await.map_err(unanswered)?;
        kept.map_err(|error| refused(&error, root))
    }
}

/// A configuration that came with a message, checked, and its place.
pub(super) struct ReservedPush {
    config: PushConfig,
    place: Option<PushPlace>,
}

/// How a client has asked for a configuration.
enum Wish {
    /// With the message of this generation; a place is held for it unless it replaces another.
    WithMessage(u64, Option<PushPlace>),
    OfItsOwn,
}

/// Where a configuration is that comes with a message.
const INLINE: &str = "configuration.taskPushNotificationConfig.";

fn refused(error: &PushError, root: &str) -> A2aError {
    match error {
        PushError::Url(problem) => A2aError::invalid(format!("{root}url"), problem.to_string()),
        PushError::Header { field } => {
            A2aError::invalid(format!("{root}{field}"), "can't be sent in a header")
        }
        PushError::Taken => {
            A2aError::invalid(format!("{root}id"), "is in use by another; choose one of your own")
        }
        PushError::TooMany => A2aError::invalid(format!("{root}taskId"), error.to_string()),
        PushError::Full => A2aError::Busy,
        PushError::UnknownAgent { .. } | PushError::Start(_) => {
            A2aError::Unavailable { code: "push_delivery" }
        }
        PushError::Store(_) => A2aError::Unavailable { code: "push_store" },
        PushError::Audit(_) => A2aError::Unavailable { code: "unrecorded" },
    }
}

/// A client's configuration; it may lack an id.
fn read(config: pb::TaskPushNotificationConfig, root: &str) -> Result<PushConfig, A2aError> {
    convert::client_id(&format!("{root}id"), &config.id)?;
    if config.url.is_empty() {
        return Err(A2aError::invalid(format!("{root}url"), "is missing"));
    }
    let token = (!config.token.is_empty()).then(|| PushSecret::new(config.token));
    let authorization = config
        .authentication
        .map(|authentication| (authentication.scheme, PushSecret::new(authentication.credentials)));
    Ok(PushConfig { id: config.id, url: config.url, token, authorization })
}

fn written(config: PushConfig, tenant: String, task_id: String) -> pb::TaskPushNotificationConfig {
    let authentication = config.authorization.map(|(scheme, credentials)| pb::AuthenticationInfo {
        scheme,
        credentials: credentials.reveal().to_owned(),
    });
    pb::TaskPushNotificationConfig {
        tenant,
        id: config.id,
        task_id,
        url: config.url,
        token: config.token.map(|token| token.reveal().to_owned()).unwrap_or_default(),
        authentication,
    }
}
