"""Every key of routes.test.yaml version 1: what reads it, and the JSON Schema for editors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from gateway.config import kinds
from gateway.config.kinds import Kind, number, one_of
from gateway.config.schema import TEXTS, Keys, Many, Names, Node
from gateway.errors import GatewayError
from gateway.explain.asked import ENDPOINTS
from gateway.explain.detail import SAYINGS

POLICIES: Final = ("balanced", "cheapest", "fastest", "best", "weighted", "ordered", "least_busy")


def _codes(cls: type[GatewayError] = GatewayError) -> set[str]:
    """The codes of all errors that a client may hear."""
    return {cls.code}.union(*(_codes(child) for child in cls.__subclasses__()))


CODES: Final = tuple(sorted(_codes()))


def _one_or_more(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("is a name, or a list of those that are right")
    return tuple(names)


def _target(value: Any) -> tuple[str, str]:
    model, at, backend = str(value).rpartition("@")
    if not (model and at and backend):
        raise ValueError("is MODEL@BACKEND")
    return model, backend


def _refusal(value: Any) -> str:
    text = str(value)
    if text not in CODES and not (text.isascii() and text.isdigit() and 400 <= int(text) <= 599):
        near = difflib.get_close_matches(text, CODES, n=1)
        meant = f"did you mean {near[0]}?" if near else "such as model_not_found or insufficient_quota"
        raise ValueError("is a status such as 404, or the code of an error", meant)
    return text


def _credits(value: Any) -> int:
    """Micro-credits."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([kM]?)", str(value))
    if match is None:
        raise ValueError("is a number of credits such as 60, 1.5k or 5M")
    return int(Decimal(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]] * 1_000_000)


def _text_or_object(value: Any) -> Any:
    if not isinstance(value, dict) and not (isinstance(value, str) and value):
        raise ValueError("is what a client would send, or the path of a JSON file")
    return value


_TEXT_JSON: Final = {"type": "string", "minLength": 1}
ONE_OR_MORE: Final = Kind(_one_or_more, {"anyOf": [_TEXT_JSON, {"type": "array", "items": _TEXT_JSON, "minItems": 1}]})
TARGET: Final = Kind(_target, {"type": "string", "pattern": "^.+@[^@]+$"})
REFUSAL: Final = Kind(_refusal, {"anyOf": [{"enum": list(CODES)}, {"type": "integer", "minimum": 400, "maximum": 599}]})
CREDITS: Final = Kind(_credits, {"type": ["number", "string"], "minimum": 0})
BODY: Final = Kind(_text_or_object, {"type": ["object", "string"]})

EXPECT: Final[Mapping[str, Node]] = {
    "model": ONE_OR_MORE,
    "backend": ONE_OR_MORE,
    "route": kinds.TEXT,
    "policy": one_of(*POLICIES),
    "order": Many(TARGET),
    "fallback": Many(TARGET),
    "removed": Names(one_of(*SAYINGS), "target", TARGET),
    "refusal": REFUSAL,
    "max_reserve": CREDITS,
    "max_cost": kinds.MICRO,
}
CASE: Final = Keys(
    {
        "body": BODY,
        "endpoint": one_of(*ENDPOINTS),
        "tenant": kinds.TEXT,
        "plan": kinds.TEXT,
        "headers": Names(kinds.HEADER, "header", kinds.HEADER_NAME),
        "when": Keys({"down": TEXTS, "full": TEXTS}),
        "expect": Keys(EXPECT),
    },
    required=("body", "expect"),
)
SCHEMA: Final = Keys(
    {"version": number(1, 1), "include": Many(kinds.TEXT), "cases": Names(CASE, "case")}, required=("version", "cases")
)
TYPED: Final = ("cases", "*", "body")  # where numbers are those of JSON
