"""JSON from outside: what is deep or wide beyond reason is refused, what is not is read."""

from __future__ import annotations

import orjson
import pytest

from gateway.bounded import (
    MAX_CONTAINERS,
    MAX_NESTING,
    MAX_NESTING_OF_BACKENDS,
    BeyondReason,
    is_object,
    loads,
    loads_of_backend,
)


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def test_what_is_as_deep_as_may_be_is_read_and_one_level_more_is_not() -> None:
    assert orjson.dumps(loads(nested(MAX_NESTING))) == nested(MAX_NESTING)
    with pytest.raises(BeyondReason, match="deeper than 64"):
        loads(nested(MAX_NESTING + 1))


def test_what_is_as_wide_as_may_be_is_read_and_one_more_is_not() -> None:
    assert len(loads(b"[" + b"[]," * (MAX_CONTAINERS - 2) + b"[]]")) == MAX_CONTAINERS - 1
    with pytest.raises(BeyondReason, match="more than 100000"):
        loads(b"[" + b"[]," * MAX_CONTAINERS + b"[]]")


def test_brackets_within_texts_are_no_lists() -> None:
    assert loads(orjson.dumps(["[" * (MAX_CONTAINERS + 1)])) == ["[" * (MAX_CONTAINERS + 1)]


def test_what_a_backend_says_can_be_written_again() -> None:
    assert orjson.dumps(loads_of_backend(nested(MAX_NESTING_OF_BACKENDS))) == nested(MAX_NESTING_OF_BACKENDS)
    with pytest.raises(BeyondReason, match="deeper than 200"):
        loads_of_backend(nested(MAX_NESTING_OF_BACKENDS + 1))


def test_no_json_is_an_error_of_values() -> None:
    for read in (loads, loads_of_backend):
        with pytest.raises(ValueError, match="line 1"):
            read(b"nope")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{}", True), ('{"a": 1}', True), ("[]", False), ("", False), ("{", False), (None, False), ({}, False),
     (nested(MAX_NESTING).decode(), True), (nested(MAX_NESTING + 1).decode(), False),
     ('{"a": "\\ud800"}', False)],
)  # fmt: skip
def test_the_text_of_an_object_is_told(text: object, expected: bool) -> None:
    assert is_object(text) is expected
