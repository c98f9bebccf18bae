"""The kinds of values in routes.yaml: text to an exact value, or ValueError that says what is expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from gateway.config.model import Secret

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kM]?)")
_SIZE = re.compile(r"(\d+)(kB|MB|GB)")
_DECIMAL = re.compile(r"\d{1,12}(?:\.\d{1,6})?")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_SECRET = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/\S+")


def duration(value: Any) -> float:
    match = _DURATION.fullmatch(str(value))
    if match is None:
        raise ValueError("is a duration such as 200ms, 30s or 10m")
    return float(match[1]) * _SECONDS[match[2]]


def duration_range(value: Any) -> tuple[float, float]:
    low, separator, high = str(value).partition("..")
    if not separator or duration(low) > duration(high):
        raise ValueError("is a range such as 200ms..5s")
    return duration(low), duration(high)


def number(value: Any) -> int:
    match = _NUMBER.fullmatch(str(value))
    exact = Decimal(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]] if match else Decimal("0.5")
    if exact != exact.to_integral_value():
        raise ValueError("is a number such as 60, 100k or 5M")
    return int(exact)


def credits_uc(value: Any) -> int:
    return number(value) * 1_000_000


def size(value: Any) -> int:
    match = _SIZE.fullmatch(str(value))
    if match is None:
        raise ValueError("is a size such as 20MB")
    return int(match[1]) * {"kB": 10**3, "MB": 10**6, "GB": 10**9}[match[2]]


def micro(value: Any) -> int:
    """A price or rate: an exact decimal with at most six places, in millionths."""
    if not _DECIMAL.fullmatch(str(value)):
        raise ValueError("is a number of at least 0 with at most six decimals")
    return int(Decimal(str(value)) * 1_000_000)


def share(value: Any) -> float:
    text = str(value)
    if not re.fullmatch(r"\d{1,3}(\.\d+)?%|0(\.\d+)?|1(\.0+)?", text):
        raise ValueError("is a share such as 50% or 0.5")
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def secret(value: Any) -> Secret:
    if not isinstance(value, str) or not _SECRET.fullmatch(value):
        raise ValueError("is env:NAME or file:/path; a secret itself never stands in routes.yaml")
    return Secret(value)


def key_hash(value: Any) -> str:
    match = _HASH.fullmatch(str(value))
    if match is None:
        raise ValueError("is sha256: and 64 hex digits of the whole key; `moma key hash` makes it")
    return match[1]


def url(value: Any) -> str:
    parts = urlsplit(str(value))
    plain = parts.scheme in ("http", "https") and parts.hostname
    if not plain or parts.username or parts.query or parts.fragment:
        raise ValueError("is a http or https address without credentials and query")
    return str(value).rstrip("/")


def text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("is a text")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is true or false")
    return value


def texts(value: Any) -> tuple[str, ...]:
    return listed(text)(value)


def listed(kind: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError("is a list")
        return tuple(kind(item) for item in value)

    return read


def one_of(*names: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in names:
            raise ValueError(f"is one of {', '.join(names)}")
        return str(value)

    return read


def anything(value: Any) -> Any:
    return value
