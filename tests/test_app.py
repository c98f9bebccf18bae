"""`moma serve` as a process: it starts, it says why it does not, it logs calls, it ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from gateway.app import App, ids
from gateway.charging.ledger import open_ledger
from gateway.charging.store import LockHeld
from gateway.clock import LoopClock
from gateway.config.load import load
from gateway.config.model import Plan
from gateway.demo.scripted import ScriptedBackend, refusal
from gateway.generation import without_plan
from tests.charging import manage

KEY = "sk-moma-key-of-this-test"
SECRET = "backend-secret-of-this-test"
ROUTES = """
version: 1
server: {{host: {host}, port: {port}, admin_key: env:MOMA_TEST_ADMIN_KEY}}
storage: {{ledger: "sqlite:{ledger}"}}
defaults: {{retry: {{attempts: 1, backoff: 10ms..20ms}}}}
backends: {{a: {{kind: openai, base_url: "{a}", keys: [env:MOMA_TEST_BACKEND_KEY]}}}}
models: {{small: {{via: [a], context: 4k, max_output: 1k, price: {{input: 1, output: 2}}}}}}
plans: {{pro: {{grants: [{{credits: 1M}}]}}}}
tenants: {{demo: {{plan: pro, keys: ["sha256:{hash}"]}}}}
"""
READY_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Process:
    """One `moma serve` in a directory of its own."""

    path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    started: list[asyncio.subprocess.Process] = field(default_factory=list)

    def write(self, a: str = "http://127.0.0.1:9/v1", host: str = "127.0.0.1", port: int = 0, ledger: str = "") -> None:
        hashed = hashlib.sha256(KEY.encode()).hexdigest()
        text = ROUTES.format(host=host, port=port, a=a, ledger=ledger or self.path / "moma.db", hash=hashed)
        self.routes.write_text(text)

    @property
    def routes(self) -> Path:
        return self.path / "routes.yaml"

    async def start(
        self, *args: str, stdout: int = asyncio.subprocess.PIPE, stderr: int = asyncio.subprocess.PIPE
    ) -> asyncio.subprocess.Process:
        secrets = {"MOMA_TEST_ADMIN_KEY": "admin", "MOMA_TEST_BACKEND_KEY": SECRET}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", "-c", str(self.routes), *args,
            stdout=stdout, stderr=stderr, env={**os.environ, **secrets, **self.env},
        )  # fmt: skip
        self.started.append(process)
        return process

    async def fails(self, *args: str) -> tuple[int, str]:
        process = await self.start(*args)
        out, err = await asyncio.wait_for(process.communicate(), READY_S)
        assert out == b""
        assert b"Traceback" not in err, err.decode()
        assert b"Unclosed" not in err
        assert b"never awaited" not in err
        assert process.returncode is not None
        return process.returncode, err.decode()


@pytest.fixture
async def moma(tmp_path: Path) -> AsyncIterator[Process]:
    process = Process(tmp_path)
    process.write()
    yield process
    for started in process.started:
        if started.returncode is None:  # the test has failed
            started.kill()
            await started.wait()


async def url_of(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(READY_S):
        while line := (await process.stderr.readline()).decode():
            if "serving on " in line:
                return line.split("serving on ")[1].strip().removesuffix("/v1")
    raise AssertionError("it did not start")


async def test_a_typo_is_told_with_file_line_and_a_suggestion(moma: Process) -> None:
    moma.routes.write_text(moma.routes.read_text().replace("backends:", "bakends:"))
    code, said = await moma.fails()
    assert code == 1
    assert "routes.yaml:" in said
    assert "bakends" in said
    assert "backends" in said


async def test_a_secret_that_is_not_set_is_named(moma: Process) -> None:
    moma.env = {"MOMA_TEST_BACKEND_KEY": ""}
    code, said = await moma.fails()
    assert (code, said.strip()) == (1, "secret is not set: env:MOMA_TEST_BACKEND_KEY")


@pytest.mark.parametrize("by", ["file", "option"])
async def test_a_port_in_use_is_told(moma: Process, by: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        moma.write(port=port if by == "file" else 0)
        code, said = await moma.fails(*(("--port", str(port)) if by == "option" else ()))
    assert code == 2
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in said


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
async def test_a_host_that_is_not_ours_is_told(moma: Process, host: str) -> None:
    code, said = await moma.fails("--host", host)
    assert code == 2
    assert f"Cannot listen on {host}:0" in said


@pytest.mark.parametrize("port", ["65536", "-1", "http", "8080.5"])
async def test_a_port_that_is_none(moma: Process, port: str) -> None:
    code, said = await moma.fails("--port", port)
    assert code == 2
    assert "--port" in said


async def test_a_ledger_that_another_gateway_has_is_told(moma: Process) -> None:
    lock = os.open(moma.path / "moma.db.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    code, said = await moma.fails()
    os.close(lock)
    assert code == 2
    assert "moma.db.lock is held by another process" in said


@pytest.mark.parametrize("what", ["no directory", "no database"])
async def test_a_ledger_that_cannot_be_used_is_told(moma: Process, what: str) -> None:
    ledger = moma.path / ("none/moma.db" if what == "no directory" else "text.db")
    if what == "no database":
        ledger.write_bytes(b"no database at all " * 1000)
    moma.write(ledger=str(ledger))
    code, said = await moma.fails()
    assert code == 2
    assert str(ledger) in said


PROMPT = "a very secret prompt"


async def asked(http: aiohttp.ClientSession, url: str, key: str = KEY, **body: object) -> int:
    messages = [{"role": "user", "content": PROMPT}]
    headers = {"authorization": f"Bearer {key}"}
    call = {"model": "small", "messages": messages, **body}
    async with http.post(f"{url}/v1/chat/completions", json=call, headers=headers) as answer:
        await answer.read()
        return answer.status


async def test_one_line_per_call_without_prompt_or_key_until_it_is_told_to_stop(moma: Process) -> None:
    async with ScriptedBackend() as backend, aiohttp.ClientSession() as http:
        moma.write(a=backend.base_url)
        process = await moma.start("--log-calls")
        url = await url_of(process)
        assert await asked(http, url) == 200
        assert await asked(http, url, stream=True) == 200
        assert await asked(http, url, model=PROMPT) == 404
        backend.script([refusal(500, PROMPT)])
        assert await asked(http, url) == 502
        assert await asked(http, url, key="sk-moma-wrong") == 401
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), READY_S)
    assert process.returncode == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["outcome"], line["status"]) for line in lines] == [
        ("completed", 200), ("completed", 200), ("refused", 404), ("failed", 502),
    ]  # fmt: skip
    assert len({line["request_id"] for line in lines}) == 4
    assert lines[0]["charged_uc"] > 0
    for secret in (PROMPT, KEY, SECRET, "sk-moma-wrong"):
        assert secret.encode() not in out + err


async def test_a_log_that_nobody_reads_fails_no_call(moma: Process) -> None:
    async with ScriptedBackend() as backend, aiohttp.ClientSession() as http:
        moma.write(a=backend.base_url)
        process = await moma.start("--log-calls")
        url = await url_of(process)
        assert process.stdout is not None
        process.stdout._transport.close()  # type: ignore[attr-defined] # the reader goes away
        for _ in range(3):
            assert await asked(http, url) == 200
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), READY_S) == 0


@pytest.fixture
def stuck() -> Iterator[tuple[int, int]]:
    """The ends of a small pipe that nobody reads."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(reader)


