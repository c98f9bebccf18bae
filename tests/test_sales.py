"""Selling through the admin API, over HTTP and on the command line; the packages of routes.yaml and of the docs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from gateway.admin.api import Admin
from gateway.changes.compare import changes
from gateway.charging.audit import audit
from gateway.charging.ledger import Ledger, open_ledger
from gateway.cli import main
from gateway.config.load import ConfigError, load
from gateway.config.model import Config, Exhausted, Limits, Package, Payg, Plan
from gateway.errors import GatewayError
from tests.charging import manage
from tests.conftest import ADMIN_KEY, KEY, World
from tests.virtual import VirtualClock

DOCS = (Path(__file__).parent.parent / "docs/packages.md").read_text()
PLANS = {"empty": Plan("empty")}
PACKAGES = {
    "home": Package("home", 10**13, "month", price=9_900_000, rollover_uc=5 * 10**12, priority=20),
    "large": Package("large", 4 * 10**13, "month", price=29_900_000, priority=20),
    "pack": Package("pack", 10**12, valid_s=30 * 86_400.0, price=5_990_000),
}


class Desk:
    """An admin API without a socket, and a tenant `ann`."""

    def __init__(self, ledger: Ledger, clock: VirtualClock) -> None:
        self.clock = clock
        self.ledger = ledger
        self.admin = Admin(ledger=ledger, plans=lambda: PLANS, packages=lambda: PACKAGES, clock=clock)

    async def ask(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        try:
            status, value = await self.admin.handle(method, f"/admin/v1/{path}", query, orjson.dumps(body or {}))
        except GatewayError as error:
            return error.status, error.body()["error"]
        orjson.dumps(value)
        return status, value

    async def order(self, order_id: str, package: str = "pack", **more: Any) -> tuple[int, Any]:
        return await self.ask("POST", "orders", {"order_id": order_id, "tenant": "ann", "package": package, **more})


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = VirtualClock()
    ledger = await open_ledger(str(tmp_path / "l.db"), clock, "Asia/Shanghai", PLANS)
    for name in ("ann", "ben"):
        await manage.add_tenant(ledger, name, "empty")[1]
    yield Desk(ledger, clock)
    ledger.check_invariants()
    await ledger.aclose()
    assert audit(str(tmp_path / "l.db")) == []


async def test_an_order_is_made_and_answered_again(desk: Desk) -> None:
    status, made = await desk.order("A-1", "home", quantity=2)
    assert (status, made) == (
        201,
        {
            "id": "A-1", "kind": "order", "tenant": "ann", "package": "home", "quantity": 2, "price": "19.8",
            "credits": "20000000", "of": None, "subscription": "s00000001", "created_at": desk.clock.wall_ms() // 1000,
        },
    )  # fmt: skip
    assert await desk.order("A-1", "home", quantity=2) == (200, made)
    status, error = await desk.order("A-1", "home")
    assert (status, error["code"]) == (409, "conflict")
    assert await desk.ask("GET", "orders/A-1") == (200, {**made, "left": "20000000", "revoked": "0"})
    assert (await desk.ask("GET", "orders"))[1]["data"] == [made]
    assert (await desk.ask("GET", "orders", tenant="ben"))[1]["data"] == []


async def test_a_hundred_orders_at_once_are_one(desk: Desk) -> None:
    said = await asyncio.gather(*(desk.order("A-1") for _ in range(100)))
    assert sorted(status for status, _ in said) == [200] * 99 + [201]
    assert len({json.dumps(value) for _, value in said}) == 1
    assert desk.ledger.usage("ann")["available"] == "1000000"


async def test_a_refund_and_a_compensation(desk: Desk) -> None:
    await desk.order("A-1")
    status, taken = await desk.ask("POST", "orders/A-1/refund", {"credits": "400k"})
    assert (status, taken["kind"], taken["of"], taken["credits"]) == (201, "refund", "A-1", "400000")
    assert await desk.ask("POST", "orders/A-1/refund", {"credits": "400k"}) == (200, taken)
    status, error = await desk.ask("POST", "orders/A-1/refund", {"credits": "300k"})
    assert (status, error["message"]) == (409, "order moma:refund:A-1 is there already, with another credits")
    status, rest = await desk.ask("POST", "orders/A-1/refund", {"refund_id": "R-2"})
    assert (status, rest["credits"]) == (201, "600000")
    assert (await desk.ask("GET", "orders/A-1"))[1]["revoked"] == "1000000"
    given = {"order_id": "C-1", "credits": "2.5"}
    status, made = await desk.ask("POST", "tenants/ann/compensations", given)
    assert (status, made["kind"], made["package"]) == (201, "compensation", None)
    assert await desk.ask("POST", "tenants/ann/compensations", given) == (200, made)
    said = desk.ledger.statement("ann", "2000-01-01", "2100-01-01")
    assert [said[name] for name in ("granted", "revoked", "closing")] == ["1000002.5", "1000000", "2.5"]
    [grant] = desk.ledger.usage("ann")["grants"]
    assert grant["package"] == "compensation"


async def test_a_subscription_is_changed_and_cancelled(desk: Desk) -> None:
    await desk.order("A-1", "home")
    _, shown = await desk.ask("GET", "subscriptions/s00000001")
    assert (shown["package"], shown["status"], shown["ends_at"]) == ("home", "active", None)
    status, changed = await desk.ask("POST", "subscriptions/s00000001/change", {"package": "large", "order_id": "U-1"})
    assert (status, changed["package"], changed["change"]["credits"], changed["change"]["price"]) == (
        200, "large", "30000000", "20",
    )  # fmt: skip
    status, ends = await desk.ask("POST", "subscriptions/s00000001/cancel")
    assert (status, ends["status"]) == (200, "active")
    assert ends["ends_at"] > shown["started_at"]
    _, ended = await desk.ask("POST", "subscriptions/s00000001/cancel", {"now": True})
    assert ended["status"] == "ended"
    assert desk.ledger.usage("ann")["available"] == "0"
    assert [one["status"] for one in (await desk.ask("GET", "subscriptions", tenant="ann"))[1]["data"]] == ["ended"]


async def test_a_statement_has_the_renewals_that_nobody_looked_at(desk: Desk) -> None:
    await desk.order("A-1", "home")
    desk.clock.advance(70 * 86_400.0)
    status, said = await desk.ask("GET", "tenants/ann/statement", **{"from": "2000-01-01", "to": "2100-01-01"})
    assert status == 200
    assert [said[name] for name in ("opening", "granted", "spent", "expired", "revoked", "closing")] == [
        "0", "40000000", "0", "25000000", "0", "15000000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "orders", {"tenant": "ann", "package": "pack"}, 400, "order_id"),
        ("POST", "orders", {"order_id": "a/b", "tenant": "ann", "package": "pack"}, 400, "order_id"),
        ("POST", "orders", {"order_id": "moma:code:1", "tenant": "ann", "package": "pack"}, 400, "order_id"),
        ("POST", "orders", {"order_id": "A", "tenant": "ann"}, 400, "package"),
        ("POST", "orders", {"order_id": "A", "tenant": "ann", "package": "gold"}, 400, "package"),
        ("POST", "orders", {"order_id": "A", "tenant": "ghost", "package": "pack"}, 404, None),
        ("POST", "orders", {"order_id": "A", "tenant": "ann", "package": "pack", "quantity": 0}, 400, "quantity"),
        ("POST", "orders", {"order_id": "A", "tenant": "ann", "package": "pack", "quantity": True}, 400, "quantity"),
        ("POST", "orders", {"order_id": "A", "tenant": "ann", "package": "pack", "quantity": 10**9}, 400, "quantity"),
        ("POST", "orders", {"order_id": "A", "tenant": "ann", "package": "pack", "price": 1}, 400, "price"),
        ("PUT", "orders", None, 405, None),
        ("PUT", "codes", None, 405, None),
        ("GET", "orders/none", None, 404, None),
        ("POST", "orders/none/refund", None, 404, None),
        ("GET", "subscriptions/none", None, 404, None),
        ("POST", "subscriptions/none/change", {"package": "home"}, 404, None),
        ("POST", "subscriptions/none/cancel", {"now": 1}, 400, "now"),
        ("POST", "codes", {"package": "pack", "count": 10_001}, 400, "count"),
        ("POST", "codes", {"package": "pack", "expires_at": 1000}, 400, "expires_at"),
        ("POST", "tenants/ghost/redeem", {"code": "x"}, 404, None),
        ("POST", "tenants/ann/redeem", {}, 400, "code"),
        ("GET", "tenants/ann/redeem", None, 405, None),
        ("POST", "tenants/ann/compensations", {"order_id": "C", "credits": -1}, 400, "credits"),
        ("POST", "tenants/ann/compensations", {"order_id": "C", "credits": 1, "expires_at": 9}, 400, "expires_at"),
    ],
)
async def test_what_is_refused(desk: Desk, method: str, path: str, body: Any, status: int, param: str | None) -> None:
    said, error = await desk.ask(method, path, body)
    assert (said, error["param"]) == (status, param)
    assert desk.ledger.usage("ann")["available"] == "0"


async def test_codes_are_shown_once_and_redeemed_once(desk: Desk) -> None:
    _, made = await desk.ask("POST", "codes", {"package": "pack", "count": 20})
    assert len(set(made["codes"])) == 20
    assert all(re.fullmatch(r"(?:[A-Z2-9]{5}-){3}[A-Z2-9]{5}", code) for code in made["codes"])
    code = {"code": made["codes"][7].lower().replace("-", " ")}
    status, order = await desk.ask("POST", "tenants/ann/redeem", code)
    assert (status, order["kind"], order["credits"]) == (201, "code", "1000000")
    assert await desk.ask("POST", "tenants/ann/redeem", code) == (200, order)
    assert (await desk.ask("POST", "tenants/ben/redeem", code))[0] == 409
    assert (await desk.ask("GET", f"orders/{order['id']}"))[1]["left"] == "1000000"
    [batch] = (await desk.ask("GET", "codes"))[1]["data"]
    assert [batch[name] for name in ("id", "package", "codes", "redeemed")] == [made["id"], "pack", 20, 1]


async def test_guesses_at_codes_are_limited_for_each_tenant(desk: Desk) -> None:
    _, made = await desk.ask("POST", "codes", {"package": "pack", "count": 2})
    for number in range(10):
        assert (await desk.ask("POST", "tenants/ann/redeem", {"code": f"guess {number}"}))[0] == 404
    assert (await desk.ask("POST", "tenants/ann/redeem", {"code": made["codes"][0]}))[0] == 429
    assert (await desk.ask("POST", "tenants/ben/redeem", {"code": made["codes"][1]}))[0] == 201
    desk.clock.advance(61.0)
    assert (await desk.ask("POST", "tenants/ann/redeem", {"code": made["codes"][0]}))[0] == 201


# -- over HTTP, and on the command line ---------------------------------------------------------------------------

SOLD = """
packages:
  home: {credits: 10M, every: month, price: 9.9, rollover: 5M}
  pack: {credits: 1M, valid: 30d}
