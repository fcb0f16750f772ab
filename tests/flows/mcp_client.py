"""The official MCP client against a node: `mcp_client.py http URL` or `mcp_client.py stdio COMMAND..`.

The node's agents are `echo`, `ask` (which asks back once) and `slow` (which says "step" before it waits
for ever), and there is `exec`.
"""

import asyncio
import json
import sys

from mcp import Client, MCPError, StdioServerParameters


def server():
    how, *rest = sys.argv[1:]
    if how == "http":
        return rest[0]
    return StdioServerParameters(command=rest[0], args=rest[1:])


async def visit(mode):
    async with Client(server(), mode=mode, read_timeout_seconds=60) as client:
        version = client.protocol_version
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert "echo" in tools, tools
        assert tools["echo"].description, tools["echo"]

        said = await client.call_tool("echo", {"message": "hello"})
        assert not said.is_error, said
        assert said.content[0].text == "hello", said
        structured = said.structured_content
        assert structured["state"] == "completed" and structured["taskId"], structured
        again = await client.call_tool(
            "echo", {"message": "more", "contextId": structured["contextId"]}
        )
        assert again.structured_content["contextId"] == structured["contextId"], again

        for arguments in ({}, {"massage": "typo"}, {"message": "x", "taskId": ""}):
            wrong = await client.call_tool("echo", arguments)
            assert wrong.is_error and wrong.content[0].text, f"{arguments} was taken: {wrong}"
        try:
            await client.call_tool("nobody", {})
            raise AssertionError("an unknown tool was called")
        except MCPError as error:
            assert error.code == -32602, error

        if "ask" in tools:
            asked = await client.call_tool("ask", {"message": "begin"})
            assert asked.structured_content["state"] == "waiting for input", asked
            assert asked.content[0].text == "which city?", asked
            # What to answer to is told to who shows a model the text alone, too.
            assert json.loads(asked.content[-1].text) == asked.structured_content, asked
            task = asked.structured_content["taskId"]
            answered = await client.call_tool("ask", {"message": "Rome", "taskId": task})
            assert answered.content[0].text == "Rome it is", answered

        if "slow" in tools:
            steps = []

            async def progress(done, total, message):
                steps.append(message)

            try:
                await client.call_tool("slow", {"message": "go"}, 2.0, progress)
                raise AssertionError("it wasn't slow")
            except MCPError:
                pass
            assert steps == ["step"], steps

        if "exec" in tools:
            assert "level" in tools["exec"].description, tools["exec"]
            ran = await client.call_tool("exec", {"command": ["sh", "-c", "echo in a cell; id -u"]})
            output = ran.structured_content or json.loads(ran.content[0].text)
            assert output["stdout"].startswith("in a cell\n"), output
            failed = await client.call_tool("exec", {"command": ["false"]})
            assert failed.is_error, failed
        return version


async def main():
    versions = [await visit("auto"), await visit("legacy")]
    print("the official client agrees:", *versions)


asyncio.run(main())
