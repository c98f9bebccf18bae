"""The command line: by the running gateway, by the ledger itself, and what it says when neither can be had."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import socket
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__
from gateway.app import App
from gateway.cli import main
from gateway.config.load import load
from tests.conftest import ADMIN_KEY

ROUTES = """
version: 1
timezone: Asia/Shanghai
server: {{port: {port}, admin_key: env:MOMA_TEST_ADMIN_KEY}}
storage: {{ledger: "sqlite:{ledger}"}}
backends: {{a: {{kind: openai, base_url: "http://127.0.0.1:9/v1"}}}}
models: {{small: {{via: [a], context: 4k, max_output: 1k, price: {{input: 1, output: 2}}}}}}
routes: {{auto: {{pick: [small], policy: ordered}}}}
plans:
  pro: {{grants: [{{credits: 1M, every: month}}]}}
  empty: {{}}
tenants: {{demo: {{plan: pro, keys: ["sha256:{hash}"]}}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Shell:
    """Runs `moma` in this process and keeps what it printed."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.routes = path / "routes.yaml"
        self.ledger = path / "moma.db"
        self.port = free_port()
        self.routes.write_text(ROUTES.format(port=self.port, ledger=self.ledger, hash="0" * 64))
        self._capsys = capsys
        self.out = self.err = ""

    def run(self, *args: str, config: bool = True) -> int:
        self._capsys.readouterr()
        try:
            code = main([*args, *(("-c", str(self.routes)) if config else ())])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return code

    def json(self, *args: str) -> Any:
        assert self.run(*args, "--json") == 0, self.err
        assert self.out.count("\n") == 1
        return json.loads(self.out)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("MOMA_ADMIN_KEY", raising=False)
    monkeypatch.setenv("MOMA_TEST_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # must not be used
    return Shell(tmp_path, capsys)


class Held:
    """Another process's lock on the ledger."""

    def __init__(self, ledger: Path) -> None:
        self._file = os.open(f"{ledger}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


# -- without a gateway --------------------------------------------------------------------------------------------


def test_an_account_from_the_first_day_to_its_statement(shell: Shell) -> None:
    tenant = shell.json("tenant", "add", "acme", "--plan", "empty", "--parent", "demo", "--tag", "a", "--tag", "b")
    said = {"id": "acme", "plan": "empty", "parent": "demo", "tags": ["a", "b"], "status": "active"}
    assert tenant == {**said, "version": tenant["version"]}
    assert shell.json("tenant", "show", "acme") == {**tenant, "caps": []}
    edited = shell.json("tenant", "set", "acme", "--cap", "month=5M", "--cap", "5h=100calls", "--status", "suspended")
    assert [(cap["window"], cap["limit"], cap["left"]) for cap in edited["caps"]] == [
        ("month", "5000000", "5000000"), ("5h", "100", "100"),
    ]  # fmt: skip
    assert shell.json("tenant", "show", "acme") == edited
    assert shell.json("tenant", "set", "acme", "--cap", "none=", "--status", "active") == {**tenant, "caps": []}
    assert [entry["id"] for entry in shell.json("tenant", "list")["data"]] == ["acme", "demo"]
    key = shell.json("key", "add", "acme", "--name", "laptop", "--expires-at", "2035-01-31")
    assert key["key"].startswith("sk-moma-")
    assert key["expires_at"] == 2053785600  # midnight in Shanghai
    [listed] = shell.json("key", "list", "acme")["data"]
    assert (listed["id"], listed["name"], listed["expires_at"]) == (key["id"], "laptop", 2053785600)
    assert shell.json("key", "revoke", "acme", key["id"]) == {"id": key["id"], "deleted": True}
    [revoked] = shell.json("key", "list", "acme")["data"]
    assert revoked == {**listed, "revoked_at": revoked["revoked_at"]}
    assert revoked["revoked_at"] >= listed["created_at"]
    assert shell.json("key", "list", "demo") == {"data": [], "next": None}  # of routes.yaml: it has no id
    grant = shell.json(
        "grant", "add", "acme", "1.5M", "--priority", "5", "--source-ref", "o-1", "--expires-at", "2053785600"
    )
    assert (grant["credits"], grant["priority"], grant["expires_at"]) == ("1500000", 5, 2053785600)
    assert shell.json("grant", "add", "acme", "9", "--source-ref", "o-1") == grant
    value = shell.json("statement", "acme")
    sums = {name: Decimal(value[name]) for name in ("opening", "granted", "spent", "expired", "revoked", "closing")}
    assert sums["opening"] + sums["granted"] - sums["spent"] - sums["expired"] - sums["revoked"] == sums["closing"]
    assert (value["granted"], value["closing"], value["calls"], value["by_model"]) == ("1500000", "1500000", 0, [])


def test_a_statement_has_a_span(shell: Shell) -> None:
    shell.json("tenant", "add", "acme", "--plan", "pro")
    value = shell.json("statement", "acme", "--from", "2020-01-01", "--to", "2020-02-01T12:00:00+00:00")
    assert (value["from"], value["to"]) == ("2019-12-31T16:00:00Z", "2020-02-01T12:00:00Z")
    assert value["granted"] == "0"
    value = shell.json("statement", "acme", "--from", "2020-01-01")
    assert value["granted"] == "1000000"


def test_reading_needs_no_lock_and_writes_nothing(shell: Shell) -> None:
    shell.json("tenant", "add", "acme", "--plan", "empty")
    before = shell.ledger.read_bytes()
    with Held(shell.ledger):
        assert len(shell.json("tenant", "list")["data"]) == 2
        assert shell.json("tenant", "show", "demo")["plan"] == "pro"
        assert shell.json("key", "list", "acme")["data"] == []
        assert shell.json("statement", "acme")["closing"] == "0"
    assert shell.ledger.read_bytes() == before


@pytest.mark.parametrize(
    "args",
    [
        ("tenant", "add", "x", "--plan", "pro"),
        ("key", "add", "demo"),
        ("key", "revoke", "demo", "k"),
        ("grant", "add", "demo", "1M"),
    ],
)
def test_locked_and_unreachable_is_told(shell: Shell, args: tuple[str, ...]) -> None:
    with Held(shell.ledger):
        assert shell.run(*args) == 2
    assert "held by another process" in shell.err
    assert f"127.0.0.1:{shell.port}" in shell.err
    assert shell.err.count("\n") == 1


def test_a_link_to_the_ledger_is_the_ledger(shell: Shell) -> None:
    shell.json("tenant", "add", "acme", "--plan", "empty")
    link = shell.ledger.with_name("link.db")
    link.symlink_to(shell.ledger)
    shell.routes.write_text(shell.routes.read_text().replace(str(shell.ledger), str(link)))
    with Held(shell.ledger):
        assert shell.run("grant", "add", "acme", "1M") == 2
        assert f"{shell.ledger}.lock is held by another process" in shell.err
        assert len(shell.json("tenant", "list")["data"]) == 2
    assert shell.json("grant", "add", "acme", "1M")["credits"] == "1000000"
    assert not link.with_name("link.db.lock").exists()


@pytest.mark.parametrize(
    "args", [("tenant", "list"), ("tenant", "show", "demo"), ("key", "list", "demo"), ("statement", "demo")]
)
def test_reading_a_ledger_that_is_not_there(shell: Shell, args: tuple[str, ...]) -> None:
    assert shell.run(*args) == 2
    assert "no ledger" in shell.err
    assert not shell.ledger.exists()


def test_a_ledger_that_is_no_ledger(shell: Shell) -> None:
    shell.ledger.write_bytes(b"this is not a database, however long it is" * 100)
    for args in (("tenant", "list"), ("statement", "demo"), ("tenant", "add", "x", "--plan", "pro")):
        assert shell.run(*args) == 2
        assert "ledger" in shell.err


# -- what is wrong, and the exit code -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("tenant", "add", "demo", "--plan", "pro"), 1, "exists"),
        (("tenant", "show", "ghost"), 1, "ghost"),
        (("statement", "ghost"), 1, "ghost"),
        (("key", "add", "ghost"), 1, "ghost"),
        (("key", "revoke", "demo", "key_9"), 1, "key_9"),
        (("key", "list", "ghost"), 1, "ghost"),
        (("key", "list"), 2, "TENANT"),
        (("grant", "add", "ghost", "1M"), 1, "ghost"),
        (("tenant", "show", "a/b"), 1, "a/b"),
        (("tenant", "add", "a b", "--plan", "pro"), 2, "id is"),
        (("tenant", "add", "x", "--plan", "nope"), 2, "Known: pro, empty"),
        (("tenant", "add", "x"), 2, "--plan"),
        (("grant", "add", "demo", "lots"), 2, "credits is"),
        (("grant", "add", "demo", "0"), 2, "credits is"),
        (("grant", "add", "demo", "1M", "--priority", "high"), 2, "--priority"),
        (("grant", "add", "demo", "1M", "--priority", "5000"), 2, "priority is"),
        (("key", "add", "demo", "--expires-at", "soon"), 2, "expires_at is"),
        (("statement", "demo", "--from", "yesterday"), 2, "from is"),
        (("statement", "demo", "--to", "9999-12-31T23:59:59-12:00"), 2, "to lies outside the years 1970 to 9999"),
        (("statement", "demo", "--from", "0001-01-01"), 2, "from lies outside"),
        (("statement", "demo", "--from", "2024-02-01", "--to", "2024-01-01"), 2, "from lies"),
        (("tenant", "list", "--url", "ftp://x"), 2, "http"),
        (("tenant", "list", "--url", "http://127.0.0.1:1"), 2, "No gateway answers at http://127.0.0.1:1"),
        (("tenant",), 2, "VERB"),
        (("tenant", "eat"), 2, "invalid choice"),
        (("nope",), 2, "invalid choice"),
        ((), 2, "COMMAND"),
        (("statement",), 2, "TENANT"),
    ],
)
def test_exit_codes(shell: Shell, args: tuple[str, ...], code: int, said: str) -> None:
    shell.json("tenant", "add", "first", "--plan", "empty")
    assert shell.run(*args, config=code == 1 or len(args) > 2) == code
    assert said in shell.err
    assert shell.out == ""


@pytest.mark.parametrize("args", [("tenant", "list"), ("statement", "demo"), ("check",), ("serve",)])
def test_a_typo_in_the_configuration_is_told_with_its_place(shell: Shell, args: tuple[str, ...]) -> None:
    shell.routes.write_text(shell.routes.read_text().replace("policy:", "polcy:"))
    assert shell.run(*args) in (1, 2)
    told = shell.err + shell.out
    assert "polcy" in told
    assert "policy" in told
    assert "routes.yaml:" in told


def test_a_configuration_that_is_not_there(shell: Shell) -> None:
    for args in (("tenant", "list"), ("check",), ("serve",)):
        assert shell.run(*args, "-c", "/nonexistent/routes.yaml", config=False) in (1, 2)
        assert "/nonexistent/routes.yaml" in shell.err + shell.out


# -- check, key hash, version -------------------------------------------------------------------------------------


def test_check_prints_what_was_understood(shell: Shell) -> None:
    assert shell.run("check") == 0
    assert "small" in shell.out
    value = shell.json("check")
    assert (value["problems"], value["models"]) == ([], ["small"])


def test_check_says_no_as_json_too(shell: Shell) -> None:
    shell.routes.write_text(shell.routes.read_text().replace("via: [a]", "via: [z]"))
    assert shell.run("check", "--json") == 1
    [problem] = json.loads(shell.out)["problems"]
    assert "there is no z" in str(problem)


def test_key_hash_is_what_routes_yaml_takes(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = "sha256:" + "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"
    monkeypatch.setattr("sys.stdin", io.StringIO("key\n"))
    assert shell.run("key", "hash", config=False) == 0
    assert shell.out.strip() == hashed
    monkeypatch.setattr("sys.stdin", io.StringIO("key"))
    assert shell.run("key", "hash", "--json", config=False) == 0
    assert json.loads(shell.out) == {"hash": hashed}
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert shell.run("key", "hash", config=False) == 2


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "gateway"], [sys.executable, "-c", "from gateway.cli import main; main()"]]
)
def test_python_m_gateway_is_the_same_program(command: list[str]) -> None:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"moma {__version__}\n"