"""


async def test_a_tenant_redeems_with_its_own_key(world: World) -> None:
    routes = world.path / "routes.yaml"
    routes.write_text(routes.read_text() + SOLD)
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with world.http.post(f"{world.url}/admin/v1/reload", headers=admin) as answer:
        assert answer.status == 200
    asked = {"package": "pack", "count": 2}
    async with world.http.post(f"{world.url}/admin/v1/codes", json=asked, headers=admin) as answer:
        codes = (await answer.json())["codes"]
    before = int(world.app.ledger.usage("demo")["available"])

    async def redeem(code: str) -> int:
        async with world.http.post(f"{world.url}/v1/redeem", json={"code": code}) as answer:
            assert answer.headers["x-request-id"]
            return answer.status

    assert sorted(await asyncio.gather(*(redeem(codes[0]) for _ in range(30)))) == [200] * 29 + [201]
    assert int(world.app.ledger.usage("demo")["available"]) == before + 1_000_000
    async with aiohttp.ClientSession() as stranger:
        async with stranger.post(f"{world.url}/v1/redeem", json={"code": codes[1]}) as answer:
            assert answer.status == 401
        async with stranger.get(f"{world.url}/v1/redeem") as answer:
            assert answer.status == 405
    assert await redeem("none") == 404
    assert KEY not in DOCS


class Shell:
    """`moma` in this process, on a ledger of its own."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.routes = path / "routes.yaml"
        self.routes.write_text(
            f"version: 1\nserver: {{port: 9}}\nstorage: {{ledger: 'sqlite:{path}/moma.db'}}\n"
            f"plans: {{none: {{}}}}\ntenants: {{ann: {{plan: none}}}}\n{SOLD}"
        )
        self._capsys = capsys

    def run(self, *args: str) -> str:
        self._capsys.readouterr()
        code = main([*args, "-c", str(self.routes)])
        out, err = self._capsys.readouterr()
        assert code == 0, err
        return out

    def json(self, *args: str) -> Any:
        return json.loads(self.run(*args, "--json"))


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("MOMA_ADMIN_KEY", raising=False)
    return Shell(tmp_path, capsys)


