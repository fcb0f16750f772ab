"""Drives a node with the official client of A2A, over one of its bindings.

Arguments: the address of the node's root, and the binding. The node's agents are `shell` at the root
and `curious`, which asks back.
"""

import asyncio
import sys

import grpc
from a2a.client.client import ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import (
    ExtendedAgentCardNotConfiguredError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)


def ask(*parts: a2a.Part, task: str = "", context: str = "", **configuration) -> a2a.SendMessageRequest:
    message = a2a.Message(
        message_id="m", role=a2a.ROLE_USER, parts=parts, task_id=task, context_id=context
    )
    return a2a.SendMessageRequest(
        message=message,
        configuration=a2a.SendMessageConfiguration(**configuration),
    )


def text(text: str) -> a2a.Part:
    return a2a.Part(text=text)


async def refused(error: type, work) -> str:
    try:
        if hasattr(work, "__aiter__"):
            async for _ in work:
                pass
        else:
            await work
    except error as refusal:
        return str(refusal)
    raise AssertionError(f"no {error.__name__}")


def configured(binding: str, streaming: bool) -> ClientConfig:
    config = ClientConfig(supported_protocol_bindings=[binding], streaming=streaming)
    config.grpc_channel_factory = grpc.aio.insecure_channel
    return config


async def connect(url: str, binding: str, streaming: bool):
    client = await ClientFactory(configured(binding, streaming)).create_from_url(url)
    return client


async def one(client, request: a2a.SendMessageRequest) -> a2a.Task:
    answers = [answer async for answer in client.send_message(request)]
    assert len(answers) == 1, answers
    return answers[0].task


async def waiting(url: str, binding: str) -> None:
    """Without streams: an answer is the whole task."""
    client = await connect(url, binding, streaming=False)
    card = client._card
    assert card.name == "shell", card
    assert card.capabilities.streaming, card

    task = await one(client, ask(text("uname -n")))
    assert task.status.state == a2a.TASK_STATE_COMPLETED, task
    assert task.artifacts[0].name == "output", task
    assert task.artifacts[0].parts[0].text == "cell\n", task
    assert task.artifacts[0].parts[1].data.struct_value["exit_code"] == 0, task
    assert task.status.timestamp.ToMilliseconds() > 0, task
    assert await client.get_task(a2a.GetTaskRequest(id=task.id)) == task
    bare = await client.get_task(a2a.GetTaskRequest(id=task.id, history_length=0))
    assert not bare.history and task.history, bare

    part = a2a.Part()
    part.data.struct_value.update({"command": ["cat"], "stdin": "from data"})
    task = await one(client, ask(part))
    assert task.artifacts[0].parts[0].text == "from data", task

    running = await one(client, ask(text("sleep 60"), return_immediately=True))
    assert running.status.state in (a2a.TASK_STATE_SUBMITTED, a2a.TASK_STATE_WORKING), running
    cancel = a2a.CancelTaskRequest(id=running.id)
    assert (await client.cancel_task(cancel)).status.state == a2a.TASK_STATE_CANCELED
    await refused(TaskNotCancelableError, client.cancel_task(cancel))

    await refused(TaskNotFoundError, client.get_task(a2a.GetTaskRequest(id="no-such-task")))
    gone = ask(text("more"), task=running.id)
    await refused(UnsupportedOperationError, client.send_message(gone))
    stray = ask(text("more"), task="no-such-task")
    await refused(TaskNotFoundError, client.send_message(stray))
    config = a2a.TaskPushNotificationConfig(task_id=task.id, url="https://example.com")
    await refused(
        PushNotificationNotSupportedError, client.create_task_push_notification_config(config)
    )
    await client.close()


async def listing(url: str, binding: str) -> None:
    client = await connect(url, binding, streaming=False)
    context = f"list-{binding}"
    ids = [(await one(client, ask(text("true"), context=context))).id for _ in range(3)]
    request = a2a.ListTasksRequest(context_id=context, page_size=2)
    first = await client.list_tasks(request)
    assert (first.total_size, first.page_size) == (3, 2), first
    assert not first.tasks[0].artifacts, first
    request.page_token = first.next_page_token
    request.include_artifacts = True
    second = await client.list_tasks(request)
    assert second.next_page_token == "", second
    assert second.tasks[0].artifacts, second
    listed = [task.id for task in [*first.tasks, *second.tasks]]
    assert sorted(listed) == sorted(ids), (listed, ids)
    done = a2a.ListTasksRequest(context_id=context, status=a2a.TASK_STATE_FAILED)
    assert (await client.list_tasks(done)).total_size == 0
    request.page_token = first.next_page_token[:-2] + "xx"
    said = await refused(InvalidParamsError, client.list_tasks(request))
    assert "pageToken" in said, said
    await client.close()


async def streaming(url: str, binding: str) -> None:
    client = await connect(url, binding, streaming=True)
    events = [event async for event in client.send_message(ask(text("echo hi")))]
    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds == ["task", "status_update", "artifact_update", "status_update"], kinds
    assert events[2].artifact_update.artifact.parts[0].text == "hi\n", events[2]
    assert events[2].artifact_update.last_chunk, events[2]
    assert events[3].status_update.status.state == a2a.TASK_STATE_COMPLETED, events[3]
    task = events[0].task.id
    ended = a2a.SubscribeToTaskRequest(id=task)
    await refused(UnsupportedOperationError, client.subscribe(ended))
    missing = a2a.SubscribeToTaskRequest(id="no-such-task")
    await refused(TaskNotFoundError, client.subscribe(missing))

    running = client.send_message(ask(text("sleep 1; echo later")))
    begun = (await anext(running)).task
    await running.aclose()
    request = a2a.SubscribeToTaskRequest(id=begun.id)
    events = [event async for event in client.subscribe(request)]
    assert events[0].WhichOneof("payload") == "task", events[0]
    last = events[-1].status_update.status.state
    assert last == a2a.TASK_STATE_COMPLETED, events
    await client.close()


async def turns(url: str, binding: str) -> None:
    """An agent of its own address, which asks back."""
    client = await connect(f"{url}/agents/curious", binding, streaming=True)
    assert client._card.name == "curious", client._card
    events = [event async for event in client.send_message(ask(text("tea")))]
    asked = events[-1].status_update
    assert asked.status.state == a2a.TASK_STATE_INPUT_REQUIRED, events
    assert asked.status.message.parts[0].text == "Which colour?", asked
    other = ask(text("green"), task=asked.task_id, context="another")
    said = await refused(InvalidParamsError, client.send_message(other))
    assert "context" in said, said

    answer = client.send_message(ask(text("green"), task=asked.task_id))
    first = (await anext(answer)).task
    assert [part.parts[0].text for part in first.history] == ["tea", "Which colour?", "green"], first
    event = await anext(answer)
    while event.status_update.status.state != a2a.TASK_STATE_AUTH_REQUIRED:
        event = await anext(answer)
    # The stream stays open while the client proves itself some other way.
    quiet = await connect(f"{url}/agents/curious", binding, streaming=False)
    task = await one(quiet, ask(text("yes"), task=asked.task_id))
    assert task.status.state == a2a.TASK_STATE_COMPLETED, task
    assert task.artifacts[0].parts[0].text == "tea green yes", task
    rest = [event async for event in answer]
    assert rest[-1].status_update.status.state == a2a.TASK_STATE_COMPLETED, rest
    await client.close()
    await quiet.close()


async def main(url: str, binding: str) -> None:
    await waiting(url, binding)
    await listing(url, binding)
    await streaming(url, binding)
    await turns(url, binding)
    print("the official client agrees")


asyncio.run(main(*sys.argv[1:]))
