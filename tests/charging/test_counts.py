"""Images and milliseconds of sound: held at the most that a call may take, by the grants that pay for them."""

from __future__ import annotations

import random
from zoneinfo import ZoneInfo

import orjson
import pytest

from gateway.call import BUCKETS, ENDPOINTS, Request
from gateway.charging.grants import Grant
from gateway.charging.in_force import unkept
from gateway.charging.offers import STANDARD, Dearest, Scope, offered
from gateway.charging.rate_cards import tariffs
from gateway.charging.rating import Quote, cost_uc
from gateway.charging.splitting import spread
from gateway.config.model import Plan
from gateway.parse import parse_call
from gateway.quote import quoted
from gateway.routing.live import Live
from gateway.routing.router import Router
from gateway.tenants import Caller
from tests.virtual import backend, config, model

CREDIT = 1_000_000
RATES = {**dict.fromkeys(BUCKETS, 0), "input": CREDIT, "output": 3 * CREDIT, "images": 50 * CREDIT, "audio_ms": 20_000}
PAINTER = offered("painter", "a", "", frozenset(), RATES)
CALLER = Caller("t", Plan("p"), ("t",))
WORLD = config([backend("a")], [model("m", "a", rates=RATES, endpoints=frozenset(ENDPOINTS), max_output=100)])
RATED = unkept(tariffs(WORLD), ZoneInfo("UTC")).at(0)
BODIES: dict[str, dict[str, object]] = {
    "rerank": {"query": "abc", "documents": ["de", "f"]},
    "images": {"prompt": "abcde", "n": 3},
    "speech": {"input": "abcde", "voice": "v", "speed": 0.5},
    "transcriptions": {"prompt": "abc"},
}
CEILINGS = {  # input with a template for each prompt, output that nothing limits, and what is counted
    "rerank": (2 * 3 + 3 + 2 * 32) * CREDIT,
    "images": (5 + 32) * CREDIT + 3 * 100 * 3 * CREDIT + 3 * 50 * CREDIT,
    "speech": (5 + 32) * CREDIT + 20_000 * 20_000,
    "transcriptions": (3 + 32) * CREDIT + 100 * 3 * CREDIT,
}


def quote_of(endpoint: str) -> Quote:
    call = parse_call(Request("r", endpoint, {}, orjson.dumps({"model": "m", **BODIES[endpoint]})))
    decision = Router(WORLD, random.Random(1), Live(WORLD.breaker)).route(call, CALLER.plan)
    return quoted(CALLER, call, decision, call.input_bound, rates=RATED, deadline_ms=1)


def grant(name: str, amount: int, scope: Scope | None = None) -> Grant:
    return Grant(name, "t", amount * CREDIT, amount * CREDIT, 0, None, 1, STANDARD, None, 0, scope=scope)


@pytest.mark.parametrize("endpoint", BODIES)
def test_the_ceiling_is_all_that_a_call_may_take(endpoint: str) -> None:
    quote = quote_of(endpoint)
    assert quote.max_tokens is None
    assert quote.ceiling(None) == CEILINGS[endpoint]


@pytest.mark.parametrize("endpoint", BODIES)
def test_grants_with_a_scope_hold_the_same(endpoint: str) -> None:
    quote, scope = quote_of(endpoint), Scope(models=frozenset({"m"}))
    held = spread([grant("g1", 10, scope), grant("g2", 100_000, scope)], quote, 1 << 62, clamp=True)
    assert held is not None
    assert held.total_uc == CEILINGS[endpoint]
    short = CEILINGS[endpoint] // CREDIT - 1
    assert spread([grant("g1", short, scope)], quote, 1 << 62, clamp=True) is None


def test_what_is_charged_at_most_is_held() -> None:
    quote = quote_of("images")
    most = {"input": quote.input_tokens, "output": quote.open_output, **quote.counts}
    assert cost_uc(most, RATES) == quote.ceiling(None)


def test_counts_are_among_the_dearest_units() -> None:
    assert PAINTER.dearest[STANDARD] == Dearest(CREDIT, 3 * CREDIT, 0, 50 * CREDIT, 20_000)
    assert not offered("m", "a", "", frozenset(), {**dict.fromkeys(BUCKETS, 0), "images": 1}).free
