"""Azure OpenAI: OpenAI's bodies and answers, under other paths and with the key in another header.

A `base_url` that ends with `/openai/v1` needs no version; one that ends with `/openai` has a path for each deployment,
and wants `api_version`. https://learn.microsoft.com/azure/ai-foundry/openai/reference
A stream may begin with a chunk that has no choices, for what the filter found in the prompt, and answers have
`content_filter_results` beside their choices: chat clients get them as they are, other dialects have no place for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from gateway.adapters.like_openai import LikeOpenAI, path_of
from gateway.call import Call, Pieces
from gateway.config.model import Quirks

OPENAI: Final = "openai"


@dataclass(frozen=True)
class Azure(LikeOpenAI):
    api_version: str | None = None

    def url(self, base_url: str, call: Call, as_name: str) -> str:
        """`as_name` is the name of a deployment."""
        path = path_of(call)
        if self.api_version is None:
            return base_url + path
        return f"{base_url}/deployments/{quote(as_name, safe='')}{path}?api-version={self.api_version}"

    def headers(self, call: Call, key: str | None) -> dict[str, str]:
        return {} if key is None else {"api-key": key}

    def body(self, call: Call, as_name: str, max_tokens: int | None, quirks: Quirks) -> bytes | Pieces:
        """A chat client says what its deployment takes; another dialect's call is put in OpenAI's words of today."""
        if call.dialect and quirks.like is None:
            quirks = Quirks(quirks.include_usage, quirks.max_tokens_field, OPENAI)
        return super().body(call, as_name, max_tokens, quirks)
