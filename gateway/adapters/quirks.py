"""In what the OpenAI-like APIs of known providers differ from OpenAI's: one entry each, with the pages that say so.

What an entry does not name is as OpenAI has it, or passes through. `lacks` are fields that a provider refuses or pays
no heed to: a call that means something by one is not for it (`beyond`), else the field is left out. `idle` are fields
that change no answer and that a strict provider refuses: they are left out whatever they hold.
How usage is told in other places is in `usage.py`: no name of those means two things.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.config.model import Quirks

_MANY: Final = 128
_NO_LIST: Final = frozenset({"allowed_tools"})
_ONLY_AUTO: Final = frozenset({"none", "required", "function"}) | _NO_LIST
# Of OpenAI's own platform; other servers take them for nothing.
_PLATFORM: Final = frozenset({"audio", "modalities", "prediction", "web_search_options", "store", "verbosity"})


@dataclass(frozen=True)
class Provider:
    """`max_tokens`: its one name for the output limit; None: it takes the client's.

    `no_formats`, `no_choices`: types of `response_format` and `tool_choice` that it lacks. `thinking`: how it is told
    to think (`fitting.py` has the ways). `keeps`: what it understands of the middle form's additions to messages, tools
    and parts. `developer`: it knows that role, which is `system` elsewhere. `short_ids`: the only ids of tool calls
    that it takes are those of its own making, of nine letters and digits.
    """

    max_tokens: str | None = None
    include_usage: bool = True
    lacks: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    renames: Mapping[str, str] = field(default_factory=dict)
    choices: int = _MANY
    stops: int = _MANY
    no_formats: frozenset[str] = frozenset()
    no_choices: frozenset[str] = _NO_LIST
    thinking: str = "effort"
    keeps: frozenset[str] = frozenset({"reasoning_content"})
    developer: bool = False
    short_ids: bool = False


UNKNOWN: Final = Provider()
TABLE: Final[Mapping[str, Provider]] = {
    # https://api-docs.deepseek.com/api/create-chat-completion, https://api-docs.deepseek.com/guides/thinking_mode
    # Efforts of other names it maps itself. Errors are OpenAI's; 402 is an account without money.
    "deepseek": Provider(
        max_tokens="max_tokens",
        lacks=_PLATFORM | {"logit_bias", "seed", "top_k", "parallel_tool_calls", "service_tier"},
        choices=1,
        no_formats=frozenset({"json_schema"}),
        thinking="switch",
    ),
    # https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
    # Its errors have a number as code and the kind as type: exceed_context_size_error.
    "llamacpp": Provider(lacks=_PLATFORM | {"service_tier"}, thinking="template"),
    # https://platform.minimax.io/docs/api-reference/text-openai-api: penalties and logit_bias are ignored, n is 1.
    # Thoughts of M2 stand in the content, in <think>. Errors come with status 200 in base_resp, see openai_errors.py.
    "minimax": Provider(
        max_tokens="max_completion_tokens",
        lacks=_PLATFORM
        | {"presence_penalty", "frequency_penalty", "logit_bias", "seed", "top_k", "logprobs", "service_tier"},
        choices=1,
        no_choices=_ONLY_AUTO,
        thinking="adaptive",
    ),
    # https://docs.mistral.ai/api/endpoint/chat: strict, 422 for each field that is not on the page. No stream_options:
    # usage comes with the last chunk, beside its choices.
    "mistral": Provider(
        max_tokens="max_tokens",
        include_usage=False,
        lacks=(_PLATFORM - {"prediction"}) | {"logit_bias"},
        idle=frozenset({"user", "safety_identifier", "prompt_cache_retention"}),
        renames={"seed": "random_seed"},
        keeps=frozenset(),
        short_ids=True,  # https://mistralai.github.io/mistral-common/usage/tools/
    ),
    # https://platform.kimi.ai/docs/api/chat: usage tells of the cache in cached_tokens, beside prompt_tokens.
    "moonshot": Provider(
        lacks=_PLATFORM | {"logit_bias", "logprobs", "top_logprobs", "seed", "top_k", "service_tier"},
        no_choices=_NO_LIST | {"required"},
        thinking="switch",
    ),
    # https://docs.ollama.com/api/openai-compatibility: only max_tokens; thoughts are in `reasoning`.
    "ollama": Provider(
        max_tokens="max_tokens",
        lacks=_PLATFORM | {"logit_bias", "top_k", "parallel_tool_calls", "service_tier"},
        choices=1,
        no_choices=_ONLY_AUTO,
    ),
    # https://platform.openai.com/docs/api-reference/chat/create: unknown fields are refused, in messages too.
    "openai": Provider(
        max_tokens="max_completion_tokens",
        lacks=frozenset({"top_k"}),
        no_choices=frozenset(),
        keeps=frozenset(),
        developer=True,
    ),
    # https://www.alibabacloud.com/help/en/model-studio/qwen-api-via-openai-chat-completions (Bailian, Model Studio).
    # max_tokens is for the reply: thoughts have a budget of their own. cache_control marks an explicit cache, whose
    # writes usage tells in cache_creation_input_tokens.
    "qwen": Provider(
        max_tokens="max_tokens",
        lacks=frozenset({
            "logit_bias", "frequency_penalty", "prediction", "web_search_options", "store", "verbosity", "service_tier",
        }),
        choices=4,
        no_choices=_NO_LIST | {"required"},
        thinking="budget",
        keeps=frozenset({"reasoning_content", "cache_control"}),
    ),
    # https://docs.sglang.io/basic_usage/openai_api_completions.html: usage has reasoning_tokens beside the rest.
    "sglang": Provider(lacks=_PLATFORM | {"service_tier"}, thinking="template"),
    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html: thoughts are in `reasoning`, or in
    # reasoning_content before version 0.12.
    "vllm": Provider(lacks=_PLATFORM, thinking="template"),
    # https://www.volcengine.com/docs/82379/1494384 (Ark): max_tokens leaves thoughts out, max_completion_tokens does
    # not; the two exclude each other. A hold must cover both, so the second is what it is told.
    "volcano": Provider(
        max_tokens="max_completion_tokens",
        lacks=(_PLATFORM - {"store"}) | {"seed", "top_k"},
        choices=1,
        thinking="switch",
    ),
    # https://docs.bigmodel.cn/api-reference, https://docs.z.ai/api-reference/api-code (codes of errors).
    # An answer may end with `sensitive`, `model_context_window_exceeded` or `network_error`.
    "zhipu": Provider(
        max_tokens="max_tokens",
        lacks=_PLATFORM
        | {
            "logit_bias", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "top_k",
            "parallel_tool_calls", "service_tier",
        },
        choices=1,
        stops=1,
        no_formats=frozenset({"json_schema"}),
        no_choices=_ONLY_AUTO,
        thinking="switch",
    ),
}  # fmt: skip


def provider(quirks: Quirks) -> Provider:
    return UNKNOWN if quirks.like is None else TABLE[quirks.like]


def takes_usage(quirks: Quirks) -> bool:
    """Whether `stream_options.include_usage` may be sent."""
    return provider(quirks).include_usage if quirks.include_usage is None else quirks.include_usage
