"""A tenant's page and its statements as a person sees them: in Chromium, on a desk, on a phone and on paper."""

from __future__ import annotations

import base64
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.app import App
from tests.charging import manage
from tests.seeing import needs
from tests.seeing.accounts import ODD, secret, served
from tests.seeing.browser import Browser
from tests.seeing.test_status_in_a_browser import GROUND, look, pixel

pytestmark = needs("chromium", "chromium")

SCREENS = tuple(itertools.product(((1280, 800), (860, 800), (360, 740)), ("light", "dark")))
PAGE_OF_A4 = b"/MediaBox [0 0 594.95996 841.91998]"


@pytest.fixture
async def app(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[App]:
    async with served(tmp_path, getattr(request, "param", "")) as app:
        yield app


def url(app: App, path: str = "") -> str:
    return f"http://127.0.0.1:{app.port}/account{path}"


async def log_in(browser: Browser, app: App, key: str) -> None:
    """As a person does: the key is typed and the button pressed."""
    await browser.open(url(app))
    await browser.value("window.here = true; document.querySelector('#key').focus()")
    await browser.say("Input.insertText", text=key)
    await browser.value("document.querySelector('form button').click()")
    await browser.until("!window.here && document.readyState === 'complete' && !!document.body")


async def text(browser: Browser) -> str:
    return str(await browser.value("document.body.innerText"))


async def test_a_key_shows_what_is_left_and_what_was_used(app: App, tmp_path: Path) -> None:
    async with Browser(tmp_path / "browser") as browser:
        await log_in(browser, app, "sk-moma-nobody")
        assert "This key is missing or not valid." in await text(browser)
        await log_in(browser, app, secret("laptop"))
        shown = await text(browser)
        for words in (
            "ann", "with the key laptop", "shared, of family", "home", "yuan", "never", "Last calls", "key server",
            "key_000003", "revoked", "Statements",
        ):  # fmt: skip
            assert words in shown, words
        assert secret("laptop") not in await browser.value("document.documentElement.outerHTML")
        assert await browser.value("location.pathname + location.search + location.hash") == "/account"
        assert await browser.value("document.cookie + localStorage.length + sessionStorage.length") == "00"
        bars = await browser.value(
            "[...document.querySelectorAll('.usage rect')].filter(r => r.getBoundingClientRect().height >= 1).length"
        )
        assert bars >= 30
        assert await browser.value("document.querySelectorAll('.legend li').length") == 4
        await browser.value("document.querySelector('details summary').click()")
        assert "input × " in await text(browser)


async def test_the_page_is_readable_on_every_screen_in_both_schemes(app: App, tmp_path: Path) -> None:
    async with Browser(tmp_path / "browser") as browser:
        await log_in(browser, app, secret("laptop"))
        for (width, height), scheme in SCREENS:
            await browser.screen(width, height, scheme)
            await browser.open(url(app))
            name = f"{width} px, {scheme}"
            assert await look(browser, name) == {"name": name, "overflow": 0, "too_wide": [], "faint": []}
            assert pixel(await browser.corner()) == GROUND[scheme], name


async def test_a_session_ends_with_its_button_its_key_and_its_time(app: App, tmp_path: Path) -> None:
    async with Browser(tmp_path / "browser") as browser:
        await log_in(browser, app, secret("laptop"))
        await browser.value("window.here = true; document.querySelector('header button').click()")
        await browser.until("!window.here && !!document.querySelector('#key')")
        await browser.open(url(app))
        assert "Your account" in await text(browser)  # the cookie is gone, and so is the session
        await log_in(browser, app, secret("server"))
        await manage.revoke_key(app.ledger, "ann", "key_000002")[1]
        await browser.open(url(app))
        assert "Last calls" not in await text(browser)
        await log_in(browser, app, secret("old phone"))
        assert "not valid" in await text(browser)


@pytest.mark.parametrize("app", [ODD], indirect=True)
async def test_names_are_text(app: App, tmp_path: Path) -> None:
    async with Browser(tmp_path / "browser") as browser:
        await log_in(browser, app, secret("laptop"))
        assert (await text(browser)).count(ODD) > 5  # models and a key
        assert await browser.value("document.querySelectorAll('img, script').length") == 0
        await browser.open(url(app, f"/statements/{await month(browser)}.html"))
        assert (await text(browser)).count(ODD) >= 3
        assert await browser.value("document.querySelectorAll('img, script').length") == 0


async def month(browser: Browser) -> str:
    """Of the last statement that the page shows."""
    href = await browser.value("document.querySelector('.links a').getAttribute('href')")
    return str(href).rpartition("/")[2].removesuffix(".html")


async def test_a_statement_is_printed_on_paper(app: App, tmp_path: Path) -> None:
    async with Browser(tmp_path / "browser") as browser:
        await log_in(browser, app, secret("laptop"))
        asked = f"/statements/{await month(browser)}.html"
        for (width, height), scheme in SCREENS:
            await browser.screen(width, height, scheme)
            await browser.open(url(app, asked))
            shown = await look(browser, f"{width} px, {scheme}", least=30)
            assert (shown["overflow"], shown["faint"]) == (0, [])
        words = await text(browser)
        assert all(word in words for word in ("Statement", "Brought forward", "Use by key", "SHA-256", "ann"))
        printed = await browser.say("Page.printToPDF", preferCSSPageSize=True)
        pdf = base64.b64decode(printed["data"])
        assert pdf.startswith(b"%PDF-")
        assert pdf.count(PAGE_OF_A4) == pdf.count(b"/Type /Page\n") in (1, 2)
        assert await browser.value("performance.getEntriesByType('resource').length") == 0
