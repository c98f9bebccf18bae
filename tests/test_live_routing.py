"""What attempts tell the live state, and what the next calls make of it: dispatch and router in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.dispatch import Delivery
from gateway.errors import GatewayError
from gateway.routing.breaker import CLOSED, FAILURES_IN_A_ROW, HALF_OPEN, OPEN
from gateway.routing.health import Health
from tests.stage import Open
from tests.test_dispatch import Bench, SlowSink
from tests.virtual import BROKEN, FOREVER, OK, ROLE, STREAM, WORD, Said, drive, refused, whole

ONE, TWO = ("a", "one"), ("a", "ma")
TIMED = Said(pieces=[1.0, ROLE, 1.0, WORD, 2.0, *STREAM[2:]], before=1.0)


async def test_a_stream_tells_its_first_token_and_its_pace() -> None:
    bench = Bench([TIMED])
    await bench.run(stream=True)
    measures = bench.live.of(ONE)
    assert measures.first_token_s == pytest.approx(3.0)
    assert measures.per_token_s == pytest.approx(2.0 / 2)  # three tokens, as the usage says
    assert bench.live.output("one") == 3


async def test_a_whole_answer_tells_how_long_it_took() -> None:
    bench = Bench([Said(pieces=[whole(tokens=50)], before=3.0)])
    await bench.run()
    assert bench.live.of(ONE).seconds(50, bench.clock.now()) == pytest.approx(3.0)


async def test_the_time_of_another_target_is_not_its_own() -> None:
    bench = Bench([Said(before=FOREVER), TIMED])
    await bench.run(model="two", stream=True)
    assert bench.live.of(("b", "mb")).first_token_s == pytest.approx(3.0)
    assert bench.live.of(TWO).first_token_s is None


async def test_a_reader_that_is_slow_does_not_make_its_target_so() -> None:
    bench = Bench([Said(pieces=[1.0, ROLE, WORD, 1.0, WORD, *STREAM[3:]])])
    job_sink = SlowSink(bench.clock)
    await bench.run(stream=True, sink=job_sink)
    assert bench.clock.at > 20
    assert bench.live.of(ONE).per_token_s == pytest.approx(1.0 / 2)


async def test_after_the_cooldown_one_call_probes_and_the_others_go_elsewhere() -> None:
    bench = Bench(
        lambda sent: BROKEN if sent.backend == "a" and bench.clock.at < 5 else Said(pieces=[whole()], before=1.0)
    )
    while bench.live.state(TWO, bench.clock.now()) == CLOSED:
        await bench.run(model="two")
    assert bench.live.state(TWO, bench.clock.now()) == OPEN
    assert bench.backends.count("a") == FAILURES_IN_A_ROW
    bench.client.sent.clear()
    await bench.run(model="two")
    assert bench.backends == ["b"]
    bench.clock.advance(bench.config.breaker.cooldown_s)
    assert bench.live.state(TWO, bench.clock.now()) == HALF_OPEN
    bench.client.sent.clear()
    await asyncio.gather(*(bench.start(model="two") for _ in range(5)), drive(bench.clock, bench.clock.sleep(2.0)))
    assert sorted(bench.backends) == ["a", "b", "b", "b", "b"]
    assert bench.live.state(TWO, bench.clock.now()) == CLOSED


async def test_a_probe_whose_client_leaves_gives_way_to_the_next() -> None:
    bench = Bench(lambda _: Said(before=FOREVER))
    for _ in range(FAILURES_IN_A_ROW):
        bench.fails(TWO)
    bench.clock.advance(bench.config.breaker.cooldown_s)
    probe = asyncio.ensure_future(bench.start(model="two"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not bench.live.available(TWO, bench.clock.now())
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert bench.live.available(TWO, bench.clock.now())
    assert bench.live.of(TWO).in_flight == 0


async def test_a_refusal_of_the_call_says_nothing_of_its_target() -> None:
    bench = Bench(lambda _: refused(400))
    for _ in range(FAILURES_IN_A_ROW):
        bench.fails(TWO)
    bench.clock.advance(bench.config.breaker.cooldown_s)
    await bench.fail(model="two")
    assert bench.live.state(TWO, bench.clock.now()) == HALF_OPEN
    assert bench.live.available(TWO, bench.clock.now())


async def test_a_lone_target_that_is_down_is_asked_all_the_same() -> None:
    bench = Bench([OK])
    for _ in range(FAILURES_IN_A_ROW):
        bench.fails(ONE)
    delivery: Delivery = await bench.run()
    assert (delivery.attempts, bench.live.state(ONE, bench.clock.now())) == (1, CLOSED)


async def test_an_unknown_preference_is_the_clients_error(opened: Open) -> None:
    stage = opened([OK])
    sink = await stage.ask({"x-moma-prefer": "speed"})
    error = sink.json["error"]
    assert (sink.status, error["code"], error["param"]) == (400, "invalid_value", "x-moma-prefer")
    assert not stage.client.sent


async def test_the_reason_says_what_decided(opened: Open) -> None:
    stage = opened(lambda _: OK)
    assert (await stage.ask({"x-moma-prefer": "latency"})).headers["x-moma-reason"] == "weighted"
    assert (await stage.ask(model="both")).headers["x-moma-reason"] == "ordered"
    reason = (await stage.ask({"x-moma-prefer": "latency"}, model="even")).headers["x-moma-reason"]
    assert reason == "balanced;prefer=latency;cost=0.00;latency=0.00;quality=0.00"


async def test_a_conversation_stays_through_the_whole_pipeline_and_yields_to_an_open_breaker(opened: Open) -> None:
    down: set[str] = set()
    stage = opened(lambda sent: BROKEN if sent.backend in down else OK)
    first = (await stage.ask({"x-session-id": "s"}, model="even")).headers["x-moma-backend"]
    for _ in range(10):
        sink = await stage.ask({"x-session-id": "s"}, model="even")
        assert sink.headers["x-moma-backend"] == first
        assert sink.headers["x-moma-reason"].endswith(";affinity")
    down.add(first)
    moved = await stage.ask({"x-session-id": "s"}, model="even")
    assert (moved.headers["x-moma-attempts"], moved.headers["x-moma-backend"]) == ("2", "ab".replace(first, ""))
    assert (await stage.ask({"x-session-id": "s"}, model="even")).headers["x-moma-attempts"] == "1"


def test_a_selector_by_tags_works_with_a_policy(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("""version: 1
backends:
  a: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
