"""Calls on routes with a cache, through the whole pipeline in virtual time."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.call import BUCKETS, Answer
from gateway.charging.audit import audit
from gateway.charging.directory import Edit
from gateway.config.model import Cache, Config, Limits, Plan, PlanGrant
from gateway.tenants import Caller
from tests.charging import manage
from tests.stage import CONFIG, PLAN, Open, Stage
from tests.virtual import (
    BROKEN,
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
    Sent,
    drive,
    event,
    refused,
    request,
    route,
    whole,
)


def cached(**settings: Any) -> Config:
    """The stage's configuration with routes that have a cache."""
    routes = [route("kept", "m", cache="c"), route("kept_too", "m", "n", cache="c"), route("embedded", "e", cache="c")]
    return replace(
        CONFIG,
        routes={**CONFIG.routes, **{r.name: r for r in routes}},
        aliases={"other-name": "kept"},
        caches={"c": Cache("c", **settings)},
    )


COLD: dict[str, Any] = {"model": "kept", "temperature": 0}
LONG: list[Piece] = [ROLE, WORD]
for _ in range(5):
    LONG += [20.0, WORD]
LONG += [STOP, USAGE, DONE]
SLOW = Said(pieces=[ROLE, WORD, 1.0, WORD, 1.0, STOP, USAGE, DONE])


class Theatre:
    """A stage with a cache; `cost` is what a call of theirs is charged when a backend answers it."""

    def __init__(self, opened: Open, script: Sequence[Said] | Callable[[Sent], Said], **settings: Any) -> None:
        plan = settings.pop("plan", None)
        more = {} if plan is None else {"plan": plan}
        self.stage: Stage = opened(script, config=cached(**settings), **more)

    async def ask(self, headers: dict[str, str] | None = None, **body: Any) -> ListSink:
        return await self.stage.ask(headers, **{**COLD, **body})

    def start(self, after: float = 0.0, headers: dict[str, str] | None = None, **body: Any) -> Asking:
        return Asking(self.stage, after, headers, {**COLD, **body})

    async def all(self, *asking: Asking) -> list[ListSink]:
        """Runs them all to their ends, and looks at the books."""
        tasks = [one.run() for one in asking]
        await drive(self.stage.clock, asyncio.gather(*tasks), busy=self.stage.busy)
        await self.settled()
        return [one.sink for one in asking]

    async def settled(self) -> None:
        await self.stage.durable()
        assert self.stage.ledger.open_holds == 0
        self.stage.ledger.check_invariants()
        assert audit(self.stage.ledger._store.path) == []
        gate = self.stage.gates.of("t", self.stage.plan.limits)
        assert gate.in_flight == 0

    @property
    def asked(self) -> int:
        return len(self.stage.client.sent)

    def counted(self) -> dict[str, int]:
        [state] = self.stage.caches.states()
        return {result: count for result, count in state.lookups.items() if count}

    async def charged(self) -> list[tuple[str, list[str]]]:
        return [(record["charged"], record["flags"]) for record in await self.stage.durable()]


class Asking:
    """A client that asks at some time, and perhaps leaves at another."""

    def __init__(self, stage: Stage, after: float, headers: dict[str, str] | None, body: dict[str, Any]) -> None:
        self.sink = ListSink()
        self._stage = stage
        self._after = after
        self._headers = headers
        self._body = body
        self._leaves: float | None = None

    @property
    def stays(self) -> bool:
        return self._leaves is None

    @property
    def streams(self) -> bool:
        return bool(self._body.get("stream"))

    def leaving(self, after: float) -> Asking:
        self._leaves = after
        return self

    async def run(self) -> None:
        clock = self._stage.clock
        if self._after:
            await clock.sleep(self._after)
        task = asyncio.ensure_future(self._stage.handle(self.sink, self._headers, **self._body))
        if self._leaves is not None:
            clock.call_at(clock.now() + self._leaves, task.cancel)
        await asyncio.gather(task, return_exceptions=self._leaves is not None)


Play = Callable[..., Theatre]


@pytest.fixture
def play(opened: Open) -> Play:
    return lambda script, **settings: Theatre(opened, script, **settings)


# -- a stored answer ----------------------------------------------------------------------------------------------


async def test_the_same_call_is_answered_once_by_a_backend_and_then_from_the_cache(play: Play) -> None:
    theatre = play([OK])
    first = await theatre.ask()
    theatre.stage.clock.advance(3.5)
    second = await theatre.ask()
    assert (first.body, second.body) == (whole(), whole())
    assert (first.headers["x-moma-cache"], second.headers["x-moma-cache"]) == ("miss", "hit")
    assert (second.headers["age"], second.headers["x-moma-model"], second.headers["x-moma-credits"]) == ("3", "m", "0")
    assert "age" not in first.headers
    assert theatre.asked == 1
    assert await theatre.charged() == [("10", []), ("0", ["cache_hit", "charge:0%"])]
    assert theatre.counted() == {"miss": 1, "hit": 1}
    await theatre.settled()


