"""Whole calls, driven by a virtual clock: minutes in no time, and the same every time."""

from __future__ import annotations

import ast
import asyncio
import random
import time
from pathlib import Path

import orjson
import pytest

from gateway.call import Answer
from gateway.config.model import Limits, Plan
from gateway.tokens import Tokenizer
from tests.stage import Open
from tests.virtual import (
    BROKEN,
    CONNECT,
    DONE,
    FOREVER,
    OK,
    ROLE,
    STOP,
    STREAM,
    USAGE,
    WORD,
    ListSink,
    Piece,
    Said,
    VirtualClock,
    drive,
    refused,
    request,
    whole,
)

ROOT = Path(__file__).parent.parent


async def test_an_answer_that_takes_299_seconds_takes_none(opened: Open) -> None:
    stage, started = opened([Said(pieces=[whole()], before=299.0)]), time.monotonic()
    sink = await stage.ask()
    assert time.monotonic() - started < 5
    assert (sink.status, sink.body) == (200, whole())
    assert stage.clock.at == pytest.approx(299.0)
    assert float(sink.headers["x-moma-overhead-ms"]) == 0
    assert sink.headers["x-moma-credits"] == "10"
    [record] = await stage.durable()
    assert (record["status"], record["charged"], record["usage_source"]) == ("settled", "10", "reported")
    [line] = stage.lines
    assert line["duration_ms"] == pytest.approx(299_000)


async def test_a_stream_that_takes_299_seconds_takes_none(opened: Open) -> None:
    words: list[Piece] = [20.0, WORD] * 14
    stage = opened([Said(pieces=[ROLE, WORD, *words, 19.0, STOP, USAGE, DONE])])
    sink = await stage.ask(stream=True)
    assert stage.clock.at == pytest.approx(299.0)
    assert sink.finished
    assert sink.body == ROLE + WORD * 15 + STOP + DONE


async def test_301_seconds_are_too_many_and_what_was_passed_on_is_charged(opened: Open) -> None:
    words: list[Piece] = [WORD, 20.0] * 20
    stage = opened([Said(pieces=[ROLE, *words])])
    sink = await stage.ask(stream=True)
    assert stage.clock.at == pytest.approx(300.0)
    assert b'"code":"deadline_exceeded"' in sink.body
    assert DONE not in sink.body
    [record] = await stage.durable()
    assert {"partial", "estimated"} <= set(record["flags"])
    assert float(record["charged"]) > 0


async def test_the_last_bytes_wait_for_the_commit(opened: Open) -> None:
    stage = opened([Said(pieces=STREAM)])
    seen: list[int] = []

    class Watching(ListSink):
        async def finish(self, last: bytes = b"", *, whole: bool = True) -> None:
            seen.append(len(stage.ledger.charges("t", 0, 10)["data"]))
            await super().finish(last)

    sink = Watching()
    await drive(stage.clock, stage.handle(sink, stream=True), busy=stage.busy)
    assert (seen, sink.finished) == ([1], True)


@pytest.mark.parametrize(("wish", "ends"), [("2.5", 2.5), ("0.001", 0.001), ("600", 90.0), ("nan", 90.0), ("x", 90.0)])
async def test_the_clients_own_deadline_only_shortens(opened: Open, wish: str, ends: float) -> None:
    stage = opened(lambda _: Said(before=FOREVER))
    sink = await stage.ask({"x-stainless-read-timeout": wish}, stream=True)
    assert (sink.status, sink.json["error"]["code"]) == (504, "deadline_exceeded")
    assert ends <= stage.clock.at <= ends + 2  # three attempts of 30 s, and the waits between them
    assert all(record["charged"] == "0" for record in await stage.durable())


async def test_what_is_waited_before_a_backend_is_asked_again_is_not_our_own_time(opened: Open) -> None:
    stage = opened([refused(503), OK])
    sink = await stage.ask()
    assert (sink.headers["x-moma-attempts"], stage.clock.at > 0.05) == ("2", True)
    assert float(sink.headers["x-moma-overhead-ms"]) == 0
    assert stage.metric("moma_overhead_seconds_sum", stream="false") == pytest.approx(0)