models:
  dear: {via: [a], context: 8k, max_output: 1k, price: {input: 9, output: 9}, tags: [chat]}
  other: {via: [a], context: 8k, max_output: 1k, price: {input: 1, output: 1}, tags: [code]}
  cheap: {via: [a], context: 8k, max_output: 1k, price: {input: 2, output: 2}, tags: [chat, fast]}
routes:
  auto: {pick: {tags: [chat]}, policy: cheapest}
""")
    assert load(path).routes["auto"].pick == ("dear", "cheap")
    bench = Bench([OK], settings=load(path))
    assert [target.model.name for target in bench.decide(model="auto").targets] == ["cheap", "dear"]


# -- what health needs --------------------------------------------------------------------------------------------


async def test_a_call_is_unheard_of_until_its_first_token_and_each_piece_is_a_sign_of_life() -> None:
    bench = Bench([Said(pieces=[1.0, ROLE, WORD, 1.5, WORD, *STREAM[3:]], before=1.0)])
    call = asyncio.ensure_future(bench.start(stream=True))
    measures = bench.live.of(ONE)
    seen: list[tuple[float, int, float]] = []
    while not call.done():
        for _ in range(10):
            await asyncio.sleep(0)
        seen.append((bench.clock.at, len(measures.unheard), measures.heard_at))
        bench.clock.step()
    assert (1.0, 1, float("-inf")) in seen
    assert (2.0, 0, 2.0) in seen
    await call
    assert measures.heard_at == 3.5
    assert measures.slowest_s == [0.0, 2.0]


@pytest.mark.parametrize("script", [[OK], [refused(400)], [refused(503)] * 3, [BROKEN] * 3])
async def test_a_call_that_has_ended_is_not_waited_for(script: list[Said]) -> None:
    bench = Bench(script)
    try:
        await bench.run()
    except GatewayError:
        assert script != [OK]
    measures = bench.live.of(ONE)
    assert not measures.unheard
    assert (measures.heard_at >= 0) == (script[0] is not BROKEN)  # a refusal is a sign of life as well


async def test_calls_are_moved_away_from_a_target_that_has_gone_silent() -> None:
    hangs = False
    bench = Bench(
        lambda sent: Said(before=FOREVER) if hangs and sent.backend == "a" else Said(pieces=[whole()], before=0.5)
    )
    health = Health(bench.live)
    health.follow(bench.config.breaker, [TWO, ("b", "mb")])
    await bench.run(model="two")
    hangs = True
    calls = []
    for _ in range(10):
        health.look(bench.clock.now())
        calls.append(asyncio.ensure_future(bench.start(model="two")))
        await asyncio.sleep(0)
        bench.clock.advance(1.0)
    assert bench.live.state(TWO, bench.clock.now()) == OPEN
    assert "".join(sent.backend for sent in bench.client.sent) == "a" * 6 + "b" * 5
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
