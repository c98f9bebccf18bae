"""The main job on a real model: what `make run` prints works as printed, and is charged what the model reported."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from gateway.demo import llama
from gateway.demo.processes import free_port
from tests.pairs.meaning import Ask, Client, Text, User
from tests.pairs.speaks_anthropic import MessagesClient
from tests.pairs.speaks_chat import ChatClient
from tests.pairs.speaks_responses import ResponsesClient

ROOT = Path(__file__).parent.parent
HELLO: list[Any] = [{"role": "user", "content": "Say hello in one short sentence."}]
pytestmark = pytest.mark.skipif(not llama.available(), reason="the wheels of the small model are not installed")


@dataclass
class Demo:
    """`make run`, as it is after its greeting."""

    process: subprocess.Popen[str]
    greeting: str

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.greeting, re.MULTILINE)
        assert match, self.greeting
        return match[1]

    @property
    def url(self) -> str:
        return self.found(r"^  (http://\S+/v1)$")

    @property
    def key(self) -> str:
        return self.found(r"^  (sk-moma-\S+)$")

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "MOMA_ADMIN_KEY": self.found(r"MOMA_ADMIN_KEY=(\S+)")}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    command = [sys.executable, "-m", "gateway.demo", "--port", str(free_port())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MOMA_ADMIN_KEY", None)
    process = subprocess.Popen(
        command, cwd=tmp_path_factory.mktemp("demo"), env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or "Ctrl-C" not in lines[-1]:
        line = process.stdout.readline()
        assert line, "".join(lines)
        lines.append(line)
    yield Demo(process, "".join(lines))
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    process.stdout.close()


def statement(demo: Demo) -> dict[str, Any]:
    base = demo.url.removesuffix("/v1")
    command = [sys.executable, "-m", "gateway", "statement", "demo", "--json", "--url", base]
    done = subprocess.run(command, cwd=ROOT, env=demo.environment, capture_output=True, text=True, check=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def spent(demo: Demo) -> tuple[int, int, int]:
    """Calls, input and output tokens of the small model on the statement."""
    for entry in statement(demo)["by_model"]:
        if entry["model"] == "smollm2-135m":
            sums = [sum(n for b, n in entry["usage"].items() if b.startswith(kind)) for kind in ("input", "output")]
            return entry["calls"], sums[0], sums[1]
    return 0, 0, 0


def test_a_real_model_answers_and_the_statement_is_what_it_reported(demo: Demo) -> None:
    before = spent(demo)
    with openai.OpenAI(base_url=demo.url, api_key=demo.key, max_retries=0) as client:
        whole = client.chat.completions.create(model="smollm2-135m", messages=HELLO, max_tokens=24, temperature=0)
        options: Any = {"include_usage": True}
        chunks = list(
            client.chat.completions.create(
                model="smollm2-135m", messages=HELLO, max_tokens=24, temperature=0, stream=True, stream_options=options
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.choices[0].message.content == text
    assert len(text) > 5
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    reported = [whole.usage, chunks[-1].usage]
    after = spent(demo)
    assert [now - then for now, then in zip(after, before, strict=True)] == [
        2, sum(usage.prompt_tokens for usage in reported), sum(usage.completion_tokens for usage in reported),
    ]  # fmt: skip


@pytest.mark.parametrize("client", [ChatClient(), MessagesClient(), ResponsesClient()], ids=lambda client: client.name)
def test_a_real_model_answers_clients_of_each_dialect_the_same(demo: Demo, client: Client) -> None:
    before = spent(demo)
    ask = Ask((User((Text("Say hello in one short sentence."),)),), max_tokens=24, temperature=0)
    url = demo.url.removesuffix("/v1") + client.path
    headers = {"content-type": "application/json", **client.headers(demo.key)}
    answers = []
    for stream in (False, True):
        body = json.dumps(client.asks(ask, "smollm2-135m", stream=stream)).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            answers.append(answer.read())
    said, heard = client.hears(json.loads(answers[0])), client.hears_stream(answers[1])
    assert heard.complete
    assert heard.said() == replace(said, cached=heard.cached)
    assert len(said.text) > 5
    after = spent(demo)
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 2 * said.read, 2 * said.written]


def test_a_client_that_leaves_a_real_stream_pays_for_what_it_got(demo: Demo) -> None:
    before = spent(demo)
    with openai.OpenAI(base_url=demo.url, api_key=demo.key, max_retries=0) as client:
        asked: list[Any] = [{"role": "user", "content": "Tell me a long story about a fox."}]
        stream = client.chat.completions.create(model="smollm2-135m", messages=asked, max_tokens=400, stream=True)
        for count, _ in enumerate(stream):
            if count == 5:
                stream.close()
                break
    deadline = time.monotonic() + 10
    while (after := spent(demo))[0] == before[0] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert after[0] - before[0] == 1
    assert 0 < after[2] - before[2] < 200


def test_the_printed_lines_work_as_printed(demo: Demo, tmp_path: Path) -> None:
    curl = next(line for line in demo.greeting.splitlines() if line.startswith("curl "))
    words = shlex.split(curl)
    at = {name: words[words.index(name) + 1] for name in ("-d", "curl")}
    headers = [words[i + 1].partition(": ") for i, word in enumerate(words) if word == "-H"]
    done = openai.OpenAI(base_url=demo.url, api_key=demo.key)  # what curl sends, where there may be no curl
    with done.with_options(max_retries=0) as client:
        raw = client._client.post(at["curl"], content=at["-d"], headers={name: value for name, _, value in headers})
    assert raw.status_code == 200
    assert raw.json()["choices"][0]["message"]["content"]
    python = demo.greeting[demo.greeting.index("from openai import") : demo.greeting.index("\n\nModels:")]
    ran = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip()


def test_ctrl_c_ends_all_of_it(demo: Demo) -> None:
    """The last test of the module: SIGINT to the group, as a terminal sends it, in the middle of a stream."""
    children = psutil.Process(demo.process.pid).children(recursive=True)
    assert len(children) >= 3  # the small model, the large one, the gateway
    client = openai.OpenAI(base_url=demo.url, api_key=demo.key, max_retries=0)
    stream = client.chat.completions.create(model="smollm2-135m", messages=HELLO, max_tokens=400, stream=True)
    next(iter(stream))
    os.killpg(demo.process.pid, signal.SIGINT)
    stream.close()
    client.close()
    assert demo.process.wait(40) == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