async def test_a_call_by_an_alias_is_the_same_and_one_by_another_route_is_not(play: Play) -> None:
    theatre = play([OK, OK])
    await theatre.ask()
    assert (await theatre.ask(model="other-name")).headers["x-moma-cache"] == "hit"
    assert (await theatre.ask(model="kept_too")).headers["x-moma-cache"] == "miss"


async def test_an_answer_ends_with_its_time(play: Play) -> None:
    theatre = play([OK, OK], ttl_s=60.0)
    await theatre.ask()
    theatre.stage.clock.advance(60)
    assert (await theatre.ask()).headers["x-moma-cache"] == "miss"


async def test_a_call_that_leaves_room_for_chance_is_not_kept_unless_the_cache_says_so(play: Play) -> None:
    theatre = play([OK, OK])
    for _ in range(2):
        assert (await theatre.ask(temperature=0.5)).headers["x-moma-cache"] == "bypass"
    assert theatre.counted() == {"bypass": 2}
    sampled = play([OK], sampled=True)
    await sampled.ask(temperature=0.5)
    assert (await sampled.ask(temperature=0.5)).headers["x-moma-cache"] == "hit"


async def test_a_route_without_a_cache_is_not_looked_up(play: Play) -> None:
    theatre = play([OK, OK])
    for _ in range(2):
        assert (await theatre.ask(model="m")).headers["x-moma-cache"] == "bypass"
    assert theatre.counted() == {}


async def test_a_stream_is_stored_whole_and_each_asks_for_it_as_it_likes(play: Play) -> None:
    theatre = play([Said(pieces=STREAM)])
    first = await theatre.ask(stream=True)
    assert first.body == b"".join(STREAM).replace(USAGE, b"")
    again = await theatre.ask(stream=True)
    with_usage = await theatre.ask(stream=True, stream_options={"include_usage": True})
    plain = await theatre.ask()
    assert [sink.headers["x-moma-cache"] for sink in (again, with_usage, plain)] == ["hit"] * 3
    chunks = [orjson.loads(part[6:]) for part in with_usage.body.split(b"\n\n")[:-2]]
    assert chunks[-1]["usage"]["total_tokens"] == 10
    assert chunks[-1]["choices"] == []
    assert b'"usage"' not in again.body
    assert again.body.endswith(DONE)
    assert plain.json["choices"][0]["message"] == {"role": "assistant", "content": "word word "}
    assert plain.json["usage"]["total_tokens"] == 10
    assert theatre.asked == 1
    await theatre.settled()


async def test_a_whole_answer_is_given_as_a_stream(play: Play) -> None:
    theatre = play([OK])
    await theatre.ask()
    sink = await theatre.ask(stream=True)
    assert sink.headers["x-moma-cache"] == "hit"
    assert b'"content":"hello"' in sink.body
    assert sink.body.endswith(DONE)


async def test_who_asks_for_usage_of_a_stream_gets_it_whoever_began_it(play: Play) -> None:
    theatre = play([SLOW])
    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    sinks = await theatre.all(
        theatre.start(stream=True), theatre.start(0.5, stream=True, **options), theatre.start(0.6, stream=True)
    )
    assert [USAGE in sink.body for sink in sinks] == [False, True, False]
    asking = play([SLOW])
    sinks = await asking.all(asking.start(stream=True, **options), asking.start(0.5, stream=True))
    assert [USAGE in sink.body for sink in sinks] == [True, False]


async def test_embeddings_are_kept(play: Play) -> None:
    body = orjson.dumps({"object": "list", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 3}})
    theatre = play([Said(pieces=[body])])
    asked: dict[str, Any] = {"endpoint": "embeddings", "model": "embedded", "input": "a", "temperature": None}
    for expected in ("miss", "hit"):
        sink = await theatre.ask(**asked)
        assert (sink.headers["x-moma-cache"], sink.body) == (expected, body)


FILTERED = whole().replace(b'"stop"', b'"content_filter"')
NO_USAGE = orjson.dumps({**orjson.loads(whole()), "usage": None})
LIE = orjson.dumps({**orjson.loads(whole()), "usage": {"prompt_tokens": -1, "completion_tokens": 3}})


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (FILTERED, {}),
        (NO_USAGE, {}),
        (LIE, {}),
        (whole(), {"n": 2}),  # one choice of two
        (whole(), {"max_tokens": 100_000}),  # lowered
    ],
)
async def test_what_is_not_all_that_it_can_be_is_not_stored(play: Play, body: bytes, asked: dict[str, Any]) -> None:
    theatre = play([Said(pieces=[body]), Said(pieces=[body])])
    for _ in range(2):
        sink = await theatre.ask(**asked)
        assert (sink.status, sink.headers["x-moma-cache"]) == (200, "miss")
    assert theatre.asked == 2
    await theatre.settled()