# -- tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ("tenant", "list"),
        ("tenant", "show", "acme"),
        ("statement", "acme"),
        ("key", "add", "acme"),
        ("key", "list", "acme"),
        ("grant", "add", "acme", "1M", "--source-ref", "order-2026-000123"),
    ],
)
def test_tables_fit_eighty_columns(shell: Shell, args: tuple[str, ...]) -> None:
    tags = [part for tag in ("enterprise", "华北", "[bold]no markup[/]") for part in ("--tag", tag)]
    shell.json("tenant", "add", "acme", "--plan", "pro", *tags)
    shell.json("key", "add", "acme", "--name", "the laptop of the newest colleague", "--expires-at", "2035-01-31")
    shell.json("key", "revoke", "acme", "key_000001")
    assert shell.json("key", "add", "acme", "--rpm", "60", "--tpm", "100k")["limits"] == {"rpm": 60, "tpm": 100_000}
    assert shell.run(*args) == 0
    assert shell.out.strip()
    assert max(len(line) for line in shell.out.splitlines()) <= 80
    if args[0] == "tenant":
        assert "[bold]no markup[/]" in shell.out
    if args == ("key", "list", "acme"):
        assert "key_000001" in shell.out
        assert "2035-01-30 16:00Z" in shell.out
        assert "rpm 60" in " ".join(shell.out.split())
    if args[0] == "statement":
        assert "1,000,000" in shell.out


