"""Admin keys, the audit log and versions on the command line: on the ledger's file, and by a gateway that runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.app import App
from gateway.cli import main
from gateway.config.load import load
from tests.admin.test_fuzzed import ask
from tests.conftest import ADMIN_KEY, World
from tests.test_cli import Shell, shell

__all__ = ["shell"]


def test_keys_and_entries_on_the_file(shell: Shell) -> None:
    shell.json("tenant", "add", "acme", "--plan", "empty")
    key = shell.json(
        "admin-key", "add", "ann", "--role", "tenant-admin", "--tenant", "acme", "--expires-at", "2035-01-31"
    )
    assert key["key"].startswith("adm-")
    assert (key["made_by"], key["expires_at"]) == ("cli", 2053785600)
    [listed] = shell.json("admin-key", "list")["data"]
    assert listed == {name: value for name, value in key.items() if name != "key"}
    assert shell.json("admin-key", "revoke", key["id"]) == {"id": key["id"], "deleted": True}
    assert shell.run("admin-key", "revoke", "adm_000009") == 1
    entries = shell.json("audit", "list")["data"]
    assert [(one["number"], one["operation"], one["by"]["name"], one["request_id"]) for one in entries] == [
        (1, "tenant.add", "cli", None), (2, "admin_key.add", "cli", None), (3, "admin_key.revoke", "cli", None),
    ]  # fmt: skip
    assert shell.json("audit", "list", "--after", "1", "--tenant", "acme")["data"] == entries[1:]
    assert shell.run("audit", "list", "--tenant", "ghost") == 1
    assert shell.run("audit", "list", "--after", "x") == 2
    assert shell.run("verify") == 0


def test_entries_are_told_to_people(shell: Shell) -> None:
    assert shell.run("tenant", "add", "acme", "--plan", "empty") == 0
    assert shell.run("tenant", "set", "acme", "--status", "suspended", "--cap", "month=5M") == 0
    assert shell.run("audit", "list") == 0
    first, *lines = shell.out.splitlines()
    assert first.startswith("1 ")
    assert first.endswith("Z cli (operator) tenant.add acme")
    assert lines[-2:] == ["  status: active -> suspended", '  caps: {} -> {"month": {"credits": "5000000"}}']


def test_an_old_version_is_refused(shell: Shell) -> None:
    version = shell.json("tenant", "add", "acme", "--plan", "empty")["version"]
    assert shell.run("tenant", "set", "acme", "--status", "suspended", "--version", version) == 0
    assert shell.run("tenant", "set", "acme", "--status", "active", "--version", version) == 1
    assert "changed meanwhile" in shell.err
    assert shell.json("tenant", "show", "acme")["status"] == "suspended"


def test_more_entries_than_a_page_has(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        shell.json("tenant", "add", name, "--plan", "empty")
    monkeypatch.setattr("gateway.cli.reach.AUDIT_PAGE", 2)
    assert [one["object"] for one in shell.json("audit", "list")["data"]] == ["a", "b", "c"]


async def test_each_role_has_the_same_commands(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(load(shell.routes))
    await app.start("127.0.0.1", shell.port)

    async def run(*args: str) -> int:
        return await asyncio.to_thread(shell.run, *args)

    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    await run("tenant", "add", "acme", "--plan", "empty")
    key = (await asyncio.to_thread(shell.json, "admin-key", "add", "ann", "--role", "viewer", "--tenant", "acme"))[
        "key"
    ]
    monkeypatch.setenv("MOMA_ADMIN_KEY", key)
    assert [one["id"] for one in (await asyncio.to_thread(shell.json, "tenant", "list"))["data"]] == ["acme"]
    assert await run("tenant", "show", "demo") == 1
    assert await run("tenant", "set", "acme", "--status", "suspended") == 2
    assert "tenant.edit is not for a viewer of one tenant" in shell.err
    assert [one["by"]["name"] for one in (await asyncio.to_thread(shell.json, "audit", "list"))["data"]] == ["root"] * 2
    await app.aclose()


async def test_a_gateway_without_a_key_in_routes_yaml_knows_those_of_the_ledger(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.routes.write_text(shell.routes.read_text().replace(", admin_key: env:MOMA_TEST_ADMIN_KEY", ""))
    key = (await asyncio.to_thread(shell.json, "admin-key", "add", "ann", "--role", "operator"))["key"]
    app = App(load(shell.routes))
    await app.start("127.0.0.1", shell.port)
    monkeypatch.setenv("MOMA_ADMIN_KEY", key)
    assert await asyncio.to_thread(shell.run, "tenant", "add", "acme", "--plan", "empty") == 0
    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    assert await asyncio.to_thread(shell.run, "tenant", "list") == 2
    await app.aclose()


async def test_a_reload_is_in_the_log_with_who_asked_and_what_it_changed(world: World) -> None:
    routes = world.path / "routes.yaml"
    text = routes.read_text()
    await ask(world, "POST", "reload")  # changes nothing
    routes.write_text(text.replace("rpm: 2", "rpm: 3"))
    await ask(world, "POST", "reload")
    routes.write_text(text.replace("rpm: 2", "rpm: 4"))
    assert world.app._reloader is not None
    await world.app._reloader.reload()
    await world.written()
    entries = (await ask(world, "GET", "audit"))["data"]
    assert [(one["operation"], one["by"]["name"], one["object"]) for one in entries] == [
        ("configuration.reload", "root", "routes.yaml"), ("configuration.reload", "routes.yaml", "routes.yaml"),
    ]  # fmt: skip
    assert entries[0]["request_id"].startswith("req-")
    assert [one["after"]["generation"] for one in entries] == [2, 3]
    assert "rpm 3 -> 4" in entries[1]["after"]["changes"][0]


async def test_an_entry_has_the_request_id_of_the_answer(world: World) -> None:
    asked = {"name": "bo", "role": "tenant-admin", "tenant": "demo"}
    headers = {"authorization": f"Bearer {(await ask(world, 'POST', 'admin-keys', asked))['key']}"}
    async with world.http.post(f"{world.url}/admin/v1/tenants/demo/keys", json={}, headers=headers) as answer:
        assert answer.status == 201
    async with world.http.post(f"{world.url}/admin/v1/orders", json={}, headers=headers) as refused:
        assert (refused.status, (await refused.json())["error"]["code"]) == (403, "not_allowed")
    *_, entry = (await ask(world, "GET", "audit"))["data"]
    assert (entry["by"]["name"], entry["request_id"]) == ("bo", answer.headers["x-request-id"])


async def test_a_key_of_one_tenant_opens_no_status_page(world: World) -> None:
    await ask(world, "POST", "tenants", {"id": "acme", "plan": "empty"})
    for tenant, status in (("acme", 401), (None, 200)):
        made = await ask(world, "POST", "admin-keys", {"name": "x", "role": "viewer", "tenant": tenant})
        async with world.http.get(world.url, headers={"authorization": f"Bearer {made['key']}"}) as answer:
            assert answer.status == status


async def test_every_operation_wants_a_key_and_a_wrong_method_is_told_the_right_ones(world: World) -> None:
    async with world.http.put(
        f"{world.url}/admin/v1/tenants", headers={"authorization": f"Bearer {ADMIN_KEY}"}
    ) as answer:
        assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    async with world.http.get(f"{world.url}/admin/v1/openapi.json", headers={"authorization": "Bearer x"}) as answer:
        assert answer.status == 401


def test_the_commands_of_the_docs_are_commands(shell: Shell) -> None:
    docs = (Path(__file__).parent.parent.parent / "docs/admin.md").read_text()
    for line in docs.splitlines():
        if line.startswith("    moma "):
            assert main([*_words(line), "-c", str(shell.routes)]) in (0, 1)  # 1: there is no tenant acme


def _words(line: str) -> list[str]:
    quoted = line.strip().removeprefix("moma ").split('"')
    return [word for at, part in enumerate(quoted) for word in ([part] if at % 2 else part.split())]
