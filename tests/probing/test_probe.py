"""`moma probe` against a backend of different abilities, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli import main
from gateway.demo.processes import free_port
from gateway.demo.scripted import CLOSED, HANG, Reply, ScriptedBackend, Seen, refusal
from gateway.probing import asker
from tests.probing.abilities import Able

SECRET = "sk-very-secret-0123456789"
VERDICTS = ["models", "chat", "output limit", "stream", "tools", "json_schema", "json_object", "logprobs", "vision"]


@pytest.fixture
async def backend() -> AsyncIterator[ScriptedBackend]:
    async with ScriptedBackend() as backend:
        yield backend


class Moma:
    """The command, in a thread beside the loop of the backend."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    async def __call__(self, *args: str, code: int = 0) -> str:
        self._capsys.readouterr()
        found = await asyncio.to_thread(main, args)
        captured = self._capsys.readouterr()
        self.err = captured.err
        assert found == code, captured.out + captured.err
        return captured.out

    async def json(self, *args: str, code: int = 0) -> Any:
        return json.loads(await self(*args, "--json", code=code))


@pytest.fixture
def moma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Moma:
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("PROBED_KEY", SECRET)
    return Moma(capsys)


async def probed(moma: Moma, backend: ScriptedBackend, able: Able) -> Any:
    backend.script(able)
    return await moma.json("probe", backend.base_url)


def verdicts(found: Any) -> dict[str, str]:
    return {name: finding["verdict"] for name, finding in found["findings"].items()}


async def test_what_a_backend_can_do_is_seen(moma: Moma, backend: ScriptedBackend) -> None:
    found = await probed(moma, backend, Able())
    assert verdicts(found) == {**dict.fromkeys(VERDICTS, "yes"), "context": "unclear"}
    assert (found["model"], found["quirks"], found["can"]) == ("acme-large", {}, ["tools", "json", "vision"])
    assert found["findings"]["chat"]["usage"] is True
    assert found["findings"]["stream"]["stream_usage"] is True
    assert found["calls"] == len(backend.requests) == 9
    assert all(seen.ended.is_set() for seen in backend.requests)


async def test_what_a_backend_refuses_is_seen(moma: Moma, backend: ScriptedBackend) -> None:
    refused = ("tools", "json_schema", "json_object", "logprobs", "image_url")
    found = await probed(moma, backend, Able(refused=refused))
    assert [name for name, verdict in verdicts(found).items() if verdict == "no"] == [
        "tools", "json_schema", "json_object", "logprobs", "vision",
    ]  # fmt: skip
    assert found["can"] == []
    assert found["findings"]["logprobs"]["seen"] == "400: Unsupported parameter: 'logprobs'"


async def test_what_a_backend_accepts_and_does_not_do_is_seen(moma: Moma, backend: ScriptedBackend) -> None:
    ignored = ("tools", "json_schema", "json_object", "logprobs", "image_url", "max_tokens")
    found = await probed(moma, backend, Able(ignored=ignored))
    assert verdicts(found) == {
        "models": "yes", "chat": "yes", "output limit": "no", "stream": "yes", "tools": "unclear", "json_schema": "no",
        "json_object": "no", "logprobs": "no", "vision": "unclear", "context": "unclear",
    }  # fmt: skip
    assert found["can"] == []


async def test_quirks_are_found(moma: Moma, backend: ScriptedBackend) -> None:
    found = await probed(moma, backend, Able(refused=("max_tokens", "stream_options")))
    assert found["quirks"] == {"include_usage": False, "max_tokens_field": "max_completion_tokens"}
    assert found["findings"]["stream"]["stream_usage"] is False
    last = [seen.body for seen in backend.requests if seen.method == "POST"][-1]
    assert "max_tokens" not in last
    assert "max_completion_tokens" in last


async def test_a_model_that_thinks_first_is_given_room(moma: Moma, backend: ScriptedBackend) -> None:
    found = await probed(moma, backend, Able(refused=("max_tokens",), least=100))
    assert verdicts(found) == {**dict.fromkeys(VERDICTS, "yes"), "context": "unclear"}
    assert found["quirks"] == {"max_tokens_field": "max_completion_tokens"}
    found = await probed(moma, backend, Able(least=100))
    assert verdicts(found) == {**dict.fromkeys(VERDICTS, "yes"), "context": "unclear"}
    assert found["quirks"] == {}


