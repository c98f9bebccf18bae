"""What every major of the OpenAI SDK does with the gateway. Run by the Python of one venv: BASE_URL KEY EMPTY_KEY.

Prints what was done, a line each; the first failure ends it. Only what majors 1, 2 and 3 have in common is used.
"""

from __future__ import annotations

import asyncio
import sys
import time

import openai
from pydantic import BaseModel

BASE_URL, KEY, EMPTY_KEY = sys.argv[1:4]
HELLO = [{"role": "user", "content": "hello there"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Person(BaseModel):
    name: str
    age: int


def client(key: str = KEY, **more):
    return openai.OpenAI(base_url=BASE_URL, api_key=key, **{"max_retries": 0, **more})


def chat_is_answered(c):
    answer = c.chat.completions.create(model="auto", messages=HELLO)
    assert answer.choices[0].message.content == "You said: hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def chat_is_streamed(c):
    chunks = list(c.chat.completions.create(model="auto", messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: hello there"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def usage_is_streamed_when_asked_for(c):
    options = {"include_usage": True}
    *chunks, last = c.chat.completions.create(model="auto", messages=HELLO, stream=True, stream_options=options)
    assert last.choices == []
    assert last.usage.completion_tokens > 0
    assert len(chunks) > 2


def several_choices(c):
    answer = c.chat.completions.create(model="small", messages=HELLO, n=3, max_tokens=2)
    assert [(choice.index, choice.finish_reason) for choice in answer.choices] == [(n, "length") for n in range(3)]


def tools_are_called(c):
    answer = c.chat.completions.create(model="small", messages=HELLO, tools=[TOOL], tool_choice="required")
    [call] = answer.choices[0].message.tool_calls
    assert (call.function.name, answer.choices[0].finish_reason) == ("weather", "tool_calls")
    assert "city" in call.function.arguments


def tools_are_called_in_a_stream(c):
    name, arguments = "", ""
    for chunk in c.chat.completions.create(
        model="small", messages=HELLO, tools=[TOOL], tool_choice="required", stream=True
    ):
        for call in chunk.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert name == "weather"
    assert "city" in arguments


def json_schema_is_parsed(c):
    answer = c.chat.completions.parse(model="small", messages=HELLO, response_format=Person)
    assert isinstance(answer.choices[0].message.parsed, Person)


def a_stream_helper_works(c):
    with c.chat.completions.stream(model="small", messages=HELLO) as stream:
        assert any(event.type == "content.delta" for event in stream)
        assert stream.get_final_completion().choices[0].message.content == "You said: hello there"


def completions(c):
    assert c.completions.create(model="small", prompt="hello", max_tokens=5).choices[0].text
    assert list(c.completions.create(model="small", prompt="hello", max_tokens=5, stream=True))


def embeddings(c):
    made = c.embeddings.create(model="small", input=["one", "two"])
    assert [len(item.embedding) for item in made.data] == [16, 16]
    assert isinstance(made.data[0].embedding[0], float)
    assert len(c.embeddings.create(model="small", input="one", dimensions=8).data[0].embedding) == 8


def models(c):
    assert {"small", "large", "auto"} <= {model.id for model in c.models.list()}
    assert c.models.retrieve("small").id == "small"


def responses(c):
    answer = c.responses.create(model="auto", input="hello there", instructions="be brief")
    assert (answer.status, answer.output_text) == ("completed", "You said: hello there")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def responses_are_streamed(c):
    with c.responses.stream(model="auto", input="hello there") as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        final = events.get_final_response()
    assert text == final.output_text == "You said: hello there"
    assert final.usage.output_tokens > 0


def responses_are_kept(c):
    first = c.responses.create(model="auto", input="hello there")
    then = c.responses.create(model="auto", input="and now", previous_response_id=first.id)
    assert then.usage.input_tokens > first.usage.input_tokens
    assert c.responses.retrieve(then.id).output_text == "You said: and now"
    newest = c.responses.input_items.list(then.id).data[0]
    assert newest.content[0].text == "and now"
    c.responses.delete(then.id)
    raises(openai.NotFoundError, None, lambda: c.responses.retrieve(then.id))


def responses_call_tools(c):
    tool = {"type": "function", "strict": False, **TOOL["function"]}
    first = c.responses.create(model="small", input="hello", tools=[tool])
    [call] = first.output
    assert (call.type, call.name) == ("function_call", "weather")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    then = c.responses.create(model="small", input=[result], previous_response_id=first.id, tools=[tool])
    assert then.output_text == "You said: hello"


def responses_are_parsed(c):
    answer = c.responses.parse(model="small", input="hello there", text_format=Person)
    assert isinstance(answer.output_parsed, Person)


def raw_headers(c):
    raw = c.chat.completions.with_raw_response.create(model="auto", messages=HELLO)
    assert raw.headers["x-moma-model"] == "small"
    assert raw.headers["x-moma-backend"] == "a"
    assert raw.headers["x-request-id"] == raw.parse()._request_id
    assert float(raw.headers["x-moma-credits"]) > 0
    with c.chat.completions.with_streaming_response.create(model="auto", messages=HELLO, stream=True) as raw:
        assert raw.headers["x-moma-route"] == "auto"
        assert [line for line in raw.iter_lines() if line][-1] == "data: [DONE]"


def unknown_fields_pass(c):
    answer = c.chat.completions.create(model="small", messages=HELLO, extra_body={"min_tokens": 50})
    assert answer.usage.completion_tokens >= 50


def raises(kind, code, call):
    try:
        call()
    except openai.OpenAIError as error:
        assert type(error) is kind, error
        assert code is None or error.code == code, error
        return error
    raise AssertionError(f"no {kind.__name__}")


def errors_have_their_classes(c):
    def create(who=c, **more):
        return who.chat.completions.create(**{"model": "small", "messages": HELLO, **more})

    raises(openai.AuthenticationError, "invalid_api_key", lambda: create(client("sk-moma-wrong")))
    raises(openai.AuthenticationError, "invalid_api_key", lambda: client("sk-moma-wrong").models.list())
    raises(openai.NotFoundError, "model_not_found", lambda: create(model="none"))
    assert raises(openai.BadRequestError, "invalid_value", lambda: create(n=1000)).param == "n"
    raises(openai.BadRequestError, "context_length_exceeded", lambda: create(messages=said("word " * 40_000)))
    raises(openai.InternalServerError, "backend_error", lambda: create(model="large", messages=said("fail")))
    raises(openai.RateLimitError, "backend_overloaded", lambda: create(model="large", messages=said("busy")))
    nobody = openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key=KEY, max_retries=0)
    raises(openai.APIConnectionError, None, lambda: create(nobody))


def said(text):
    return [{"role": "user", "content": text}]


def no_quota_is_said_at_once(c):
    """With the SDK's own retries on: it must not try a second time."""
    started = time.monotonic()
    empty = openai.OpenAI(base_url=BASE_URL, api_key=EMPTY_KEY)
    error = raises(
        openai.RateLimitError,
        "insufficient_quota",
        lambda: empty.chat.completions.create(model="small", messages=HELLO),
    )
    assert error.type == "insufficient_quota"
    assert time.monotonic() - started < 5


def a_backend_in_trouble_is_an_error_in_the_stream(c):
    stream = c.chat.completions.create(model="large", messages=said("break"), stream=True)
    seen = []
    try:
        seen.extend(stream)
    except openai.APIError as error:
        assert error.code == "backend_error"
    else:
        raise AssertionError("a broken stream looked complete")
    assert seen


def timeouts_are_the_clients(c):
    started = time.monotonic()
    slow = client(timeout=0.5)
    longer = {"x-stainless-read-timeout": "60"}  # told of the same time, the gateway's own answer might come first

    def create():
        slow.chat.completions.create(model="large", messages=said("slow"), extra_headers=longer)

    raises(openai.APITimeoutError, None, create)
    assert time.monotonic() - started < 3  # the gateway's own would be 5


async def the_async_client(base_url):
    async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=0) as c:
        answers = await asyncio.gather(*[c.chat.completions.create(model="auto", messages=HELLO) for _ in range(20)])
        assert {answer.choices[0].message.content for answer in answers} == {"You said: hello there"}
        stream = await c.chat.completions.create(model="auto", messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "You said: hello there"
        stream = await c.chat.completions.create(model="auto", messages=HELLO, stream=True)
        async for _ in stream:
            break
        await stream.close()  # leaving early is nobody's error
        assert [model.id async for model in c.models.list()]
        try:
            await c.chat.completions.create(model="none", messages=HELLO)
        except openai.NotFoundError:
            return
        raise AssertionError("no NotFoundError")


def main():
    print("openai", openai.__version__)
    with client() as c:
        for check in (
            chat_is_answered, chat_is_streamed, usage_is_streamed_when_asked_for, several_choices, tools_are_called,
            tools_are_called_in_a_stream, json_schema_is_parsed, a_stream_helper_works, completions, embeddings, models,
            responses, responses_are_streamed, responses_are_kept, responses_call_tools, responses_are_parsed,
            raw_headers, unknown_fields_pass, errors_have_their_classes, no_quota_is_said_at_once,
            a_backend_in_trouble_is_an_error_in_the_stream, timeouts_are_the_clients,
        ):  # fmt: skip
            check(c)
            print(check.__name__, flush=True)
    asyncio.run(the_async_client(BASE_URL))
    print("the_async_client")


if __name__ == "__main__":
    main()