# -- by the running gateway ---------------------------------------------------------------------------------------


async def test_by_the_running_gateway(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(load(shell.routes))
    await app.start("127.0.0.1", shell.port)
    run = asyncio.to_thread

    assert await run(shell.run, "tenant", "add", "acme", "--plan", "pro") == 2
    assert "Set MOMA_ADMIN_KEY" in shell.err
    assert (await run(shell.json, "statement", "demo"))["closing"] == "1000000"  # reading the file needs no key
    monkeypatch.setenv("MOMA_ADMIN_KEY", "wrong")
    assert await run(shell.run, "tenant", "add", "acme", "--plan", "pro") == 2
    assert "not the one" in shell.err
    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    assert (await run(shell.json, "tenant", "add", "acme", "--plan", "pro"))["id"] == "acme"
    assert await run(shell.run, "tenant", "add", "acme", "--plan", "pro") == 1
    url = ("--url", f"http://127.0.0.1:{app.port}/")
    key = await run(shell.json, "key", "add", "acme", *url)
    assert (await run(shell.json, "grant", "add", "acme", "5", *url))["credits"] == "5"
    assert [entry["id"] for entry in (await run(shell.json, "tenant", "list", *url))["data"]] == ["acme", "demo"]
    assert (await run(shell.json, "statement", "acme", *url))["closing"] == "1000005"
    assert await run(shell.run, "statement", "ghost", *url) == 1
    assert await run(shell.run, "tenant", "show", "a/b?c#d", *url) == 1
    assert (await run(shell.json, "key", "revoke", "acme", key["id"]))["deleted"]
    [listed] = (await run(shell.json, "key", "list", "acme", *url))["data"]
    assert listed["id"] == key["id"]
    assert listed["revoked_at"] is not None
    await app.aclose()


async def test_reload_says_what_has_changed_or_what_is_wrong(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    run = asyncio.to_thread
    assert await run(shell.run, "reload") == 2
    assert f"No gateway answers at http://127.0.0.1:{shell.port}" in shell.err
    assert not shell.ledger.exists()

    app = App(load(shell.routes))
    await app.start("127.0.0.1", shell.port)
    good = shell.routes.read_text()
    assert await run(shell.run, "reload") == 0
    assert shell.out == "unchanged: generation 1 is in force.\n"
    shell.routes.write_text(good.replace("credits: 1M", "credits: 2M").replace("sqlite:", "sqlite:x"))
    assert await run(shell.run, "reload") == 0
    assert shell.out.splitlines() == [
        "applied: generation 2 is in force.",
        f"  storage.ledger sqlite:{shell.ledger} -> sqlite:x{shell.ledger}, takes effect after a restart",
        "  plan pro: grants adds 2M credits each month, drops 1M credits each month"
        " (tenants demo and those of the ledger that have it), from each tenant's next period",
        f"not yet: storage.ledger sqlite:{shell.ledger} -> sqlite:x{shell.ledger}, takes effect after a restart",
    ]
    shell.routes.write_text(good)
    value = await run(shell.json, "reload")
    assert (value["result"], value["generation"], value["after_restart"]) == ("applied", 3, [])
    shell.routes.write_text(good.replace("empty: {}", "empty: {rmp: 1}"))
    url = f"http://127.0.0.1:{shell.port}"
    for args in ((), ("--url", url)):  # by this process, which looks for the address there; by the gateway
        assert await run(shell.run, "reload", *args) == 1
        assert f"{shell.routes}:11 plans.empty.rmp: is not a known key (did you mean rpm?)" in shell.err
    assert "1 problem; generation 3 stays in force" in shell.err
    await app.aclose()


async def test_what_answers_may_not_be_a_gateway(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(replies[0])
        await writer.drain()
        writer.close()

    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    seen: list[bytes] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for reply in (
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    ):
        replies = [reply]
        assert await asyncio.to_thread(shell.run, "tenant", "list", "--url", url) == 2
        assert "not a gateway" in shell.err
    assert len(seen) == 3
    server.close()
    await server.wait_closed()


def test_who_reads_only_the_first_lines_of_an_output_sees_no_traceback(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"model": "auto", "messages": [{"role": "user", "content": "hi"}]}')
    command = [sys.executable, "-m", "gateway", "explain", str(body), "-c", "routes.yaml", "--offline", "--json"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