async def test_a_backend_that_says_no_usage_is_seen(moma: Moma, backend: ScriptedBackend) -> None:
    found = await probed(moma, backend, Able(usage=False, stream_usage=False))
    assert found["findings"]["chat"]["usage"] is False
    assert "no usage in the stream" in found["findings"]["stream"]["seen"]
    assert found["quirks"] == {}


async def test_json_objects_alone_are_json_too(moma: Moma, backend: ScriptedBackend) -> None:
    found = await probed(moma, backend, Able(refused=("json_schema",)))
    assert found["can"] == ["tools", "json", "vision"]


async def test_tools_are_forced_in_the_way_that_the_backend_knows(moma: Moma, backend: ScriptedBackend) -> None:
    able = Able()

    def words_alone(seen: Seen) -> Reply:
        named = seen.method == "POST" and isinstance(seen.body.get("tool_choice"), dict)
        return refusal(400, "tool_choice is a word") if named else able(seen)

    backend.script(words_alone)
    assert verdicts(await moma.json("probe", backend.base_url))["tools"] == "yes"
    assert [seen.body["tool_choice"] for seen in backend.requests if b"tool_choice" in seen.raw][1:] == ["required"]


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ("max_tokens is too large: 1000000000. This model supports at most 16384 completion tokens.", (None, 16384)),
        ("This model's maximum context length is 32768 tokens and your request has 12 input tokens.", (32768, None)),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", (None, 8192)),
        ("max_tokens: 1000000000 > 64000, which is the maximum allowed number of output tokens", (None, 64000)),
        ("the request exceeds the available context size (4096 tokens)", (4096, None)),
        ("no", (None, None)),
    ],
)
async def test_limits_are_read_from_a_refusal(
    moma: Moma, backend: ScriptedBackend, said: str, limits: tuple[int | None, int | None]
) -> None:
    found = await probed(moma, backend, Able(too_long=said))
    assert (found["context"], found["max_output"]) == limits


async def test_what_the_list_says_of_the_context_counts_first(moma: Moma, backend: ScriptedBackend) -> None:
    able = Able(
        listed={"data": [{"id": "m", "max_model_len": 8192}]}, too_long="maximum context length is 99999 tokens"
    )
    assert (await probed(moma, backend, able))["context"] == 8192


async def test_the_last_call_is_cut_once_it_is_answered(moma: Moma, backend: ScriptedBackend) -> None:
    """A model may take the limit that is too high at its word."""
    able = Able()

    def endless(seen: Seen) -> Reply:
        if seen.method == "POST" and seen.body.get("max_tokens", 0) > 10_000:
            return Reply(stream=[b"data: {}\n\n", asyncio.Event()])
        return able(seen)

    backend.script(endless)
    found = await asyncio.wait_for(moma.json("probe", backend.base_url), 20)
    assert verdicts(found)["context"] == "unclear"
    await asyncio.wait_for(backend.requests[-1].ended.wait(), 5)


async def test_lines_for_an_address_are_whole_entries(moma: Moma, backend: ScriptedBackend) -> None:
    backend.script(
        Able(refused=("stream_options", "image_url"), too_long="maximum context length is 32000 tokens", key=SECRET)
    )
    text = await moma("probe", backend.base_url, "--key", "env:PROBED_KEY", "--model", "acme-small")
    lines = text[text.index("For routes.yaml:") + len("For routes.yaml:") :]
    assert yaml.safe_load(lines) == {
        "backends": {
            "backend-1": {
                "kind": "openai",
                "base_url": backend.base_url,
                "keys": ["env:PROBED_KEY"],
                "quirks": {"include_usage": False},
            }
        },
        "models": None,
    }
    wanted = "  # acme-small: {via: [backend-1], context: 32k, can: [tools, json]}  # fill in: max_output, price"
    assert wanted in lines.splitlines()
    assert SECRET not in text + moma.err


async def test_lines_for_a_backend_of_routes_yaml_are_what_belongs_there(
    moma: Moma, backend: ScriptedBackend, tmp_path: Path
) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        f"version: 1\nbackends:\n  b: {{kind: openai, base_url: {backend.base_url}, keys: [env:PROBED_KEY],"
        " headers: {x-a: one}}\n"
        "models:\n  ours: {via: [{backend: b, as: acme-small}], context: 8k, max_output: 1k,"
        " price: {input: 0, output: 0}}\n"
    )
    backend.script(Able(refused=("tools", "stream_options"), key=SECRET))
    text = await moma("probe", "b", "-c", str(routes))
    assert "  b: {quirks: {include_usage: false}}" in text.splitlines()
    assert "  ours: {can: [json, vision]}" in text.splitlines()
    assert {seen.headers["x-a"] for seen in backend.requests} == {"one"}
    assert {seen.body["model"] for seen in backend.requests if seen.method == "POST"} == {"acme-small"}


