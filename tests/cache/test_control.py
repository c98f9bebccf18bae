"""Request directives of Cache-Control (RFC 9111, 5.2.1)."""

from __future__ import annotations

import pytest

from gateway.cache.control import Control, parse_control
from gateway.errors import InvalidValue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Control()),
        ("no-cache", Control(fresh=True)),
        ("No-Store", Control(unstored=True)),
        ("only-if-cached", Control(stored=True)),
        ("max-age=60", Control(max_age_s=60)),
        ("max-age = 60", Control(max_age_s=60)),
        ('max-age="60"', Control(max_age_s=60)),
        ("max-age=0, no-store", Control(unstored=True, max_age_s=0)),
        ("max-age=5, max-age=6", Control(max_age_s=5)),
        ("max-stale=5, no-transform, unheard-of=1, ,", Control()),
    ],
)
def test_directives(text: str, expected: Control) -> None:
    assert parse_control(text) == expected


@pytest.mark.parametrize(
    "text", ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=x", "max-age=99999999999"]
)
def test_an_age_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_control(text)
    assert caught.value.param == "cache-control"
