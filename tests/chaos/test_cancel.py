"""A call cancelled wherever it can be: nothing is held afterwards, and what was dispatched has its record."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any

import pytest

from gateway import quote
from gateway.call import Answer, Request
from gateway.charging.audit import audit
from gateway.config.model import Limits, Plan
from gateway.demo.scripted import HANG, Fault, Reply, refusal
from gateway.limits import Gates
from gateway.pipeline import Pipeline
from gateway.tenants import Caller
from tests.charging import manage
from tests.conftest import World

CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
LAST = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}\n\ndata: [DONE]\n\n'
)
STREAM = Reply(headers={"content-type": "text/event-stream"}, stream=[CHUNK, 0.002, CHUNK, 0.002, LAST])
BROKEN = Reply(headers={"content-type": "text/event-stream"}, stream=[CHUNK, 0.002, Fault.EOF])
SLOW = Reply(headers={"content-type": "text/event-stream"}, stream=[CHUNK, 0.06, CHUNK, 0.06, LAST])
LONG = Reply(headers={"content-type": "text/event-stream"}, stream=[CHUNK * 90, 0.001] * 10)
MESSAGES = [{"role": "user", "content": "hello there"}]
MOST_SUSPENSIONS = 200
ONLY_LONG = pytest.mark.skipif(os.environ.get("MOMA_LONG") != "1", reason="MOMA_LONG=1 runs it")

# name: (endpoint, body, what backend a says, tenant)
CASES: dict[str, tuple[str, dict[str, Any], list[Reply], str]] = {
    "whole": ("chat", {}, [], "demo"),
    "stream": ("chat", {"stream": True}, [STREAM], "demo"),
    "embeddings": ("embeddings", {"input": ["a", "b"]}, [], "demo"),
    "fallback": ("chat", {"model": "auto"}, [refusal(503)], "demo"),
    "retry": ("chat", {}, [refusal(503)], "demo"),
    "refused": ("chat", {}, [refusal(400)], "demo"),
    "broken stream": ("chat", {"stream": True}, [BROKEN], "demo"),
    "written hold": ("chat", {"stream": True}, [SLOW], "demo"),
    "limited": ("chat", {}, [], "limited"),
    "poor": ("chat", {"messages": [{"role": "user", "content": "word " * 300}]}, [], "poor"),
    "empty": ("chat", {}, [], "empty"),
    "cut short": ("chat", {"stream": True, "max_tokens": 1000}, [LONG], "thin"),
}


class ListSink:
    """Every write suspends, as it does when a client reads slowly."""

    def __init__(self) -> None:
        self.begun = False
        self.status = 0
        self.body = b""
        self.complete = False

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        self.begun, self.status = True, status
        await asyncio.sleep(0)

    async def write(self, chunk: bytes) -> None:
        await asyncio.sleep(0)
        self.body += chunk

    async def finish(self, last: bytes = b"", *, whole: bool = True) -> None:
        await asyncio.sleep(0)
        self.body += last
        self.complete = True

    async def send(self, answer: Answer) -> None:
        self.begun, self.status = True, answer.status
        await asyncio.sleep(0)
        self.body = answer.body
        self.complete = True


class Cancelling(Coroutine[Any, Any, None]):
    """Cancels its task at the k-th suspension: as it begins, or (`late`) as it ends, when its result is lost."""

    def __init__(self, inner: Coroutine[Any, Any, None], k: int, *, late: bool) -> None:
        self._inner = inner
        self._k = k
        self._late = late
        self.suspensions = 0

    def send(self, value: Any) -> Any:
        if self._late and self.suspensions == self._k:
            self.suspensions += 1
            return self._inner.throw(asyncio.CancelledError())
        awaited = self._inner.send(value)
        self.suspensions += 1
        if not self._late and self.suspensions == self._k:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # the task is about to wait for `awaited`, which is thereby cancelled too
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._inner.throw(*error)
        self.suspensions += 1
        return awaited

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise NotImplementedError


class Bench:
    """The pipeline of a running gateway, its permits, and which charges were dispatched."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger = world.app.ledger
        self.pipeline: Pipeline = world.app._front.generation.pipeline
        self.dispatched: set[str] = set()
        self.complete: set[str] = set()
        self._numbers = itertools.count(1)
        inner = self.ledger.dispatched

        def noted(charge_id: str, backend: str, model: str) -> None:
            inner(charge_id, backend, model)
            self.dispatched.add(charge_id)

        self.ledger.dispatched = noted  # type: ignore[method-assign]
        for name, credits_uc in (("limited", 10**12), ("poor", 1_600_000_000), ("empty", 0)):
            manage.add_tenant(self.ledger, name, "empty")
            if credits_uc:
                manage.add_grant(self.ledger, name, credits_uc)
        self.callers = {
            "demo": Caller("demo", Plan("pro"), ("demo",)),
            "limited": Caller("limited", Plan("tight", limits=Limits(rpm=1, concurrency=1)), ("limited",)),
            "poor": Caller("poor", Plan("empty"), ("poor",)),
            "empty": Caller("empty", Plan("empty"), ("empty",)),
        }

    def call(self, case: str) -> tuple[Coroutine[Any, Any, None], ListSink, str]:
        endpoint, body, _, tenant = CASES[case]
        asked = {"model": "small", **({} if endpoint == "embeddings" else {"messages": MESSAGES}), **body}
        request_id, sink = f"r{next(self._numbers)}", ListSink()
        if tenant == "thin":
            self.make_thin(f"thin-{request_id}")
        request = Request(request_id, endpoint, {}, json.dumps(asked).encode())
        return self.pipeline.handle(self.callers[tenant], request, sink), sink, request_id

    def make_thin(self, name: str) -> None:
        """A package for a slice and an extension, which a call uses up."""
        manage.add_tenant(self.ledger, name, "empty")
        manage.add_grant(self.ledger, name, 1_200_000_000)
        self.callers["thin"] = Caller(name, Plan("empty"), (name,))

    async def run(self, case: str, k: int, *, late: bool) -> bool:
        """True when the call ended before its k-th suspension, so that nothing was left to cancel."""
        inner, sink, request_id = self.call(case)
        self.world.a.script(CASES[case][2])
        wrapped = Cancelling(inner, k, late=late)
        task = asyncio.get_running_loop().create_task(wrapped)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if sink.complete and sink.status == 200 and b'"error"' not in sink.body:
            self.complete.add(request_id)
        self.idle()
        return wrapped.suspensions < k or (late and wrapped.suspensions == k)

    def idle(self) -> None:
        """Synchronously after a call: a cancelled call has given everything back before its task is done."""
        assert self.ledger.open_holds == 0
        assert gates_in_use(self.pipeline._admission._gates) == 0
        assert gates_in_use(self.pipeline._dispatcher._gates) == 0
        self.ledger.check_invariants()

    async def audited(self) -> list[sqlite3.Row]:
        """All records, once they are in the file and the books are right."""
        await manage.add_key(self.ledger, "demo", f"{next(self._numbers):064x}")[1]
        path = f"{self.world.path}/moma.db"
        assert audit(path) == []
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM records").fetchall()
            assert connection.execute("SELECT charge_id FROM holds").fetchall() == []
        assert {row["charge_id"] for row in rows} == self.dispatched
        assert self.complete <= {row["request_id"] for row in rows if row["status"] == "settled"}
        return rows


