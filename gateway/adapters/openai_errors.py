"""What OpenAI-like APIs say of an error, in whatever shape, as OpenAI's error object; and errors inside a 200."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from gateway.call import JSON
from gateway.errors import AttemptFailed

# MiniMax answers 200 and says in base_resp what went wrong: as statuses.
# https://platform.minimax.io/docs/api-reference/errorcode
_BASE_RESP: Final[Mapping[int, int]] = {
    1002: 429, 1039: 429, 1041: 429, 2045: 429, 2056: 429,  # of calls, tokens, connections, growth; of the plan
    1004: 401, 2049: 401, 1008: 402,
    1026: 400, 1027: 400, 1042: 400, 2013: 400,  # what went in or came out is sensitive, odd characters, parameters
}  # fmt: skip
_FAILED: Final = 500
_CODES: Final = 1000  # a number below is the status once more


def error(body: bytes) -> JSON:
    """{"message", "type", "code", "param"}, each None where it is not said; {} when nothing can be read.

    Seen: OpenAI's `{"error": {...}}`, the same with a text, an object without the envelope, Mistral's message that is
    an object, `{"detail": [...]}` of FastAPI, and MiniMax's base_resp.
    """
    try:
        value: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(value, dict):
        return {}
    said = value.get("error", value)
    if isinstance(said, str):
        return {"message": said, "type": None, "code": None, "param": None}
    if not isinstance(said, dict):
        return {}
    base = said.get("base_resp")
    if isinstance(base, dict):
        said = {"message": base.get("status_msg"), "code": base.get("status_code")}
    return _object(said)


def in_ok(value: JSON) -> AttemptFailed | None:
    """The failure that an answer with status 200 tells of."""
    base = value.get("base_resp")
    code = base.get("status_code") if isinstance(base, dict) else None
    if not isinstance(code, int) or code == 0:
        return None
    status = _BASE_RESP.get(code, _FAILED)
    told = f"the backend answered 200 with error {code}"
    return AttemptFailed("status", told, backend_status=status, body=orjson.dumps({"base_resp": base}))


def _object(said: JSON) -> JSON:
    message, param = said.get("message", said.get("detail")), said.get("param")
    if isinstance(message, dict):
        message = message.get("detail")
    if isinstance(message, list):
        message, param = _details(message)
    code = said.get("code")
    if isinstance(code, int):
        code = None if code < _CODES else str(code)
    out = {"message": message, "type": said.get("type"), "code": code, "param": param}
    told = {name: value if isinstance(value, str) and value else None for name, value in out.items()}
    return told if any(told.values()) else {}


def _details(details: list[Any]) -> tuple[str, str | None]:
    """(what is wrong, the first field) of a list as pydantic makes it."""
    found = [detail for detail in details if isinstance(detail, dict) and isinstance(detail.get("msg"), str)]
    fields = [".".join(str(step) for step in detail.get("loc") or ()).removeprefix("body.") for detail in found]
    told = [
        f"{field}: {detail['msg']}" if field else detail["msg"] for field, detail in zip(fields, found, strict=True)
    ]
    return "; ".join(told), next((field for field in fields if field), None)
