"""A credential becomes a caller, or always the same refusal."""

from __future__ import annotations

import hashlib

import pytest

from gateway.config.model import Plan
from gateway.errors import InvalidKey
from gateway.tenants import MAX_KEY_CHARS, Caller, Tenants, credential, key_hash

KEY = "sk-moma-abc"


def directory(expires_ms: int | None = None) -> Tenants:
    tenants = Tenants()
    tenants.put(Caller("t", Plan("p"), ("t",)))
    tenants.put_key(key_hash(KEY), "t", expires_ms)
    return tenants


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


def test_a_dropped_key_stops_at_once_and_dropping_twice_is_harmless() -> None:
    tenants = directory()
    tenants.drop_key(key_hash(KEY))
    tenants.drop_key(key_hash(KEY))
    with pytest.raises(InvalidKey):
        tenants.authenticate({"x-api-key": KEY}, 0)


def test_a_changed_plan_counts_from_the_next_call() -> None:
    tenants = directory()
    tenants.put(Caller("t", Plan("new"), ("t",)))
    assert tenants.authenticate({"x-api-key": KEY}, 0).plan.name == "new"
