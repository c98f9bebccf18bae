"""A chat body of the middle form made fit for an OpenAI-like provider, and what of it such a one cannot express."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.adapters.plain import MARK, plain_messages, without
from gateway.adapters.quirks import Provider
from gateway.call import JSON
from gateway.parse import OUTPUT_LIMITS

_USUAL: Final[Mapping[str, tuple[Any, ...]]] = {  # what a call without the field gets too
    "parallel_tool_calls": (True,), "modalities": (["text"],), "verbosity": ("medium",), "presence_penalty": (0,),
    "frequency_penalty": (0,), "top_logprobs": (0,), "top_k": (0, -1), "service_tier": ("auto", "default"),
}  # fmt: skip
ONE_AT_A_TIME: Final = "parallel_tool_calls"
_WHO: Final = frozenset({"user", "safety_identifier"})
MAX_WHO_CHARS: Final = 64  # https://platform.openai.com/docs/api-reference/chat/create
_OUR_THINKING: Final = frozenset({"type", "budget_tokens", "display"})
# Levels and budgets stand for each other where a provider knows only one of them.
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 32768}
_LEVELS: Final = ((2048, "low"), (8192, "medium"))  # up to so many tokens; above: high


def beyond(body: JSON, to: Provider, *, translated: bool = False) -> str | None:
    """The first field that means something and that the provider has no place for. Of an answer that is translated the
    gateway keeps but the first call, if the client wants them one at a time: see one_call.py."""
    for name in to.lacks:
        if name in body and not _neutral(name, body[name]) and not (translated and name == ONE_AT_A_TIME):
            return name
    if (body.get("n") or 1) > to.choices:
        return "n"
    stop = body.get("stop")
    if isinstance(stop, list) and len(stop) > to.stops:
        return "stop"
    if _kind(body.get("response_format")) in to.no_formats:
        return "response_format"
    if body.get("tools") and _kind(body.get("tool_choice")) in to.no_choices:
        return "tool_choice"
    return None


def fitted(body: JSON, to: Provider, max_tokens_field: str | None = None) -> JSON:
    """What is left of the body for this provider, in its words. The body stays as it is."""
    out = {
        to.renames.get(name, name): value
        for name, value in body.items()
        if _sent(name, to) and not _is_long_name(name, value)
    }
    limit_name = max_tokens_field or to.max_tokens
    limits = [body[name] for name in OUTPUT_LIMITS if body.get(name) is not None]
    if limit_name and limits:
        out = {name: value for name, value in out.items() if name not in OUTPUT_LIMITS}
        out[limit_name] = min(limits)
    if body.get("thinking") or body.get("reasoning_effort"):
        _think(out, body, to)
    if "messages" in body:
        out["messages"] = list(plain_messages(body["messages"], to))
    if isinstance(body.get("tools"), list) and MARK not in to.keeps:
        out["tools"] = [without(tool, frozenset({MARK})) for tool in body["tools"]]
    return out


def _sent(name: str, to: Provider) -> bool:
    """Of what it lacks only the harmless is left here."""
    return name not in to.lacks and name not in to.idle and name != "thinking"


def _is_long_name(name: str, value: Any) -> bool:
    """Of who asks: agents name a session by more than OpenAI takes."""
    return name in _WHO and isinstance(value, str) and len(value) > MAX_WHO_CHARS


def _neutral(name: str, value: Any) -> bool:
    """False says nothing, but that tools be called one at a time."""
    if value is False:
        return name != "parallel_tool_calls"
    if value is None or (isinstance(value, str | list | dict) and not value):
        return True
    return value in _USUAL.get(name, ())


def _kind(wanted: Any) -> str:
    """Of a response_format or tool_choice: each is a word, or an object with a type."""
    return str(wanted.get("type") if isinstance(wanted, dict) else wanted)


def _think(out: JSON, body: JSON, to: Provider) -> None:
    """Tells the provider whether to think and how much. `adaptive` is what models do when nothing is said."""
    wanted, effort = body.get("thinking"), body.get("reasoning_effort")
    if not wanted:
        wanted = {"type": "disabled" if effort == "none" else "adaptive"}
    if isinstance(wanted, dict):
        _WAYS[to.thinking](out, wanted, effort)
    else:
        out["thinking"] = wanted  # for the provider to say what is wrong with it


def _by_effort(out: JSON, wanted: JSON, effort: str | None) -> None:
    """`reasoning_effort`, and nothing else."""
    if wanted.get("type") == "disabled":
        out["reasoning_effort"] = "none"
    elif not effort and (budget := _budget(wanted)):
        out["reasoning_effort"] = _level(budget)


def _by_switch(out: JSON, wanted: JSON, effort: str | None) -> None:
    """`thinking` on or off, with what else it may hold there, and `reasoning_effort` beside it."""
    kind = wanted.get("type")
    own = {name: value for name, value in wanted.items() if name not in _OUR_THINKING}
    if kind == "disabled":
        out.pop("reasoning_effort", None)
    elif kind == "enabled" and not effort and (budget := _budget(wanted)):
        out["reasoning_effort"] = _level(budget)
    if kind != "adaptive":
        out["thinking"] = {"type": kind, **own}


def _by_adaptive(out: JSON, wanted: JSON, effort: str | None) -> None:
    """`thinking` is adaptive or off."""
    if wanted.get("type") == "disabled":
        out.pop("reasoning_effort", None)
        out["thinking"] = {"type": "disabled"}
    else:
        out["thinking"] = {"type": "adaptive"}


def _by_budget(out: JSON, wanted: JSON, effort: str | None) -> None:
    """`enable_thinking` and `thinking_budget`."""
    kind, budget = wanted.get("type"), _budget(wanted) or _BUDGETS.get(str(effort))
    out.pop("reasoning_effort", None)
    if kind == "disabled":
        out["enable_thinking"] = False
    elif kind == "enabled" or budget is not None:
        out |= {"enable_thinking": True} if budget is None else {"enable_thinking": True, "thinking_budget": budget}


def _by_template(out: JSON, wanted: JSON, effort: str | None) -> None:
    """`enable_thinking` of the chat template, and `reasoning_effort` for templates that know levels."""
    kind = wanted.get("type")
    given = out.get("chat_template_kwargs") or {}
    if kind in ("enabled", "disabled") and isinstance(given, dict):
        out["chat_template_kwargs"] = {"enable_thinking": kind == "enabled", **given}
    if kind == "enabled" and not effort and (budget := _budget(wanted)):
        out["reasoning_effort"] = _level(budget)


def _budget(wanted: JSON) -> int | None:
    budget = wanted.get("budget_tokens")
    return budget if isinstance(budget, int) else None


def _level(budget: int) -> str:
    return next((level for most, level in _LEVELS if budget <= most), "high")


_WAYS: Final[Mapping[str, Callable[[JSON, JSON, str | None], None]]] = {
    "effort": _by_effort,
    "switch": _by_switch,
    "adaptive": _by_adaptive,
    "budget": _by_budget,
    "template": _by_template,
}
