"""Drives a node that wants to know who asks, with the official client of A2A over one of its bindings.

Arguments: the address of the node's root, the binding, and a token that the node takes. The root agent's
clients have to know an extension; it asks back what it's to do, and has a longer card for those who have proved
who they are. The node sends push notifications.
"""

import asyncio
import sys

import grpc
from a2a.client.auth.credentials import CredentialService
from a2a.client.auth.interceptor import AuthInterceptor
from a2a.client.client import ClientCallContext, ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.client.service_parameters import ServiceParametersFactory, with_a2a_extensions
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import (
    ExtensionSupportRequiredError,
    TaskNotFoundError,
)
from google.protobuf import json_format

EXTENSION = "https://example.org/ext/needed"


class Token(CredentialService):
    def __init__(self, token: str):
        self.token = token

    async def get_credentials(self, name, context):
        return self.token


def known() -> ClientCallContext:
    """A call by a client that knows the extension."""
    parameters = ServiceParametersFactory.create([with_a2a_extensions([EXTENSION])])
    return ClientCallContext(service_parameters=parameters)


async def connect(url: str, binding: str, token: str | None):
    config = ClientConfig(supported_protocol_bindings=[binding], streaming=False)
    config.grpc_channel_factory = grpc.aio.insecure_channel
    interceptors = [AuthInterceptor(Token(token))] if token else []
    return await ClientFactory(config).create_from_url(url, interceptors=interceptors)


def ask(text: str, task: str = "", **configuration) -> a2a.SendMessageRequest:
    message = a2a.Message(
        message_id=f"m-{text}", role=a2a.ROLE_USER, parts=[a2a.Part(text=text)], task_id=task
    )
    return a2a.SendMessageRequest(
        message=message, configuration=a2a.SendMessageConfiguration(**configuration)
    )


async def one(client, request: a2a.SendMessageRequest) -> a2a.Task:
    answers = [answer async for answer in client.send_message(request, context=known())]
    assert len(answers) == 1, answers
    return answers[0].task


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


class Receiver:
    """A webhook that reads what it's sent with the client's own types."""

    def __init__(self):
        self.told: list[tuple[dict[str, str], a2a.StreamResponse]] = []
        self.ended = asyncio.Event()

    async def start(self) -> str:
        self.server = await asyncio.start_server(self.take, "127.0.0.1", 0)
        host, port = self.server.sockets[0].getsockname()
        return f"http://{host}:{port}/hook"

    async def take(self, reader, writer) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
        body = await reader.readexactly(int(headers["content-length"]))
        event = json_format.Parse(body, a2a.StreamResponse())
        self.told.append((headers, event))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        if event.status_update.status.state == a2a.TASK_STATE_COMPLETED:
            self.ended.set()


async def main(url: str, binding: str, token: str) -> None:
    stranger = await connect(url, binding, None)
    said = await refused(Exception, one(stranger, ask("who am I")))
    assert "401" in said or "nauthenticated" in said or "redential" in said or "token" in said, said
    await stranger.close()

    client = await connect(url, binding, token)
    card = client._card
    assert card.capabilities.push_notifications and card.capabilities.extended_agent_card, card
    assert [(known.uri, known.required) for known in card.capabilities.extensions] == [
        (EXTENSION, True)
    ], card

    unaware = client.send_message(ask("unaware"))
    said = await refused(ExtensionSupportRequiredError, unaware)
    assert EXTENSION in said, said

    longer = await client.get_extended_agent_card(a2a.GetExtendedAgentCardRequest(), context=known())
    assert longer.description == "For those who are known.", longer
    assert [skill.id for skill in longer.skills] != [skill.id for skill in card.skills], longer

    # One webhook comes with the message, another later; the task waits for its client meanwhile.
    receiver = Receiver()
    hook = await receiver.start()
    first = a2a.TaskPushNotificationConfig(
        url=hook,
        token="known-to-us",
        authentication=a2a.AuthenticationInfo(scheme="Bearer", credentials="of-the-hook"),
    )
    task = await one(client, ask("begin", task_push_notification_config=first))
    assert task.status.state == a2a.TASK_STATE_INPUT_REQUIRED, task
    second = a2a.TaskPushNotificationConfig(task_id=task.id, id="second", url=f"{hook}?second")
    made = await client.create_task_push_notification_config(second, context=known())
    assert (made.task_id, made.id, made.url) == (task.id, "second", second.url), made
    read = a2a.GetTaskPushNotificationConfigRequest(task_id=task.id, id="second")
    assert await client.get_task_push_notification_config(read, context=known()) == made
    wanted = a2a.ListTaskPushNotificationConfigsRequest(task_id=task.id)
    listed = await client.list_task_push_notification_configs(wanted, context=known())
    assert len(listed.configs) == 2, listed
    gone = a2a.DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="second")
    await client.delete_task_push_notification_config(gone, context=known())
    listed = await client.list_task_push_notification_configs(wanted, context=known())
    assert [config.url for config in listed.configs] == [hook], listed
    await refused(
        TaskNotFoundError,
        client.create_task_push_notification_config(
            a2a.TaskPushNotificationConfig(task_id="no-such-task", url=hook), context=known()
        ),
    )

    more = ask("the end", task=task.id)
    more.message.reference_task_ids.append(task.id)
    done = await one(client, more)
    assert done.status.state == a2a.TASK_STATE_COMPLETED, done
    assert done.artifacts[0].parts[0].text == "begin, the end", done
    assert list(done.history[-1].reference_task_ids) == [task.id], done
    await asyncio.wait_for(receiver.ended.wait(), 60)
    for headers, event in receiver.told:
        assert headers["authorization"] == "Bearer of-the-hook", headers
        assert headers["x-a2a-notification-token"] == "known-to-us", headers
        kind = event.WhichOneof("payload")
        of = event.task.id if kind == "task" else getattr(event, kind).task_id
        assert of == task.id, event
    kinds = {event.WhichOneof("payload") for _, event in receiver.told}
    assert kinds >= {"status_update", "artifact_update"}, kinds
    receiver.server.close()
    await client.close()
    print("the official client agrees")


asyncio.run(main(*sys.argv[1:]))
