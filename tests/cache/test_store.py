"""What is kept and what goes: S3-FIFO by bytes, a share for each tenant, and what outlives an edit."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from gateway.cache.caches import Caches
from gateway.cache.store import ENTRY_BYTES, Answers, Entry
from gateway.call import Usage
from gateway.config.model import Cache
from tests.virtual import VirtualClock


def entry(body: bytes = b"", tenant: str = "t", created: float = 0.0, model: str = "m", route: str = "r") -> Entry:
    return Entry(tenant, route, model, "a", body, Usage({}), created)


def named(number: int) -> bytes:
    return b"%d" % number


def filled(entries: int, tenant: str = "t", capacity: int | None = None) -> Answers:
    answers = Answers((entries if capacity is None else capacity) * ENTRY_BYTES)
    for number in range(entries):
        answers[named(number)] = entry(tenant=tenant)
    return answers


def test_what_was_asked_for_again_outlives_a_run_of_calls_that_never_repeat() -> None:
    answers = filled(50, capacity=100)
    for _ in range(3):
        for number in range(50):
            assert answers.get(named(number)) is not None
    for number in range(1_000, 6_000):
        answers[named(number)] = entry()
    assert sum(named(number) in answers for number in range(50)) == 50
    assert answers.evicted == 4_950


def test_who_comes_back_soon_after_it_went_stays() -> None:
    answers = filled(10)
    answers[b"new"] = entry()
    assert named(0) not in answers
    answers[named(0)] = entry()  # a ghost: it goes to the main queue
    for number in range(100, 105):
        answers[named(number)] = entry()
    assert named(0) in answers


def test_bytes_are_what_is_bounded() -> None:
    answers = Answers(10_000)
    answers[b"large"] = entry(bytes(8_000))
    answers[b"small"] = entry()
    assert answers.currsize == 10_000
    answers[b"more"] = entry()
    assert b"large" not in answers
    with pytest.raises(ValueError, match="larger than the cache"):
        answers[b"too large"] = entry(bytes(9_001))
    assert answers.currsize == 2_000


def test_an_answer_takes_the_place_of_the_one_before() -> None:
    answers = filled(3)
    answers[named(1)] = entry(b"x", tenant="u")
    assert answers[named(1)].body == b"x"
    assert sorted(tenant for tenant, _, _ in answers.tenants()) == ["t", "u"]


def test_one_tenant_cannot_flush_what_others_have() -> None:
    answers = filled(40, tenant="quiet", capacity=100)
    for number in range(1_000, 6_000):
        answers[named(number)] = entry(tenant="noisy")
    assert dict((tenant, entries) for tenant, entries, _ in answers.tenants()) == {"noisy": 60, "quiet": 40}


def test_a_tenant_may_have_all_the_room_that_nobody_else_wants_and_gives_it_back() -> None:
    answers = filled(100, tenant="first")
    assert answers.tenants() == [("first", 100, 100 * ENTRY_BYTES)]
    for number in range(1_000, 1_200):
        answers[named(number)] = entry(tenant="second")
    assert Counter({tenant: entries for tenant, entries, _ in answers.tenants()}) == {"first": 50, "second": 50}


def test_room_among_ten_thousand_tenants_is_found_without_looking_at_each() -> None:
    answers = Answers(10_000 * ENTRY_BYTES)
    for number in range(10_000):
        answers[named(number)] = entry(tenant=str(number))
    begun = time.process_time()
    for number in range(10_000, 12_000):
        answers[named(number)] = entry(tenant="one more")
    assert time.process_time() - begun < 1.0, "a look at each would take several seconds"
    assert answers.currsize == answers.maxsize
    assert len(answers._ranking) <= 2 * 10_001 + 64


def test_popitem_and_clear_keep_the_books() -> None:
    answers = filled(3)
    assert answers.popitem()[0] == named(0)
    answers.clear()
    assert (len(answers), answers.currsize, answers.tenants()) == (0, 0, [])
    with pytest.raises(KeyError):
        answers.popitem()
    answers[b"again"] = entry()
    assert len(answers) == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_random_walk_keeps_its_books_and_its_bounds(seed: int) -> None:
    rng = random.Random(seed)
    capacity = 30 * ENTRY_BYTES
    answers, model = Answers(capacity), dict[bytes, Entry]()
    for _ in range(3_000):
        key, tenant = b"%d" % rng.randrange(80), rng.choice("abc")
        step = rng.random()
        if step < 0.5:
            found = answers.get(key)
            assert found is None or found is model[key]
        elif step < 0.95:
            model[key] = answers[key] = entry(bytes(rng.randrange(4_000)), tenant)
            assert key in answers
        elif key in answers:
            del answers[key]
        left = [value for _, value in answers.items_unread()]
        assert answers.currsize == sum(value.size for value in left) <= capacity
        shares = {tenant: (entries, size) for tenant, entries, size in answers.tenants()}
        owners = Counter(value.tenant for value in left)
        assert {tenant: entries for tenant, (entries, _) in shares.items()} == owners
        assert sum(size for _, size in shares.values()) == answers.currsize
        if shares:
            assert shares[answers._richest()][1] == max(size for _, size in shares.values())


# -- caches by name -----------------------------------------------------------------------------------------------


class Shelf:
    """One cache of 10 s over a virtual clock."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = VirtualClock()
        self.caches = Caches(self.clock, random.Random(seed))
        self.configure()

    def configure(self, *more: Cache, name: str = "c", max_bytes: int = 100_000, ttl_s: float = 10.0) -> None:
        self.caches.configure([Cache(name, ttl_s=ttl_s, max_bytes=max_bytes, max_entry=10_000), *more])

    def keep(self, number: int, tenant: str = "t", body: bytes = b"", model: str = "m", route: str = "r") -> None:
        self.caches.keep("c", named(number), entry(body, tenant, self.clock.now(), model, route))

    def has(self, *numbers: int) -> list[bool]:
        return [self.caches.find("c", named(number)) is not None for number in numbers]


