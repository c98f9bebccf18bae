"""`moma models import` and `moma models list`: what a backend lists, against what is known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.config import families
from gateway.config.load import load
from gateway.demo.scripted import Reply, ScriptedBackend
from gateway.probing.listing import MAX_LISTED, Listed, _read
from tests.probing.test_probe import SECRET, Moma

ACME = """date: 2026-10-01
currency: USD
source: ["https://example.com/prices"]
models:
  Big-1: {context: 128k, max_output: 16k, price: {input: 2.5, input_cached: 1.25, output: 10}, can: [tools], endpoints: [chat]}
  big-2: {context: 1M, max_output: 16000, price: {input: 1, output: 2}, price_up_to: 200k, can: [], endpoints: [chat]}
  big-3: {context: 32k, max_output: 4k, can: [], endpoints: [chat]}
"""  # noqa: E501
OTHER = """date: 2026-10-01
currency: CNY
source: ["https://example.com/prices"]
models:
  chat-1: {context: 8k, max_output: 1k, price: {input: 3, output: 9}, can: [json], endpoints: [chat]}
"""


@pytest.fixture
async def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedBackend]:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "acme.yaml").write_text(ACME)
    (folder / "other.yaml").write_text(OTHER)
    monkeypatch.setattr(families, "FOLDER", folder)
    async with ScriptedBackend() as backend:
        yield backend


@pytest.fixture
def moma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Moma:
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("PROBED_KEY", SECRET)
    return Moma(capsys)


def lists(backend: ScriptedBackend, *names: str, **more: Any) -> None:
    backend.script([Reply(body={"object": "list", "data": [{"id": name, **more} for name in names]})])


async def test_lines_of_an_import_load_as_they_are(moma: Moma, backend: ScriptedBackend, tmp_path: Path) -> None:
    lists(backend, "Big-1", "big-2", "big-3", "whisper")
    text = await moma("models", "import", backend.base_url, "--key", "env:PROBED_KEY")
    assert text.splitlines() == [
        "# backend-1 lists 4 models; 0 stand in routes.yaml already.",
        "# Facts of acme as of 2026-10-01; prices per 1M tokens in USD.",
        "currency: USD",
        "backends:",
        f"  backend-1: {{kind: openai, base_url: {backend.base_url}, keys: [env:PROBED_KEY]}}",
        "models:",
        "  Big-1: {via: [backend-1], context: 128k, max_output: 16k, "
        "price: {input: 2.5, input_cached: 1.25, output: 10}, can: [tools], endpoints: [chat]}",
        "  big-2: {via: [backend-1], context: 1M, max_output: 16k, price: {input: 1, output: 2}, can: [], "
        "endpoints: [chat]}",
        "  # big-3: {via: [backend-1], context: 32k, max_output: 4k, can: [], endpoints: [chat]}  # fill in: price",
        "  # whisper: {via: [backend-1]}  # fill in: context, max_output, price",
    ]
    assert backend.requests[0].path == "/v1/models"
    assert backend.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in text + moma.err
    routes = tmp_path / "routes.yaml"
    routes.write_text("version: 1\n" + text)
    assert list(load(routes).models) == ["Big-1", "big-2"]


async def test_what_runs_elsewhere_is_known_but_not_what_it_costs(moma: Moma, backend: ScriptedBackend) -> None:
    lists(backend, "Acme/BIG-1", max_model_len=32_768)
    text = await moma("models", "import", backend.base_url)
    wanted = "  # Acme/BIG-1: {via: [backend-1], context: 32768, max_output: 16k, can: [tools], endpoints: [chat]}"
    assert text.splitlines()[-1] == f"{wanted}  # fill in: price"


def routed(tmp_path: Path, backend: ScriptedBackend, currency: str) -> str:
    routes = tmp_path / "routes.yaml"
    facts = "context: 8k, max_output: 1k, price: {input: 0, output: 0}"
    routes.write_text(
        f"version: 1\ncurrency: {currency}\n"
        f"backends: {{b: {{kind: openai, base_url: '{backend.base_url}'}}, c: {{kind: openai, base_url: 'http://h/v1'}}}}\n"
        f"models:\n  ours: {{via: [{{backend: b, as: Big-1}}], {facts}}}\n  big-2: {{via: [c], {facts}}}\n"
    )
    return str(routes)


async def test_what_stands_in_routes_yaml_is_left_out(moma: Moma, backend: ScriptedBackend, tmp_path: Path) -> None:
    lists(backend, "Big-1", "big-2", "big-3")
    text = await moma("models", "import", "b", "-c", routed(tmp_path, backend, "USD"))
    assert text.splitlines()[0] == "# b lists 3 models; 1 stand in routes.yaml already."
    assert text.splitlines()[-2] == "  # big-2 stands in routes.yaml already: add b to its via"
    assert "backends:" not in text


async def test_a_price_in_another_currency_is_not_taken(moma: Moma, backend: ScriptedBackend, tmp_path: Path) -> None:
    lists(backend, "chat-1")
    text = await moma("models", "import", "b", "-c", routed(tmp_path, backend, "USD"))
    assert text.splitlines()[-1] == (
        "  # chat-1: {via: [b], context: 8k, max_output: 1k, can: [json], endpoints: [chat]}"
        "  # fill in: price in USD (it is {input: 3, output: 9} in CNY)"
    )


async def test_a_family_may_be_told(moma: Moma, backend: ScriptedBackend) -> None:
    lists(backend, "Big-1", "chat-1", "chat-2")
    found = await moma.json("models", "import", backend.base_url, "--of", "other")
    assert (found["of"], found["currency"]) == ("other", "CNY")
    assert [(one["model"], one["known_as"], one["missing"]) for one in found["models"]] == [
        ("Big-1", "acme: Big-1", ["price"]),
        ("chat-1", "other: chat-1", []),
        ("chat-2", None, ["context", "max_output", "price"]),
    ]
    assert found["models"][1]["price"] == {"input": "3", "output": "9"}


@pytest.mark.parametrize(
    ("kind", "path", "header", "body"),
    [
        (
            "anthropic", "/v1/models", "x-api-key",
            {"data": [{"id": "Big-1", "type": "model", "max_input_tokens": 200000, "max_tokens": 64000}]},
        ),
        (
            "gemini", "/v1/models", "x-goog-api-key",
            {"models": [{"name": "models/Big-1", "inputTokenLimit": 200000, "outputTokenLimit": 64000}]},
        ),
        ("azure", "/v1/models", "api-key", [{"id": "Big-1", "context_length": 200000, "max_output_tokens": 64000}]),
    ],
)  # fmt: skip
async def test_lists_of_other_kinds_are_read(
    moma: Moma, backend: ScriptedBackend, kind: str, path: str, header: str, body: Any
) -> None:
    backend.script([Reply(body=body)])
    found = await moma.json(
        "models", "import", backend.base_url, "--kind", kind, "--key", "env:PROBED_KEY", "--of", "other"
    )
    assert backend.requests[0].path == path
    assert backend.requests[0].headers[header] == SECRET
    assert ("anthropic-version" in backend.requests[0].headers) == (kind == "anthropic")
    assert [(one["model"], one["context"], one["max_output"]) for one in found["models"]] == [("Big-1", 200000, 64000)]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(body={"data": []}), "it lists none"),
        (Reply(body=b"<html>"), "it lists none"),
        (Reply(404, body={"error": {"message": "no such path"}}), "404: no such path"),
    ],
)
async def test_a_backend_without_a_list_is_told(moma: Moma, backend: ScriptedBackend, reply: Reply, said: str) -> None:
    backend.script([reply])
    await moma("models", "import", backend.base_url, code=1)
    assert f"does not say which models it has ({said})" in moma.err


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"data": [{"id": "a"}, {"id": "a"}, {"id": 7}, "b", {"name": "models/c"}]}, [Listed("a"), Listed("c")]),
        ({"data": [{"id": "a", "meta": {"n_ctx": 2048, "n_ctx_train": 8192}}]}, [Listed("a", 2048)]),
        ({"data": [{"id": "a", "context_window": True, "max_model_len": -1}]}, [Listed("a")]),
        ({"data": [{"id": "a\nbackends: {}"}, {"id": "x" * 201}, {"id": ""}]}, []),
        ({"data": {"id": "a"}}, []),
        (None, []),
    ],
)
def test_lists_are_read_with_care(body: Any, found: list[Listed]) -> None:
    assert _read(body) == found


def test_a_list_is_bounded() -> None:
    assert len(_read([{"id": str(n)} for n in range(MAX_LISTED + 5)])) == MAX_LISTED


def test_what_is_known_is_listed(backend: ScriptedBackend, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert [one["model"] for one in data] == ["Big-1", "big-2", "big-3", "chat-1"]
    assert data[1] == {
        "model": "big-2", "of": "acme", "date": "2026-10-01", "context": 1_000_000, "max_output": 16_000,
        "currency": "USD", "price": {"input": "1", "output": "2"}, "price_up_to": 200_000, "can": [],
        "endpoints": ["chat"],
    }  # fmt: skip
    assert main(["models", "list", "*-1", "--of", "acme"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line.split() for line in lines if "Big-1" in line] == [
        ["Big-1", "acme", "128k", "16k", "USD", "2.5", "10", "tools"]
    ]
    assert main(["models", "list", "nothing*"]) == 1
    assert "Nothing is known of nothing*." in capsys.readouterr().out


async def test_routes_yaml_with_a_problem_is_told(moma: Moma, tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text("version: 2\n")
    assert await asyncio.to_thread(main, ["models", "import", "b", "-c", str(routes)]) == 1
