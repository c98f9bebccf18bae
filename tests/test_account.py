"""The page at `/account` over HTTP: who gets in, what a cookie is worth, and whose figures are shown."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.account import page
from gateway.app import App
from gateway.tenants import key_hash
from tests.charging import manage
from tests.conftest import KEY, World
from tests.seeing.accounts import secret, served

LAPTOP = secret("laptop")


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with served(tmp_path) as app:
        yield app


@pytest.fixture
async def http(app: App) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser, as far as cookies go."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{app.port}", cookie_jar=jar) as http:
        yield http


async def log_in(http: aiohttp.ClientSession, key: str = LAPTOP, **headers: str) -> aiohttp.ClientResponse:
    return await http.post("/account", data={"key": key}, headers=headers, allow_redirects=False)


async def shown(http: aiohttp.ClientSession, path: str = "/account") -> tuple[int, str]:
    async with http.get(path, allow_redirects=False) as answer:
        return answer.status, await answer.text()


async def test_the_cookie_is_for_this_page_alone_and_for_no_script(http: aiohttp.ClientSession) -> None:
    answer = await log_in(http)
    assert (answer.status, answer.headers["location"]) == (303, "/account")
    name, *rest = answer.headers["set-cookie"].split("; ")
    assert rest == ["Path=/account", "Max-Age=1800", "HttpOnly", "SameSite=Strict"]
    assert LAPTOP not in name
    assert len(name) > 40
    secured = await log_in(http, **{"x-forwarded-proto": "https"})
    assert secured.headers["set-cookie"].endswith("; Secure")


async def test_guesses_at_keys_are_ten_a_minute_and_the_right_key_is_heard(http: aiohttp.ClientSession) -> None:
    statuses: Counter[int] = Counter()
    for number in range(60):
        answer = await log_in(http, secret(f"guess {number}") if number % 2 else "x" * 600)
        statuses[answer.status] += 1
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert "Retry in" in await answer.text()
    assert statuses[401] <= 12  # ten, and one or two more as time goes on
    assert statuses.total() == statuses[401] + statuses[429] == 60
    assert (await log_in(http)).status == 303
    assert (await shown(http))[0] == 200


async def test_the_page_lets_nothing_in(http: aiohttp.ClientSession) -> None:
    await log_in(http)
    async with http.get("/account") as answer:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "form-action 'self'; frame-ancestors 'none'" in policy
        assert (answer.headers["cache-control"], answer.headers["x-frame-options"]) == ("no-store", "DENY")


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/account", "/account/logout"])
async def test_a_form_of_another_site_does_nothing(
    http: aiohttp.ClientSession, headers: dict[str, str], path: str
) -> None:
    await log_in(http)
    answer = await http.post(path, data={"key": secret("server")}, headers=headers, allow_redirects=False)
    assert answer.status == 400
    assert "from another site" in await answer.text()
    assert "with the key laptop" in (await shown(http))[1]


async def test_the_form_of_this_page_is_known_by_its_origin(app: App, http: aiohttp.ClientSession) -> None:
    assert (await log_in(http, origin=f"http://127.0.0.1:{app.port}")).status == 303
    assert (await log_in(http, **{"sec-fetch-site": "same-origin", "origin": "https://gateway.example"})).status == 303


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"key=", 401), (b"", 401), (b"key=sk-moma-nobody", 401), (b"\xff\xfe", 401), (b"key=" + b"k" * 600, 401),
        (b"&".join(b"a=1" for _ in range(20)), 400), (b"key=" + b"k" * 5_000, 413),
    ],
)  # fmt: skip
async def test_what_is_no_key_gets_the_form_again(http: aiohttp.ClientSession, body: bytes, status: int) -> None:
    answer = await http.post("/account", data=body, allow_redirects=False)
    assert (answer.status, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "set-cookie" not in answer.headers
    assert (await shown(http))[1].count('type="password"') == 1


async def test_a_session_ends_by_time(app: App, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "SESSION_MS", 0)
    await log_in(http)
    assert "Your account" in (await shown(http))[1]
    monkeypatch.setattr(page, "SESSION_MS", 60_000)
    await log_in(http)
    assert "Last calls" in (await shown(http))[1]
    assert len(app._front._account._sessions) == 1  # that which had ended is forgotten


async def test_there_is_a_bound_on_sessions(
    app: App, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MAX_SESSIONS", 3)
    for _ in range(5):
        await log_in(http)
    assert len(app._front._account._sessions) == 3
    assert "Last calls" in (await shown(http))[1]


async def test_a_session_of_a_key_that_was_revoked_shows_nothing(app: App, http: aiohttp.ClientSession) -> None:
    await log_in(http)
    await manage.revoke_key(app.ledger, "ann", "key_000001")[1]
    for path in ("/account", "/account/statements/2026-01.json"):
        status, text = await shown(http, path)
        assert (status, "ann" in text) == (401, False)


async def test_logging_out_ends_the_session_for_whoever_has_the_cookie(http: aiohttp.ClientSession) -> None:
    answer = await log_in(http)
    cookie = answer.headers["set-cookie"].partition(";")[0]
    await http.post("/account/logout", allow_redirects=False)
    async with http.get("/account", headers={"cookie": cookie}) as again:
        assert "Your account" in await again.text()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_and_paths_are_refused(http: aiohttp.ClientSession, method: str) -> None:
    await log_in(http)
    assert (await http.request(method, "/account")).status == 405
    for path in ("/account/nothing", "/account/statements/", "/account/statements/2026-1.html"):
        assert (await shown(http, path))[0] == 404
    assert (await http.head("/account")).status == 200


async def test_statements_are_shown_to_their_tenant_alone(app: App, http: aiohttp.ClientSession) -> None:
    [month, *_] = [one["month"] for one in await app._statements.listed("ann")]
    path = f"/account/statements/{month}"
    assert (await shown(http, f"{path}.json"))[0] == 303
    await log_in(http)
    status, text = await shown(http, f"{path}.json")
    assert status == 200
    found = json.loads(text)
    assert found == await app._statements.of_month("ann", month)
    assert (found["tenant"], found["preliminary"]) == ("ann", False)
    rows = list(csv.DictReader(io.StringIO((await shown(http, f"{path}.csv"))[1], newline="")))
    closing = {row["card"]: row["credits"] for row in rows if (row["section"], row["name"]) == ("balance", "closing")}
    assert closing == {card: sums["closing"] for card, sums in found["cards"].items()}
    assert {row["tenant"] for row in rows} == {"ann"}
    assert found["sha256"] in (await shown(http, f"{path}.html"))[1]
    assert (await shown(http, "/account/statements/2019-01.html"))[0] == 404  # not cut: nobody makes one by asking


async def test_calls_keys_and_days_of_a_tenant_are_its_own(world: World) -> None:
    """Real calls: by a key of routes.yaml, which has no id, and by one of another tenant."""
    await manage.add_tenant(world.app.ledger, "other", "pro")[1]
    await manage.add_key(world.app.ledger, "other", key_hash("sk-moma-other"), "theirs")[1]
    await world.chat()
    other = {"authorization": "Bearer sk-moma-other"}
    for _ in range(2):
        body = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
        async with world.http.post(f"{world.url}/v1/chat/completions", json=body, headers=other) as answer:
            assert answer.status == 200
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(world.url, cookie_jar=jar) as http:
        await log_in(http, KEY)
        _, mine = await shown(http)
        assert ">large<" not in mine
        assert "theirs" not in mine
        await log_in(http, "sk-moma-other")
        _, theirs = await shown(http)
        assert all(words in theirs for words in ("large", "theirs", "with the key theirs", "Tokens today"))
        assert ">small<" not in theirs
    [one, _] = world.app.ledger.charges("other")["data"]
    assert one["key_id"] == "key_000001"
    [mine_] = await world.charges()
    assert mine_["key_id"] is None
    said = world.app.ledger.statement("other", None, None)
    assert [(of["key"], of["name"], of["calls"]) for of in said["by_key"]] == [("key_000001", "theirs", 2)]


async def test_a_family_sees_what_its_members_use_and_not_their_calls(http: aiohttp.ClientSession) -> None:
    await log_in(http, secret("mother"))
    _, text = await shown(http)
    assert "last 30 days, family and all below it" in text
    assert '<th scope="row" role="rowheader">ann</th>' in text
    assert "Last calls" not in text
    await log_in(http)
    _, text = await shown(http)
    assert "all below it" not in text
    assert '<th scope="row" role="rowheader">family</th>' not in text
