"""The dialects of backends, by their kind in routes.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.adapters import anthropic
from gateway.adapters.adapter import Adapter
from gateway.adapters.azure import Azure
from gateway.adapters.foreign import Foreign, Own
from gateway.adapters.gemini_kind import Gemini
from gateway.adapters.like_openai import LikeOpenAI
from gateway.config.model import Backend
from gateway.dialects.messages_closing import Closing
from gateway.dialects.messages_own import own

_ANTHROPIC: Final = Foreign(anthropic, Own("messages", own, Closing))
_GEMINI: Final = Gemini()
ADAPTERS: Final[Mapping[str, Callable[[Backend], Adapter]]] = {
    "openai": lambda backend: LikeOpenAI(backend.quirks.like),
    "azure": lambda backend: Azure(backend.quirks.like, backend.api_version),
    "anthropic": lambda backend: _ANTHROPIC,
    "gemini": lambda backend: _GEMINI,
}


def adapter_of(backend: Backend) -> Adapter:
    """Equal for backends that are spoken to alike."""
    return ADAPTERS[backend.kind](backend)


def takes_all(adapter: Adapter) -> bool:
    """It refuses nothing that a client of OpenAI's says."""
    return isinstance(adapter, LikeOpenAI) and adapter.like is None
