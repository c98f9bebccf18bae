"""Limits of a single key: given with the key, kept in the ledger, counted beside those of the tenant."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.admission import Admission
from gateway.charging import statements
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.schema import SCHEMA_VERSION
from gateway.config.model import Limits, Plan, Queue
from gateway.deadline import Deadlines
from gateway.errors import RateLimited, StoreUnavailable
from gateway.limits import Gates
from gateway.tenants import Caller
from gateway.waiting import Waiting
from tests.charging import manage
from tests.charging.fakes import FakeClock, plan
from tests.charging.older import as_version
from tests.conftest import ADMIN_KEY, World
from tests.test_admin import Desk
from tests.test_admin import desk as desk  # a fixture
from tests.virtual import VirtualClock

# -- given and kept -----------------------------------------------------------------------------------------------


async def test_limits_are_given_with_a_key_and_shown(desk: Desk) -> None:
    await desk.tenant("t")
    status, made = await desk.ask("POST", "tenants/t/keys", {"limits": {"rpm": 60, "tpm": "100k", "concurrency": 2}})
    assert (status, made["limits"]) == (201, {"rpm": 60, "tpm": 100_000, "concurrency": 2})
    _, free = await desk.ask("POST", "tenants/t/keys", {"limits": {}})
    assert free["limits"] is None
    _, listed = await desk.ask("GET", "tenants/t/keys")
    assert [key["limits"] for key in listed["data"]] == [made["limits"], None]
    limited, unlimited = desk.caller(made["key"]), desk.caller(free["key"])
    assert (limited.tenant, limited.key_limits) == ("t", Limits(60, 100_000, 2))
    assert (unlimited.tenant, unlimited.key_limits) == ("t", None)
    assert made["key"] not in repr(limited)


@pytest.mark.parametrize(
    "limits", [5, [], "60", {"rps": 5}, {"rpm": 0}, {"rpm": -1}, {"rpm": True}, {"tpm": "many"}, {"concurrency": 1.5}]
)
async def test_limits_that_are_none_are_refused(desk: Desk, limits: Any) -> None:
    await desk.tenant("t")
    status, error = await desk.ask("POST", "tenants/t/keys", {"limits": limits})
    assert (status, error["code"], error["param"]) == (400, "invalid_value", "limits")
    assert desk.ledger.keys("t") == []


async def opened(folder: Path) -> Ledger:
    ledger = await open_ledger(f"{folder}/l.db", FakeClock(), "UTC", {"p": plan(10**6)})
    ledger.apply_plan("t", plan(10**6))
    return ledger


async def test_limits_survive_a_restart_and_a_revocation(tmp_path: Path) -> None:
    ledger = await opened(tmp_path)
    await manage.add_key(ledger, "t", "00", "k", None, Limits(rpm=5))[1]
    _, durable = manage.add_key(ledger, "t", "01", "k")
    await durable
    await ledger.aclose()
    ledger = await opened(tmp_path)
    assert [key.limits for key in ledger.keys("t")] == [Limits(rpm=5), None]
    await manage.revoke_key(ledger, "t", "key_000001")[1]
    await ledger.aclose()
    assert [key.limits for key in statements.keys(f"{tmp_path}/l.db", "t")] == [Limits(rpm=5), None]


async def test_a_ledger_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    ledger = await opened(tmp_path)
    await manage.add_key(ledger, "t", "00", "old")[1]
    await ledger.aclose()
    as_version(f"{tmp_path}/l.db", 1)
    assert [key.name for key in statements.keys(f"{tmp_path}/l.db", "t")] == ["old"]  # read before it is opened
    for _ in range(2):
        ledger = await opened(tmp_path)
        await ledger.aclose()
    ledger = await opened(tmp_path)
    await manage.add_key(ledger, "t", "01", "new", None, Limits(concurrency=3))[1]
    assert [key.limits for key in ledger.keys("t")] == [None, Limits(concurrency=3)]
    ledger.check_invariants()
    await ledger.aclose()
    with closing(sqlite3.connect(f"{tmp_path}/l.db")) as connection:
        assert connection.execute("SELECT schema_version FROM meta").fetchall() == [(SCHEMA_VERSION,)]


async def test_a_migration_that_breaks_off_is_made_again(tmp_path: Path) -> None:
    await (await opened(tmp_path)).aclose()
    as_version(f"{tmp_path}/l.db", 1)
    with closing(sqlite3.connect(f"{tmp_path}/l.db", isolation_level=None)) as connection:
        connection.execute("CREATE TRIGGER stop BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'power cut'); END")
        with pytest.raises(StoreUnavailable, match="power cut"):
            await opened(tmp_path)
        assert connection.execute("SELECT schema_version FROM meta").fetchall() == [(1,)]
        connection.execute("DROP TRIGGER stop")
    await (await opened(tmp_path)).aclose()


async def test_a_ledger_of_a_later_gateway_is_left_alone(tmp_path: Path) -> None:
    await (await opened(tmp_path)).aclose()
    with closing(sqlite3.connect(f"{tmp_path}/l.db", isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET schema_version = 99")
        with pytest.raises(StoreUnavailable, match="version 99 is of a later gateway"):
            await opened(tmp_path)
        assert connection.execute("SELECT schema_version FROM meta").fetchall() == [(99,)]


# -- counted ------------------------------------------------------------------------------------------------------


class Counter:
    """One tenant with limits, and callers with keys of their own."""

    def __init__(self, tenant: Limits) -> None:
        self.clock = VirtualClock()
        self.plan = Plan("p", limits=tenant)
        self.admission = Admission(Gates(self.clock), Waiting(Queue(0)), self.clock)
        self.deadlines = Deadlines(self.clock)

    async def asks(self, key: str, limits: Limits | None, tokens: int = 0) -> dict[str, str]:
        caller = Caller("t", self.plan, ("t",), key, limits)
        entry = self.admission.entry(caller)
        try:
            await self.admission.admit(entry, caller, tokens, self.deadlines.start(60.0))
            return entry.headers()
        finally:
            entry.release(None if entry.permit else 0)


async def test_a_key_has_its_own_limit_below_that_of_its_tenant() -> None:
    bench = Counter(Limits(rpm=5))
    mine, other = Limits(rpm=2), Limits(rpm=100)
    assert (await bench.asks("key:a", mine))["x-ratelimit-remaining-requests"] == "1"
    await bench.asks("key:a", mine)
    with pytest.raises(RateLimited) as caught:
        await bench.asks("key:a", mine)
    assert caught.value.headers()["x-ratelimit-limit-requests"] == "2"
    assert (await bench.asks("key:b", other))["x-ratelimit-limit-requests"] == "5"  # the tenant has less left
    await bench.asks("", None)
    await bench.asks("key:b", other)
    with pytest.raises(RateLimited) as caught:
        await bench.asks("key:b", other)
    assert caught.value.headers()["x-ratelimit-limit-requests"] == "5"


async def test_what_the_tenants_limit_refuses_takes_nothing_of_the_keys() -> None:
    bench = Counter(Limits(rpm=1, tpm=1000))
    key = Limits(rpm=10, tpm=100, concurrency=1)
    await bench.asks("key:a", key, 10)
    for _ in range(50):
        with pytest.raises(RateLimited):
            await bench.asks("key:a", key, 10)
    gate = bench.admission._gates.of("key:a", key)
    assert gate.rpm is not None
    assert gate.tpm is not None
    assert (gate.rpm.level, gate.tpm.level, gate.in_flight) == (9, 90, 0)


async def test_a_limited_key_over_http(world: World) -> None:
    admin, url = {"authorization": f"Bearer {ADMIN_KEY}"}, f"{world.url}/admin/v1/tenants/demo/keys"
    async with world.http.post(url, json={"limits": {"rpm": 2}}, headers=admin) as answer:
        key = (await answer.json())["key"]
    mine = {"authorization": f"Bearer {key}"}
    seen: list[tuple[int, str]] = []
    for _ in range(3):
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
        async with world.http.post(f"{world.url}/v1/chat/completions", json=body, headers=mine) as answer:
            seen.append((answer.status, answer.headers["x-ratelimit-remaining-requests"]))
            await answer.read()
    assert seen == [(200, "1"), (200, "0"), (429, "0")]
    assert (await world.chat())[0] == 200  # another key of the tenant has no limit