@pytest.mark.parametrize(
    "pieces",
    [
        [ROLE, WORD, STOP, DONE],  # no usage
        [ROLE, WORD, event({}, "content_filter"), USAGE, DONE],
        [ROLE, WORD, USAGE, DONE],  # nothing says why it ended
        [ROLE, event({"content": "a", "unknown": 1}), STOP, USAGE, DONE],
    ],
)
async def test_a_stream_that_cannot_be_put_together_or_is_not_whole_is_not_stored(
    play: Play, pieces: list[Piece]
) -> None:
    theatre = play([Said(pieces=pieces)] * 2)
    for _ in range(2):
        sink = await theatre.ask(stream=True)
        assert (sink.headers["x-moma-cache"], sink.body[-len(DONE) :]) == ("miss", DONE)
    await theatre.settled()


async def test_errors_are_not_stored(play: Play) -> None:
    theatre = play([refused(400), Said(pieces=[ROLE, WORD]), OK])
    assert (await theatre.ask()).status == 400
    broken = await theatre.ask(stream=True)
    assert b'"error"' in broken.body
    assert DONE not in broken.body
    assert (await theatre.ask()).headers["x-moma-cache"] == "miss"
    await theatre.settled()


async def test_an_answer_beyond_max_entry_is_not_stored_and_its_stream_is_all_there(play: Play) -> None:
    words = [event({"content": "x" * 900}) for _ in range(20)]
    theatre = play([Said(pieces=[ROLE, *words, STOP, USAGE, DONE])] * 2, max_entry=2_000)
    for _ in range(2):
        sink = await theatre.ask(stream=True)
        assert sink.headers["x-moma-cache"] == "miss"
        assert sink.body == b"".join([ROLE, *words, STOP, DONE])
    await theatre.settled()


# -- who asks -----------------------------------------------------------------------------------------------------


async def test_a_plan_that_may_not_call_a_route_gets_nothing_that_is_stored_for_it(play: Play) -> None:
    theatre = play([OK])
    await theatre.ask()
    theatre.stage.plan = Plan("p", allow=frozenset({"m"}))
    sink = await theatre.ask()
    assert (sink.status, sink.json["error"]["code"]) == (404, "model_not_found")


async def test_limits_hold_for_hits_and_count_their_tokens(play: Play) -> None:
    theatre = play([OK], plan=Plan("p", (PlanGrant(10**12),), Limits(rpm=2, tpm=1000)))
    await theatre.ask()
    second = await theatre.ask()
    assert second.headers["x-moma-cache"] == "hit"
    assert second.headers["x-ratelimit-remaining-requests"] == "0"
    assert (await theatre.ask()).status == 429
    gate = theatre.stage.gates.of("t", theatre.stage.plan.limits)
    assert gate.tpm is not None
    assert gate.tpm.level == 980, "ten tokens each"


async def test_a_free_hit_is_given_to_a_tenant_that_has_nothing_left(play: Play) -> None:
    theatre = play([OK, OK])
    await theatre.ask()
    ledger = theatre.stage.ledger
    for grant in ledger.tenant("t").grants:
        grant.spent, grant.available = grant.granted, 0
    sink = ListSink()
    await drive(theatre.stage.clock, theatre.stage.handle(sink, **COLD), busy=theatre.stage.busy)
    assert sink.headers["x-moma-cache"] == "hit"
    sink = ListSink()
    await drive(theatre.stage.clock, theatre.stage.handle(sink, **COLD, seed=1), busy=theatre.stage.busy)
    assert (sink.status, sink.json["error"]["code"]) == (429, "insufficient_quota")


# -- the share that is charged ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ppm", "charged", "flag"),
    [
        (0, "0", "charge:0%"),
        (250_000, "2.5", "charge:25%"),
        (333_333, "3.33333", "charge:33.3333%"),
        (1, "0.00001", "charge:0.0001%"),
        (1_000_000, "10", "charge:100%"),
    ],
)
async def test_a_hit_is_charged_its_share_and_the_record_says_which(
    play: Play, ppm: int, charged: str, flag: str
) -> None:
    theatre = play([OK], charge_ppm=ppm)
    await theatre.ask()
    sink = await theatre.ask()
    assert sink.headers["x-moma-credits"] == charged
    first, hit = await theatre.stage.durable()
    assert (hit["charged"], hit["flags"]) == (charged, ["cache_hit", flag])
    assert (hit["usage"], hit["model_served"], hit["backend"], hit["cost"]) == (first["usage"], "m", "", 0)
    assert hit["status"] == "settled"
    await theatre.settled()


