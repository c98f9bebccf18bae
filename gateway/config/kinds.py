"""The kinds of values in routes.yaml: how text becomes an exact value, and what JSON Schema says of it.

A reader raises ValueError with the words that follow "this ..." in a report, and perhaps a suggestion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.config.model import Secret

_DURATION: Final = r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)"
_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER: Final = r"(\d{1,15}(?:\.\d{1,9})?)([kM]?)"
_SIZE: Final = r"(\d{1,9})(kB|MB|GB)"
_DECIMAL: Final = r"\d{1,12}(?:\.\d{1,6})?"
_SHARE: Final = r"\d{1,2}(\.\d{1,9})?%|100(\.0+)?%|0(\.\d{1,9})?|1(\.0+)?"
_EXACT_SHARE: Final = r"\d{1,2}(\.\d{1,4})?%|100(\.0+)?%|0(\.\d{1,6})?|1(\.0+)?"
_HASH: Final = r"sha256:([0-9a-f]{64})"
_REFERENCE: Final = r"env:[A-Za-z_][A-Za-z0-9_]*|file:/\S+"
_CLOCK: Final = r"([01]\d|2[0-3]):[0-5]\d|24:00"
_API_VERSION: Final = r"\d{4}-\d{2}-\d{2}(-preview)?|preview|v1"
_PATH: Final = r"/[!-\"$-~]*"
_HEADER_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2
# What the hop to a backend writes itself, or cannot do: a second one would break the framing or the answer.
_OWN_HEADERS: Final = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
        "accept-encoding",
    }
)  # fmt: skip
MAX_FACTOR: Final = 1000 * 1_000_000
_UNITS: Final = {"": 1, "k": 1_000, "M": 1_000_000}
_ENDINGS: Final = {
    "payg": "{payg: {price: 12, cap: 500}}: the price of 1M credits, and the most that a period may come to",
    "downgrade": "{downgrade: ROUTE}: where calls go then",
    "throttle": "{throttle: {rpm: 2, tpm: 10k}}: how slowly they go on",
}


@dataclass(frozen=True)
class Kind:
    """`read` makes the value; `json` is its JSON Schema, where numbers may be written with a unit as text."""

    read: Callable[[Any], Any]
    json: Mapping[str, Any]


def _pattern(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _duration(value: Any) -> float:
    match = re.fullmatch(_DURATION, str(value))
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not seconds:
        raise ValueError("is a duration above 0, such as 200ms, 30s or 10m")
    return seconds


def _duration_range(value: Any) -> tuple[float, float]:
    low, separator, high = str(value).partition("..")
    if not separator or _duration(low) > _duration(high):
        raise ValueError("is a range such as 200ms..5s")
    return _duration(low), _duration(high)


def _exact(value: Any) -> int:
    match = re.fullmatch(_NUMBER, str(value))
    exact = Decimal(match[1]) * _UNITS[match[2]] if match else Decimal("0.5")
    if exact != exact.to_integral_value():
        raise ValueError("is a number such as 60, 100k or 5M")
    return int(exact)


def number(low: int = 1, high: int = 10**15) -> Kind:
    """A whole number, perhaps with k or M."""

    def read(value: Any) -> int:
        n = _exact(value)
        if not low <= n <= high:
            raise ValueError(f"is a number from {low} to {high}" if high < 10**15 else f"is at least {low}")
        return n

    return Kind(read, {"type": ["integer", "string"], "pattern": f"^(?:{_NUMBER})$", "minimum": low, "maximum": high})


def _credits(value: Any) -> int:
    """Whole credits as micro-credits."""
    return int(_CREDITS.read(value)) * 1_000_000


def _size(value: Any) -> int:
    match = re.fullmatch(_SIZE, str(value))
    if match is None or not int(match[1]):
        raise ValueError("is a size such as 20MB")
    return int(match[1]) * {"kB": 10**3, "MB": 10**6, "GB": 10**9}[match[2]]


def _micro(value: Any) -> int:
    """A price or rate: an exact decimal with at most six places, in millionths."""
    if not re.fullmatch(_DECIMAL, str(value)):
        raise ValueError("is a number of at least 0 with at most six decimals")
    return int(Decimal(str(value)) * 1_000_000)


def _share(value: Any) -> float:
    text = str(value)
    if not re.fullmatch(_SHARE, text):
        raise ValueError("is a share from 0% to 100%, such as 50% or 0.5")
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def _exact_share(value: Any) -> int:
    """In millionths."""
    text = str(value)
    if not re.fullmatch(_EXACT_SHARE, text):
        raise ValueError("is a share from 0% to 100%, such as 25% or 0.25, exact to a millionth")
    return int(Decimal(text[:-1]) * 10_000 if text.endswith("%") else Decimal(text) * 1_000_000)


def _secret(value: Any) -> Secret:
    if not isinstance(value, str) or not re.fullmatch(_REFERENCE, value):
        raise ValueError("is env:NAME or file:/path; a secret itself never stands in routes.yaml")
    return Secret(value)


def _key_hash(value: Any) -> str:
    match = re.fullmatch(_HASH, str(value))
    if match is None:
        raise ValueError("is sha256: and 64 hex digits of the whole key; `moma key hash` makes it")
    return match[1]


def _url(value: Any) -> str:
    text = str(value)
    try:
        parts = urlsplit(text)
        plain = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, a bracket that is not closed
        plain = False
    if not plain or parts.username or parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise ValueError("is a http or https address without credentials and query")
    return text.rstrip("/")


def _path(value: Any) -> str:
    if not re.fullmatch(_PATH, str(value)):
        raise ValueError("is a path from the root of the backend's address, such as /health")
    return str(value)


def _api_version(value: Any) -> str:
    if not re.fullmatch(_API_VERSION, str(value)):
        raise ValueError("is a version of Azure's API such as 2024-10-21, in quotes, or preview")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("is a text of one line")
    return value


def _header(value: Any) -> str:
    if not _text(value).isascii():
        raise ValueError("is a text in ASCII, as it goes into a header")
    return str(value)


def _header_name(value: Any) -> str:
    if not re.fullmatch(_HEADER_NAME, str(value)):
        raise ValueError("is no name of a header", "letters, digits and dashes")
    name = str(value).lower()
    if name == "authorization":
        raise ValueError("is made of the backend's key", "write it under keys, as env:NAME or file:/path")
    if name in _OWN_HEADERS:
        raise ValueError("is a header that the gateway sets itself", "take it out")
    return name


def _any_case(names: Iterable[str]) -> str:
    """A pattern: JSON Schema has none that ignores case."""
    spelt = ("".join(f"[{c.upper()}{c}]" if c.isalpha() else c for c in name) for name in sorted(names))
    return f"^(?:{'|'.join(spelt)})$"


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is true or false")
    return value


def _timezone(value: Any) -> str:
    try:
        ZoneInfo(_text(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is a time zone such as Asia/Shanghai or UTC") from None
    return str(value)


def _ledger(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("sqlite:") or len(value) == len("sqlite:"):
        raise ValueError("is sqlite:PATH in this version")
    return value


def _top(value: Any) -> int:
    match = re.fullmatch(r"top_(\d{1,4})", str(value))
    if match is None:
        raise ValueError("is top_N, such as top_50")
    return int(match[1])


def _clock(value: Any) -> str:
    if not re.fullmatch(_CLOCK, str(value)):
        raise ValueError("is a time of day such as 08:30, in quotes")
    return str(value)


def _date(value: Any) -> str:
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise ValueError("is a date such as 2027-01-31") from None


def _factor(value: Any) -> int:
    """In millionths."""
    factor = _micro(value) if re.fullmatch(_DECIMAL, str(value)) else MAX_FACTOR + 1
    if factor > MAX_FACTOR:
        raise ValueError("is a factor from 0 to 1000 with at most six decimals, such as 0.8")
    return factor


def _block(value: Any) -> str:
    """The short form of `exhausted`."""
    if value in _ENDINGS:
        raise ValueError(f"does not say enough of {value}", f"write {_ENDINGS[value]}")
    if value != "block":
        raise ValueError("is block, or a mapping with some of payg, downgrade, throttle")
    return "block"


def _kept(value: Any) -> None:
    """The short form of `storage.responses`."""
    if value != "none":
        raise ValueError("is none, or a mapping with some of keep, max_bytes", "write none to keep no responses")


def one_of(*names: str) -> Kind:
    def read(value: Any) -> str:
        if value not in names:
            raise ValueError(f"is one of {', '.join(names)}")
        return str(value)

    return Kind(read, {"enum": list(names)})


_CREDITS: Final = number(1, 9_000_000_000_000)  # in millionths it must fit 64 bits
CREDITS: Final = Kind(_credits, _CREDITS.json)
DURATION: Final = Kind(_duration, _pattern(_DURATION))
DURATION_RANGE: Final = Kind(_duration_range, _pattern(rf"{_DURATION}\.\.{_DURATION}"))
SIZE: Final = Kind(_size, _pattern(_SIZE))
MICRO: Final = Kind(_micro, {"type": ["number", "string"], "minimum": 0, "pattern": f"^(?:{_DECIMAL})$"})
SHARE: Final = Kind(_share, {"type": ["number", "string"], "minimum": 0, "maximum": 1, "pattern": f"^(?:{_SHARE})$"})
EXACT_SHARE: Final = Kind(
    _exact_share, {"type": ["number", "string"], "minimum": 0, "maximum": 1, "pattern": f"^(?:{_EXACT_SHARE})$"}
)
SECRET: Final = Kind(_secret, _pattern(_REFERENCE))
KEY_HASH: Final = Kind(_key_hash, _pattern(_HASH))
URL: Final = Kind(_url, _pattern(r"https?://[^\s?#@]+"))
PATH: Final = Kind(_path, _pattern(_PATH))
API_VERSION: Final = Kind(_api_version, _pattern(_API_VERSION))
TEXT: Final = Kind(_text, {"type": "string", "minLength": 1})
HEADER: Final = Kind(_header, _pattern(r"[ -~]+"))
HEADER_NAME: Final = Kind(
    _header_name, {**_pattern(_HEADER_NAME), "not": {"pattern": _any_case({"authorization", *_OWN_HEADERS})}}
)
FLAG: Final = Kind(_flag, {"type": "boolean"})
TIMEZONE: Final = Kind(_timezone, {"type": "string", "minLength": 1})
LEDGER: Final = Kind(_ledger, _pattern(r"sqlite:.+"))
TOP: Final = Kind(_top, _pattern(r"top_\d{1,4}"))
DATE: Final = Kind(_date, _pattern(r"\d{4}-\d{2}-\d{2}"))
FACTOR: Final = Kind(
    _factor, {"type": ["number", "string"], "minimum": 0, "maximum": 1000, "pattern": f"^(?:{_DECIMAL})$"}
)
CLOCK: Final = Kind(_clock, _pattern(_CLOCK))
KEPT: Final = Kind(_kept, {"enum": ["none"]})
BLOCK: Final = Kind(_block, {"enum": ["block"]})
ANYTHING: Final = Kind(lambda value: value, {})
