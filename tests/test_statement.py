"""`moma statement` and its admin API: shown, listed, cut; as a table, JSON, CSV and a page."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.account.forms import COLUMNS, csv_text
from gateway.account.printed import printed
from gateway.account.words import amounts, money, month, package
from gateway.admin.api import Admin
from gateway.charging import cuts
from gateway.charging.cutting import Statements
from gateway.cli import main
from gateway.errors import GatewayError
from tests.charging.shop import Shop
from tests.conftest import ADMIN_KEY
from tests.seeing.accounts import ROUTES, lived, served


class Shell:
    def __init__(self, routes: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.routes = routes
        self._capsys = capsys

    def run(self, *args: str) -> tuple[int, str, str]:
        try:
            code = main(["statement", *args, "-c", str(self.routes)])
        except SystemExit as refused:
            code = int(refused.code or 0)
        return code, *self._capsys.readouterr()

    def json(self, *args: str) -> Any:
        code, out, err = self.run(*args, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture
async def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("MOMA_ADMIN_KEY", raising=False)
    return Shell(await lived(tmp_path), capsys)


async def ask(shell: Shell, *args: str) -> Any:
    return await asyncio.to_thread(shell.json, *args)


async def test_a_month_is_listed_shown_and_cut_once(shell: Shell) -> None:
    listed = (await ask(shell, "list", "ann"))["data"]
    name = listed[0]["month"]
    shown = await ask(shell, "ann", "--month", name)
    assert (shown["sha256"], shown["cut"], shown["calls"]) == tuple(listed[0][n] for n in ("sha256", "cut", "calls"))
    assert await ask(shell, "cut", "ann", "--month", name) == shown
    running = await ask(shell, "ann")
    assert (running["preliminary"], running["opening"], running["sha256"]) == (True, shown["closing"], None)


async def test_it_is_printed_as_a_table_a_file_of_csv_and_a_page(shell: Shell, tmp_path: Path) -> None:
    name = (await ask(shell, "list", "ann"))["data"][0]["month"]
    value = await ask(shell, "ann", "--month", name)
    code, out, _ = await asyncio.to_thread(shell.run, "ann", "--month", name)
    assert code == 0
    for words in ("raw tokens", "= closing", "By key", "key_000001 laptop", "qwen3-32b", "Charges: 8.99 CNY", "sha256"):
        assert words in out, words
    code, out, _ = await asyncio.to_thread(shell.run, "ann", "--month", name, "--csv")
    assert out.startswith(",".join(COLUMNS) + "\r\n")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    used = sum(int(row["calls"]) for row in rows if row["section"] == "model" and row["calls"])
    assert used == value["calls"]
    page = tmp_path / "page.html"
    code, out, _ = await asyncio.to_thread(shell.run, "ann", "--month", name, "--html", str(page))
    assert (code, out) == (0, f"written to {page}\n")
    assert value["sha256"] in page.read_text()
    code, out, _ = await asyncio.to_thread(shell.run, "list", "ann")
    assert value["sha256"][:16] in out


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("cut", "ann"), 2, "Which month"),
        (("cut", "ann", "--month", "2099-01"), 1, "has not ended"),
        (("cut", "ann", "--month", "soon"), 2, "A month is written as 2026-11"),
        (("cut", "ghost", "--month", "2020-01"), 1, "ghost"),
        (("cut", "ann", "--month", "2020-01"), 1, "Statements begin with"),
        (("burn", "ann"), 2, "no such verb"),
        (("ann", "--month", "2026-11", "--from", "2026-01-01"), 2, "not both"),
        (("ann", "--month", "2099-01"), 2, "has not begun"),
        (("ann", "--html", "/nowhere/page.html"), 2, "cannot be written"),
        (("ann", "--csv", "--json"), 2, "not allowed with"),
        (("ghost", "--month", "2026-11"), 1, "ghost"),
    ],
)
async def test_what_is_wrong_is_told(shell: Shell, args: tuple[str, ...], code: int, says: str) -> None:
    found, _, err = await asyncio.to_thread(shell.run, *args)
    assert found == code, err
    assert says in err


async def test_a_tenant_may_be_called_cut(shell: Shell) -> None:
    assert (await asyncio.to_thread(shell.run, "cut"))[::2] == (1, "no tenant 'cut'\n")


async def test_a_gateway_that_runs_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOMA_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setattr(
        "tests.seeing.accounts.ROUTES",
        ROUTES.replace("timezone", "server: {{admin_key: env:MOMA_ADMIN_KEY}}\ntimezone"),
    )
    async with served(tmp_path) as app:
        shell, url = Shell(tmp_path / "routes.yaml", capsys), ("--url", f"http://127.0.0.1:{app.port}")
        name = (await ask(shell, "list", "family", *url))["data"][0]["month"]
        shown = await ask(shell, "family", "--month", name, *url)
        assert [one["tenant"] for one in shown["by_member"]] == ["family", "ann"]
        assert await ask(shell, "cut", "family", "--month", name, *url) == shown
        assert (await ask(shell, "family", *url))["preliminary"]


# -- the admin API --------------------------------------------------------------------------------------------------


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = await Shop(tmp_path).open()
    yield shop
    await shop.end()


async def said(shop: Shop, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
    statements = Statements(shop.ledger, shop.path, "Asia/Shanghai", "CNY", shop.clock)
    admin = Admin(ledger=shop.ledger, plans=dict, clock=shop.clock, statements=statements)
    try:
        return await admin.handle(method, f"/admin/v1/tenants/{path}", query, orjson.dumps(body or {}))
    except GatewayError as error:
        return error.status, error.body()["error"]


async def test_the_admin_api_cuts_lists_and_shows(shop: Shop) -> None:
    await shop.buy("A-1", "pack")
    assert await said(shop, "GET", "t/statements") == (200, {"data": [], "next": None})
    status, error = await said(shop, "POST", "t/statements", {"month": "2024-01"})
    assert (status, error["code"]) == (409, "conflict")
    status, running = await said(shop, "GET", "t/statements/2024-01")
    assert (status, running["preliminary"], running["granted"]) == (200, True, "0.0005")
    shop.at("2024-02-02")
    status, made = await said(shop, "POST", "t/statements", {"month": "2024-01"})
    assert (status, made["money"]["total"]) == (201, "5.99")
    assert await said(shop, "POST", "t/statements", {"month": "2024-01"}) == (200, made)
    assert await said(shop, "GET", "t/statements/2024-01") == (200, made)
    assert (await said(shop, "GET", "t/statements"))[1]["data"][0]["sha256"] == made["sha256"]


async def test_the_list_has_pages_the_latest_month_first(shop: Shop) -> None:
    shop.at("2024-06-02")
    await said(shop, "POST", "t/statements", {"month": "2024-01"})
    await said(shop, "POST", "t/statements", {"month": "2024-05"})
    seen: list[str] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        _, page = await said(shop, "GET", "t/statements", limit="2", after=page["next"])
        seen += [one["month"] for one in page["data"]]
    assert seen == ["2024-05", "2024-04", "2024-03", "2024-02", "2024-01"]
    assert (await said(shop, "GET", "t/statements", limit="5"))[1]["next"] is None
    status, error = await said(shop, "GET", "t/statements", after="a\nb")
    assert (status, error["param"]) == (400, "after")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "t/statements", {}, 400),
        ("POST", "t/statements", {"month": 202401}, 400),
        ("POST", "t/statements", {"months": "2024-01"}, 400),
        ("POST", "ghost/statements", {"month": "2023-01"}, 404),
        ("GET", "ghost/statements", None, 404),
        ("GET", "ghost/statements/2024-01", None, 404),
        ("GET", "t/statements/never", None, 400),
        ("DELETE", "t/statements", None, 405),
        ("POST", "t/statements/2024-01", {}, 405),
        ("GET", "t/statements/2024-01/more", None, 404),
    ],
)
async def test_wrong_questions_are_refused(shop: Shop, method: str, path: str, body: Any, status: int) -> None:
    assert (await said(shop, method, path, body))[0] == status


# -- forms ------------------------------------------------------------------------------------------------------------


async def test_every_card_and_odd_name_is_in_its_place(shop: Shop) -> None:
    await shop.buy("A-1", "raw")
    await shop.buy("A-2", "units")
    value = cuts.of_month(shop.path, "t", "2024-01", shop.ledger._image.zone, "CNY", shop.clock.ms)
    value["by_key"] = [{"key": "key_1", "name": '=cmd|"x"!A1, <i>', "calls": 1, "usage": {"input": 2}, "cards": {}}]
    rows = list(csv.DictReader(io.StringIO(csv_text(value), newline="")))
    assert all(None not in row and None not in row.values() for row in rows)
    [named] = [row for row in rows if row["section"] == "key"]
    assert named["detail"] == '\'=cmd|"x"!A1, <i>'  # text for a spreadsheet too
    assert Decimal(next(row for row in rows if row["section"] == "balance" and row["card"] == "raw")["credits"]) == 0
    page = printed(value)
    assert "<i>" not in page
    assert "Raw tokens" in page
    assert "Preliminary" in page


def test_amounts_are_for_people() -> None:
    assert [money(text) for text in ("3", "8.99", "0.000001", "1234567.5")] == [
        "3.00",
        "8.99",
        "0.000001",
        "1,234,567.50",
    ]
    assert amounts({"standard": "1500000.25", "raw": "3"}) == "1,500,000.25 credits, 3 raw tokens"
    assert amounts({}) == "–"
    assert [package(name) for name in ("package:home", "plan:trial", None, "by hand")] == [
        "home", "plan trial", "credited", "by hand",
    ]  # fmt: skip
    assert month({"month": "2026-11"}) == "November 2026"
