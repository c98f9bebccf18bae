"""`GET /`: who may see it, what it shows, and that nothing of it is markup that somebody else wrote."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, replace

import aiohttp
import pytest

from gateway.config.model import Backend, Limits
from gateway.demo.scripted import CLOSED, Reply
from gateway.errors import StoreUnavailable
from gateway.metrics import Metrics, TargetState
from gateway.status.html import Html, el, join
from gateway.status.page import document
from gateway.status.sections import View, health, number, percent, seconds, span
from gateway.status.traffic import Traffic
from tests.conftest import ADMIN_KEY, KEY, World
from tests.seeing.gateways import another
from tests.stage import CONFIG
from tests.virtual import VirtualClock

GUESSES = 200


def basic(key: str, user: str = "anyone") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()}


async def page(world: World, headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
    async with aiohttp.ClientSession() as http, http.get(f"{world.url}/", headers=headers) as answer:
        return answer.status, await answer.text(), {k.lower(): v for k, v in answer.headers.items()}


async def shown(world: World) -> str:
    status, text, _ = await page(world, basic(ADMIN_KEY))
    assert status == 200
    return text


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each line of each table, by its first."""
    found = {}
    for line in re.findall(r'<tr role="row">(.*?)</tr>', text):
        cells = [re.sub("<[^>]+>", " ", cell).split() for cell in re.findall(r"<(?:th|td)\b.*?</(?:th|td)>", line)]
        found[cells[0][0]] = [" ".join(cell) for cell in cells]
    return found


@pytest.mark.parametrize(
    "headers", [basic(ADMIN_KEY), basic(ADMIN_KEY, user=""), {"authorization": f"Bearer {ADMIN_KEY}"}]
)
async def test_the_admin_key_opens_it_as_a_password_or_a_token(world: World, headers: dict[str, str]) -> None:
    status, text, sent = await page(world, headers)
    assert (status, sent["content-type"]) == (200, "text/html; charset=utf-8")
    assert text.startswith("<!doctype html><html")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("wrong"),
        basic(KEY),
        basic(""),
        {"authorization": "Basic"},
        {"authorization": "Basic !!!"},
        {"authorization": "Basic 5pyq"},
        {"authorization": "Digest " + ADMIN_KEY},
        {"authorization": ADMIN_KEY},
        {"authorization": f"Bearer {KEY}"},
    ],
)
async def test_without_it_a_browser_is_made_to_ask(world: World, headers: dict[str, str]) -> None:
    status, text, sent = await page(world, headers)
    assert status == 401
    assert sent["www-authenticate"].startswith("Basic realm=")
    assert '"code":"invalid_api_key"' in text
    assert "small" not in text


async def test_two_hundred_guesses_are_ten_and_the_right_key_is_heard(world: World) -> None:
    statuses: Counter[int] = Counter()
    for number_ in range(GUESSES):
        status, _, sent = await page(world, basic(f"{ADMIN_KEY[:-1]}{number_}"))
        statuses[status] += 1
        assert status == 401 or int(sent["retry-after"]) >= 1
    assert set(statuses) == {401, 429}
    assert statuses[401] <= 11  # ten, and one more when the minute moves on
    assert (await page(world, basic(ADMIN_KEY)))[0] == 200
    async with world.http.get(f"{world.url}/admin/v1/tenants") as answer:
        assert answer.status == 429  # page and API share their tries


async def test_a_browser_that_asks_without_a_key_guesses_nothing(world: World) -> None:
    for _ in range(30):
        assert (await page(world))[0] == 401
    assert (await page(world, basic("wrong")))[0] == 401


async def test_without_an_admin_key_there_is_no_page_but_advice(world: World) -> None:
    async with another(world, "server: {}") as app:
        for headers in ({}, basic(ADMIN_KEY), basic("None"), basic("")):
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"http://127.0.0.1:{app.port}/", headers=headers) as answer,
            ):
                body = await answer.json()
                assert (answer.status, body["error"]["code"]) == (404, "not_found")
                assert "server.admin_key" in body["error"]["message"]


