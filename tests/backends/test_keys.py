"""Credentials in turn."""

from __future__ import annotations

from gateway.backends.keys import REST_S, Keys
from tests.virtual import VirtualClock


def test_without_keys_there_is_none() -> None:
    keys = Keys((), VirtualClock())
    assert keys.current() is None
    assert len(keys) == 0


def test_the_same_key_serves_until_it_is_refused() -> None:
    keys = Keys(("k0", "k1"), VirtualClock())
    assert [keys.current() for _ in range(3)] == [(0, "k0")] * 3
    assert keys.refused(0)
    assert [keys.current() for _ in range(3)] == [(1, "k1")] * 3


def test_all_refused_is_told_and_the_one_that_rests_least_serves() -> None:
    clock = VirtualClock()
    keys = Keys(("k0", "k1", "k2"), clock)
    assert keys.refused(0, 50)
    assert keys.refused(1, 5)
    assert not keys.refused(2, 70)
    assert keys.current() == (1, "k1")


def test_a_key_is_back_after_its_rest() -> None:
    clock = VirtualClock()
    keys = Keys(("k0", "k1"), clock)
    keys.refused(0)
    clock.advance(REST_S - 1)
    assert not keys.refused(1)
    clock.advance(1)
    assert keys.current() == (0, "k0")


def test_a_late_refusal_of_a_key_no_longer_in_use_moves_nothing() -> None:
    keys = Keys(("k0", "k1", "k2"), VirtualClock())
    keys.refused(0)
    keys.refused(0)  # a second call that had been sent with it
    assert keys.current() == (1, "k1")


def test_a_single_key_is_used_whatever_is_said_of_it() -> None:
    keys = Keys(("only",), VirtualClock())
    assert not keys.refused(0)
    assert keys.current() == (0, "only")


def test_values_are_not_shown() -> None:
    assert "secret" not in repr(Keys(("secret",), VirtualClock()))


def test_other_values_keep_what_is_known_of_those_that_stay() -> None:
    clock = VirtualClock()
    keys = Keys(("k0", "k1", "k2"), clock)
    keys.refused(0)
    keys.refused(1, 100.0)
    assert keys.renewed(("k0", "k1", "k2")) is keys
    fresh = keys.renewed(("k1", "k3", "k2", "k0"))
    assert fresh.current() == (2, "k2")  # still the one in use
    fresh.refused(2)
    assert fresh.current() == (1, "k3")  # k0 rests as before
    clock.advance(50.0)
    fresh.refused(1)
    assert fresh.current() in ((2, "k2"), (3, "k0"))  # and k1 rests longer
    assert keys.renewed(()).current() is None
    assert keys.renewed(("new",)).current() == (0, "new")
    assert Keys((), clock).renewed(("first",)).current() == (0, "first")