async def test_a_hit_that_costs_something_is_refused_to_who_cannot_pay(play: Play) -> None:
    theatre = play([OK], charge_ppm=500_000)
    await theatre.ask()
    for grant in theatre.stage.ledger.tenant("t").grants:
        grant.spent, grant.available = grant.granted - 4_999_999, 4_999_999
    sink = ListSink()
    await drive(theatre.stage.clock, theatre.stage.handle(sink, **COLD), busy=theatre.stage.busy)
    assert (sink.status, sink.json["error"]["code"]) == (429, "insufficient_quota")
    assert theatre.stage.ledger.open_holds == 0


async def test_what_is_answered_is_on_disk_unless_it_was_free(play: Play) -> None:
    theatre = play([OK], charge_ppm=500_000)
    await theatre.ask()
    sink = ListSink()
    task = asyncio.ensure_future(theatre.stage.handle(sink, **COLD))
    while not sink.begun:
        await asyncio.sleep(0)
    rows = theatre.stage.ledger.charges("t", 0, 10)["data"]
    assert [row["charged"] for row in rows] == ["10", "5"]
    await task


async def test_hits_are_told_apart_in_metrics_and_statement(play: Play) -> None:
    theatre = play([OK], charge_ppm=250_000)
    for _ in range(3):
        await theatre.ask()
    await theatre.settled()
    labels = {"route": "kept", "model": "m", "status": "200"}
    metric = theatre.stage.metric
    assert metric("moma_requests_total", backend="", outcome="cache_hit", **labels) == 2
    assert metric("moma_requests_total", backend="a", outcome="completed", **labels) == 1
    assert metric("moma_saved_cost_total", cause="exact_cache") == pytest.approx(2 * 11e-6)
    assert metric("moma_credits_total", tenant="t", kind="settled") == 15
    statement = theatre.stage.ledger.statement("t", "2023-11-01", None)
    assert (statement["spent"], statement["calls"]) == ("15", 3)
    assert statement["by_model"][0]["usage"] == {"input": 21, "output": 9, "calls": 3}


# -- Cache-Control ------------------------------------------------------------------------------------------------


async def test_no_cache_asks_a_backend_and_refreshes_what_is_stored(play: Play) -> None:
    theatre = play([OK, Said(pieces=[whole("new")])])
    await theatre.ask()
    fresh = await theatre.ask({"cache-control": "no-cache"})
    assert (fresh.headers["x-moma-cache"], b"new" in fresh.body) == ("miss", True)
    assert b"new" in (await theatre.ask()).body


async def test_no_store_leaves_nothing_behind(play: Play) -> None:
    theatre = play([OK, OK])
    assert (await theatre.ask({"cache-control": "no-store"})).headers["x-moma-cache"] == "bypass"
    assert (await theatre.ask()).headers["x-moma-cache"] == "miss"
    assert (await theatre.ask({"cache-control": "no-store"})).headers["x-moma-cache"] == "hit"


async def test_max_age_bounds_the_age(play: Play) -> None:
    theatre = play([OK, OK])
    await theatre.ask()
    theatre.stage.clock.advance(10)
    assert (await theatre.ask({"cache-control": "max-age=11"})).headers["x-moma-cache"] == "hit"
    assert (await theatre.ask({"cache-control": "max-age=10"})).headers["x-moma-cache"] == "miss"
    assert theatre.asked == 2


@pytest.mark.parametrize("model", ["kept", "m"])
async def test_only_if_cached_never_asks_a_backend(play: Play, model: str) -> None:
    theatre = play([OK])
    sink = await theatre.ask({"cache-control": "only-if-cached"}, model=model)
    assert (sink.status, sink.json["error"]["code"]) == (504, "not_cached")
    assert sink.headers["x-should-retry"] == "false"
    assert theatre.asked == 0
    await theatre.ask()
    assert (await theatre.ask({"cache-control": "only-if-cached"})).headers["x-moma-cache"] == "hit"


async def test_a_directive_that_makes_no_sense_is_refused(play: Play) -> None:
    sink = await play([]).ask({"cache-control": "max-age=soon"})
    assert (sink.status, sink.json["error"]["param"]) == (400, "cache-control")


# -- calls under way ----------------------------------------------------------------------------------------------


