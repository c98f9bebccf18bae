"""What a client is told of an error, in its own dialect."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from gateway.call import Answer
from gateway.dialects.known import DIALECTS, id_headers
from gateway.errors import GatewayError, encoded


def error_answer(
    error: GatewayError, request_id: str, limits: Mapping[str, str] | None = None, endpoint: str = ""
) -> Answer:
    """`endpoint` is what was called; one that is not known is answered as OpenAI's are."""
    headers = {"content-type": "application/json", **id_headers(request_id, endpoint)}
    headers |= {**(limits or {}), **error.headers()}
    dialect = DIALECTS.get(endpoint)
    if dialect is None:
        return Answer(error.status, headers, encoded(error))
    body = dialect.error({**error.body()["error"], "request_id": request_id}, error.status)
    return Answer(error.status, headers, orjson.dumps(body))


def error_event(error: GatewayError, request_id: str, endpoint: str = "") -> bytes:
    """How a stream ends that breaks after the first byte."""
    dialect = DIALECTS.get(endpoint)
    if dialect is None:
        return b"data: " + encoded(error) + b"\n\n"
    return dialect.error_event({**error.body()["error"], "request_id": request_id}, error.status)
