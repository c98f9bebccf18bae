"""The dialects of backends, by their kind in routes.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.adapters import anthropic, gemini
from gateway.adapters.adapter import Adapter
from gateway.adapters.foreign import Foreign
from gateway.adapters.like_openai import LikeOpenAI
from gateway.dialects.messages_closing import Closing

ADAPTERS: Final[Mapping[str, Adapter]] = {
    "openai": LikeOpenAI(),
    "anthropic": Foreign(anthropic, "messages", Closing),
    "gemini": Foreign(gemini),
}