async def test_nor_when_the_client_leaves_meanwhile(opened: Open) -> None:
    stage = opened([refused(503), OK])
    call = asyncio.ensure_future(stage.handle(ListSink()))
    stage.clock.call_at(0.05, call.cancel)
    await drive(stage.clock, asyncio.gather(call, return_exceptions=True), busy=stage.busy)
    assert (stage.clock.at, len(stage.client.sent)) == (0.05, 1)
    assert stage.metric("moma_overhead_seconds_count", stream="false") == 1
    assert stage.metric("moma_overhead_seconds_sum", stream="false") == pytest.approx(0)


class SlowReader(ListSink):
    """Takes an answer, or a piece of one, in 20 s."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    async def send(self, answer: Answer) -> None:
        await super().send(answer)
        await self._clock.sleep(20.0)

    async def write(self, chunk: bytes) -> None:
        await super().write(chunk)
        await self._clock.sleep(20.0)


async def test_what_a_client_takes_to_read_a_whole_answer_is_not_our_own_time(opened: Open) -> None:
    stage = opened([OK])
    sink = SlowReader(stage.clock)
    await drive(stage.clock, stage.handle(sink), busy=stage.busy)
    assert (sink.status, stage.clock.at) == (200, 20.0)
    assert stage.metric("moma_overhead_seconds_count", stream="false") == 1
    assert stage.metric("moma_overhead_seconds_sum", stream="false") == pytest.approx(0)


@pytest.mark.parametrize(("pause_s", "outcome"), [(1.0, "aborted"), (25.0, "failed")])
async def test_a_client_that_takes_all_the_time_to_read_is_no_failure(
    opened: Open, pause_s: float, outcome: str
) -> None:
    pieces: list[Piece] = [ROLE]
    for _ in range(100):
        pieces += [pause_s, WORD]
    stage = opened([Said(pieces=[*pieces, STOP, USAGE, DONE])])
    await drive(stage.clock, stage.handle(SlowReader(stage.clock), stream=True), busy=stage.busy)
    await stage.durable()
    [line] = stage.lines
    assert (line["outcome"], line["status"]) == (outcome, 504)


@pytest.mark.parametrize(("wish", "outcome"), [("2.5", "aborted"), ("30", "aborted"), ("600", "failed")])
async def test_a_client_that_gives_too_little_time_has_left_and_nobody_has_failed(
    opened: Open, wish: str, outcome: str
) -> None:
    stage = opened(lambda _: Said(before=FOREVER))
    await stage.ask({"x-stainless-read-timeout": wish}, stream=True)
    [line] = stage.lines
    assert (line["outcome"], line["status"]) == (outcome, 504)


@pytest.mark.parametrize("fault", [BROKEN, CONNECT, refused(500), refused(429), Said(before=FOREVER)])
async def test_a_call_that_falls_back_is_charged_once_for_who_served_it(opened: Open, fault: Said) -> None:
    stage = opened(lambda sent: fault if sent.backend == "a" else OK)
    sink = await stage.ask(model="both")
    assert (sink.status, sink.headers["x-moma-backend"], sink.headers["x-moma-attempts"]) == (200, "b", "2")
    [record] = await stage.durable()
    assert (record["backend"], record["model_served"], record["charged"]) == ("b", "n", "10")


async def test_a_stream_that_fails_before_content_starts_anew_elsewhere(opened: Open) -> None:
    stage = opened(lambda sent: Said(pieces=[ROLE] if sent.backend == "a" else STREAM))
    sink = await stage.ask(model="both", stream=True)
    assert sink.headers["x-moma-attempts"] == "2"
    assert sink.body == ROLE + WORD + WORD + STOP + DONE


async def test_a_limit_refuses_with_advice_that_is_true(opened: Open) -> None:
    stage = opened(lambda _: OK, plan=Plan("tight", limits=Limits(rpm=2)))
    statuses = [(await stage.ask()).status for _ in range(2)]
    refusal = await stage.ask()
    assert [*statuses, refusal.status] == [200, 200, 429]
    assert refusal.headers["x-ratelimit-remaining-requests"] == "0"
    assert stage.metric("moma_limit_refusals_total", kind="rpm") == 1
    stage.clock.advance(int(refusal.headers["retry-after-ms"]) / 1000)
    assert (await stage.ask()).status == 200


@pytest.mark.parametrize("at", [0.5, 3.0, 9.0])
async def test_a_client_that_leaves_pays_for_what_it_got_and_the_metrics_agree(opened: Open, at: float) -> None:
    words: list[Piece] = [1.0, WORD] * 20
    stage = opened([Said(pieces=[ROLE, WORD, *words], before=2.0)])
    task = asyncio.ensure_future(stage.handle(ListSink(), stream=True))
    leave = asyncio.ensure_future(stage.clock.sleep(at))
    await drive(stage.clock, leave, busy=stage.busy)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    [record] = await stage.durable()
    stage.ledger.check_invariants()
    assert (stage.ledger.open_holds, record["status"]) == (0, "settled")
    assert float(record["charged"]) > 0
    assert stage.gates.of("t", Limits()).in_flight == 0
    assert stage.metric("moma_credits_total", tenant="t", kind="settled") == float(record["charged"])
    assert stage.metric("moma_usage_missing_total", backend="a") == 0  # nobody let the backend say it
    [line] = stage.lines
    assert (line["outcome"], line["charged_uc"]) == ("aborted", float(record["charged"]) * 1_000_000)


async def test_a_client_that_leaves_during_the_commit_is_counted_once(opened: Open) -> None:
    stage = opened([OK])
    sink = ListSink()
    task = asyncio.ensure_future(stage.handle(sink))
    while not stage.client.sent or stage.ledger.open_holds:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    [record] = await stage.durable()
    assert (task.cancelled(), sink.begun, record["charged"]) == (True, False, "10")
    assert stage.metric("moma_credits_total", tenant="t", kind="settled") == 10
    assert [(line["outcome"], line["charged_uc"]) for line in stage.lines] == [("aborted", 10_000_000)]


class Words(Tokenizer):
    """A vocabulary in which a word is a token."""

    ready = True

    def count(self, text: str) -> int:
        return len(text.split())


@pytest.mark.parametrize(
    ("text", "status"),
    [("word" * 2 + " " + " " * 40_000, 200), ("a " * 9000, 400), ("a " * 8000, 200), ("abcdefgh " * 8000, 400)],
)
async def test_near_the_limit_the_context_is_counted(opened: Open, text: str, status: int) -> None:
    """The model takes 8,192; by four bytes a token these are 10,000, 4,500, 4,000 and 18,000."""
    stage = opened(lambda _: OK, tokenizer=Words())
    sink = await stage.ask(messages=[{"role": "user", "content": text}])
    assert sink.status == status
    assert len(stage.client.sent) == (status == 200)
    if status == 200 and len(text) > 40_000:
        assert stage.client.sent[0].body["max_tokens"] == 1024


EMBEDDED = orjson.dumps({"object": "list", "data": [], "usage": {"prompt_tokens": 25_000, "total_tokens": 25_000}})


async def test_a_batch_of_embeddings_is_held_and_charged_in_full(opened: Open) -> None:
    stage, held = opened([Said(pieces=[EMBEDDED], before=1.0)]), []
    sink = ListSink()
    asked = request(endpoint="embeddings", model="e", input=["x" * 1000] * 100)
    call = asyncio.ensure_future(stage.pipeline.handle(stage.caller, asked, sink))
    watch = asyncio.ensure_future(stage.clock.sleep(0.5))
    await drive(stage.clock, watch, busy=stage.busy)
    held.append(float(stage.ledger.usage("t")["reserved"]))
    await drive(stage.clock, call, busy=stage.busy)
    [record] = await stage.durable()
    assert (sink.status, record["charged"], record["overage"]) == (200, "25000", "0")
    assert held[0] >= 25_000


async def scenario(opened: Open, seed: int) -> list[tuple[float, int, str, str, float]]:
    """A hundred calls against backends that fail by a seeded chance."""
    faults = random.Random(seed)
    said = [OK, OK, OK, BROKEN, CONNECT, refused(429, retry_after="1"), refused(500), Said(before=FOREVER)]
    stage = opened(lambda _: faults.choice(said), seed=seed)
    start = stage.clock.at
    trace = []
    for _ in range(100):
        sink = await stage.ask(model="both")
        served, attempts = sink.headers.get("x-moma-backend", ""), sink.headers.get("x-moma-attempts", "")
        trace.append((sink.status, served, attempts, round(stage.clock.at - start, 6)))
    return [(stage.clock.at - start, *entry) for entry in trace]


async def test_a_run_can_be_replayed(opened: Open) -> None:
    one, two, other = [await scenario(opened, seed) for seed in (3, 3, 4)]
    assert len({entry[1] for entry in one}) > 1
    for left, right in zip(one, two, strict=True):
        assert left[1:4] == right[1:4]
        assert left[4] == pytest.approx(right[4])
    assert one != other


# -- nothing on a call's path asks for time or chance by itself ----------------------------------------------------

ON_THE_PATH = [
    "pipeline.py", "dispatch.py", "deadline.py", "limits.py", "tenants.py", "parse.py", "tokens.py", "recorder.py",
    "call.py", "errors.py", "backends/*.py", "routing/*.py", "adapters/*.py",
    "charging/ledger.py", "charging/image.py", "charging/grants.py", "charging/rating.py", "charging/records.py",
    "charging/views.py", "charging/directory.py", "charging/invariants.py", "cache/*.py", "compress/*.py",
]  # fmt: skip
TIME = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "now", "utcnow", "today"}
CHANCE = {"random", "uniform", "choice", "choices", "shuffle", "sample", "randint", "randrange", "gauss", "seed"}
WAITS = {"sleep", "call_later", "call_at", "timeout", "timeout_at", "wait_for"}
MODULES = {
    "time": TIME | {"sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "random": CHANCE | {"SystemRandom"},
    "secrets": {"token_hex", "token_urlsafe", "token_bytes", "choice", "randbelow"},
    "uuid": {"uuid1", "uuid4", "uuid7"},
    "os": {"urandom"},
    "asyncio": WAITS,
    "loop": {"time", "call_later", "call_at"},
    "_loop": {"time", "call_later", "call_at"},
}


def own_time_or_chance(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if isinstance(owner, ast.Call):
                name = "loop"  # asyncio.get_running_loop().time and the like
            if node.attr in MODULES.get(name, ()):
                found.append(f"line {node.lineno}: {name}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "random", "secrets", "uuid"):
            found.append(f"line {node.lineno}: from {node.module} import ...")
    return found


def files_on_the_path() -> list[Path]:
    return sorted(path for pattern in ON_THE_PATH for path in (ROOT / "gateway").glob(pattern))


@pytest.mark.parametrize("path", files_on_the_path(), ids=lambda path: str(path.relative_to(ROOT)))
def test_time_and_chance_are_collaborators(path: Path) -> None:
    assert own_time_or_chance(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.time()",
        "time.monotonic()",
        "datetime.now(UTC)",
        "datetime.datetime.utcnow()",
        "random.random()",
        "asyncio.get_running_loop().time()",
        "self._loop.call_later(1, f)",
        "asyncio.sleep(1)",
        "from time import monotonic",
        "uuid.uuid4()",
        "clock = time.monotonic",
    ],
)
def test_the_check_finds_what_it_looks_for(code: str) -> None:
    assert own_time_or_chance(ast.parse(code))


def test_the_check_lets_collaborators_be() -> None:
    assert own_time_or_chance(ast.parse("self._clock.now(); self._rng.uniform(0, 1); clock.sleep(1)")) == []
