"""openai-agents: whole tool loops, hand-offs and typed outputs, over chat and over responses."""

from __future__ import annotations

import importlib.metadata

import openai
from agents import (
    Agent,
    Model,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from checks import BASE_URL, KEY, raises, run
from pydantic import BaseModel

CALLS = 'call weather {"city": "Guiyang"} and weather {"city": "Hohhot"} then weather {"city": "Urumqi"}'
RESULTS = "Results: sunny in Guiyang; sunny in Hohhot; sunny in Urumqi"


class Person(BaseModel):
    name: str
    age: int


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def client(key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=BASE_URL, api_key=key, max_retries=0)


def chat(name: str = "large", key: str = KEY) -> Model:
    return OpenAIChatCompletionsModel(model=name, openai_client=client(key))


def responses() -> Model:
    return OpenAIResponsesModel(model="large", openai_client=client())


def agent(model: Model, **more) -> Agent:
    return Agent(name="forecaster", instructions="be brief", model=model, **more)


async def answer(model: Model) -> None:
    done = await Runner.run(agent(model), "hello there")
    assert done.final_output == "You said: hello there"
    assert done.context_wrapper.usage.total_tokens > 0


async def tool_loop(model: Model) -> None:
    done = await Runner.run(agent(model, tools=[weather]), CALLS)
    assert done.final_output == RESULTS
    assert done.context_wrapper.usage.requests == 3


async def streamed(model: Model) -> None:
    stream = Runner.run_streamed(agent(model, tools=[weather]), CALLS)
    kinds = [event.item.type async for event in stream.stream_events() if event.type == "run_item_stream_event"]
    assert kinds.count("tool_call_item") == 3
    assert kinds[-1] == "message_output_item"
    assert stream.final_output == RESULTS


async def typed(model: Model) -> None:
    done = await Runner.run(agent(model, output_type=Person), 'answer {"name": "Ann", "age": 7}')
    assert done.final_output == Person(name="Ann", age=7)


async def handoff(model: Model) -> None:
    other = Agent(name="historian", instructions="be long", model=model)
    done = await Runner.run(agent(model, handoffs=[other]), "call transfer_to_historian {}")
    assert done.last_agent is other
    assert done.final_output


async def session(model: Model) -> None:
    kept = SQLiteSession("one")
    await Runner.run(agent(model), "hello there", session=kept)
    done = await Runner.run(agent(model), "and now", session=kept)
    assert done.final_output == "You said: and now"
    assert len(await kept.get_items()) == 4


async def kept() -> None:
    """The gateway has the conversation: the agent sends what is new."""
    first = await Runner.run(agent(responses()), "hello there")
    done = await Runner.run(agent(responses()), "and now", previous_response_id=first.last_response_id)
    assert done.final_output == "You said: and now"
    then, now = (run.context_wrapper.usage.input_tokens for run in (first, done))
    assert now > then


def errors() -> None:
    def asked(text: str, **more) -> None:
        Runner.run_sync(agent(chat(**more)), text)

    raises(openai.AuthenticationError, lambda: asked("hello", key="sk-moma-wrong"))
    raises(openai.NotFoundError, lambda: asked("hello", name="none"))
    raises(openai.RateLimitError, lambda: asked("busy"))


set_tracing_disabled(True)
LOOPS = {
    "agent": answer,
    "tool loop over three turns": tool_loop,
    "streamed tool loop": streamed,
    "typed output": typed,
    "hand-off": handoff,
    "session": session,
}
run(
    importlib.metadata.version("openai-agents"),
    chat={
        **{name: lambda check=check: check(chat()) for name, check in LOOPS.items()},
        "errors as classes": errors,
    },
    responses={
        **{name: lambda check=check: check(responses()) for name, check in LOOPS.items()},
        "previous_response_id": kept,
    },
)
