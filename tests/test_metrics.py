"""The names and labels that dashboards rely on, and that they stay few."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import aiohttp
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway import __version__
from gateway.metrics import PIECE_SERIES, Metrics
from tests.conftest import ADMIN_KEY, KEY, World

PROMISED = {
    "gen_ai_client_token_usage": "histogram",
    "gen_ai_server_request_duration_seconds": "histogram",
    "gen_ai_server_time_to_first_token_seconds": "histogram",
    "gen_ai_server_time_per_output_token_seconds": "histogram",
    "moma_requests_total": "counter",
    "moma_overhead_seconds": "histogram",
    "moma_attempts_total": "counter",
    "moma_credits_total": "counter",
    "moma_usage_missing_total": "counter",
    "moma_usage_bad_total": "counter",
    "moma_limit_refusals_total": "counter",
    "moma_ledger_commit_seconds": "histogram",
    "moma_ledger_batch_size": "histogram",
    "moma_ledger_open_holds": "gauge",
    "moma_config_generation": "gauge",
    "moma_build_info": "gauge",
}


def types(text: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))


def series(text: str) -> set[str]:
    lines = (line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#"))
    return {re.sub(r'(,?le="[^"]*")', "", line).replace("_bucket", "").replace("{}", "") for line in lines}


def test_what_is_promised_is_exposed() -> None:
    shown = types(Metrics().exposition().decode())
    assert {name: shown.get(name) for name in PROMISED} == PROMISED


def test_the_version_is_told() -> None:
    assert f'moma_build_info{{version="{__version__}"}} 1.0' in Metrics().exposition().decode()


def test_two_gateways_in_one_process_do_not_mix() -> None:
    one, two = Metrics(), Metrics()
    one.attempted("a", "ok")
    assert b'moma_attempts_total{backend="a"' in one.exposition()
    assert b'moma_attempts_total{backend="a"' not in two.exposition()


def busy_metrics() -> Metrics:
    """Series of every kind, with all that a label or a number may hold."""
    metrics = Metrics()
    for name in ("m", "模型", 'quote"d', "back\\slash", "new\nline", "", "{a}"):
        for value in (0, 1, 1e-9, 0.1, 3.5, 1e6, 123456789.125, 1e21):
            metrics.tokens.observe(("r", name, "b", "input"), value)
            metrics.overhead.observe((name,), value)
            metrics.requests.inc(("r", name, "b", "refused", 400), value)
            metrics.committed(value, int(value))
            metrics.attempted(name, "ok")
    metrics.open_holds.set(3)
    return metrics


def parsed(text: bytes) -> dict[tuple[str, str], object]:
    """Families by name and type, with all samples, whatever their order and that of their labels."""
    return {
        (family.name, family.type): (
            family.documentation,
            {(s.name, *sorted(s.labels.items())): s.value for s in family.samples},
        )
        for family in text_string_to_metric_families(text.decode())
        if not family.name.startswith("process_")  # which moves between two looks
    }


def test_what_we_write_is_what_the_library_would() -> None:
    for metrics in (Metrics(), busy_metrics()):
        ours, theirs = parsed(metrics.exposition()), parsed(generate_latest(metrics.registry))
        assert ours == theirs
        assert len(ours) > 15


async def test_calls_go_on_during_a_scrape(world: World) -> None:
    """The loop comes round between the pieces, and a series may appear meanwhile."""
    metrics = world.app.metrics
    for number in range(1000):
        metrics.duration.observe((f"route-{number}", "m", "b"), 1.0)
    rounds = 0

    async def go_on() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1
            metrics.attempted(f"new-{rounds}", "ok")

    others = asyncio.create_task(go_on())
    pieces = metrics.registry.pieces
    turns = []
    metrics.registry.pieces = lambda: (turns.append(rounds) or piece for piece in pieces())  # type: ignore[method-assign, func-returns-value]
    async with world.http.get(f"{world.url}/metrics") as answer:
        text = await answer.text()
    others.cancel()
    assert text.count("request_duration_seconds_count{") == 1000
    assert len(turns) > 1000 / PIECE_SERIES
    assert len(set(turns)) == len(turns)


def test_two_thousand_series_are_exposed_in_a_fraction_of_the_librarys_time() -> None:
    metrics = Metrics()
    for number in range(2000):
        metrics.duration.observe((f"route-{number}", "m", "b"), 1.0)
    started = time.perf_counter()
    assert metrics.exposition().count(b"_bucket{") == 2000 * 15
    ours_s = time.perf_counter() - started
    generate_latest(metrics.registry)
    assert ours_s < (time.perf_counter() - started - ours_s) / 2


async def test_six_hundred_strangers_make_few_series(world: World) -> None:
    async def scrape() -> str:
        async with world.http.get(f"{world.url}/metrics") as answer:
            assert answer.status == 200
            return await answer.text()

    async def ask(number: int, http: aiohttp.ClientSession) -> None:
        body: dict[str, Any] = {"model": f"made-up-{number}", "messages": [{"role": "user", "content": "x"}]}
        paths = ("/v1/chat/completions", f"/v1/nope-{number}", f"/v1/models/made-up-{number}", f"/admin/v1/t{number}")
        method = ("POST", "GET", "DELETE", f"X{number}")[number % 4]
        headers = {"authorization": f"Bearer {KEY if number % 3 else f'sk-moma-{number}'}"}
        async with http.request(method, world.url + paths[number // 4 % 4], json=body, headers=headers) as answer:
            await answer.read()
        async with http.post(f"{world.url}/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status in (401, 404)

    before = series(await scrape())
    async with aiohttp.ClientSession() as http:
        for number in range(300):
            await ask(number, http)
    text = await scrape()
    assert len(series(text) - before) <= 20
    for secret in ("made-up", "nope-", "sk-moma", KEY, ADMIN_KEY, "backend-secret", "127.0.0.1"):
        assert secret not in text


async def test_a_route_and_the_model_that_served_are_told_apart(world: World) -> None:
    await world.chat(model="auto")
    await world.chat(model="small")
    for route in ("auto", "small"):
        labels = {"gen_ai_request_model": route, "gen_ai_response_model": "small", "gen_ai_provider_name": "a"}
        value = world.app.metrics.registry.get_sample_value("gen_ai_server_request_duration_seconds_count", labels)
        assert value == 1
