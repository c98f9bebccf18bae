"""LangChain: its standard tests for ChatOpenAI and ChatAnthropic, and what they leave out."""

from __future__ import annotations

import contextlib
import importlib.metadata
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import anthropic
import openai
import pytest
from checks import BASE_URL, KEY, PATIENT, REAL, URL, Outcome, raises, run
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

STANDARD = Path(__file__).parent / "standard.py"
OPTIONS = (
    "-q", "--tb=short", "--disable-warnings", "-c", os.devnull, "--noconftest", "-o", "asyncio_mode=auto",
    "-o", "asyncio_default_test_loop_scope=session",  # LangChain shares a client of HTTP between all models
    "-p", "no:cacheprovider", "-p", "no:codspeed",
)  # fmt: skip
CALLS = 'call weather {"city": "Guiyang"} and weather {"city": "Hohhot"} then weather {"city": "Urumqi"}'


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def chat(**more: object) -> ChatOpenAI:
    return ChatOpenAI(**{"model": "large", "base_url": BASE_URL, "api_key": KEY, "max_retries": 0, **more})


class Counting:
    """A pytest plugin. Mutable: tests by outcome, and why some were skipped."""

    def __init__(self) -> None:
        self.passed = 0
        self.skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.when == "call" and report.passed
        if report.skipped:
            _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", "", "expected to fail")
            self.skipped[report.nodeid.rpartition("::")[2]] = reason.removeprefix("Skipped: ")


def standard(name: str, least: int) -> Outcome:
    """The class of standard tests with this name: all that are not skipped pass, and that is most of them."""
    # In a process of its own: LangChain's client of HTTP would outlive the event loop that it was made for.
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as processes:
        code, counted, skipped = processes.submit(outcome_of_tests, name).result()
    assert code == 0, f"{name}: pytest ended with {code}"
    assert counted >= least, counted
    return Outcome(f"{counted} tests", skipped)


def outcome_of_tests(name: str) -> tuple[int, int, dict[str, str]]:
    counting = Counting()
    with contextlib.redirect_stdout(sys.stderr):  # stdout is the report's
        code = pytest.main([*OPTIONS, f"{STANDARD}::{name}"], plugins=[counting])
    return int(code), counting.passed, counting.skipped


def tools_over_three_turns(model: ChatOpenAI | ChatAnthropic) -> None:
    asking = model.bind_tools([weather])
    messages = [HumanMessage(CALLS)]
    for calls in (2, 1, 0):
        answer = asking.invoke(messages)
        assert len(answer.tool_calls) == calls
        results = [ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls]
        messages += [answer, *results]
    assert messages[-1].text == "Results: sunny in Guiyang; sunny in Hohhot; sunny in Urumqi"


def errors() -> None:
    raises(openai.AuthenticationError, lambda: chat(api_key="sk-moma-wrong").invoke("hello"))
    raises(openai.NotFoundError, lambda: chat(model="none").invoke("hello"))
    raises(openai.RateLimitError, lambda: chat().invoke("busy"))
    raises(openai.APIError, lambda: list(chat().stream("break")))


def timeout() -> None:
    raises(openai.APITimeoutError, lambda: chat(timeout=0.5).invoke("slow", extra_headers=PATIENT))


def claude(**more: object) -> ChatAnthropic:
    return ChatAnthropic(
        **{"model": "large", "base_url": URL, "api_key": KEY, "max_tokens": 1000, "max_retries": 0, **more}
    )


def claude_errors() -> None:
    raises(anthropic.AuthenticationError, lambda: claude(api_key="sk-moma-wrong").invoke("hello"))
    raises(anthropic.NotFoundError, lambda: claude(model="none").invoke("hello"))
    raises(anthropic.RateLimitError, lambda: claude().invoke("busy"))


def real_model() -> None:
    small = chat(model=REAL, max_tokens=16, temperature=0)
    whole = small.invoke("Say hello.").text
    assert whole
    assert "".join(chunk.text for chunk in small.stream("Say hello.")) == whole


run(
    importlib.metadata.version("langchain-openai"),
    chat={
        "langchain-tests of ChatOpenAI": lambda: standard("TestOpenAI", 40),
        "langchain-tests of OpenAIEmbeddings": lambda: standard("TestEmbeddings", 4),
        "tools over three turns": lambda: tools_over_three_turns(chat()),
        "errors as classes": errors,
        "timeout": timeout,
    },
    responses={
        "langchain-tests of ChatOpenAI": lambda: standard("TestOpenAIResponses", 40),
        "tools over three turns": lambda: tools_over_three_turns(chat(use_responses_api=True)),
    },
    messages={
        "langchain-tests of ChatAnthropic": lambda: standard("TestAnthropic", 40),
        "tools over three turns": lambda: tools_over_three_turns(claude()),
        "errors as classes": claude_errors,
    },
    real={"whole and streamed": real_model},
)