async def ready(http: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{url}/readyz") as answer:
                    assert answer.status == 200
                    return
            await asyncio.sleep(0.02)


async def test_a_stuck_reader_of_calls_delays_no_call_and_no_end(moma: Process, stuck: tuple[int, int]) -> None:
    reader, writer = stuck
    process = await moma.start("--log-calls", stdout=writer)
    os.close(writer)
    url = await url_of(process)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=READY_S)) as http:
        for _ in range(60):  # a line of some 200 bytes each
            assert await asked(http, url, model="none") == 404
    process.send_signal(signal.SIGTERM)
    _, err = await asyncio.wait_for(process.communicate(), READY_S)
    assert process.returncode == 0
    written = os.read(reader, 65536).splitlines()
    assert all(json.loads(line)["status"] == 404 for line in written)
    assert f"{60 - len(written)} lines of calls were not written" in err.decode()


async def test_a_stuck_reader_of_the_log_delays_no_start_and_no_end(moma: Process, stuck: tuple[int, int]) -> None:
    _, writer = stuck
    moma.write(port=(port := free_port()))
    routes = "".join(f"  r{number}: {{pick: [small], policy: cheapest}}\n" for number in range(100))
    moma.routes.write_text(f"{moma.routes.read_text()}routes:\n{routes}")  # a warning each
    process = await moma.start(stderr=writer)
    os.close(writer)
    async with aiohttp.ClientSession() as http:
        await ready(http, f"http://127.0.0.1:{port}")
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), READY_S) == 0


