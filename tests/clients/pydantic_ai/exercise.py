"""pydantic-ai: agents with tools and outputs, over each of the gateway's dialects."""

from __future__ import annotations

import importlib.metadata

from checks import BASE_URL, KEY, URL, raises, run
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, Embedder, ModelHTTPError, ModelRetry, NativeOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

CALLS = 'call weather {"city": "Guiyang"} and weather {"city": "Hohhot"} then weather {"city": "Urumqi"}'
RESULTS = "Results: sunny in Guiyang; sunny in Hohhot; sunny in Urumqi"
TYPED = 'call weather {"city": "Hohhot"} then final_result {"name": "Ann", "age": 7}'


class Person(BaseModel):
    name: str
    age: int


def provider(key: str = KEY, **more) -> OpenAIProvider:
    return OpenAIProvider(openai_client=AsyncOpenAI(base_url=BASE_URL, api_key=key, **{"max_retries": 0, **more}))


def chat(name: str = "large", **more) -> OpenAIChatModel:
    return OpenAIChatModel(name, provider=provider(**more))


def responses() -> OpenAIResponsesModel:
    return OpenAIResponsesModel("large", provider=provider())


def claude() -> AnthropicModel:
    return AnthropicModel("large", provider=AnthropicProvider(base_url=URL, api_key=KEY))


def weather(city: str) -> str:
    """The weather in a city."""
    if city == "Atlantis":
        raise ModelRetry("there is no such city")
    return f"sunny in {city}"


def agent(model) -> Agent:
    return Agent(model, tools=[weather], instructions="be brief")


def run_of_an_agent(model) -> None:
    done = agent(model).run_sync("hello there", message_history=[])
    assert done.usage.requests == 2  # the backend calls the first tool of a prompt that names none
    done = Agent(model).run_sync("hello there")
    assert done.output == "You said: hello there"
    assert done.usage.input_tokens > 0
    assert done.usage.output_tokens > 0


def tool_loop(model) -> None:
    done = agent(model).run_sync(CALLS)
    assert done.output == RESULTS
    assert (done.usage.requests, done.usage.tool_calls) == (3, 3)
    again = agent(model).run_sync(CALLS, message_history=done.all_messages())
    assert again.output == RESULTS


async def streamed(model) -> None:
    async with agent(model).run_stream(CALLS) as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == RESULTS
    assert len(pieces) > 3
    assert stream.usage.output_tokens > 0


def a_retry(model) -> None:
    done = agent(model).run_sync('call weather {"city": "Atlantis"} then weather {"city": "Hohhot"}')
    assert done.output.endswith("sunny in Hohhot")
    assert "no such city" in done.output


def typed(model) -> None:
    done = Agent(model, tools=[weather], output_type=Person).run_sync(TYPED)
    assert done.output == Person(name="Ann", age=7)


def native(model) -> None:
    done = Agent(model, output_type=NativeOutput(Person)).run_sync('answer {"name": "Ann", "age": 7}')
    assert done.output == Person(name="Ann", age=7)


def picture(model) -> None:
    done = Agent(model).run_sync(["look", BinaryContent(b"\x89PNG\r\n\x1a\n", media_type="image/png")])
    assert done.output == "You said: look"


def embeddings() -> None:
    made = Embedder(OpenAIEmbeddingModel("large", provider=provider())).embed_documents_sync(["one", "two"])
    assert [len(vector) for vector in made.embeddings] == [16, 16]


def errors() -> None:
    def status(prompt: str, **more) -> int:
        return raises(ModelHTTPError, lambda: Agent(chat(**more)).run_sync(prompt)).status_code

    assert status("hello", key="sk-moma-wrong") == 401
    assert status("hello", name="none") == 404
    assert status("busy") == 429
    assert status("fail") == 502


run(
    importlib.metadata.version("pydantic-ai-slim"),
    chat={
        "agent": lambda: run_of_an_agent(chat()),
        "tool loop over three turns": lambda: tool_loop(chat()),
        "streamed tool loop": lambda: streamed(chat()),
        "a tool asking again": lambda: a_retry(chat()),
        "typed output by tool": lambda: typed(chat()),
        "typed output by json_schema": lambda: native(chat()),
        "vision": lambda: picture(chat()),
        "embeddings": embeddings,
        "errors": errors,
    },
    responses={
        "agent": lambda: run_of_an_agent(responses()),
        "tool loop": lambda: tool_loop(responses()),
        "streamed tool loop": lambda: streamed(responses()),
        "typed output": lambda: typed(responses()),
        "json_schema": lambda: native(responses()),
    },
    messages={
        "agent": lambda: run_of_an_agent(claude()),
        "tool loop": lambda: tool_loop(claude()),
        "streamed tool loop": lambda: streamed(claude()),
        "a tool asking again": lambda: a_retry(claude()),
        "typed output": lambda: typed(claude()),
        "vision": lambda: picture(claude()),
    },
)
