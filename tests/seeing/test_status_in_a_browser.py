"""The status page as a person sees it: in Debian's Chromium, light and dark, on a desk and on a phone."""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.demo.scripted import CLOSED
from gateway.status.page import document
from tests.conftest import ADMIN_KEY, World
from tests.seeing import needs
from tests.seeing.browser import Browser
from tests.seeing.test_status import view

pytestmark = needs("chromium", "chromium")

SCREENS = tuple(itertools.product(((1280, 800), (860, 800), (360, 740)), ("light", "dark")))
GROUND = {"light": (246, 247, 249), "dark": (15, 18, 22)}
LEAST_CONTRAST = 4.5  # WCAG AA for text of this size
# Each element that has text of its own: its colour against the first ground beneath it.
CONTRASTS = """
(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  return [...document.body.querySelectorAll("*")]
    .filter(e => e.offsetParent && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => {
      const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
      return [e.textContent, (a + 0.05) / (b + 0.05)];
    });
})()
"""
# Elements whose content is wider than they are, or that reach beyond the screen.
TOO_WIDE = """
[...document.body.querySelectorAll("*")]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
  .map(e => e.outerHTML.slice(0, 200))
"""


def pixel(png: bytes) -> tuple[int, ...]:
    """Of the upper left corner: its row has no filter that changes the first pixel."""
    width, _, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert (depth, kind) in ((8, 2), (8, 6))
    data, at = b"", 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += size + 12
    assert width > 0
    return tuple(zlib.decompress(data)[1:4])


async def busy(world: World) -> None:
    """Something of everything: answers, a backend that is down, refusals."""
    world.b.script(lambda _: CLOSED)
    for name in ("auto", "small", "large", "large", "large", "nothing"):
        await world.chat(model=name)


async def look(browser: Browser, name: str, least: int = 50) -> dict[str, Any]:
    contrasts = await browser.value(CONTRASTS)
    assert len(contrasts) > least, name
    return {
        "name": name,
        "overflow": await browser.value("document.documentElement.scrollWidth - innerWidth"),
        "too_wide": await browser.value(TOO_WIDE),
        "faint": [(text, ratio) for text, ratio in contrasts if ratio < LEAST_CONTRAST],
    }


async def test_it_is_readable_on_every_screen_in_both_schemes(world: World, tmp_path: Path) -> None:
    await busy(world)
    long = tmp_path / "long.html"
    long.write_text(document(view(evil="_of_a_team_with_a_very_long_name_and_no_space" * 2, models=60)))
    async with Browser(tmp_path / "browser") as browser:
        for (width, height), scheme in SCREENS:
            await browser.screen(width, height, scheme)
            for url in (f"http://admin:{ADMIN_KEY}@127.0.0.1:{world.app.port}/", long.as_uri()):
                await browser.open(url)
                name = f"{url.partition('@')[2] or 'long names'}, {width} px, {scheme}"
                assert await look(browser, name) == {"name": name, "overflow": 0, "too_wide": [], "faint": []}
                assert pixel(await browser.corner()) == GROUND[scheme], name  # the style was let through


async def test_a_phone_gets_cards_and_a_desk_gets_tables(world: World, tmp_path: Path) -> None:
    await busy(world)
    async with Browser(tmp_path / "browser") as browser:
        shown = {}
        for width in (1280, 360):
            await browser.screen(width, 740, "light")
            await browser.open(f"http://admin:{ADMIN_KEY}@127.0.0.1:{world.app.port}/")
            of = "getComputedStyle(document.querySelector('%s')).display"
            shown[width] = [await browser.value(of % what) for what in ("thead", "tbody tr", "td .label")]
            text = await browser.value("document.body.innerText")
            assert all(word in text for word in ("ready", "Backends", "Routes", "Models", "Tenants", "Ledger"))
        assert shown == {1280: ["table-header-group", "table-row", "none"], 360: ["none", "block", "block"]}


def watched(world: World) -> Counter[str]:
    """The paths that are asked for from now on."""
    asked: Counter[str] = Counter()
    handler = world.app._front._handler
    world.app._front._handler = lambda http: (asked.update([http.path]), handler(http))[1]  # type: ignore[method-assign]
    return asked


async def test_it_asks_for_nothing_beside_itself(world: World, tmp_path: Path) -> None:
    asked = watched(world)
    async with Browser(tmp_path / "browser") as browser:
        await browser.open(f"http://admin:{ADMIN_KEY}@127.0.0.1:{world.app.port}/")
        await browser.corner()
        assert await browser.value("performance.getEntriesByType('resource').length") == 0
    assert set(asked) == {"/"}


@pytest.mark.long
@pytest.mark.skipif(os.environ.get("MOMA_LONG") != "1", reason="MOMA_LONG=1 runs it")
async def test_it_renews_itself(world: World, tmp_path: Path) -> None:
    asked = watched(world)
    async with Browser(tmp_path / "browser") as browser:
        await browser.open(f"http://admin:{ADMIN_KEY}@127.0.0.1:{world.app.port}/")
        first = asked.total()
        for _ in range(150):
            if asked["/"] > first:
                break
            await asyncio.sleep(0.1)
        await browser.until("document.body?.innerText.includes('demo')")
    assert asked["/"] > first