@pytest.fixture
async def busy_port() -> AsyncIterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


async def test_a_start_that_fails_leaves_nothing_open(
    moma: Process, busy_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(load(moma.routes))
    before = asyncio.all_tasks()
    with pytest.raises(OSError, match="in use"):
        await app.start("127.0.0.1", busy_port)
    assert asyncio.all_tasks() == before
    ledger = await open_ledger(str(moma.path / "moma.db"), LoopClock(asyncio.get_running_loop()), "UTC", {})
    await ledger.aclose()


async def test_a_gateway_that_has_ended_has_given_all_back(moma: Process) -> None:
    app = App(load(moma.routes))
    await app.start("127.0.0.1", 0)
    second = App(load(moma.routes))
    with pytest.raises(LockHeld):
        await second.start("127.0.0.1", 0)
    await app.aclose()
    await second.start("127.0.0.1", 0)
    await second.aclose()


async def told(http: aiohttp.ClientSession, url: str, key: str) -> tuple[int, str]:
    call = {"model": "small", "messages": [{"role": "user", "content": "x"}]}
    headers = {"authorization": f"Bearer {key}"}
    async with http.post(f"{url}/v1/chat/completions", json=call, headers=headers) as answer:
        return answer.status, await answer.text()


async def listed(http: aiohttp.ClientSession, url: str, key: str) -> list[str]:
    async with http.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}) as answer:
        return [model["id"] for model in (await answer.json())["data"]]


@contextlib.asynccontextmanager
async def serving(moma: Process) -> AsyncIterator[App]:
    app = App(load(moma.routes))
    await app.start("127.0.0.1", 0)
    yield app
    await app.aclose()


async def test_a_tenant_whose_plan_is_gone_may_call_nothing_until_it_has_one(
    moma: Process, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedBackend() as backend, aiohttp.ClientSession() as http:
        moma.write(a=backend.base_url)
        without = moma.routes.read_text()
        narrow = without.replace("plans: {", "plans: {narrow: {allow: [small], rpm: 1}, ")
        moma.routes.write_text(narrow)
        async with serving(moma) as app:
            manage.add_tenant(app.ledger, "acme", "narrow")
            manage.add_grant(app.ledger, "acme", 10**9)
            await manage.add_key(app.ledger, "acme", hashlib.sha256(b"sk-acme").hexdigest())[1]

        moma.routes.write_text(without)
        async with serving(moma) as app:
            url = f"http://127.0.0.1:{app.port}"
            status, said = await told(http, url, "sk-acme")
            assert (status, await listed(http, url, "sk-acme")) == (404, [])
            assert "your plan 'narrow' is no longer there" in said
            assert "routes.yaml" in said
            assert ((await told(http, url, KEY))[0], await listed(http, url, KEY)) == (200, ["small"])
        [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert warning.startswith("plan narrow is not in routes.yaml, so its tenants may call nothing: acme.")
        caplog.clear()

        moma.routes.write_text(narrow)
        async with serving(moma) as app:
            url = f"http://127.0.0.1:{app.port}"
            assert ((await told(http, url, "sk-acme"))[0], await listed(http, url, "sk-acme")) == (200, ["small"])
            assert (await told(http, url, "sk-acme"))[0] == 429
        assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def test_the_warning_of_a_plan_that_is_gone_names_some_of_many_tenants(moma: Process) -> None:
    config = load(moma.routes)
    ledger = await open_ledger(
        str(moma.path / "moma.db"), LoopClock(asyncio.get_running_loop()), "UTC", {"old": Plan("old")}
    )
    for number in range(30):
        manage.add_tenant(ledger, f"t{number:02}", "old")
    [warning] = without_plan(config, ledger)
    assert "t00, t01" in warning
    assert "t19 and 10 more. Put the plan back" in warning
    await ledger.aclose()


def test_ids_are_unique_over_processes_and_calls() -> None:
    one, two = ids("req"), ids("req")
    made = [make() for make in (one, two) for _ in range(1000)]
    assert len(set(made)) == 2000
    assert all(name.startswith("req-") for name in made)
