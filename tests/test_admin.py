"""Every admin route: what it makes, and what it says of a wrong wish."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.admin.api import Admin
from gateway.admin.fields import credits_uc
from gateway.cache.caches import Caches
from gateway.charging.admins import By
from gateway.charging.ledger import Ledger, open_ledger
from gateway.config.model import Plan, PlanGrant
from gateway.errors import ConfigRefused, GatewayError, InvalidKey, InvalidValue, RateLimited
from gateway.tenants import Caller, Tenants, key_hash
from tests.charging.fakes import quote, settle
from tests.conftest import ADMIN_KEY, World
from tests.virtual import START_MS, VirtualClock

CACHES = Caches(VirtualClock(), random.Random(1))
PLANS = {"pro": Plan("pro", (PlanGrant(1_000_000_000, "month"),)), "empty": Plan("empty")}


class Desk:
    """An admin API without a socket."""

    def __init__(self, ledger: Ledger, clock: VirtualClock) -> None:
        self.clock = clock
        self.ledger = ledger
        self.tenants = Tenants(PLANS, {}, ledger)
        self.reloads: list[GatewayError | None] = []
        self.admin = Admin(ledger=ledger, plans=lambda: PLANS, reload=self.reload, clock=clock, caches=CACHES)

    async def reload(self, by: By, request_id: str) -> dict[str, Any]:
        error = self.reloads.pop(0)
        if error is not None:
            raise error
        return {"result": "unchanged"}

    async def ask(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        try:
            status, value = await self.admin.handle(method, f"/admin/v1/{path}", query, data)
        except GatewayError as error:
            return error.status, error.body()["error"]
        orjson.dumps(value)
        return status, value

    async def tenant(self, name: str, plan: str = "empty", **more: Any) -> None:
        assert (await self.ask("POST", "tenants", {"id": name, "plan": plan, **more}))[0] == 201

    def caller(self, key: str) -> Caller:
        return self.tenants.authenticate({"x-api-key": key}, self.clock.wall_ms())

    async def charge(self, name: str, number: int, tokens: int = 7) -> None:
        asked = quote()
        asked.tenant, asked.account_path = name, self.ledger.tenant(name).path
        await self.ledger.reserve(f"c{number}", asked, clamp=False)
        self.ledger.dispatched(f"c{number}", "b", "m")
        await settle(self.ledger, f"c{number}", tokens)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = VirtualClock()
    ledger = await open_ledger(str(tmp_path / "l.db"), clock, "Asia/Shanghai", PLANS)
    yield Desk(ledger, clock)
    ledger.check_invariants()
    await ledger.aclose()


# -- tenants ------------------------------------------------------------------------------------------------------


async def test_a_tenant_is_made_shown_and_made_once(desk: Desk) -> None:
    status, made = await desk.ask("POST", "tenants", {"id": "acme", "plan": "pro", "tags": ["vip", "北京"]})
    said = {"id": "acme", "plan": "pro", "parent": None, "tags": ["vip", "北京"], "status": "active"}
    assert (status, made) == (201, {**said, "version": made["version"]})
    assert await desk.ask("GET", "tenants/acme") == (200, {**made, "caps": []})
    status, error = await desk.ask("POST", "tenants", {"id": "acme", "plan": "pro"})
    assert (status, error["code"]) == (409, "conflict")


async def test_a_member_draws_on_its_parent(desk: Desk) -> None:
    await desk.tenant("family", "pro")
    await desk.tenant("child", parent="family")
    _, usage = await desk.ask("GET", "tenants/child/usage")
    assert (usage["tenant"], usage["available"]) == ("child", "1000")


async def test_a_tenant_is_edited_as_a_whole_or_not_at_all(desk: Desk) -> None:
    await desk.tenant("family", "pro")
    await desk.tenant("child", parent="family")
    caps = {"month": {"credits": "2.5k", "calls": 10}, "5h": {"calls": "1k"}}
    status, shown = await desk.ask("PATCH", "tenants/child", {"plan": "pro", "caps": caps, "status": "suspended"})
    assert (status, shown["plan"], shown["status"], shown["parent"]) == (200, "pro", "suspended", "family")
    assert [(cap["window"], cap["unit"], cap["limit"]) for cap in shown["caps"]] == [
        ("month", "credits", "2500"), ("month", "calls", "10"), ("5h", "calls", "1000"),
    ]  # fmt: skip
    status, error = await desk.ask("PATCH", "tenants/child", {"status": "active", "parent": "nobody"})
    assert (status, error["code"]) == (404, "not_found")
    assert await desk.ask("GET", "tenants/child") == (200, shown)
    assert (await desk.ask("PATCH", "tenants/child", {"parent": None}))[1]["parent"] is None
    assert (await desk.ask("PATCH", "tenants/child", {})) == await desk.ask("GET", "tenants/child")


BAD_EDITS: list[tuple[dict[str, Any], int, str | None]] = [
    ({"status": "gone"}, 400, "status"),
    ({"status": None}, 400, "status"),
    ({"plan": "prof"}, 400, "plan"),
    ({"plan": 5}, 400, "plan"),
    ({"parent": 5}, 400, "parent"),
    ({"parent": "acme"}, 409, None),
    ({"caps": []}, 400, "caps"),
    ({"caps": {"year": {"calls": 1}}}, 400, "caps"),
    ({"caps": {"day": {}}}, 400, "caps"),
    ({"caps": {"day": {"tokens": 1}}}, 400, "caps"),
    ({"caps": {"day": {"calls": 0}}}, 400, "caps"),
    ({"caps": {"day": {"calls": 1.5}}}, 400, "caps"),
    ({"caps": {"day": {"credits": "many"}}}, 400, "caps"),
    ({"caps": {"day": {"calls": None}}}, 400, "caps"),
    ({"cap": {}}, 400, "cap"),
]


@pytest.mark.parametrize(("asked", "status", "param"), BAD_EDITS, ids=str)
async def test_a_bad_edit_changes_nothing_and_says_why(
    desk: Desk, asked: dict[str, Any], status: int, param: str | None
) -> None:
    await desk.tenant("acme", "pro")
    before = await desk.ask("GET", "tenants/acme")
    answer, error = await desk.ask("PATCH", "tenants/acme", asked)
    assert (answer, error["param"]) == (status, param)
    assert await desk.ask("GET", "tenants/acme") == before


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"card": "gold"}, "card"),
        ({"card": None}, "card"),
        ({"scope": {"model": ["a"]}}, "scope"),
        ({"scope": {"models": []}}, "scope"),
        ({"scope": {"models": "a"}}, "scope"),
        ({"scope": {"models": [1]}}, "scope"),
        ({"scope": {"models": [""]}}, "scope"),
        ({"scope": ["a"]}, "scope"),
        ({"scope": {"tags": ["x"] * 101}}, "scope"),
    ],
    ids=str,
)
async def test_a_grant_of_an_unknown_card_or_scope_is_not_made(desk: Desk, asked: dict[str, Any], param: str) -> None:
    await desk.tenant("acme", "pro")
    before = await desk.ask("GET", "tenants/acme/usage")
    status, error = await desk.ask("POST", "tenants/acme/grants", {"credits": 5, **asked})
    assert (status, error["code"], error["param"]) == (400, "invalid_value", param)
    assert await desk.ask("GET", "tenants/acme/usage") == before


BAD_IDS: list[Any] = [
    "",
    " ",
    "a b",
    "a/b",
    "../x",
    "-a",
    ".a",
    "a" * 65,
    "a" * 1000,
    "租户",
    "a\n",
    "ａ",
    "a%2fb",
    None,
    5,
    True,
    [],
    {},
]


@pytest.mark.parametrize("name", BAD_IDS, ids=repr)
async def test_a_bad_id_is_refused_by_name(desk: Desk, name: Any) -> None:
    status, error = await desk.ask("POST", "tenants", {"id": name, "plan": "pro"})
    assert (status, error["code"], error["param"]) == (400, "invalid_value", "id")


@pytest.mark.parametrize("name", ["a", "A-1._x", "9", "a" * 64])
async def test_a_good_id_is_taken(desk: Desk, name: str) -> None:
    await desk.tenant(name)
    assert (await desk.ask("GET", f"tenants/{name}"))[0] == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"plan": "nope"}, "plan"),
        ({"plan": None}, "plan"),
        ({}, "plan"),
        ({"plan": ["pro"]}, "plan"),
        ({"plan": "pro", "parent": 5}, "parent"),
        ({"plan": "pro", "tags": "vip"}, "tags"),
        ({"plan": "pro", "tags": [1]}, "tags"),
        ({"plan": "pro", "tags": ["x" * 65]}, "tags"),
        ({"plan": "pro", "tags": ["x"] * 65}, "tags"),
        ({"plan": "pro", "tags": None}, "tags"),
    ],
)
async def test_bad_fields_of_a_tenant(desk: Desk, body: dict[str, Any], param: str) -> None:
    status, error = await desk.ask("POST", "tenants", {"id": "x", **body})
    assert (status, error["code"], error["param"]) == (400, "invalid_value", param)
    assert (await desk.ask("GET", "tenants/x"))[0] == 404


async def test_a_parent_must_exist_and_the_tree_has_a_depth(desk: Desk) -> None:
    assert (await desk.ask("POST", "tenants", {"id": "x", "plan": "pro", "parent": "ghost"}))[0] == 404
    await desk.tenant("d1")
    for depth in range(2, 7):
        await desk.tenant(f"d{depth}", parent=f"d{depth - 1}")
    status, error = await desk.ask("POST", "tenants", {"id": "d7", "plan": "pro", "parent": "d6"})
    assert (status, error["param"]) == (400, "parent")


async def test_tenants_are_listed_in_pages(desk: Desk) -> None:
    names = sorted(f"t{number}" for number in range(7))
    for name in reversed(names):
        await desk.tenant(name)
    seen: list[str] = []
    after: str | None = ""
    for _ in range(3):
        status, page = await desk.ask("GET", "tenants", limit="3", **({"after": after} if after else {}))
        assert status == 200
        seen += [entry["id"] for entry in page["data"]]
        after = page["next"]
    assert seen == names
    assert after is None
    assert [entry["id"] for entry in (await desk.ask("GET", "tenants"))[1]["data"]] == names


# -- keys ---------------------------------------------------------------------------------------------------------


async def test_a_key_works_at_once_and_a_revoked_one_stops_at_once(desk: Desk) -> None:
    await desk.tenant("t")
    status, made = await desk.ask("POST", "tenants/t/keys", {"name": "laptop"})
    assert status == 201
    assert made["key"].startswith("sk-moma-")
    assert desk.caller(made["key"]).tenant == "t"
    assert await desk.ask("DELETE", f"tenants/t/keys/{made['id']}") == (200, {"id": made["id"], "deleted": True})
    with pytest.raises(InvalidKey):
        desk.caller(made["key"])
    assert (await desk.ask("DELETE", f"tenants/t/keys/{made['id']}"))[0] == 200


def stored(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


async def test_a_key_is_kept_only_as_its_hash(desk: Desk, tmp_path: Path) -> None:
    await desk.tenant("t")
    _, made = await desk.ask("POST", "tenants/t/keys", {})
    assert made["id"].encode() in stored(tmp_path)
    assert made["key"].removeprefix("sk-moma-").encode() not in stored(tmp_path)


async def test_keys_differ(desk: Desk) -> None:
    await desk.tenant("t")
    keys = [(await desk.ask("POST", "tenants/t/keys"))[1] for _ in range(20)]
    assert len({made["key"] for made in keys}) == len({made["id"] for made in keys}) == 20


@pytest.mark.parametrize(
    "expires_at", [START_MS // 1000 + 60, "2023-11-14T22:14:20+00:00", "2023-11-15T06:14:20+08:00"]
)
async def test_a_key_ends_at_its_expiry(desk: Desk, expires_at: Any) -> None:
    await desk.tenant("t")
    _, made = await desk.ask("POST", "tenants/t/keys", {"expires_at": expires_at})
    assert made["expires_at"] == START_MS // 1000 + 60
    desk.clock.advance(59)
    assert desk.caller(made["key"]).tenant == "t"
    desk.clock.advance(1)
    with pytest.raises(InvalidKey):
        desk.caller(made["key"])


BAD_TIMES = ["", "soon", "2027-01-01", "2027-01-01T00:00:00", "99999-01-01T00:00:00Z", 0, -1, 1.5, True, [], {}, 2**39,
             2**63, "0001-01-01T00:00:00+14:00", "1969-12-31T00:00:00Z"]  # fmt: skip


@pytest.mark.parametrize("when", BAD_TIMES, ids=repr)
@pytest.mark.parametrize("what", ["keys", "grants"])
async def test_a_bad_time_is_refused(desk: Desk, when: Any, what: str) -> None:
    await desk.tenant("t")
    body = {"expires_at": when, **({"credits": 1} if what == "grants" else {})}
    status, error = await desk.ask("POST", f"tenants/t/{what}", body)
    assert (status, error["code"], error["param"]) == (400, "invalid_value", "expires_at")


@pytest.mark.parametrize("when", [1, START_MS // 1000, "2020-01-01T00:00:00Z", "2023-11-14T22:13:20+00:00"])
async def test_what_would_have_ended_already_is_refused(desk: Desk, when: Any) -> None:
    await desk.tenant("t")
    for what, body in (("keys", {}), ("grants", {"credits": 1})):
        status, error = await desk.ask("POST", f"tenants/t/{what}", {**body, "expires_at": when})
        assert (status, error["param"]) == (400, "expires_at")
        assert "has passed" in error["message"]
    assert (desk.ledger.keys("t"), desk.ledger.tenant("t").owned) == ([], [])


async def test_a_grant_is_the_same_when_it_is_asked_for_again_after_its_end(desk: Desk) -> None:
    await desk.tenant("t")
    asked = {"credits": 5, "source_ref": "order-1", "expires_at": START_MS // 1000 + 60}
    _, made = await desk.ask("POST", "tenants/t/grants", asked)
    desk.clock.advance(61)
    assert await desk.ask("POST", "tenants/t/grants", asked) == (200, made)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("tenants", {"id": "x", "plan": "pro", "parrent": "t"}),
        ("tenants", {"id": "x", "plan": "pro", "": 1}),
        ("tenants/t/keys", {"expires": "2035-01-01T00:00:00Z"}),
        ("tenants/t/grants", {"credits": 1, "expire_at": "2035-01-01T00:00:00Z"}),
        ("tenants/t/grants", {"credits": 1, "x" * 1000: 1}),
    ],
)
async def test_a_field_that_is_none_is_refused_by_name(desk: Desk, path: str, body: dict[str, Any]) -> None:
    await desk.tenant("t")
    status, error = await desk.ask("POST", path, body)
    assert (status, error["code"], error["param"]) == (400, "invalid_value", list(body)[-1][:64])
    assert "Known: " in error["message"]
    assert (desk.ledger.keys("t"), desk.ledger.tenant("t").owned) == ([], [])
    assert [account.id for account in desk.ledger.tenants()] == ["t"]
    assert (await desk.ask("GET", "tenants/t/usage"))[1]["grants"] == []


@pytest.mark.parametrize("name", [5, [], "x" * 129, "a\nb", None])
async def test_a_bad_name_of_a_key(desk: Desk, name: Any) -> None:
    await desk.tenant("t")
    status, error = await desk.ask("POST", "tenants/t/keys", {"name": name})
    assert (status, error["param"]) == (400, "name")


async def test_a_key_belongs_to_its_tenant(desk: Desk) -> None:
    await desk.tenant("t")
    await desk.tenant("u")
    _, made = await desk.ask("POST", "tenants/t/keys")
    assert (await desk.ask("DELETE", f"tenants/u/keys/{made['id']}"))[0] == 404
    assert (await desk.ask("DELETE", "tenants/t/keys/key_999999"))[0] == 404
    assert desk.caller(made["key"]).tenant == "t"


async def test_keys_are_listed_without_secret_or_hash(desk: Desk) -> None:
    await desk.tenant("t")
    await desk.tenant("u")
    end = START_MS // 1000 + 3600
    secrets = []
    for tenant, body in (("t", {"name": "laptop", "expires_at": end}), ("t", {}), ("u", {})):
        secrets.append((await desk.ask("POST", f"tenants/{tenant}/keys", body))[1]["key"])
    desk.clock.advance(60)
    await desk.ask("DELETE", "tenants/t/keys/key_000002")
    status, listed = await desk.ask("GET", "tenants/t/keys")
    made = START_MS // 1000
    assert (status, listed) == (200, {"data": [
        {"id": "key_000001", "name": "laptop", "created_at": made, "expires_at": end, "revoked_at": None,
         "limits": None},
        {"id": "key_000002", "name": "", "created_at": made, "expires_at": None, "revoked_at": made + 60,
         "limits": None},
    ], "next": None})  # fmt: skip
    for secret in secrets:
        assert secret.removeprefix("sk-moma-") not in str(listed)
        assert key_hash(secret) not in str(listed)


async def test_keys_are_listed_by_pages(desk: Desk) -> None:
    await desk.tenant("t")
    assert await desk.ask("GET", "tenants/t/keys") == (200, {"data": [], "next": None})
    names = [(await desk.ask("POST", "tenants/t/keys"))[1]["id"] for _ in range(5)]
    got: list[str] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        _, page = await desk.ask("GET", "tenants/t/keys", limit="2", after=page["next"])
        got += [entry["id"] for entry in page["data"]]
    assert got == names
    status, error = await desk.ask("GET", "tenants/t/keys", limit="many")
    assert (status, error["param"]) == (400, "limit")


# -- grants -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "micro"),
    [
        (1, 10**6), ("1", 10**6), ("1M", 10**12), ("1.5", 1_500_000), ("2.5k", 2_500_000_000), (0.1, 100_000),
        (0.000001, 1), ("0.000001", 1), (1.5e6, 1_500_000_000_000), (10**12, 10**18), ("1000000M", 10**18),
        ("1.000001M", 1_000_001_000_000), (123456.654321, 123_456_654_321),
    ],
)  # fmt: skip
def test_credits_are_exact(value: Any, micro: int) -> None:
    assert credits_uc(value) == micro


BAD_CREDITS: list[Any] = [
    None,
    "",
    "M",
    "1 M",
    "1m",
    "1G",
    "-1",
    -1,
    0,
    0.0,
    "0",
    "0.0000001",
    1e-7,
    1.2345678,
    "1.2345678",
    "1e6",
    "NaN",
    "nan",
    "inf",
    "Infinity",
    float("1e30"),
    10**30,
    10**13,
    1e13,
    "9" * 16,
    True,
    [],
    {},
    "１００",
    "1,000",
    "0x10",
    "1_000",
    " 1",
    "1\n",
]


@pytest.mark.parametrize("value", BAD_CREDITS, ids=repr)
async def test_bad_credits_are_refused_by_name(desk: Desk, value: Any) -> None:
    await desk.tenant("t")
    data = b'{"credits": %s}' % (str(value).encode() if isinstance(value, int) else orjson.dumps(value))
    status, error = await desk.ask("POST", "tenants/t/grants", b'{"credits": true}' if value is True else data)
    assert (status, error["code"], error["param"]) == (400, "invalid_value", "credits")
    assert (await desk.ask("GET", "tenants/t/usage"))[1]["available"] == "0"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_json_cannot_say_is_no_amount(value: float) -> None:
    with pytest.raises(InvalidValue):
        credits_uc(value)


async def test_a_grant_is_shown_and_can_be_spent(desk: Desk) -> None:
    await desk.tenant("t")
    status, grant = await desk.ask(
        "POST", "tenants/t/grants", {"credits": "1.5", "priority": 7, "source_ref": "订单-1"}
    )
    assert (status, grant["credits"], grant["priority"], grant["source_ref"]) == (201, "1.5", 7, "订单-1")
    assert (await desk.ask("GET", "tenants/t/usage"))[1]["available"] == "1.5"


@pytest.mark.parametrize("later", [0, 3600])
async def test_the_same_source_ref_is_one_grant(desk: Desk, later: int) -> None:
    """Also when the first has expired meanwhile, or is used up."""
    await desk.tenant("t")
    asked = {"credits": 5, "source_ref": "order-1", "expires_at": START_MS // 1000 + 60}
    first_status, first = await desk.ask("POST", "tenants/t/grants", asked)
    desk.clock.advance(later)
    status, again = await desk.ask("POST", "tenants/t/grants", {**asked, "credits": 50})
    assert (first_status, status) == (201, 200)
    assert again == first
    _, statement = await desk.ask("GET", "tenants/t/statement")
    assert statement["granted"] == "5"


async def test_a_source_ref_is_the_tenants_own(desk: Desk) -> None:
    await desk.tenant("t")
    await desk.tenant("u", parent="t")
    for tenant in ("t", "u"):
        assert (await desk.ask("POST", f"tenants/{tenant}/grants", {"credits": 5, "source_ref": "r"}))[0] == 201
    assert (await desk.ask("GET", "tenants/u/usage"))[1]["available"] == "10"


@pytest.mark.parametrize(
    ("field", "value"),
    [("priority", -1), ("priority", 1001), ("priority", "5"), ("priority", 1.0), ("priority", True), ("priority", None),
     ("source_ref", ""), ("source_ref", "x" * 201), ("source_ref", 5), ("source_ref", "a\nb")],
)  # fmt: skip
async def test_bad_fields_of_a_grant(desk: Desk, field: str, value: Any) -> None:
    await desk.tenant("t")
    status, error = await desk.ask("POST", "tenants/t/grants", {"credits": 1, field: value})
    assert (status, error["param"]) == (400, field)


# -- reading ------------------------------------------------------------------------------------------------------


async def test_charges_come_in_pages_in_order(desk: Desk) -> None:
    await desk.tenant("t", "pro")
    await desk.tenant("u", "pro")
    for number in range(7):
        await desk.charge("u" if number == 3 else "t", number)
    seqs: list[int] = []
    after: int | None = 0
    while after is not None:
        status, page = await desk.ask("GET", "tenants/t/charges", after=str(after), limit="2")
        assert status == 200
        assert len(page["data"]) <= 2
        seqs += [record["seq"] for record in page["data"]]
        after = page["next"]
    assert seqs == [1, 2, 3, 5, 6, 7]
    assert (await desk.ask("GET", "tenants/t/charges", after="7"))[1] == {"data": [], "next": None}


@pytest.mark.parametrize("name", ["after", "limit"])
@pytest.mark.parametrize("value", ["-1", "x", "", "1.5", "9" * 17, "１", "1e3", " 1"])
async def test_bad_pages(desk: Desk, name: str, value: str) -> None:
    await desk.tenant("t")
    status, error = await desk.ask("GET", "tenants/t/charges", **{name: value})
    assert (status, error["param"]) == (400, name)


SUMS = ("opening", "granted", "spent", "expired", "revoked", "closing")


async def test_a_statement_balances(desk: Desk) -> None:
    await desk.tenant("t", "pro")
    await desk.ask("POST", "tenants/t/grants", {"credits": "0.5"})
    await desk.charge("t", 1, tokens=150)
    status, value = await desk.ask("GET", "tenants/t/statement")
    assert status == 200
    uc = {
        name: round(float(value[name]) * 10**6)
        for name in ("opening", "granted", "spent", "expired", "revoked", "closing")
    }
    assert uc["opening"] + uc["granted"] - uc["spent"] - uc["expired"] - uc["revoked"] == uc["closing"]
    assert (value["calls"], uc["spent"], uc["granted"]) == (1, 150, 1_000_500_000)


@pytest.mark.parametrize(
    ("from_", "to", "granted"),
    [
        ("2023-11-01", "2023-12-01", "1000"),
        ("2023-10-01", "2023-11-01", "0"),
        ("2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z", "1000"),
        ("2023-11-14T22:13:21+00:00", "2024-01-01", "0"),
        ("1970-01-01", "9999-12-31", "1000"),  # in a zone where 1970 began earlier
    ],
)
async def test_a_statement_of_a_span(desk: Desk, from_: str, to: str, granted: str) -> None:
    await desk.tenant("t", "pro")
    status, value = await desk.ask("GET", "tenants/t/statement", **{"from": from_, "to": to})
    assert (status, value["granted"]) == (200, granted)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": ""}, "to"),
        ({"to": "9" * 1000}, "to"),
        ({"from": "2024-01-02", "to": "2024-01-01"}, "from"),
        ({"to": "9999-12-31T23:59:59-12:00"}, "to"),
        ({"to": "9999-12-31T23:59:59"}, "to"),
        ({"from": "9999-12-31T23:59:59-12:00", "to": "9999-12-31T23:59:59-12:00"}, "from"),
        ({"from": "0001-01-01T00:00:00+14:00"}, "from"),
        ({"from": "1969-12-30"}, "from"),
    ],
)
async def test_bad_spans(desk: Desk, query: dict[str, str], param: str) -> None:
    await desk.tenant("t")
    status, error = await desk.ask("GET", "tenants/t/statement", **query)
    assert (status, error["param"]) == (400, param)


# -- all routes ---------------------------------------------------------------------------------------------------

READS = [("GET", what) for what in ("keys", "usage", "charges", "statement")]
ROUTES = [*READS, ("POST", "keys"), ("POST", "grants")]


@pytest.mark.parametrize(("method", "what"), [*ROUTES, ("GET", ""), ("DELETE", "keys/key_000001")])
@pytest.mark.parametrize("tenant", ["ghost", "租户", "a b", "x" * 1000, "' OR 1=1 --", "%00"])
async def test_an_unknown_tenant_is_not_found(desk: Desk, method: str, what: str, tenant: str) -> None:
    status, error = await desk.ask(method, f"tenants/{tenant}/{what}", {"credits": 1} if method == "POST" else None)
    assert (status, error["code"]) == (404, "not_found")
    assert len(error["message"]) < 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "tenants"),
        ("DELETE", "tenants"),
        ("POST", "tenants/t"),
        ("DELETE", "tenants/t"),
        ("DELETE", "tenants/t/keys"),
        ("GET", "tenants/t/keys/k"),
        ("POST", "tenants/t/keys/k"),
        ("GET", "tenants/t/grants"),
        ("DELETE", "tenants/t/grants"),
        ("POST", "tenants/t/usage"),
        ("POST", "tenants/t/charges"),
        ("POST", "tenants/t/statement"),
    ],
)
async def test_a_wrong_method_is_not_allowed(desk: Desk, method: str, path: str) -> None:
    await desk.tenant("t")
    status, error = await desk.ask(method, path, {})
    assert (status, error["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    "path", ["", "nope", "tenants/t/nope", "tenants/t/usage/x", "tenants//usage", "tenants/t/keys/a/b"]
)
async def test_an_unknown_path_is_not_found(desk: Desk, path: str) -> None:
    await desk.tenant("t")
    status, error = await desk.ask("GET", path)
    assert (status, error["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["tenants", "tenants/t/keys", "tenants/t/grants"])
@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"null", b"5", b'"x"', b"\xff", b"{'a': 1}", b'{"a": NaN}', b"{}{}", b"[" * 10_000]
)
async def test_a_body_that_is_no_object_is_refused(desk: Desk, path: str, body: bytes) -> None:
    await desk.tenant("t")
    status, error = await desk.ask("POST", path, body)
    assert (status, error["code"]) == (400, "invalid_value")


# -- the admin key ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {ADMIN_KEY}"}, {"x-api-key": ADMIN_KEY}])
async def test_the_admin_key_opens(desk: Desk, headers: Mapping[str, str]) -> None:
    for _ in range(50):
        desk.admin.authorise(headers, "1.2.3.4", ADMIN_KEY)


async def test_guesses_are_limited_by_address_and_do_not_shut_the_owner_out(desk: Desk) -> None:
    for _ in range(10):
        with pytest.raises(InvalidKey):
            desk.admin.authorise({"x-api-key": "guess"}, "1.2.3.4", ADMIN_KEY)
    with pytest.raises(RateLimited):
        desk.admin.authorise({"x-api-key": "guess"}, "1.2.3.4", ADMIN_KEY)
    with pytest.raises(InvalidKey):
        desk.admin.authorise({"x-api-key": "guess"}, "5.6.7.8", ADMIN_KEY)
    desk.admin.authorise({"x-api-key": ADMIN_KEY}, "1.2.3.4", ADMIN_KEY)
    desk.clock.advance(6)
    with pytest.raises(InvalidKey):
        desk.admin.authorise({}, "1.2.3.4", ADMIN_KEY)


async def test_addresses_are_remembered_up_to_a_bound(desk: Desk) -> None:
    for number in range(3000):
        with pytest.raises((InvalidKey, RateLimited)):
            desk.admin.authorise({}, f"10.0.{number // 256}.{number % 256}", ADMIN_KEY)
    assert len(desk.admin._guesses._failures._gates) <= 1025


async def test_without_an_admin_key_nobody_enters(desk: Desk) -> None:
    for key in ("", "None", "null"):
        with pytest.raises(InvalidKey):
            desk.admin.authorise({"authorization": f"Bearer {key}"}, "x", None)


# -- reload -------------------------------------------------------------------------------------------------------


async def test_a_reload_says_what_became_of_it(desk: Desk) -> None:
    problem = {
        "file": "routes.yaml",
        "line": 3,
        "key_path": "bakends",
        "message": "is not a known key",
        "suggestion": "",
    }
    desk.reloads += [None, ConfigRefused("routes.yaml has 1 problem.", problems=[problem])]
    assert await desk.ask("POST", "reload") == (200, {"result": "unchanged"})
    status, error = await desk.ask("POST", "reload", {})
    assert (status, error["code"], error["param"], error["problems"]) == (422, "invalid_config", None, [problem])
    assert (await desk.ask("GET", "reload"))[0] == 405
    assert (await desk.ask("POST", "reload", {"now": True}))[0] == 400


# -- over HTTP ----------------------------------------------------------------------------------------------------


async def test_over_http(world: World) -> None:
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}

    async def ask(method: str, path: str, body: Any = None, headers: Any = admin) -> tuple[int, Any]:
        url = f"{world.url}/admin/v1/{path}"
        async with world.http.request(method, url, json=body, headers=headers) as answer:
            assert answer.headers["x-request-id"]
            return answer.status, await answer.json()

    assert (await ask("POST", "tenants", {"id": "new", "plan": "pro"}))[0] == 201
    assert (await ask("GET", "tenants/a%2Fb"))[0] == 404
    assert (await ask("GET", "tenants/%E7%A7%9F"))[0] == 404
    status, made = await ask("POST", "tenants/new/keys")
    key = {"authorization": f"Bearer {made['key']}"}
    async with world.http.get(f"{world.url}/v1/usage", headers=key) as answer:
        assert (status, answer.status) == (201, 200)
    assert (await ask("DELETE", f"tenants/new/keys/{made['id']}"))[0] == 200
    [entry] = (await ask("GET", "tenants/new/keys"))[1]["data"]
    assert entry["id"] == made["id"]
    assert entry["revoked_at"] >= entry["created_at"]
    async with world.http.get(f"{world.url}/v1/usage", headers=key) as answer:
        assert answer.status == 401
    for headers in (key, {"authorization": "Bearer x"}, {}):
        assert (await ask("GET", "tenants", headers=headers))[0] == 401
    assert (await ask("GET", "tenants/demo/statement?from=2020-01-01&to=2020-02-01"))[1]["closing"] == "0"