def gates_in_use(gates: Gates) -> int:
    return sum(gate.in_flight for gate in gates._gates.values())


@pytest.fixture
async def bench(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(quote, "SLICE_TOKENS", 100)
    await asyncio.to_thread(world.app._parts.tokenizer.load)
    made = Bench(world)
    yield made
    while world.a.in_flight + world.b.in_flight:  # a cancelled call has cut its backend off
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("late", [False, True], ids=["as it begins", "as it ends"])
@pytest.mark.parametrize("case", CASES)
async def test_cancel_at_every_suspension(bench: Bench, case: str, late: bool) -> None:
    for k in range(1, MOST_SUSPENSIONS):
        if await bench.run(case, k, late=late):
            break
    else:
        pytest.fail("the call never ended")
    assert k > 1, "a call that never suspends cannot be cancelled"
    rows = await bench.audited()
    cut = [row for row in rows if "quota_exhausted" in row["flags"]]
    assert bool(cut) == (case == "cut short")
    assert all(row["overage"] == 0 for row in cut)


async def test_cancel_while_the_commit_is_waited_for(bench: Bench) -> None:
    inner = bench.ledger._store.write

    def slowly(records: Any, rows: Any) -> None:
        time.sleep(0.02)
        inner(records, rows)

    bench.ledger._writer._write = slowly
    inner_call, sink, _ = bench.call("whole")
    task = asyncio.get_running_loop().create_task(inner_call)
    while not bench.ledger._image.closed:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not sink.begun
    bench.idle()
    [row] = await bench.audited()
    assert (row["status"], row["flags"]) == ("settled", "[]")


@pytest.mark.hasty
@pytest.mark.parametrize("calls", [150, pytest.param(1500, marks=[pytest.mark.long, ONLY_LONG])])
async def test_cancelled_at_random_under_load(bench: Bench, calls: int) -> None:
    """Through the server, so that it is the client's leaving which cancels."""
    rng = random.Random(11)
    replies = [None, STREAM, SLOW, BROKEN, refusal(503), HANG, Reply(body=b"<html>")]
    bench.world.a.script(lambda _: rng.choice(replies))
    complete: set[str] = set()

    async def one(case: str) -> None:
        endpoint, body, _, _ = CASES[case]
        path = "embeddings" if endpoint == "embeddings" else "chat/completions"
        asked = {"model": "small", **({} if endpoint == "embeddings" else {"messages": MESSAGES}), **body}
        async with bench.world.http.post(f"{bench.world.url}/v1/{path}", json=asked) as answer:
            text = await answer.text()
            if answer.status == 200 and (not body.get("stream") or text.endswith("data: [DONE]\n\n")):
                complete.add(answer.headers["x-request-id"])

    cases = ("whole", "stream", "embeddings", "fallback", "written hold")
    for _ in range(calls // 30):
        tasks = [asyncio.create_task(one(rng.choice(cases))) for _ in range(30)]
        for task in tasks:
            if rng.random() < 0.7:
                asyncio.get_running_loop().call_later(rng.uniform(0, 0.15), task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(10):
        while bench.ledger.open_holds:
            await asyncio.sleep(0.01)
    bench.idle()
    bench.complete = complete
    rows = await bench.audited()
    print(f"{calls} calls, {len(complete)} complete, {len(rows)} dispatched: no hold or permit leaked")
