"""The official client of the OpenAI API against a node; says what it has found wrong."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)


def ask(model, content, **more):
    messages = [{"role": "user", "content": content}]
    return client.chat.completions.create(model=model, messages=messages, **more)


def refused(kind, **arguments):
    try:
        client.chat.completions.create(**arguments)
    except kind as error:
        return error
    raise AssertionError(f"{arguments} wasn't refused as {kind}")


models = {model.id: model for model in client.models.list()}
assert set(models) == {"echo", "adder", "talker", "failing"}, models
assert client.models.retrieve("echo").object == "model"
try:
    client.models.retrieve("gpt")
    raise AssertionError("an unknown model was found")
except openai.NotFoundError as error:
    assert error.code == "model_not_found" and error.param == "model", error

# One answer, whole.
completion = ask("echo", "hello")
choice = completion.choices[0]
assert (choice.message.content, choice.finish_reason) == ("hello", "stop"), completion
assert completion.object == "chat.completion" and completion.model == "echo", completion
assert completion.usage is None, completion
parts = [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]
assert ask("echo", parts).choices[0].message.content == "in parts"

# As a stream.
pieces = list(ask("talker", "go", stream=True, stream_options={"include_usage": True}))
assert pieces[0].choices[0].delta.role == "assistant", pieces[0]
said = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
assert said == "one two three", said
assert pieces[-2].choices[0].finish_reason == "stop", pieces[-2]
assert pieces[-1].choices == [] and pieces[-1].usage.total_tokens == 7, pieces[-1]
assert len({piece.id for piece in pieces}) == 1

# Tools and a conversation get through, and so does the call.
tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
answer = ask("adder", "what is 1 and 2?", tools=[tool])
assert answer.choices[0].finish_reason == "tool_calls", answer
call = answer.choices[0].message.tool_calls[0]
assert (call.function.name, call.function.arguments) == ("add", '{"a":1,"b":2}'), call
history = [
    {"role": "user", "content": "what is 1 and 2?"},
    answer.choices[0].message.model_dump(exclude_none=True),
    {"role": "tool", "tool_call_id": call.id, "content": "3"},
]
answer = client.chat.completions.create(model="adder", messages=history, tools=[tool])
assert answer.choices[0].message.content == "it is 3 after 3 messages", answer
pieces = list(ask("adder", "x", tools=[tool], stream=True))
calls = [piece.choices[0].delta.tool_calls for piece in pieces if piece.choices[0].delta.tool_calls]
assert calls[0][0].index == 0 and calls[0][0].function.name == "add", pieces

# Errors have the API's form.
error = refused(openai.NotFoundError, model="gpt", messages=[{"role": "user", "content": "x"}])
assert error.code == "model_not_found", error
error = refused(openai.BadRequestError, model="echo", messages=[])
assert error.param == "messages" and error.type == "invalid_request_error", error
error = refused(openai.BadRequestError, model="echo", messages=[{"role": "user", "content": "x"}], n=2)
assert error.param == "n", error
failing = {"model": "failing", "messages": [{"role": "user", "content": "x"}]}
error = refused(openai.UnprocessableEntityError, **failing)
assert error.code == "task_failed" and "on purpose" in error.message, error
try:
    list(client.chat.completions.create(**failing, stream=True))
    raise AssertionError("a failure in a stream wasn't seen")
except openai.APIError as error:
    assert "on purpose" in error.message, error

print("the official client agrees")
