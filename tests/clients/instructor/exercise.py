"""instructor: typed answers, by each of its modes that the gateway's dialects have."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

import anthropic
import instructor
import openai
from checks import BASE_URL, KEY, URL, raises, run
from instructor.core import InstructorRetryException
from pydantic import BaseModel, field_validator

CALLED = 'call Person {"name": "Ann", "age": 7}'
ANN = {"name": "Ann", "age": 7}


class Person(BaseModel):
    name: str
    age: int


class Adult(BaseModel):
    name: str
    age: int

    @field_validator("age")
    @classmethod
    def _old_enough(cls, age: int) -> int:
        if age < 18:
            raise ValueError("too young")
        return age


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def client(mode: instructor.Mode = instructor.Mode.TOOLS, key: str = KEY):
    return instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key=key, max_retries=0), mode=mode)


def claude():
    return instructor.from_anthropic(anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0))


def by_tool() -> None:
    made = client().chat.completions.create(model="large", response_model=Person, messages=said(CALLED))
    assert made.model_dump() == ANN


def with_completion() -> None:
    made, whole = client().chat.completions.create_with_completion(
        model="large", response_model=Person, messages=said(CALLED)
    )
    assert made.age == 7
    assert whole.usage.completion_tokens > 0


def by_schema() -> None:
    made = client(instructor.Mode.JSON_SCHEMA).chat.completions.create(
        model="large", response_model=Person, messages=said('answer {"name": "Ann", "age": 7}')
    )
    assert made.model_dump() == ANN


def partial() -> None:
    pieces = list(client().chat.completions.create_partial(model="large", response_model=Person, messages=said(CALLED)))
    assert len(pieces) > 1
    assert (pieces[-1].name, pieces[-1].age) == ("Ann", 7)


def several() -> None:
    asked = said('call Person {"name": "Ann", "age": 7} and Person {"name": "Bo", "age": 8}')
    made = client(instructor.Mode.PARALLEL_TOOLS).chat.completions.create(
        model="large", response_model=Iterable[Person], messages=asked
    )
    assert [person.name for person in made] == ["Ann", "Bo"]


def asking_again() -> None:
    """What does not validate goes back to the model as the tool's result, until it does."""
    made = client().chat.completions.create(
        model="large",
        response_model=Adult,
        messages=said('call Adult {"name": "Ann", "age": 7} then Adult {"name": "Ann", "age": 70}'),
        max_retries=2,
    )
    assert made.age == 70


async def the_async_client() -> None:
    c = instructor.from_openai(openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0))
    made = await c.chat.completions.create(model="large", response_model=Person, messages=said(CALLED))
    assert made.model_dump() == ANN


def errors() -> None:
    def asked(key: str, text: str):
        client(key=key).chat.completions.create(
            model="large", response_model=Person, messages=said(text), max_retries=1
        )

    kinds = (openai.APIStatusError, InstructorRetryException)
    assert "invalid_api_key" in str(raises(kinds, lambda: asked("sk-moma-wrong", CALLED)))
    assert "backend_overloaded" in str(raises(kinds, lambda: asked(KEY, "busy")))


def anthropic_tool() -> None:
    made = claude().messages.create(model="large", max_tokens=100, response_model=Person, messages=said(CALLED))
    assert made.model_dump() == ANN


def anthropic_partial() -> None:
    pieces = list(
        claude().messages.create_partial(model="large", max_tokens=100, response_model=Person, messages=said(CALLED))
    )
    assert (pieces[-1].name, pieces[-1].age) == ("Ann", 7)


run(
    importlib.metadata.version("instructor"),
    chat={
        "by tool": by_tool,
        "with the completion": with_completion,
        "by json_schema": by_schema,
        "partial stream": partial,
        "parallel tools": several,
        "asking again": asking_again,
        "async": the_async_client,
        "errors": errors,
    },
    messages={"by tool": anthropic_tool, "partial stream": anthropic_partial},
)