def test_an_answer_ends_within_the_last_tenth_of_its_time_and_not_all_together() -> None:
    shelf = Shelf()
    for number in range(90):
        shelf.keep(number)
    shelf.clock.advance(8.99)
    assert all(shelf.has(*range(90)))
    left = []
    for _ in range(10):
        shelf.clock.advance(0.1)
        left.append(sum(shelf.has(*range(90))))
    assert left == sorted(left, reverse=True)
    assert len(set(left)) == 10
    shelf.clock.advance(0.02)
    assert not any(shelf.has(*range(90)))


def test_max_age_is_an_age_that_is_too_much() -> None:
    shelf = Shelf()
    shelf.keep(1)
    shelf.clock.advance(5)
    assert shelf.caches.find("c", named(1), 5) is None
    found = shelf.caches.find("c", named(1), 6)
    assert found is not None
    assert shelf.caches.age_s(found) == 5


def test_what_has_ended_is_swept_without_being_asked_for() -> None:
    shelf = Shelf()
    shelf.keep(1)
    shelf.clock.advance(5)
    shelf.keep(2)
    shelf.clock.advance(5)
    shelf.caches.sweep()
    [state] = shelf.caches.states()
    assert (state.entries, state.bytes) == (1, ENTRY_BYTES)


def test_answers_outlive_an_edit_of_other_settings() -> None:
    shelf = Shelf()
    shelf.keep(1)
    shelf.configure(Cache("other"))
    assert shelf.has(1) == [True]
    shelf.configure(ttl_s=4.0)
    shelf.clock.advance(5)
    assert shelf.has(1) == [False], "the time in force is the one that counts"


def test_a_smaller_cache_keeps_what_it_has_room_for_and_one_that_is_gone_nothing() -> None:
    shelf = Shelf()
    for number in range(100):
        shelf.keep(number)
    shelf.configure(max_bytes=10 * ENTRY_BYTES)
    assert sum(shelf.has(*range(100))) == 10
    assert shelf.has(99) == [True]
    shelf.configure(name="d")
    assert shelf.has(99) == [False]
    shelf.keep(1)
    shelf.configure()
    assert shelf.has(1, 99) == [False, False]


def test_what_is_larger_than_max_entry_is_not_kept() -> None:
    shelf = Shelf()
    shelf.keep(1, body=bytes(10_000 - ENTRY_BYTES))
    shelf.keep(2, body=bytes(10_001 - ENTRY_BYTES))
    assert shelf.has(1, 2) == [True, False]


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ({}, []),
        ({"cache": "c"}, []),
        ({"cache": "other"}, [1, 2, 3]),
        ({"tenant": "t"}, [3]),
        ({"model": "n"}, [1, 3]),
        ({"model": "route-2"}, [1, 2]),
        ({"tenant": "u", "model": "n"}, [1, 2, 3]),
    ],
)
def test_a_purge_lets_go_what_it_names(wanted: dict[str, str], left: list[int]) -> None:
    shelf = Shelf()
    shelf.configure(Cache("other"))
    shelf.keep(1)
    shelf.keep(2, model="n")
    shelf.keep(3, tenant="u", route="route-2")
    assert shelf.caches.purge(**wanted) == (3 - len(left), (3 - len(left)) * ENTRY_BYTES)
    assert [number for number in (1, 2, 3) if shelf.has(number) == [True]] == left
