"""Azure OpenAI: OpenAI's bodies and answers, under other paths and with the key in another header. Pure.

A `base_url` that ends with `/openai/v1` needs no version; one that ends with `/openai` has a path for each deployment,
and wants `api_version`. https://learn.microsoft.com/azure/ai-foundry/openai/reference
A stream may begin with a chunk that has no choices, for what the filter found in the prompt, and answers have
`content_filter_results` beside their choices: chat clients get them as they are, other dialects have no place for them.
"""

from __future__ import annotations

from urllib.parse import quote

from gateway.adapters import openai_like
from gateway.adapters.openai import PATHS
from gateway.adapters.openai_errors import error
from gateway.adapters.openai_like import Decoder, answer
from gateway.call import JSON
from gateway.config.model import Quirks

__all__ = ["Decoder", "answer", "beyond", "credentials", "error", "path", "request"]


def path(as_name: str, stream: bool, *, endpoint: str = "chat", api_version: str | None = None) -> str:
    """`as_name` is the name of a deployment."""
    if api_version is None:
        return PATHS[endpoint]
    return f"/deployments/{quote(as_name, safe='')}{PATHS[endpoint]}?api-version={api_version}"


def credentials(key: str | None) -> dict[str, str]:
    return {} if key is None else {"api-key": key}


def beyond(body: JSON, quirks: Quirks) -> str | None:
    return openai_like.beyond(body, _openai(quirks))


def request(body: JSON, as_name: str, max_tokens: int, quirks: Quirks, *, stream: bool) -> JSON:
    return openai_like.request(body, as_name, max_tokens, _openai(quirks), stream=stream)


def _openai(quirks: Quirks) -> Quirks:
    return Quirks(quirks.include_usage, quirks.max_tokens_field, quirks.like or "openai")
