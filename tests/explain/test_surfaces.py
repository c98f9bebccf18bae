"""`POST /admin/v1/explain` over a real socket, and `moma explain` with and without a gateway."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.explain.explainer import ANYBODY
from gateway.tokens import Tokenizer, prompt_text
from tests.conftest import ADMIN_KEY, World
from tests.explain.worlds import Gateway
from tests.test_cli import Shell, shell
from tests.virtual import VirtualClock, backend, call, config, model, request, route

__all__ = ["shell"]  # a fixture
BODY: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "hello there"}]}
CONTRACT = {"model", "backend", "removed_by", "scores", "expected_cost"}


async def explained(world: World, key: str = ADMIN_KEY, **wish: Any) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {key}"}
    async with world.http.post(f"{world.url}/admin/v1/explain", json=wish, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_what_is_explained_is_served_next(world: World) -> None:
    status, value = await explained(world, body=BODY, tenant="demo")
    assert (status, value["live"], value["config"], value["tenant"], value["plan"]) == (200, True, 1, "demo", "pro")
    assert {"route", "policy", "candidates", "order", "reserve"} <= value.keys()
    assert all(row.keys() >= CONTRACT for row in value["candidates"])
    status, _, headers = await world.chat(**BODY)
    assert (status, headers["x-moma-backend"]) == (200, value["first"]["backend"])
    assert headers["x-moma-reason"] == value["reason"]
    assert (await world.charges())[0]["reserved"] == value["reserve"]


async def test_no_backend_hears_of_it_and_nothing_is_charged(world: World) -> None:
    for _ in range(3):
        assert (await explained(world, body=BODY, tenant="demo"))[0] == 200
    assert await world.charges() == []
    assert world.app.ledger.open_holds == 0
    assert not world.a.requests
    assert not world.b.requests


async def test_a_body_may_be_the_text_that_a_client_sends(world: World) -> None:
    _, value = await explained(world, body='{"model": "auto", "messages": [', tenant="demo")
    assert (value["refusal"]["status"], value["refusal"]["code"]) == (400, "invalid_value")
    _, value = await explained(world, body='{"model": "small", "input": "x"}', endpoint="embeddings")
    assert (value["endpoint"], value["first"]) == ("embeddings", {"model": "small", "backend": "a"})


@pytest.mark.parametrize(
    ("wish", "status", "param"),
    [
        ({}, 400, "body"),
        ({"body": []}, 400, "body"),
        ({"body": BODY, "endpoint": "paint"}, 400, "endpoint"),
        ({"body": BODY, "tenant": 7}, 400, "tenant"),
        ({"body": BODY, "headers": {"x": 1}}, 400, "headers"),
        ({"body": BODY, "header": {}}, 400, "header"),
        ({"body": BODY, "tenant": "nobody"}, 404, None),
    ],
)
async def test_a_wish_that_is_none(world: World, wish: Any, status: int, param: str | None) -> None:
    answered, value = await explained(world, **wish)
    assert (answered, value["error"]["param"]) == (status, param)


async def test_only_with_the_admin_key(world: World) -> None:
    assert (await explained(world, key="wrong", body=BODY))[0] == 401
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with world.http.get(f"{world.url}/admin/v1/explain", headers=headers) as answer:
        assert answer.status == 405


async def test_three_hundred_models_are_explained_in_little_time(opened: Any) -> None:
    """The event loop stands still meanwhile."""
    names = [f"m{number}" for number in range(300)]
    many = config(
        [backend(f"b{n}") for n in range(300)], [model(n, f"b{n[1:]}") for n in names], [route("all", *names)]
    )
    stage = opened([])
    gateway = Gateway(many, stage.ledger, VirtualClock(), random.Random(1))
    for name in names:
        gateway.live.of((f"b{name[1:]}", name))
        gateway.live.affinity.keep(hash(name), ("b1", "m1"), 0.0)
    began = time.perf_counter()
    value = await gateway.explainer.explain(ANYBODY, request(model="m7"))
    assert time.perf_counter() - began < 0.25
    assert value["first"] == {"model": "m7", "backend": "b7"}


# -- the command line ---------------------------------------------------------------------------------------------


def saved(shell: Shell, body: Any = BODY) -> str:
    path = shell.routes.parent / "body.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return str(path)


def test_a_call_of_another_dialect_is_asked_about_as_it_is(shell: Shell) -> None:
    body = {"model": "auto", "max_tokens": 9, "system": "Be brief.", "messages": [{"role": "user", "content": "a"}]}
    value = shell.json("explain", "--endpoint", "messages", saved(shell, body))
    assert (value["endpoint"], value["first"]) == ("messages", {"model": "small", "backend": "a"})
    value = shell.json("explain", "--endpoint", "responses", saved(shell, {"model": "auto", "input": "a"}))
    assert (value["endpoint"], value["refusal"]) == ("responses", None)


def test_without_a_gateway_it_says_so(shell: Shell) -> None:
    value = shell.json("explain", "--tenant", "demo", saved(shell))
    assert (value["live"], value["config"], value["first"]) == (False, None, {"model": "small", "backend": "a"})
    assert "there is no live state" in value["notes"][0]
    assert "set MOMA_ADMIN_KEY" in value["notes"][-1]
    assert value["funds"]["available"] == "1000000"
    assert not shell.ledger.exists()


def test_a_gateway_that_does_not_answer_is_no_live_state(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    value = shell.json("explain", saved(shell))
    assert not value["live"]
    assert "No gateway answers" in value["notes"][-1]


def test_the_ledger_is_read_and_left_as_it_is(shell: Shell) -> None:
    assert shell.run("tenant", "add", "acme", "--plan", "empty") == 0
    assert shell.run("grant", "add", "acme", "2500") == 0
    before = shell.ledger.read_bytes()
    value = shell.json("explain", "--tenant", "acme", saved(shell))
    assert (value["funds"]["available"], value["funds"]["pays"]) == ("2500", True)
    assert shell.ledger.read_bytes() == before


def test_a_refusal_is_what_the_client_would_get(shell: Shell) -> None:
    assert shell.run("explain", "--tenant", "demo", saved(shell, {**BODY, "model": "nothing"})) == 0
    assert "refused: 404 model_not_found (model)" in shell.out
    assert shell.run("explain", "--tenant", "nobody", saved(shell)) == 1
    assert "known: demo" in shell.err


def test_wrong_use(shell: Shell) -> None:
    assert shell.run("explain", "missing.json") == 2
    assert "missing.json cannot be read: No such file" in shell.err
    assert shell.run("explain", "--header", "nonsense", saved(shell)) == 2
    assert shell.run("explain", "--url", f"http://127.0.0.1:{shell.port}", saved(shell)) == 2
    (shell.routes.parent / "latin.json").write_bytes(b'{"model": "\xe9"}')
    assert shell.run("explain", str(shell.routes.parent / "latin.json")) == 2
    assert "not UTF-8" in shell.err


def test_a_broken_routes_yaml_is_reported(shell: Shell) -> None:
    shell.routes.write_text("version: 1\nroute: {}\n")
    assert shell.run("explain", saved(shell)) == 1
    assert "did you mean routes?" in shell.err


def test_for_people_it_fits_80_columns(shell: Shell) -> None:
    assert shell.run("explain", "--tenant", "demo", "--header", "X-Session-Id: s", saved(shell)) == 0
    assert "goes to small at a: ordered" in shell.out
    assert max(map(len, shell.out.splitlines())) <= 80
    for words in ("Candidates of auto, policy ordered", "reserve", "no cache on this route"):
        assert words in shell.out


def test_the_body_may_come_from_standard_input(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        def read(self) -> str:
            return json.dumps(BODY)

    monkeypatch.setattr(sys, "stdin", Stdin())
    assert shell.json("explain", "-")["route"] == "auto"


async def test_the_running_gateway_is_asked_where_there_is_one(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    path = world.path / "body.json"
    path.write_text(json.dumps(BODY))
    args = ["explain", str(path), "-c", str(world.path / "routes.yaml"), "--tenant", "demo", "--json"]
    assert await asyncio.to_thread(main, [*args, "--url", world.url]) == 0
    assert json.loads(capsys.readouterr().out)["live"] is True
    assert await asyncio.to_thread(main, [*args, "--offline"]) == 0
    assert json.loads(capsys.readouterr().out)["live"] is False


def test_a_long_prompt_is_counted_as_by_serving(shell: Shell) -> None:
    """Near the limit of the context an estimate by bytes is too coarse."""
    words = "hello " * 3900
    body = {**BODY, "messages": [{"role": "user", "content": words}]}
    tokenizer = Tokenizer()
    tokenizer.load()
    counted = tokenizer.count(prompt_text(call(**body)))
    expected = shell.json("explain", saved(shell, body))["expected"]
    assert (expected["context_needed"], expected["input_tokens"] > 5000) == (counted, True)


def test_paths_are_said_as_given(shell: Shell, tmp_path: Path) -> None:
    assert shell.run("explain", str(tmp_path)) == 2
    assert "Is a directory" in shell.err