def test_selling_on_the_command_line(shell: Shell) -> None:
    assert [package["id"] for package in shell.json("package", "list")["data"]] == ["home", "pack"]
    order = shell.json("order", "add", "A-1", "ann", "home", "--quantity", "2")
    assert shell.json("order", "add", "A-1", "ann", "home", "--quantity", "2") == order
    assert shell.json("order", "list", "--tenant", "ann")["data"] == [order]
    assert shell.json("order", "show", "A-1") == {**order, "left": "20000000", "revoked": "0"}
    [one] = shell.json("subscription", "list", "--tenant", "ann")["data"]
    assert shell.json("subscription", "change", one["id"], "--quantity", "3")["change"]["credits"] == "10000000"
    assert shell.json("subscription", "cancel", one["id"])["ends_at"] > one["started_at"]
    assert shell.json("order", "refund", "A-1")["credits"] == "30000000"
    assert shell.json("subscription", "list")["data"][0]["status"] == "ended"
    code = shell.run("code", "add", "pack").strip()
    redeemed = shell.json("code", "redeem", "ann", code)
    assert shell.json("order", "show", redeemed["id"])["left"] == "1000000"
    [batch] = shell.json("code", "list")["data"]
    assert (batch["package"], batch["codes"], batch["redeemed"]) == ("pack", 1, 1)
    assert shell.json("order", "compensate", "C-1", "ann", "7.5")["credits"] == "7.5"
    assert len(shell.run("code", "add", "pack", "--count", "12", "--expires-at", "2099-01-31").split()) == 12


