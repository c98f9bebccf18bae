"""LiteLLM as a client: its one function for all dialects."""

from __future__ import annotations

import importlib.metadata
import json

import litellm
from checks import BASE_URL, KEY, PATIENT, URL, raises, run
from pydantic import BaseModel

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
CALLS = 'call weather {"city": "Guiyang"} and weather {"city": "Hohhot"} then weather {"city": "Urumqi"}'
RESULTS = "Results: sunny in Guiyang; sunny in Hohhot; sunny in Urumqi"


class Person(BaseModel):
    name: str
    age: int


def said(text):
    return [{"role": "user", "content": text}]


def chat(**more):
    base = {"model": "openai/large", "api_base": BASE_URL, "api_key": KEY, "num_retries": 0, "max_retries": 0}
    return litellm.completion(**{**base, "messages": said("hello there"), **more})


def claude(**more):
    return chat(**{"model": "anthropic/large", "api_base": URL, "max_tokens": 100, **more})


def completion(ask):
    answer = ask()
    assert answer.choices[0].message.content == "You said: hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def stream(ask):
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "You said: hello there"
    built = litellm.stream_chunk_builder(chunks)
    whole = ask().usage
    assert (built.usage.prompt_tokens, built.usage.completion_tokens) == (whole.prompt_tokens, whole.completion_tokens)


def tools(ask):
    messages = said(CALLS)
    for calls in (2, 1, 0):
        message = ask(messages=messages, tools=[WEATHER]).choices[0].message
        used = message.tool_calls or []
        assert len(used) == calls
        messages.append(message.model_dump())
        for call in used:
            city = json.loads(call.function.arguments)["city"]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": f"sunny in {city}"})
    assert messages[-1]["content"] == RESULTS


def structured(ask):
    answer = ask(messages=said('answer {"name": "Ann", "age": 7}'), response_format=Person)
    assert Person.model_validate_json(answer.choices[0].message.content).age == 7


async def the_async_client():
    base = {"model": "openai/large", "api_base": BASE_URL, "api_key": KEY}
    stream = await litellm.acompletion(**base, messages=said("hello there"), stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == "You said: hello there"


def text_completion():
    base = {"model": "text-completion-openai/large", "api_base": BASE_URL, "api_key": KEY}
    assert litellm.text_completion(**base, prompt="hello").choices[0].text == "You said: hello"


def embeddings():
    made = litellm.embedding(model="openai/large", input=["one", "two"], api_base=BASE_URL, api_key=KEY)
    assert [len(item["embedding"]) for item in made.data] == [16, 16]


def errors(ask):
    raises(litellm.AuthenticationError, lambda: ask(api_key="sk-moma-wrong"))
    raises(litellm.NotFoundError, lambda: ask(model=WRONG[ask]))
    raises(litellm.RateLimitError, lambda: ask(messages=said("busy")))
    raises((litellm.BadGatewayError, litellm.InternalServerError), lambda: ask(messages=said("fail")))
    raises(litellm.ContextWindowExceededError, lambda: ask(messages=said("word " * 250_000)))
    raises(litellm.exceptions.MidStreamFallbackError, lambda: list(ask(messages=said("break"), stream=True)))


def timeout(ask):
    raises(litellm.Timeout, lambda: ask(messages=said("slow"), timeout=0.5, extra_headers=PATIENT))


def responses():
    base = {"model": "openai/large", "api_base": BASE_URL, "api_key": KEY}
    answer = litellm.responses(**base, input="hello there")
    assert answer.output[0].content[0].text == "You said: hello there"
    kinds = [event.type.value for event in litellm.responses(**base, input="hello there", stream=True)]
    assert kinds[-1] == "response.completed"


WRONG = {chat: "openai/none", claude: "anthropic/none"}
litellm.suppress_debug_info = True
CHECKS = {
    "completion": completion,
    "stream with usage": stream,
    "tools over three turns": tools,
    "json_schema": structured,
    "errors as classes": errors,
    "timeout": timeout,
}
run(
    importlib.metadata.version("litellm"),
    chat={
        **{name: lambda check=check: check(chat) for name, check in CHECKS.items()},
        "async stream": the_async_client,
        "text completion": text_completion,
        "embeddings": embeddings,
    },
    responses={"responses": responses},
    messages={name: lambda check=check: check(claude) for name, check in CHECKS.items()},
)
