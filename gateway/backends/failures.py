"""A backend's failure: what it means for the next attempt, and what of it a client may hear."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from gateway.adapters.openai_errors import error
from gateway.backends.client import Exchange
from gateway.errors import (
    AttemptFailed,
    BackendFailed,
    BackendOverloaded,
    BackendRefusal,
    DeadlineExceeded,
    GatewayError,
    NoBackend,
    ShuttingDown,
)

PASSED_ON: Final = frozenset({400, 409, 413, 422})
NOT_TAKEN: Final = frozenset({401, 402, 403, 404})
OVERLOADED: Final = 429
UNREACHABLE_RETRY_S: Final = 2.0
SHUTDOWN_RETRY_S: Final = 1.0
MAX_MESSAGE_CHARS: Final = 2000

_WAIT: Final = re.compile(rb'"retry_after_s":([0-9]{1,9}(?:\.[0-9]{1,9})?)[,}]')
_FIELD: Final = re.compile(r"[\w.\[\]$-]{1,64}")
# Addresses and ids are the operator's affair: URLs, IPv4, names with a port or of a private zone, UUIDs, ids with a
# digit in them.
_PRIVATE: Final = re.compile(
    r"""https?://\S+
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b
    | \b[\w-]+(?:\.[\w-]+)*:\d{2,5}\b
    | \b(?:[\w-]+\.)+(?:internal|local|lan|svc|cluster|intranet|corp|localdomain)\b(?:\.[\w-]+)*
    | \blocalhost\b
    | \b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b
    | \b(?:req|chatcmpl|cmpl|embd|resp|org|proj)[-_](?=[\w-]*\d)[\w-]+""",
    re.IGNORECASE | re.VERBOSE,
)
# Each says in its own words that the input is too long: OpenAI, vLLM, Mistral, llama.cpp; Moonshot, MiniMax, Volcano,
# Qwen, Zhipu, Gemini, Anthropic.
_TOO_LONG: Final = re.compile(
    rb"""context_length|maximum[ ]context[ ]length|context[ ]size|exceed_context
    | exceeded[ ]model[ ]token[ ]limit | context[ ]window[ ]exceeds | exceed[ ]max[ ]message[ ]tokens
    | range[ ]of[ ]input[ ]length | \"1261\" | input[ ]token[ ]count | prompt[ ]is[ ]too[ ]long
    | exceed[ ]context[ ]limit""",
    re.IGNORECASE | re.VERBOSE,
)


def refused(exchange: Exchange, body: bytes, wall_ms: int) -> AttemptFailed:
    wait_s = _retry_after_s(exchange.headers, wall_ms)
    return AttemptFailed(
        "status",
        f"the backend answered {exchange.status}",
        backend_status=exchange.status,
        body=body,
        retry_after_s=_told_s(body) if wait_s is None else wait_s,
    )


def hopeless(failure: AttemptFailed) -> bool:
    """A credential, a model or an address that the backend does not take now, it will not take in a second either."""
    return failure.backend_status in NOT_TAKEN or 300 <= failure.backend_status < 400


def too_long(failure: AttemptFailed) -> bool:
    """The backend found that the input does not fit its context."""
    return _TOO_LONG.search(failure.answer_body) is not None


def public(failure: AttemptFailed) -> GatewayError:
    """The table of DESIGN.md section 5: what the last failure looks like from outside."""
    if failure.backend_status == OVERLOADED:
        return BackendOverloaded(
            "Every backend for this model is overloaded.", retry_after_s=failure.retry_after_s or 1.0
        )
    if failure.kind in ("timeout", "deadline"):
        return DeadlineExceeded("The backend did not answer in time.")
    if failure.kind == "shutdown":
        return ShuttingDown("The gateway is shutting down.", retry_after_s=SHUTDOWN_RETRY_S)
    if failure.kind == "connect":
        return NoBackend("No backend could be reached.", retry_after_s=UNREACHABLE_RETRY_S)
    return BackendFailed("The backend failed to answer the call.")


def passed_on(failure: AttemptFailed) -> GatewayError:
    """The backend's own words to the client, without its hosts and ids."""
    said = error(failure.answer_body)
    message = said.get("message")
    text = _PRIVATE.sub("[removed]", message) if isinstance(message, str) else "The backend refused the call."
    return BackendRefusal(
        text[:MAX_MESSAGE_CHARS],
        status=failure.backend_status,
        type_=_field(said.get("type")) or "invalid_request_error",
        code=_field(said.get("code")) or "invalid_value",
        param=_field(said.get("param")),
    )


def _field(value: Any) -> str | None:
    """A name such as `messages[0].content`; anything else may be a host or an id."""
    named = isinstance(value, str) and _FIELD.fullmatch(value) and not _PRIVATE.search(value)
    return value if named else None


def _retry_after_s(headers: Mapping[str, str], wall_ms: int) -> float | None:
    """retry-after-ms, or retry-after as seconds or as a date; a date is held against the backend's own clock."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "")
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
            return float(text) * unit
    until = _date(headers.get("retry-after"))
    if until is None:
        return None
    now = _date(headers.get("date")) or datetime.fromtimestamp(wall_ms / 1000, UTC)
    return max(0.0, (until - now).total_seconds())


def _told_s(body: bytes) -> float | None:
    """In the error itself, by adapters of providers that have no header for it."""
    told = _WAIT.search(body)
    return float(told[1]) if told else None


def _date(text: str | None) -> datetime | None:
    try:
        when = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