@pytest.mark.parametrize("command", ["package list", "order list", "order show A-1", "subscription list"])
def test_tables_are_for_people(shell: Shell, command: str) -> None:
    shell.run("order", "add", "A-1", "ann", "home")
    out = shell.run(*command.split())
    assert "home" in out
    assert command == "subscription list" or "10000000" in out
    assert max(len(line) for line in out.splitlines()) <= 80


# -- routes.yaml --------------------------------------------------------------------------------------------------


def written(path: Path, packages: str, name: str = "routes.yaml") -> Path:
    file = path / name
    file.write_text(f"version: 1\n{packages}")
    return file


def loaded(path: Path, packages: str, name: str = "routes.yaml") -> Config:
    return load(written(path, packages, name))


def test_packages_are_exact_and_have_a_priority_by_kind(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "packages: {m: {credits: 10M, every: month, price: 9.9, rollover: 5M, periods: 12},"
        " p: {credits: 1, valid: 90d, once: true}, w: {credits: 400k, price: 1}, x: {credits: 1, priority: 3}}",
    )
    m, p, w, x = config.packages.values()
    assert m == Package("m", 10**13, "month", 12, None, 9_900_000, 5 * 10**12, 20)
    assert (p.valid_s, p.once, p.priority) == (90 * 86_400.0, True, 30)
    assert (w.credits_uc, w.priority, w.valid_s, x.priority) == (4 * 10**11, 50, None, 3)


@pytest.mark.parametrize(
    ("package", "key", "says"),
    [
        ("{every: month}", "", "has no credits"),
        ("{credits: 0}", "credits", "is a number"),
        ("{credits: 1, every: year}", "every", "month, week, day"),
        ("{credits: 1, every: month, valid: 30d}", "valid", "say how many periods"),
        ("{credits: 1, rollover: 1}", "rollover", "is for packages with every"),
        ("{credits: 1, periods: 3}", "periods", "is for packages with every"),
        ("{credits: 1, caps: {day: {calls: 3}}}", "caps", "is for packages with every"),
        ("{credits: 1, valid: 36501d}", "valid", "at most 36500d"),
        ("{credits: 1, price: 1.1234567}", "price", "six decimals"),
        ("{credits: 1, credit: 1}", "credit", "is not a known key"),
        ("{credits: 1, every: month, caps: {year: {calls: 3}}}", "caps.year", "is not a known key"),
    ],
)
def test_what_is_wrong_with_a_package_is_told_with_its_place(tmp_path: Path, package: str, key: str, says: str) -> None:
    check_problem(tmp_path, f"packages: {{p: {package}}}", key, says)