async def test_it_is_for_reading_only(world: World) -> None:
    async with world.http.post(f"{world.url}/", headers=basic(ADMIN_KEY)) as answer:
        assert answer.status == 405
    async with world.http.head(f"{world.url}/", headers=basic(ADMIN_KEY)) as answer:
        assert (answer.status, await answer.text()) == (200, "")


async def test_nothing_is_loaded_from_anywhere_and_nothing_runs(world: World) -> None:
    _, text, sent = await page(world, basic(ADMIN_KEY))
    style = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    policy = sent["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "frame-ancestors 'none'" in policy
    assert (sent["cache-control"], sent["x-content-type-options"]) == ("no-store", "nosniff")
    assert re.findall(r'(?:src|href|action)="([^"]*)"', text) == ["data:,"]
    for word in ("<script", "<form", "style=", "onload", "url(", "http://", "https://"):
        assert word not in text
    assert '<meta http-equiv="refresh" content="10">' in text


async def test_it_shows_what_happened(world: World) -> None:
    world.b.script(lambda _: CLOSED)
    charged = [float((await world.chat(model="auto"))[2]["x-moma-credits"]) for _ in range(4)]
    for _ in range(5):
        assert (await world.chat(model="large"))[0] in (502, 503)
    text = await shown(world)
    lines = rows(text)
    assert lines["a"][1:3] == ["Health up", "In flight 0"]
    assert lines["b"][1] == "Health down"
    assert lines["b"][4] == "Failed 100%"
    assert lines["auto"][1:3] == ["Policy ordered", "Models small, large"]
    assert lines["long"][2] == "Models small then large"
    assert float(lines["auto"][3].split()[-1].replace(",", "")) > 0
    assert lines["large"][1] == "Backends b"
    assert lines["demo"][2] == f"Spent since start {number(sum(charged))}"
    assert lines["demo"][4] == f"Credits left {number(1_000_000 - sum(charged))}"
    assert ">ready<" in text
    assert f"{number(sum(charged))} since start" in text
    for secret in (KEY, ADMIN_KEY, "backend-secret", "127.0.0.1", hashlib.sha256(KEY.encode()).hexdigest()):
        assert secret not in text


async def test_it_shows_calls_in_flight(world: World) -> None:
    done = asyncio.Event()
    world.a.script(lambda _: Reply(before=(done,)))
    call = asyncio.create_task(world.chat(stream=True))
    while not world.a.in_flight:
        await asyncio.sleep(0.01)
    assert rows(await shown(world))["a"][2] == "In flight 1"
    done.set()
    await call


async def test_it_says_why_the_gateway_is_not_ready(world: World) -> None:
    world.app.ledger._broken = True
    try:
        with pytest.raises(StoreUnavailable):
            world.app.ledger._usable()
        text = await shown(world)
    finally:
        world.app.ledger._broken = False
    assert ">not ready<" in text
    assert "the ledger store is not available" in text
    assert ">not available<" in text
    async with world.http.get(f"{world.url}/metrics") as answer:
        assert {"moma_ready 1.0", "moma_ledger_available 1.0"} <= set((await answer.text()).splitlines())


def test_text_is_escaped_wherever_it_stands() -> None:
    evil = "<script>alert('1')</script>\"&"
    assert el("p", evil, title=evil) == (
        '<p title="&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&quot;&amp;">'
        "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&quot;&amp;</p>"
    )
    assert join(Html("<b>"), "<b>", 3) == "<b>&lt;b&gt;3"


def view(*, evil: str = "", models: int = 1) -> View:
    """Of a gateway where every name that somebody may choose contains `evil`."""
    backend = Backend(f"b{evil}", "openai", "http://x", region=evil, chip=evil, limits=Limits(None, None, 5))
    metrics, clock = Metrics(), VirtualClock()
    traffic = Traffic(metrics, clock)
    config = replace(
        CONFIG,
        currency="CNY" + evil,
        backends={backend.name: backend},
        models={f"m{n}{evil}": CONFIG.models["m"] for n in range(models)},
        routes={f"r{evil}": replace(CONFIG.routes["both"], pick=(f"m0{evil}",), policy=evil or "ordered")},
        timezone="UTC",
    )  # fmt: skip
    for name in (f"t{evil}", "other"):
        metrics.credits.inc((name, "settled"), 3)
    metrics.requests.inc((f"r{evil}", f"m0{evil}", f"b{evil}", "completed", 200))
    clock.at += 60
    now = traffic.now()
    return View(
        config=config, generation=1, now_ms=clock.wall_ms(), up_s=60, not_ready=[evil] if evil else [],
        ledger_available=True, open_holds=0, targets=[TargetState(f"b{evil}", f"m0{evil}", 2, 0)],
        tenants=[(f"t{evil}", 0), ("other", 5)], recent=traffic.recent(now), so_far=now, minutes=[(4, 1)],
    )  # fmt: skip


def test_no_name_becomes_markup() -> None:
    evil = "<img src=x onerror=alert(1)>'\"&"
    text = document(view(evil=evil))
    assert "<img" not in text
    assert text.count("&lt;img") >= 10
    assert set(re.findall(r"<(\w+)", document(view(evil=evil)))) == set(re.findall(r"<(\w+)", document(view(evil="x"))))


@dataclass
class Cache:
    cache: str
    entries: int
    bytes: int
    lookups: dict[str, int]


def test_calls_that_wait_are_shown_while_there_are_any() -> None:
    seen = view()
    seen.waiting = {"tenants": 0, "backends": 0}
    assert "wait" not in document(seen)
    seen.waiting = {"tenants": 2, "backends": 0}
    assert "Calls that wait: 2 at the limits of tenants<" in document(seen)
    seen.waiting = {"tenants": 2, "backends": 1_000}
    assert "Calls that wait: 2 at the limits of tenants, 1,000 at the limits of backends<" in document(seen)


def test_caches_and_a_refused_reload_are_shown() -> None:
    seen = view()
    assert "Caches" not in document(seen)
    assert ">in force<" in document(seen)
    seen.caches = [
        Cache("short", 1200, 3_400_000, {"hit": 5, "coalesced": 1, "miss": 2, "bypass": 9}),
        Cache("new", 0, 0, {}),
    ]
    seen.reloaded = False
    lines = rows(document(seen))
    assert lines["short"] == [
        "short", "Hit rate 75%", "Hits 6", "Misses 2", "Bypassed 9", "Answers kept 1,200", "Size 3.4 MB"
    ]  # fmt: skip
    assert lines["new"][1] == "Hit rate –"
    assert ">refused, see the log<" in document(seen)
    assert ">in force<" not in document(seen)


def test_three_hundred_models_make_a_page_of_fifty() -> None:
    text = document(view(models=300))
    assert "250 more are not shown." in text
    assert len(text) < 60_000


@pytest.mark.parametrize(
    ("breakers", "text"),
    [
        ([], "no model"),
        ([0, 0], "up"),
        ([2, 2], "down"),
        ([2, 0, 1], "1 of 3 down"),
        ([1], "trying"),
        ([1, 0], "1 of 2 trying"),
    ],
)
def test_a_backend_is_as_well_as_its_models(breakers: list[int], text: str) -> None:
    assert f">{text}<" in health([TargetState("b", str(n), 0, state) for n, state in enumerate(breakers)])


def test_numbers_are_for_people() -> None:
    values = (0, 0.000042, 0.0042, 3, 3.14159, 42.42, 123.4, 98_765.4, 12_345_678)
    expected = ["0", "0.000042", "0.0042", "3", "3.1", "42.4", "123", "98,765", "12.35 M"]
    assert [number(v) for v in values] == expected
    assert [percent(v) for v in (None, 0, 0.0123, 0.5, 1)] == ["–", "0%", "1.23%", "50%", "100%"]
    assert [seconds(v) for v in (None, 0.0123, 0.9999, 12.34)] == ["–", "12 ms", "1.0 s", "12.3 s"]
    assert [span(v) for v in (0, 59, 61, 3600, 90_061)] == ["0 s", "59 s", "1 min 1 s", "1 h", "1 d 1 h"]
