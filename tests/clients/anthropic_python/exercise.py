"""Anthropic's SDK for Python."""

from __future__ import annotations

import asyncio
import time

import anthropic
from anthropic import beta_tool
from checks import EMPTY_KEY, KEY, PATIENT, REAL, URL, raises, run
from pydantic import BaseModel

HELLO = [{"role": "user", "content": "hello there"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "The weather in a city.", "input_schema": SCHEMA}
CALLS = 'call weather {"city": "Guiyang"} and weather {"city": "Hohhot"} then weather {"city": "Urumqi"}'
RESULTS = "Results: sunny in Guiyang; sunny in Hohhot; sunny in Urumqi"
PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}


class Person(BaseModel):
    name: str
    age: int


def client(**more):
    return anthropic.Anthropic(**{"base_url": URL, "api_key": KEY, "max_retries": 0, **more})


def create(who=None, **more):
    return (who or client()).messages.create(**{"model": "large", "max_tokens": 100, "messages": HELLO, **more})


def said(text):
    return [{"role": "user", "content": text}]


def chat():
    answer = create(system="be brief")
    assert [block.text for block in answer.content] == ["You said: hello there"]
    assert (answer.type, answer.role, answer.stop_reason) == ("message", "assistant", "end_turn")
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    raw = client().messages.with_raw_response.create(model="large", max_tokens=100, messages=HELLO)
    assert raw.headers["x-moma-model"] == "large"
    assert raw.parse()._request_id


def bearer():
    assert create(client(api_key=None, auth_token=KEY)).content[0].text == "You said: hello there"


def limits():
    assert create(max_tokens=2).stop_reason == "max_tokens"
    stopped = create(stop_sequences=["hello"])
    assert stopped.content[0].text.strip() == "You said:"


def stream():
    with client().messages.stream(model="large", max_tokens=100, messages=HELLO) as events:
        assert "".join(events.text_stream) == "You said: hello there"
        final = events.get_final_message()
    assert final.stop_reason == "end_turn"
    whole = create().usage
    assert (final.usage.input_tokens, final.usage.output_tokens) == (whole.input_tokens, whole.output_tokens)


def raw_stream():
    kinds = [event.type for event in create(stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) <= {"content_block_delta", "ping"}


def result(block):
    return {"type": "tool_result", "tool_use_id": block.id, "content": f"sunny in {block.input['city']}"}


def conversed(ask):
    """What the assistant says when it wants no more tools, and how many it called in each turn."""
    messages, calls = said(CALLS), []
    while True:
        answer = ask(messages)
        used = [block for block in answer.content if block.type == "tool_use"]
        assert answer.stop_reason == ("tool_use" if used else "end_turn")
        if not used:
            return answer.content[0].text, calls
        calls.append(len(used))
        messages = [
            *messages,
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [result(block) for block in used]},
        ]


def tools():
    assert conversed(lambda messages: create(messages=messages, tools=[WEATHER])) == (RESULTS, [2, 1])


def tools_in_a_stream():
    def ask(messages):
        with client().messages.stream(model="large", max_tokens=100, messages=messages, tools=[WEATHER]) as events:
            return events.get_final_message()

    assert conversed(ask) == (RESULTS, [2, 1])


def tool_runner():
    @beta_tool
    def weather(city: str) -> str:
        """The weather in a city.

        Args:
            city: its name
        """
        return f"sunny in {city}"

    runner = client().beta.messages.tool_runner(model="large", max_tokens=100, messages=said(CALLS), tools=[weather])
    assert runner.until_done().content[0].text == RESULTS


def tool_choice():
    answer = create(tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"})
    assert [block.name for block in answer.content] == ["weather"]
    assert create(tools=[WEATHER], tool_choice={"type": "none"}).content[0].text == "You said: hello there"


def failed_tool():
    answer = create(
        tools=[WEATHER],
        messages=[
            *said("weather?"),
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "no city", "is_error": True}]},
        ],
    )  # fmt: skip
    assert answer.content[0].text == "Results: [error] no city"


def structured():
    answer = client().messages.parse(
        model="large", max_tokens=100, messages=said('answer {"name": "Ann", "age": 7}'), output_format=Person
    )
    assert answer.parsed_output == Person(name="Ann", age=7)


def vision():
    content = [{"type": "image", "source": PIXEL}, {"type": "text", "text": "look"}]
    assert create(messages=said(content)).content[0].text == "You said: look"


def count_tokens():
    short = client().messages.count_tokens(model="large", messages=HELLO).input_tokens
    long = client().messages.count_tokens(model="large", messages=said("hello there " * 50), system="s").input_tokens
    assert 0 < short < long


def models():
    assert {"large", "auto"} <= {model.id for model in client().models.list()}


def errors():
    raises(anthropic.AuthenticationError, lambda: create(client(api_key="sk-moma-wrong")))
    raises(anthropic.NotFoundError, lambda: create(model="none"))
    bad = raises(anthropic.BadRequestError, lambda: create(max_tokens=-1))
    assert bad.body["type"] == "error"
    assert bad.body["error"]["type"] == "invalid_request_error"
    raises(anthropic.InternalServerError, lambda: create(messages=said("fail")))
    raises(anthropic.RateLimitError, lambda: create(messages=said("busy")))
    raises(anthropic.APIConnectionError, lambda: create(client(base_url="http://127.0.0.1:1")))


def no_credits():
    """With the SDK's own retries on: it must not try a second time."""
    started = time.monotonic()
    raises(anthropic.APIStatusError, lambda: create(anthropic.Anthropic(base_url=URL, api_key=EMPTY_KEY)))
    assert time.monotonic() - started < 5


def broken_stream():
    raises(anthropic.APIError, lambda: list(create(messages=said("break"), stream=True)))


def timeout():
    raises(anthropic.APITimeoutError, lambda: create(client(timeout=0.5), messages=said("slow"), extra_headers=PATIENT))


async def the_async_client():
    asked = {"model": "large", "max_tokens": 100, "messages": HELLO}
    async with anthropic.AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0) as c:
        answers = await asyncio.gather(*[c.messages.create(**asked) for _ in range(20)])
        assert {answer.content[0].text for answer in answers} == {"You said: hello there"}
        async with c.messages.stream(**asked) as events:
            async for _ in events:
                break  # leaving early is nobody's error


def real_model():
    cool = {"temperature": 0}  # which the SDK has no word for any more
    asked = {"model": REAL, "max_tokens": 16, "messages": said("Say hello."), "extra_body": cool}
    with client().messages.stream(**asked) as events:
        text = "".join(events.text_stream)
    assert text
    assert create(**asked).content[0].text == text


run(
    anthropic.__version__,
    messages={
        "chat": chat,
        "Bearer": bearer,
        "max_tokens and stop sequences": limits,
        "stream with usage": stream,
        "order of events": raw_stream,
        "tools over three turns": tools,
        "tools in a stream": tools_in_a_stream,
        "tool runner": tool_runner,
        "tool choice": tool_choice,
        "failed tool": failed_tool,
        "structured output": structured,
        "vision": vision,
        "count_tokens": count_tokens,
        "models": models,
        "errors as classes": errors,
        "no credits": no_credits,
        "broken stream": broken_stream,
        "timeout": timeout,
        "async": the_async_client,
    },
    real_messages={"whole and streamed": real_model},
)