def check_problem(path: Path, routes: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(path, routes)
    [problem] = caught.value.problems
    assert problem.key_path == ".".join(["packages", "p", *([key] if key else [])])
    assert says in f"{problem.message} {problem.suggestion}"


MODELS = """
backends:
  a: {kind: openai, base_url: "http://h/v1", region: north}
models:
  m: {via: [a], context: 4k, max_output: 1k, price: {input: 1, output: 2}, tags: [chat]}
"""


def test_cards_and_scopes_are_read_and_scoped_packs_come_first(tmp_path: Path) -> None:
    scope = "scope: {models: [m], tags: [chat], regions: [north]}"
    config = loaded(tmp_path, f"{MODELS}packages: {{p: {{credits: 1, card: raw, valid: 30d, {scope}}}}}")
    package = config.packages["p"]
    assert (package.card, package.priority) == ("raw", 10)
    assert {kind: tuple(words) for kind, words in package.scope.items()} == {
        "models": ("m",), "tags": ("chat",), "regions": ("north",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("package", "key", "says"),
    [
        ("{credits: 1, card: gold}", "card", "there is no gold known: raw, standard"),
        ("{credits: 1, scope: {models: []}}", "scope.models", "has at least 1"),
        ("{credits: 1, scope: {models: [mm]}}", "scope.models.0", "there is no mm"),
        ("{credits: 1, scope: {tags: [chart]}}", "scope.tags.0", "there is no chart"),
        ("{credits: 1, scope: {regions: [south]}}", "scope.regions.0", "there is no south"),
        ("{credits: 1, scope: {chips: [x]}}", "scope.chips", "is not a known key"),
        ("{credits: 1, scope: {hours: [{from: '08:00', to: '08:00'}]}}", "scope.hours.0", "has no minute"),
        ("{credits: 1, scope: {hours: [{from: '08:00'}]}}", "scope.hours.0", "has no to"),
    ],
)
def test_a_scope_that_nothing_is_in_is_an_error(tmp_path: Path, package: str, key: str, says: str) -> None:
    check_problem(tmp_path, f"{MODELS}packages: {{p: {package}}}", key, says)


def test_what_is_said_of_the_end_is_exact(tmp_path: Path) -> None:
    ends = "{payg: {price: 12.5, cap: 500}, downgrade: m, throttle: {rpm: 2, tpm: 10k}}"
    both = f"{{exhausted: {ends}, alerts: [80%, 0.5, 100%]}}"
    config = loaded(
        tmp_path, f"{MODELS}plans: {{p: {both}}}\npackages: {{p: {{credits: 1, {both[1:]}, q: {{credits: 1}}}}\n"
    )
    said = Exhausted(Payg(12_500_000, 500_000_000), "m", Limits(2, 10_000))
    for one in (config.plans["p"], config.packages["p"]):
        assert (one.exhausted, one.alerts) == (said, (500_000, 800_000, 1_000_000))
    assert (config.packages["q"].exhausted, config.packages["q"].alerts) == (Exhausted(), ())
    assert not config.warnings


@pytest.mark.parametrize(
    ("package", "key", "says"),
    [
        (
            "{credits: 1, exhausted: payg}",
            "exhausted",
            "does not say enough of payg write {payg: {price: 12, cap: 500}}",
        ),
        ("{credits: 1, exhausted: throttle}", "exhausted", "write {throttle: {rpm: 2, tpm: 10k}}"),
        ("{credits: 1, exhausted: downgrade}", "exhausted", "write {downgrade: ROUTE}"),
        ("{credits: 1, exhausted: stop}", "exhausted", "is block, or a mapping"),
        ("{credits: 1, exhausted: {}}", "exhausted", "says nothing"),
        ("{credits: 1, exhausted: {payg: {price: 12}}}", "exhausted.payg", "has no cap"),
        ("{credits: 1, exhausted: {payg: {price: 0, cap: 1}}}", "exhausted.payg.price", "is above 0"),
        ("{credits: 1, exhausted: {payg: {price: 1, cap: 0}}}", "exhausted.payg.cap", "buys no credit"),
        ("{credits: 1, exhausted: {payg: {price: 0.000001, cap: 2}}}", "exhausted.payg.cap", "more than 10^12"),
        ("{credits: 1, exhausted: {throttle: {}}}", "exhausted.throttle", "has no limit"),
        ("{credits: 1, exhausted: {downgrade: mm}}", "exhausted.downgrade", "there is no mm did you mean m?"),
        ("{credits: 1, alerts: []}", "alerts", "has at least 1"),
        ("{credits: 1, alerts: [0%]}", "alerts.0", "is above 0%"),
        ("{credits: 1, alerts: [50%, 0.5]}", "alerts.1", "stands here twice"),
        ("{credits: 1, alerts: [150%]}", "alerts.0", "is a share"),
    ],
)
def test_what_says_too_little_of_the_end_is_an_error(tmp_path: Path, package: str, key: str, says: str) -> None:
    check_problem(tmp_path, f"{MODELS}packages: {{p: {package}}}", key, says)


def test_what_an_edit_changes_is_told(tmp_path: Path) -> None:
    old = loaded(tmp_path, "packages: {a: {credits: 10M, every: month, price: 9.9}, b: {credits: 1}}", "old.yaml")
    new = loaded(tmp_path, "packages: {a: {credits: 12M, every: month, price: 8.9}, c: {credits: 1}}", "new.yaml")
    assert [change.text for change in changes(old, new)] == [
        "package a: credits 10000000 -> 12000000 (+20 %) (orders from now on)",
        "package a: price 9.9 -> 8.9 (-10.1 %) (orders from now on)",
        "package b is gone: it is sold no more; what was sold of it goes on",
        "package c is new",
    ]


def test_check_shows_what_is_sold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "packages: {p: {credits: 10M, every: month, price: 9.9, rollover: 5M, once: true}}")
    main(["check", "-c", str(file)])
    out = " ".join(capsys.readouterr().out.split())
    assert "p 10M each month 9.9 20 rolls over 5M; once for each tenant" in out


def test_check_and_diff_show_how_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = "exhausted: {payg: {price: 12.5, cap: 500}, downgrade: m, throttle: {rpm: 2, tpm: 10k}}, alerts: [50%, 100%]"
    both = f"{MODELS}plans: {{gold: {{{ends}}}}}\npackages: {{p: {{credits: 10M, {ends}}}}}"
    file = written(tmp_path, both)
    main(["check", "-c", str(file)])
    out = " ".join(capsys.readouterr().out.split())
    said = "then 12.5 for 1M, at most 500{0} then by m{0} then free, with 2 rpm, 10k tpm{0} alerts at 50%, 100%"
    assert "payg, downgrade, throttle everything " + said.format("") in out
    assert said.format(";") in out
    new = (
        both.replace("cap: 500", "cap: 700")
        .replace("alerts: [50%, 100%]", "alerts: [100%]")
        .replace("downgrade: m, ", "")
    )
    told = [
        change.text for change in changes(load(file), loaded(tmp_path, new.removeprefix("version: 1\n"), "new.yaml"))
    ]
    whom, when = " (those of the ledger that have it)", ", from each tenant's next period"
    assert told == [
        f"plan gold: exhausted.payg.cap 500 -> 700 (+40 %){whom}{when}",
        f"plan gold: exhausted.downgrade m -> none{whom}",
        f"plan gold: alerts drops 50%{whom}{when}",
        "package p: exhausted.payg.cap 500 -> 700 (+40 %) (orders from now on)",
        "package p: exhausted.downgrade m -> none (orders from now on)",
        "package p: alerts drops 50% (orders from now on)",
    ]


def test_the_catalogue_of_the_docs_loads_and_every_package_is_sold(tmp_path: Path) -> None:
    [catalogue] = re.findall(r"```yaml\n(.*?)```", DOCS, re.S)
    file = written(tmp_path, f"{catalogue}\nplans: {{none: {{}}}}\ntenants: {{ann: {{plan: none}}}}\n")
    file.write_text(file.read_text() + f"storage: {{ledger: 'sqlite:{tmp_path}/moma.db'}}\n")
    config = load(file)
    assert not config.warnings

    async def sell() -> int:
        clock = VirtualClock()
        ledger = await open_ledger(f"{tmp_path}/moma.db", clock, config.timezone, config.plans)
        ledger.apply_plan("ann", config.plans["none"])
        admin = Admin(ledger=ledger, plans=lambda: config.plans, packages=lambda: config.packages, clock=clock)
        for name, package in config.packages.items():
            body = orjson.dumps({"order_id": name, "tenant": "ann", "package": name})
            status, order = await admin.handle("POST", "/admin/v1/orders", {}, body)
            assert (status, order["credits"]) == (201, str(package.credits_uc // 10**6))
        granted = int(ledger.usage("ann")["available"])
        await ledger.aclose()
        return granted

    assert asyncio.run(sell()) == sum(package.credits_uc for package in config.packages.values()) // 10**6
    assert audit(f"{tmp_path}/moma.db") == []


def test_the_examples_of_the_docs_load(tmp_path: Path) -> None:
    examples = re.findall(r"\| `(\w+: \{.*\})` \| ", DOCS)
    assert len(examples) >= 8
    for example in examples:
        loaded(tmp_path, f"{MODELS}packages:\n  {example}\n")
