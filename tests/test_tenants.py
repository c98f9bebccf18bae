"""A credential becomes a caller, or always the same refusal."""

from __future__ import annotations

import hashlib

import pytest

from gateway.charging.records import Account, Key
from gateway.config.model import Limits, Plan
from gateway.errors import InvalidKey
from gateway.tenants import MAX_KEY_CHARS, Tenants, credential, key_hash

KEY = "sk-moma-abc"


class Ledger:
    """Two tenants, of which one has a key."""

    def __init__(self, expires_ms: int | None = None) -> None:
        self.accounts = {name: Account(name, "p", None, (name,), (), 0) for name in ("t", "static")}
        self.found = Key("key_1", "t", key_hash(KEY), "", 0, expires_ms)

    def key(self, hashed: str) -> Key | None:
        return self.found if hashed == self.found.key_hash else None

    def tenant(self, tenant: str) -> Account:
        return self.accounts[tenant]


def directory(expires_ms: int | None = None) -> Tenants:
    return Tenants({"p": Plan("p")}, {}, Ledger(expires_ms))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"authorization": f"BEARER   {KEY}  "},
        {"x-api-key": KEY},
        {"authorization": f"Bearer {KEY}", "x-api-key": KEY},
    ],
)
def test_a_key_is_accepted_where_sdks_put_it(headers: dict[str, str]) -> None:
    assert credential(headers) == KEY
    assert directory().authenticate(headers, 0).tenant == "t"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": KEY},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Basic {KEY}", "x-api-key": KEY},
        {"authorization": f"Bearer {KEY}", "x-api-key": "other"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY.upper()}"},
        {"authorization": f"Bearer {key_hash(KEY)}"},
        {"x-api-key": ""},
        {"x-api-key": f" {KEY}"},
        {"x-api-key": "k" * (MAX_KEY_CHARS + 1)},
        {"authorization": "Bearer ' OR 1=1 --"},
        {"authorization": "Bearer \udcff\udc80"},
        {"authorization": "Bearer 密钥"},
    ],
)
def test_all_else_has_one_answer(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidKey) as caught:
        directory().authenticate(headers, 0)
    with pytest.raises(InvalidKey) as missing:
        directory().authenticate({}, 0)
    assert caught.value.body() == missing.value.body()
    assert caught.value.message.startswith("Incorrect API key provided")  # by which LiteLLM knows what it is


def test_the_hash_is_of_the_whole_key() -> None:
    long = "k" * 500
    assert key_hash(long) == hashlib.sha256(long.encode()).hexdigest()
    assert key_hash(long) != key_hash(long[:-1])


@pytest.mark.parametrize(("now_ms", "good"), [(0, True), (999, True), (1000, False), (10**15, False)])
def test_a_key_ends_at_its_expiry(now_ms: int, good: bool) -> None:
    tenants = directory(expires_ms=1000)
    headers = {"x-api-key": KEY}
    if good:
        assert tenants.authenticate(headers, now_ms).tenant == "t"
    else:
        with pytest.raises(InvalidKey):
            tenants.authenticate(headers, now_ms)


def test_a_revoked_key_stops_at_once() -> None:
    ledger = Ledger()
    tenants = Tenants({"p": Plan("p")}, {}, ledger)
    assert tenants.authenticate({"x-api-key": KEY}, 0).tenant == "t"
    ledger.found.revoked_ms = 0
    with pytest.raises(InvalidKey):
        tenants.authenticate({"x-api-key": KEY}, 0)


def test_keys_of_routes_yaml_and_plans_are_those_of_the_generation() -> None:
    ledger, headers = Ledger(), {"x-api-key": "sk-static"}
    old = Tenants({"p": Plan("p", max_output=1)}, {key_hash("sk-static"): "static"}, ledger)
    assert (old.authenticate(headers, 0).tenant, old.authenticate(headers, 0).plan.max_output) == ("static", 1)
    new = Tenants({"p": Plan("p", max_output=2)}, {}, ledger)
    with pytest.raises(InvalidKey):
        new.authenticate(headers, 0)
    assert new.authenticate({"x-api-key": KEY}, 0).plan.max_output == 2
    assert old.authenticate({"x-api-key": KEY}, 0).plan.max_output == 1


def test_whoever_has_no_plan_any_more_may_call_nothing() -> None:
    plan = Tenants({}, {}, Ledger()).authenticate({"x-api-key": KEY}, 0).plan
    assert (plan.name, plan.allow, plan.gone) == ("p", frozenset(), True)


def test_a_caller_is_known_by_its_key_until_plan_place_or_limits_change() -> None:
    ledger, headers = Ledger(), {"x-api-key": KEY}
    tenants = Tenants({"p": Plan("p"), "q": Plan("q")}, {key_hash("static"): "static"}, ledger)
    first = tenants.authenticate(headers, 0)
    assert (first.key_id, first.key, first.key_limits) == ("key_1", "", None)
    assert tenants.authenticate(headers, 0) is tenants.by_hash(key_hash(KEY), 0) is first
    assert tenants.authenticate({"x-api-key": "static"}, 0).key_id == ""
    ledger.accounts["t"].plan = "q"
    second = tenants.authenticate(headers, 0)
    assert (second.plan.name, second.key_id) == ("q", "key_1")
    ledger.accounts["t"].path = ("root", "t")
    assert tenants.authenticate(headers, 0).account_path == ("root", "t")
    ledger.found.limits = Limits(rpm=3)
    limited = tenants.authenticate(headers, 0)
    assert (limited.key_limits, limited.key) == (Limits(rpm=3), f"key:{key_hash(KEY)}")
