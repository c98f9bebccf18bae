"""The dialects of chat that clients may speak beside OpenAI's, by endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.dialects import messages, responses
from gateway.dialects.dialect import Dialect

DIALECTS: Final[Mapping[str, Dialect]] = {"messages": messages, "responses": responses}
