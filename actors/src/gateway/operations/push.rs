//! Push notification configurations: where they would be kept. Without a service that sends
//! notifications each of them is refused, and cards don't offer them.

use a2a_pb::protojson as pb;

use super::Visit;
use crate::agent::READ;
use crate::gateway::error::A2aError;
use crate::gateway::http::Served;

impl Visit<'_> {
    /// Checks a configuration that comes with a message, before the message is sent.
    #[expect(clippy::unused_self, reason = "whoever keeps it belongs to the request")]
    pub(super) fn check_inline_push(
        &self,
        _served: &Served,
        config: Option<&pb::TaskPushNotificationConfig>,
    ) -> Result<(), A2aError> {
        if config.is_some() { Err(A2aError::PushNotificationNotSupported) } else { Ok(()) }
    }

    /// Keeps a configuration that came with a message, for the task that it is about.
    #[expect(clippy::unused_async, reason = "whoever keeps it has to be asked")]
    pub(super) async fn register_inline_push(
        &self,
        _served: &Served,
        _task: &str,
        config: Option<pb::TaskPushNotificationConfig>,
    ) -> Result<(), A2aError> {
        if config.is_some() { Err(A2aError::PushNotificationNotSupported) } else { Ok(()) }
    }

    #[expect(clippy::unused_async, reason = "whoever keeps it has to be asked")]
    pub(in crate::gateway) async fn create_push(
        &self,
        request: pb::TaskPushNotificationConfig,
    ) -> Result<pb::TaskPushNotificationConfig, A2aError> {
        self.enter(&request.tenant, READ)?;
        Err(A2aError::PushNotificationNotSupported)
    }

    #[expect(clippy::unused_async, reason = "whoever keeps it has to be asked")]
    pub(in crate::gateway) async fn get_push(
        &self,
        request: pb::GetTaskPushNotificationConfigRequest,
    ) -> Result<pb::TaskPushNotificationConfig, A2aError> {
        self.enter(&request.tenant, READ)?;
        Err(A2aError::PushNotificationNotSupported)
    }

    #[expect(clippy::unused_async, reason = "whoever keeps it has to be asked")]
    pub(in crate::gateway) async fn list_push(
        &self,
        request: pb::ListTaskPushNotificationConfigsRequest,
    ) -> Result<pb::ListTaskPushNotificationConfigsResponse, A2aError> {
        self.enter(&request.tenant, READ)?;
        Err(A2aError::PushNotificationNotSupported)
    }

    #[expect(clippy::unused_async, reason = "whoever keeps it has to be asked")]
    pub(in crate::gateway) async fn delete_push(
        &self,
        request: pb::DeleteTaskPushNotificationConfigRequest,
    ) -> Result<(), A2aError> {
        self.enter(&request.tenant, READ)?;
        Err(A2aError::PushNotificationNotSupported)
    }
}
