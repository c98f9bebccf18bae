"""The dialects of chat that clients may speak beside OpenAI's, by endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.dialects import messages, responses
from gateway.dialects.dialect import Dialect

DIALECTS: Final[Mapping[str, Dialect]] = {"messages": messages, "responses": responses}


def id_headers(request_id: str, endpoint: str) -> dict[str, str]:
    """How an answer tells its id. `endpoint` may be any."""
    dialect = DIALECTS.get(endpoint)
    if dialect is None:
        return {"x-request-id": request_id}
    return {"x-request-id": request_id, **dialect.headers(request_id)}
