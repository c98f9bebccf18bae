"""The dialects of backends, by their kind in routes.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.adapters import gemini
from gateway.adapters.adapter import Adapter
from gateway.adapters.foreign import Foreign
from gateway.adapters.like_openai import LikeOpenAI

ADAPTERS: Final[Mapping[str, Adapter]] = {"openai": LikeOpenAI(), "gemini": Foreign(gemini)}