async def test_followers_get_what_was_sent_and_then_the_rest_as_it_comes(play: Play) -> None:
    theatre = play([SLOW], charge_ppm=100_000)
    sinks = await theatre.all(
        theatre.start(stream=True), theatre.start(0.5, stream=True), theatre.start(1.5, stream=True)
    )
    assert {sink.body for sink in sinks} == {ROLE + WORD * 2 + STOP + DONE}
    assert [sink.headers["x-moma-cache"] for sink in sinks] == ["miss", "coalesced", "coalesced"]
    assert sinks[2].chunks[0] == ROLE + WORD * 2
    assert theatre.stage.clock.at == pytest.approx(2.0), "nobody waited for longer than the backend took"
    assert theatre.asked == 1
    assert await theatre.charged() == [("10", [])] + [("1", ["cache_hit", "charge:10%"])] * 2
    assert theatre.counted() == {"miss": 1, "coalesced": 2}


async def test_followers_hold_their_share_by_the_card_that_charges_it(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader's package takes a credit for each token, hits are charged at the rates of the model."""
    dear = replace(CONFIG.models["m"], rates={**dict.fromkeys(BUCKETS, 5_000_000), "calls": 0})
    monkeypatch.setattr(sys.modules[__name__], "CONFIG", replace(CONFIG, models={**CONFIG.models, "m": dear}))
    theatre = play([SLOW], charge_ppm=1_000_000)
    await manage.add_grant(theatre.stage.ledger, "t", 10**12, priority=1, card="raw")[1]
    await theatre.all(theatre.start(stream=True), theatre.start(0.5, stream=True))
    leader, follower = await theatre.stage.durable()
    assert (leader["charged"], follower["charged"]) == ("10", "50")
    assert float(follower["reserved"]) == 5 * float(leader["reserved"])


async def test_what_a_follower_waits_is_not_our_own_time(play: Play) -> None:
    theatre = play([SLOW])
    await theatre.all(theatre.start(stream=True), theatre.start(0.1, stream=True), theatre.start(0.2))
    for stream in ("true", "false"):
        assert theatre.stage.metric("moma_overhead_seconds_sum", stream=stream) == pytest.approx(0)


async def test_what_a_hit_waits_in_the_queue_is_not_our_own_time(play: Play) -> None:
    theatre = play([OK, Said(pieces=[whole()], before=2.0)], plan=replace(PLAN, limits=Limits(concurrency=1)))
    await theatre.ask()
    _, hit = await theatre.all(theatre.start(model="m"), theatre.start(0.5))
    assert (hit.headers["x-moma-cache"], float(hit.headers["x-moma-overhead-ms"])) == ("hit", 0)
    assert theatre.stage.metric("moma_overhead_seconds_sum", stream="false") == pytest.approx(0)


async def test_what_a_client_takes_to_read_a_hit_is_not_our_own_time(play: Play) -> None:
    theatre = play([OK])
    await theatre.ask()
    sink, clock = ListSink(), theatre.stage.clock
    given = sink.send

    async def slowly(answer: Answer) -> None:
        await given(answer)
        await clock.sleep(20.0)

    sink.send = slowly  # type: ignore[method-assign]
    await drive(clock, theatre.stage.handle(sink, **COLD), busy=theatre.stage.busy)
    assert (sink.headers["x-moma-cache"], clock.at) == ("hit", 20.0)
    assert theatre.stage.metric("moma_overhead_seconds_sum", stream="false") == pytest.approx(0)


async def test_json_and_streams_follow_each_other(play: Play) -> None:
    theatre = play([SLOW])
    stream, plain = await theatre.all(theatre.start(stream=True), theatre.start(0.5))
    assert plain.headers["x-moma-cache"] == "coalesced"
    assert plain.json["choices"][0]["message"]["content"] == "word word "
    other = play([Said(pieces=[whole()], before=3.0)])
    plain, stream = await other.all(other.start(), other.start(1.0, stream=True))
    assert stream.headers["x-moma-cache"] == "coalesced"
    assert stream.body.endswith(DONE)
    assert (theatre.asked, other.asked) == (1, 1)


async def test_the_leader_leaves_and_the_others_get_it_all(play: Play) -> None:
    theatre = play([SLOW])
    leader, *followers = await theatre.all(
        theatre.start(stream=True).leaving(0.5), *[theatre.start(0.2, stream=True) for _ in range(5)]
    )
    assert not leader.finished
    assert {sink.body for sink in followers} == {ROLE + WORD * 2 + STOP + DONE}
    assert theatre.asked == 1
    charged = await theatre.charged()
    assert charged[0] == ("10", []), "the call was made for all of them, and is charged once, in full"
    assert charged[1:] == [("0", ["cache_hit", "charge:0%"])] * 5
    [line] = [line for line in theatre.stage.lines if line["backend"]]
    assert line["outcome"] == "completed"


async def test_the_last_reader_leaves_and_the_call_ends_as_any_that_is_left(play: Play) -> None:
    theatre = play([SLOW])
    await theatre.all(theatre.start(stream=True).leaving(0.5), theatre.start(0.2, stream=True).leaving(0.6))
    assert theatre.stage.client.exchanges[0].closed
    [(charged, flags)] = await theatre.charged()
    assert flags == ["estimated", "partial"]
    assert 0 < float(charged) < 100
    assert sorted(line["outcome"] for line in theatre.stage.lines) == ["aborted", "aborted"]
    assert theatre.stage.caches.states()[0].entries == 0


async def test_a_follower_that_waits_for_all_of_it_gets_it_when_the_leader_has_left(play: Play) -> None:
    words = [event({"content": "x" * 1000}) for _ in range(200)]
    theatre = play([Said(pieces=[ROLE, *words[:5], 1.0, *words[5:], STOP, USAGE, DONE])])
    _, follower = await theatre.all(theatre.start(stream=True).leaving(0.5), theatre.start(0.2))
    assert len(follower.json["choices"][0]["message"]["content"]) == 200_000
    assert theatre.stage.clock.at < 5


async def test_a_follower_that_leaves_early_pays_nothing(play: Play) -> None:
    theatre = play([SLOW], charge_ppm=500_000)
    await theatre.all(theatre.start(stream=True), theatre.start(0.2, stream=True).leaving(0.5))
    assert await theatre.charged() == [("10", [])]


async def test_a_leader_that_fails_leaves_its_place_to_the_next(play: Play) -> None:
    """Not all at once: while one of them tries, the others wait for it."""
    theatre = play([replace(refused(400), before=1.0), SLOW])
    sinks = await theatre.all(*[theatre.start(0.1 * number, stream=True) for number in range(5)])
    assert [sink.status for sink in sinks] == [400, 200, 200, 200, 200]
    assert [sink.headers.get("x-moma-cache") for sink in sinks] == [None, "miss", "coalesced", "coalesced", "coalesced"]
    assert theatre.asked == 2


async def test_when_the_backends_fail_twice_for_a_call_all_who_wait_hear_of_it(play: Play) -> None:
    theatre = play(lambda sent: replace(BROKEN, before=1.0))
    sinks = await theatre.all(*[theatre.start(stream=True) for _ in range(50)])
    assert {sink.status for sink in sinks} == {502}
    assert theatre.asked <= 6, "two calls of three attempts, not fifty"


async def test_a_refusal_is_heard_of_by_all_who_wait_once_it_came_twice(play: Play) -> None:
    theatre = play(lambda sent: replace(refused(400), before=1.0))
    sinks = await theatre.all(*[theatre.start() for _ in range(50)])
    assert {sink.status for sink in sinks} == {400}
    assert theatre.asked == 2


async def test_a_call_that_turns_out_to_be_lowered_sends_its_followers_away(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt is counted beside the event loop, so that others join before anything is held."""
    theatre = play(lambda sent: SLOW if sent.body.get("stream") else OK)
    counted = asyncio.Event()

    async def count(*_: Any) -> int:
        await counted.wait()
        return 5

    monkeypatch.setattr(theatre.stage.tokenizer, "counted", count)
    monkeypatch.setattr(theatre.stage.pipeline._router, "near_limit", lambda *_: True)
    theatre.stage.clock.call_at(0.5, counted.set)
    asking = [theatre.start(0.1 * n, stream=n != 2, max_tokens=100_000) for n in range(3)]
    sinks = await theatre.all(*asking)
    assert [sink.headers["x-moma-cache"] for sink in sinks] == ["miss"] * 3
    assert theatre.asked == 3


async def test_a_stream_that_breaks_looks_complete_to_nobody(play: Play) -> None:
    theatre = play([Said(pieces=[ROLE, WORD, 1.0, WORD])], charge_ppm=500_000)
    sinks = await theatre.all(theatre.start(stream=True), theatre.start(0.5, stream=True))
    for sink in sinks:
        assert sink.body.startswith(ROLE + WORD)
        assert b'"error"' in sink.body
        assert DONE not in sink.body
    assert [flags for _, flags in await theatre.charged()] == [["estimated", "partial"]]


async def test_a_follower_waits_no_longer_than_for_a_backend(play: Play) -> None:
    slow, quick = Said(pieces=STREAM, before=29.0), Said(pieces=STREAM)
    theatre = play([replace(slow, fails=BROKEN.fails), Said(pieces=STREAM, before=29.0), quick])
    leader, follower = await theatre.all(theatre.start(stream=True), theatre.start(1.0, stream=True))
    assert (leader.status, follower.status) == (200, 200)
    assert follower.headers["x-moma-cache"] == "bypass"
    assert theatre.asked == 3


async def test_a_follower_has_its_own_patience(play: Play) -> None:
    theatre = play([Said(pieces=LONG)])
    header = {"x-stainless-read-timeout": "30"}
    leader, follower = await theatre.all(theatre.start(stream=True), theatre.start(1.0, header, stream=True))
    assert leader.body.endswith(DONE)
    assert b"deadline_exceeded" in follower.body
    assert DONE not in follower.body


async def test_the_leaders_patience_is_its_own(play: Play) -> None:
    theatre = play([Said(pieces=LONG)] * 2)
    header = {"x-stainless-read-timeout": "30"}
    leader, follower = await theatre.all(theatre.start(0.0, header, stream=True), theatre.start(1.0, stream=True))
    assert b"deadline_exceeded" in leader.body
    assert follower.body.endswith(DONE)
    assert theatre.asked == 1


async def test_a_leader_without_followers_that_runs_out_of_time_ends_as_on_any_route(play: Play) -> None:
    outcomes = []
    for model in ("kept", "m"):
        theatre = play([Said(pieces=[ROLE, WORD, FOREVER])])
        sink = await theatre.ask({"x-stainless-read-timeout": "20"}, stream=True, model=model)
        assert b"deadline_exceeded" in sink.body
        record = (await theatre.stage.durable())[-1]
        [line] = theatre.stage.lines
        outcomes.append((line["outcome"], line["status"], record["charged"], record["flags"]))
    assert outcomes[0] == outcomes[1]


async def test_no_cache_and_no_store_join_nobody(play: Play) -> None:
    theatre = play([SLOW, SLOW, SLOW])
    sinks = await theatre.all(
        theatre.start(stream=True),
        theatre.start(0.1, {"cache-control": "no-cache"}, stream=True),
        theatre.start(0.2, {"cache-control": "no-store"}, stream=True),
    )
    assert [sink.headers["x-moma-cache"] for sink in sinks] == ["miss", "miss", "bypass"]
    assert theatre.asked == 3


async def test_a_lowered_call_is_followed_by_nobody(play: Play) -> None:
    theatre = play([SLOW] * 3)
    sinks = await theatre.all(*[theatre.start(0.1 * n, stream=True, max_tokens=100_000) for n in range(3)])
    assert [sink.headers["x-moma-cache"] for sink in sinks] == ["miss"] * 3
    assert {sink.headers["x-moma-max-tokens"] for sink in sinks} == {"1024"}
    assert theatre.stage.caches.states()[0].entries == 0


async def test_a_purge_also_keeps_what_is_under_way_from_being_stored(play: Play) -> None:
    theatre = play([SLOW, SLOW])
    theatre.stage.clock.call_at(0.5, lambda: print(theatre.stage.caches.purge()))
    first, second = await theatre.all(theatre.start(stream=True), theatre.start(0.6, stream=True))
    assert (first.headers["x-moma-cache"], second.headers["x-moma-cache"]) == ("miss", "miss")
    assert first.body.endswith(DONE)
    assert theatre.asked == 2


async def test_a_failure_that_nobody_foresaw_is_told_to_all_and_leaves_nothing(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    theatre = play([SLOW])

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(theatre.stage.pipeline, "_settle", fail)
    sinks = await theatre.all(theatre.start(stream=True), theatre.start(0.5, stream=True))
    for sink in sinks:
        assert b"internal_error" in sink.body
        assert b"secret" not in sink.body
        assert DONE not in sink.body


# -- whose answers, and of which configuration --------------------------------------------------------------------


def caller(tenant: str, *path: str) -> Caller:
    return Caller(tenant, PLAN, (*path, tenant))


@pytest.mark.parametrize(("scope", "expected"), [("tenant", ["miss"] * 3), ("account", ["miss", "hit", "miss"])])
async def test_scope_says_whose_answers_they_are(play: Play, scope: str, expected: list[str]) -> None:
    theatre = play([OK] * 3, scope=scope)
    stage, ledger = theatre.stage, theatre.stage.ledger
    ledger.apply_plan("u", PLAN)
    manage.add_tenant(ledger, "t-1", "p", "t")
    found = []
    for who in (caller("t"), caller("t-1", "t"), caller("u")):
        sink = ListSink()
        await drive(stage.clock, stage.pipeline.handle(who, request(**COLD), sink), busy=stage.busy)
        found.append(sink.headers["x-moma-cache"])
    assert found == expected


async def test_an_edit_of_what_a_route_stands_for_leaves_its_answers_behind(play: Play) -> None:
    theatre = play([OK, OK])
    await theatre.ask()
    before = theatre.stage.caches
    changes: list[tuple[dict[str, Any], str]] = [({"policy": "best"}, "miss"), ({"affinity": "session"}, "hit")]
    for change, expected in changes:
        config = cached()
        edited = replace(config, routes={**config.routes, "kept": replace(config.routes["kept"], **change)})
        stage = Stage(theatre.stage.ledger, theatre.stage.clock, theatre.stage.client._script, config=edited)
        stage.pipeline._cached._caches = before
        assert (await stage.ask(**COLD)).headers["x-moma-cache"] == expected


# -- whatever happens ---------------------------------------------------------------------------------------------


def mishap(rng: random.Random) -> Callable[[Sent], Said]:
    """A backend that answers well, late, broken, refusing, filtered, or not at all."""
    stream: list[Piece] = [ROLE, WORD, 0.5, WORD, 0.5, STOP, USAGE, DONE]

    def answer(sent: Sent) -> Said:
        kind, before = rng.random(), rng.choice([0.0, 0.5, 2.0])
        if kind < 0.1:
            return replace(refused(400), before=before)
        if kind < 0.2:
            return replace(refused(500), before=before)
        if kind < 0.25:
            return replace(BROKEN, before=before)
        if not sent.body.get("stream"):
            return Said(pieces=[whole("word word ")], before=before)
        return Said(pieces=stream[: rng.choice([1, 2, 4])] if kind < 0.35 else stream, before=before)

    return answer


@pytest.mark.parametrize("ppm", [0, 300_000])
@pytest.mark.parametrize("seed", range(100 if os.environ.get("MOMA_LONG") else 8))
async def test_however_calls_end_nothing_is_left_and_nothing_broken_looks_whole(
    play: Play, seed: int, ppm: int
) -> None:
    rng = random.Random(seed)
    theatre = play(mishap(rng), charge_ppm=ppm, ttl_s=3.0)
    asking = []
    for _ in range(60):
        control = rng.choice(["", "", "", "", "no-cache", "no-store", "max-age=1", "only-if-cached"])
        patience = rng.choice(["", "", "1"])
        headers = {"cache-control": control} | ({"x-stainless-read-timeout": patience} if patience else {})
        body = {"stream": rng.random() < 0.7, "seed": rng.randrange(3), "max_tokens": rng.choice([50, 50, 50, 100_000])}
        one = theatre.start(rng.uniform(0, 6), headers, **body)
        asking.append(one.leaving(rng.uniform(0, 2)) if rng.random() < 0.3 else one)
    sinks = await theatre.all(*asking)
    for sink, one in zip(sinks, asking, strict=True):
        if one.stays:
            assert sink.finished
        if sink.status == 200 and sink.finished:
            broken = b'"error"' in sink.body
            if one.streams:
                assert (DONE in sink.body) != broken
                assert broken or sink.body.count(b"word ") == 2
            else:
                [choice] = sink.json["choices"]
                assert (choice["message"]["content"], choice["finish_reason"]) == ("word word ", "stop")
    lines = theatre.stage.lines
    assert len(lines) == 60
    good = sum(sink.status == 200 and sink.finished and b'"error"' not in sink.body for sink in sinks)
    assert sum(line["outcome"] in ("completed", "cache_hit") for line in lines) >= good
    settled = [row for row in await theatre.stage.durable() if row["status"] == "settled"]
    assert sum("cache_hit" in row["flags"] for row in settled) >= sum(
        sink.headers.get("x-moma-cache") in ("hit", "coalesced") and sink.finished and b'"error"' not in sink.body
        for sink in sinks
    )
    assert not theatre.stage.caches._flights
    assert not theatre.stage.caches._tasks
    assert theatre.stage.caches.budget("c")[1].used == 0


async def test_a_hit_is_paid_once_for_an_idempotency_key(play: Play) -> None:
    """What a restart has made the gateway forget, the ledger knows."""
    theatre = play([OK], charge_ppm=250_000)
    await theatre.ask()
    for status in (200, 409):
        asked, sink = request(**COLD), ListSink()
        asked.once = "k-1"
        stage = theatre.stage
        await drive(stage.clock, stage.pipeline.handle(stage.caller, asked, sink), busy=stage.busy)
        assert sink.status == status
    await theatre.settled()
    assert [charged for charged, _ in await theatre.charged()] == ["10", "2.5"]


async def test_who_is_suspended_follows_no_stream_that_is_free(play: Play) -> None:
    theatre = play([SLOW])
    ledger = theatre.stage.ledger

    def suspend() -> None:
        manage.edit(ledger, "t", Edit(status="suspended"))

    theatre.stage.clock.call_at(0.5, suspend)
    leader, follower = await theatre.all(theatre.start(stream=True), theatre.start(1.0, stream=True))
    assert (leader.status, follower.status) == (200, 403)
    assert follower.json["error"]["code"] == "account_not_active"
