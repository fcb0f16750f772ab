"""Drives a node with the official client of A2A: the address of the node's root is the argument."""

import asyncio
import sys

from a2a.client.client import ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import (
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)


def ask(part: a2a.Part, **configuration) -> a2a.SendMessageRequest:
    message = a2a.Message(message_id="m", role=a2a.ROLE_USER, parts=[part])
    return a2a.SendMessageRequest(
        message=message,
        configuration=a2a.SendMessageConfiguration(**configuration),
    )


async def refused(error: type, work) -> str:
    try:
        await work
    except error as refusal:
        return str(refusal)
    raise AssertionError(f"no {error.__name__}")


async def main(url: str) -> None:
    client = await ClientFactory(ClientConfig()).create_from_url(url)
    card = client._card
    assert card.name == "shell", card
    assert card.supported_interfaces[0].protocol_binding == "JSONRPC", card
    assert not card.capabilities.streaming, card

    # The card says that nothing is streamed, so the client waits for one answer.
    answers = [answer async for answer in client.send_message(ask(a2a.Part(text="uname -n")))]
    assert len(answers) == 1, answers
    task = answers[0].task
    assert task.status.state == a2a.TASK_STATE_COMPLETED, task
    assert task.artifacts[0].name == "output", task
    assert task.artifacts[0].parts[0].text == "cell\n", task
    assert task.artifacts[0].parts[1].data.struct_value["exit_code"] == 0, task
    assert task.status.timestamp.ToMilliseconds() > 0, task
    assert await client.get_task(a2a.GetTaskRequest(id=task.id)) == task

    part = a2a.Part()
    part.data.struct_value.update({"command": ["cat"], "stdin": "from data"})
    answers = [answer async for answer in client.send_message(ask(part))]
    assert answers[0].task.artifacts[0].parts[0].text == "from data", answers

    slow = ask(a2a.Part(text="sleep 60"), return_immediately=True)
    answers = [answer async for answer in client.send_message(slow)]
    running = answers[0].task
    assert running.status.state in (a2a.TASK_STATE_SUBMITTED, a2a.TASK_STATE_WORKING), running
    cancel = a2a.CancelTaskRequest(id=running.id)
    assert (await client.cancel_task(cancel)).status.state == a2a.TASK_STATE_CANCELED
    await refused(TaskNotCancelableError, client.cancel_task(cancel))

    await refused(TaskNotFoundError, client.get_task(a2a.GetTaskRequest(id="no-such-task")))
    text = await refused(InvalidParamsError, client.get_task(a2a.GetTaskRequest()))
    assert "id is missing" in text, text
    await refused(UnsupportedOperationError, client.list_tasks(a2a.ListTasksRequest()))
    await client.close()
    print("the official client agrees")


asyncio.run(main(sys.argv[1]))
