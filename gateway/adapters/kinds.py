"""The dialects of backends, by their kind in routes.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.adapters import anthropic, gemini
from gateway.adapters.adapter import Adapter
from gateway.adapters.foreign import Foreign
from gateway.adapters.like_openai import LikeOpenAI
from gateway.dialects.messages_closing import Closing
from gateway.dialects.messages_own import own

ADAPTERS: Final[Mapping[str, Adapter]] = {
    "openai": LikeOpenAI(),
    "anthropic": Foreign(anthropic, "messages", own, Closing),
    "gemini": Foreign(gemini),
}
