"""What is to be explained: a call as a client would send it, for a tenant or for anybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from gateway.call import ENDPOINTS as OWN
from gateway.call import Request
from gateway.dialects.known import DIALECTS
from gateway.errors import InvalidValue
from gateway.explain.explainer import ANYBODY
from gateway.tenants import Caller

ENDPOINTS: Final = (*OWN, *DIALECTS)
FIELDS: Final = ("body", "tenant", "endpoint", "headers")
REQUEST_ID: Final = "explain"


def explained(wish: Mapping[str, Any], caller_of: Callable[[str], Caller]) -> tuple[Caller, Request]:
    """Of an object with FIELDS. Raises InvalidValue for values that are none, NotFound for the tenant.

    `body` is an object, or text that is read as the bytes of a client are. `caller_of` raises NotFound.
    """
    body, endpoint = wish.get("body"), wish.get("endpoint", "chat")
    if not isinstance(body, dict | str):
        raise InvalidValue("body is the JSON object that a client would send, or its text.", param="body")
    if endpoint not in ENDPOINTS:
        raise InvalidValue(f"endpoint is one of {', '.join(ENDPOINTS)}.", param="endpoint")
    tenant = wish.get("tenant")
    if tenant is not None and not isinstance(tenant, str):
        raise InvalidValue("tenant is the id of one.", param="tenant")
    caller = ANYBODY if tenant is None else caller_of(tenant)
    data = body.encode() if isinstance(body, str) else orjson.dumps(body)
    return caller, request_of(data, endpoint, _headers(wish.get("headers", {})))


def request_of(body: bytes, endpoint: str, headers: dict[str, str]) -> Request:
    """As the edge would make it: `headers` by lower-case names."""
    return Request(REQUEST_ID, endpoint, headers, body)


def _headers(given: Any) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise InvalidValue('headers is an object of texts, such as {"x-session-id": "s1"}.', param="headers")
    return {name.lower(): value for name, value in given.items()}
