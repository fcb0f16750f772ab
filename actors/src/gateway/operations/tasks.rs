//! Reading tasks, one or many, following one, and cancelling one.

use a2a_pb::protojson as pb;

use super::following::{End, Following};
use super::{Update, Updates, Visit, history_length, required, unanswered};
use crate::agent::{AgentCommand, CANCEL, CancelError, READ, TaskPage, TaskQuery, follow};
use crate::gateway::convert;
use crate::gateway::error::A2aError;
use crate::gateway::http::Served;
use crate::gateway::pauses::Pauses;
use crate::gateway::task_view::TaskView;
use crate::limits::{LIST_PAGE, LIST_PAGE_LONGEST};

impl Visit<'_> {
    /// The task as it is.
    pub(in crate::gateway) async fn get(
        &self,
        request: pb::GetTaskRequest,
    ) -> Result<pb::Task, A2aError> {
        let served = self.enter(&request.tenant, READ).await?;
        let history = history_length("historyLength", request.history_length)?;
        let events = self.read(served, required("id", &request.id)?).await?;
        Ok(TaskView::of(&events).into_task(history))
    }

    /// A page of the caller's tasks.
    pub(in crate::gateway) async fn list(
        &self,
        request: pb::ListTasksRequest,
    ) -> Result<pb::ListTasksResponse, A2aError> {
        let served = self.enter(&request.tenant, READ).await?;
        let history = history_length("historyLength", request.history_length)?;
        let query = self.query(served, &request)?;
        let command = |reply| AgentCommand::List { query: query.clone(), reply };
        let place = self.reads(served).await?;
        let page = self.address(served).call(self.soon(), command).await.map_err(unanswered)?;
        self.hold(page.tasks.iter().flatten())?;
        drop(place);
        let artifacts = request.include_artifacts.unwrap_or_default();
        Ok(self.page(served, &query, &page, history, artifacts))
    }

    fn query(
        &self,
        served: &Served,
        request: &pb::ListTasksRequest,
    ) -> Result<TaskQuery, A2aError> {
        let limit = match request.page_size.map(usize::try_from) {
            None => LIST_PAGE,
            Some(Ok(size)) if (1..=LIST_PAGE_LONGEST).contains(&size) => size,
            Some(_) => {
                let problem = format!("must be from 1 to {LIST_PAGE_LONGEST}");
                return Err(A2aError::invalid("pageSize", problem));
            }
        };
        convert::client_id("contextId", &request.context_id)?;
        convert::client_id("pageToken", &request.page_token)?;
        let mut query = TaskQuery::first(limit);
        query.caller = self.owner();
        query.context = (!request.context_id.is_empty()).then(|| request.context_id.clone());
        query.state = convert::wanted_state("status", request.status)?;
        let since = request.status_timestamp_after.as_ref();
        query.since_ms =
            since.map(|time| convert::unix_ms("statusTimestampAfter", time)).transpose()?;
        if !request.page_token.is_empty() {
            let name = &served.agent.profile.name;
            let place = self.shared.cursors().open(name, &query, &request.page_token);
            let wrong = || A2aError::invalid("pageToken", "isn't one of this list's");
            query.after = Some(place.ok_or_else(wrong)?);
        }
        Ok(query)
    }

    fn page(
        &self,
        served: &Served,
        query: &TaskQuery,
        page: &TaskPage,
        history: Option<usize>,
        artifacts: bool,
    ) -> pb::ListTasksResponse {
        let mut tasks = Vec::with_capacity(page.tasks.len());
        for events in &page.tasks {
            let mut task = TaskView::of(events).into_task(history);
            if !artifacts {
                task.artifacts = Vec::new();
            }
            tasks.push(task);
        }
        let seal = |place| self.shared.cursors().seal(&served.agent.profile.name, query, place);
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        pb::ListTasksResponse {
            tasks,
            next_page_token: page.next.as_ref().map(seal).unwrap_or_default(),
            page_size: number(query.limit),
            total_size: number(page.total),
        }
    }

    /// The task as it is, then what becomes of it; after an interruption only what was missed.
    pub(in crate::gateway) async fn subscribe(
        &self,
        request: pb::SubscribeToTaskRequest,
    ) -> Result<Updates, A2aError> {
        let served = self.enter(&request.tenant, READ).await?;
        if !served.agent.profile.streaming {
            return Err(A2aError::UnsupportedOperation { operation: "streaming" });
        }
        let task = required("id", &request.id)?;
        let address = &self.address(served);
        let place = self.reads(served).await?;
        let followed = follow(address, self.soon(), task, self.owner().as_deref(), None).await;
        let missing = || A2aError::TaskNotFound { task: task.to_owned() };
        let (so_far, to_come) = followed.map_err(unanswered)?.ok_or_else(missing)?;
        self.hold(&so_far)?;
        drop(place);
        let view = TaskView::of(&so_far);
        let (state, known) = (view.state(), view.generation());
        let last = self.last_event.unwrap_or(known);
        if last > known {
            let problem = format!("is {last}, and the task has {known} events");
            return Err(A2aError::invalid("Last-Event-ID", problem));
        }
        if state.is_terminal() && last == known {
            let task = task.to_owned();
            return Err(A2aError::TaskEnded { task, state, wish: "followed" });
        }
        let following = Following {
            agent: address.clone(),
            unsent: self.admitted.unsent().clone(),
            header: self.header.clone(),
            clock: self.clock().clone(),
            caller: self.owner(),
            task: task.to_owned(),
            last,
            ready: if last < known { so_far.into() } else { std::collections::VecDeque::new() },
            to_come: Some(to_come),
            pauses: Pauses::default(),
        };
        let first = self.last_event.is_none().then(|| Update::snapshot(&view, None));
        Ok(Updates::new(first, following, End::TasksEnd, self.allowed(served, READ, None)))
    }

    /// Ends the task and everything that works for it.
    pub(in crate::gateway) async fn cancel(
        &self,
        request: pb::CancelTaskRequest,
    ) -> Result<pb::Task, A2aError> {
        let served = self.enter(&request.tenant, CANCEL).await?;
        let task = required("id", &request.id)?;
        let caller = self.owner();
        let command = |reply| AgentCommand::Cancel { task: task.to_owned(), caller, reply };
        let address = &self.address(served);
        let cancelled = address.call(self.soon(), command).await.map_err(unanswered)?;
        match cancelled {
            Ok(events) => Ok(TaskView::of(&events).into_task(None)),
            Err(CancelError::Unknown) => Err(A2aError::TaskNotFound { task: task.to_owned() }),
            Err(CancelError::Elsewhere) => Err(A2aError::Elsewhere { task: task.to_owned() }),
            Err(CancelError::Ended { state }) => {
                Err(A2aError::TaskNotCancelable { task: task.to_owned(), state })
            }
        }
    }
}