async def test_a_backend_that_does_not_answer_is_a_no(moma: Moma, backend: ScriptedBackend) -> None:
    backend.script(lambda seen: Reply(body={"data": [{"id": "m"}]}) if seen.method == "GET" else CLOSED)
    found = await moma.json("probe", backend.base_url, code=1)
    assert verdicts(found) == {"models": "yes", "chat": "unclear"}


async def test_an_address_where_nothing_listens_is_a_no(moma: Moma) -> None:
    found = await moma.json("probe", f"http://127.0.0.1:{free_port()}/v1", code=1)
    assert verdicts(found) == {"models": "no"}
    assert "could not connect" in found["findings"]["models"]["seen"]


async def test_a_backend_that_hangs_is_waited_for_within_bounds(
    moma: Moma, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asker, "ANSWER_S", 0.2)
    backend.script([Reply(body={"data": [{"id": "m"}]}), HANG])
    found = await asyncio.wait_for(moma.json("probe", backend.base_url, code=1), 10)
    assert found["findings"]["chat"]["seen"] == "the backend did not answer in time"


async def test_an_answer_without_end_is_read_within_bounds(
    moma: Moma, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asker, "MAX_BYTES", 50_000)
    backend.script([Reply(body={"data": [{"id": "m"}]}), Reply(stream=[b"x" * 10_000] * 1000)])
    found = await moma.json("probe", backend.base_url, code=1)
    assert found["findings"]["chat"]["seen"] == "the answer is larger than 50000 bytes"


async def test_a_refused_key_is_said_and_not_repeated(moma: Moma, backend: ScriptedBackend, monkeypatch: Any) -> None:
    monkeypatch.setenv("WRONG_KEY", "sk-wrong-but-secret")
    backend.script(Able(key=SECRET))
    text = await moma("probe", backend.base_url, "--key", "env:WRONG_KEY", "--model", "m", code=1)
    assert "401: Incorrect key: Bearer [removed]" in text
    assert "sk-wrong" not in text + moma.err


async def test_what_a_backend_says_reaches_no_terminal(moma: Moma, backend: ScriptedBackend) -> None:
    """Whatever it is, its answer is printed: names, words on a refusal, numbers."""
    evil = "\x1b]0;owned\x07\x1b[2J"
    able = Able(listed={"data": [{"id": f"m{evil}"}, {"id": "m"}]})

    def answer(seen: Seen) -> Reply:
        if seen.method == "GET":
            return able(seen)
        if "tools" in seen.body:
            return refusal(400, f"no {evil} tools")
        choice = {"index": 0, "message": {"role": "assistant", "content": evil}, "finish_reason": evil}
        return Reply(body={"choices": [choice], "usage": {"prompt_tokens": evil, "completion_tokens": evil}})

    backend.script(answer)
    text = await moma("probe", backend.base_url) + await moma("models", "import", backend.base_url)
    assert "400: no ]0;owned [2J tools" in text
    assert not [c for c in text + moma.err if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["probe", "http://h/v1", "--key", "sk-pasted"], "--key is env:NAME or file:/path"),
        (["probe", "http://h/v1", "--key", "env:NOT_SET_HERE"], "The key env:NOT_SET_HERE is not set."),
        (["probe", "ftp://h/v1"], "The address is a http or https address"),
        (["probe", "http://h/v1", "--kind", "gemini"], "this one is gemini"),
        (["probe", "b", "--kind", "openai"], "--key and --kind are for a URL"),
    ],
)
async def test_wrong_use_is_told(moma: Moma, args: list[str], said: str) -> None:
    await moma(*args, code=2)
    assert said in moma.err
    assert "sk-pasted" not in moma.err


async def test_a_backend_that_is_not_there_names_those_that_are(moma: Moma, tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text("version: 1\nbackends: {b: {kind: openai, base_url: 'http://h/v1', keys: [env:NOT_SET_HERE]}}\n")
    await moma("probe", "c", "-c", str(routes), code=2)
    assert "has no backend c (it has b)" in moma.err
    await moma("probe", "b", "-c", str(routes), code=2)
    assert "No key of backend b is set (env:NOT_SET_HERE)." in moma.err
