"""A chat body as a GenerateContentRequest. What `beyond` lets through is taken as it is."""

from __future__ import annotations

from typing import Final

from gateway.adapters.gemini_contents import contents
from gateway.call import JSON

_SAME: Final = {
    "temperature": "temperature", "top_p": "topP", "top_k": "topK", "seed": "seed", "n": "candidateCount",
    "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty",
}  # fmt: skip
# Gemini 1 and 2 count thinking in tokens, later models know levels. The numbers are those of Google's own endpoint in
# OpenAI's form: https://ai.google.dev/gemini-api/docs/openai#thinking
_COUNTED: Final = ("gemini-1", "gemini-2")
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
EFFORTS: Final = frozenset({"none", *_BUDGETS})
_AS_IT_LIKES: Final = -1
# The most that they may think, https://ai.google.dev/gemini-api/docs/thinking: a larger budget is refused.
_MOST: Final = (("gemini-2.5-pro", 32768), ("gemini-2.5-flash", 24576))


def request(body: JSON, as_name: str, max_tokens: int, *, stream: bool) -> JSON:
    """Whether it streams, the path says."""
    newer = as_name.startswith("gemini-") and not as_name.startswith(_COUNTED)
    system, said = contents(body["messages"], stand_in=newer)
    out: JSON = {"contents": said, "generationConfig": _generation(body, as_name, max_tokens)}
    if system:
        out["systemInstruction"] = {"parts": system}
    if body.get("tools"):
        out["tools"] = [{"functionDeclarations": [_declaration(tool["function"]) for tool in body["tools"]]}]
        out["toolConfig"] = {"functionCallingConfig": _calling(body)}
    return out


def _declaration(function: JSON) -> JSON:
    out = {"name": function["name"], "description": function.get("description")}
    out["parametersJsonSchema"] = function.get("parameters")
    return {name: value for name, value in out.items() if value}


def _calling(body: JSON) -> JSON:
    """https://ai.google.dev/gemini-api/docs/function-calling: ANY and VALIDATED keep to the schemas, as `strict` asks;
    both can be kept to some of the functions."""
    choice = body.get("tool_choice") or "auto"
    strict = any(tool["function"].get("strict") for tool in body["tools"])
    if isinstance(choice, str):
        return {"mode": {"none": "NONE", "required": "ANY", "auto": "VALIDATED" if strict else "AUTO"}[choice]}
    if choice["type"] == "function":
        return {"mode": "ANY", "allowedFunctionNames": [choice["function"]["name"]]}
    allowed = choice["allowed_tools"]
    names = [tool["function"]["name"] for tool in allowed["tools"]]
    return {"mode": "ANY" if allowed.get("mode") == "required" else "VALIDATED", "allowedFunctionNames": names}


def _generation(body: JSON, as_name: str, max_tokens: int) -> JSON:
    out: JSON = {theirs: body[ours] for ours, theirs in _SAME.items() if body.get(ours) is not None}
    out["maxOutputTokens"] = max_tokens  # thoughts are among them
    if stop := body.get("stop"):
        out["stopSequences"] = [stop] if isinstance(stop, str) else stop
    if body.get("logprobs"):
        out["responseLogprobs"] = True
        out["logprobs"] = body.get("top_logprobs") or 0
    out |= _format(body.get("response_format"))
    if thinking := _thinking(body, as_name, max_tokens):
        out["thinkingConfig"] = thinking
    if resolution := _resolution(body["messages"]):
        out["mediaResolution"] = resolution
    return out


def _format(wanted: JSON | None) -> JSON:
    if not wanted or wanted["type"] == "text":
        return {}
    out: JSON = {"responseMimeType": "application/json"}
    if wanted["type"] == "json_schema":
        given = wanted["json_schema"]
        about = {"description": given["description"]} if given.get("description") else {}
        out["responseJsonSchema"] = {**about, **given["schema"]}
    return out


def _thinking(body: JSON, as_name: str, max_tokens: int) -> JSON:
    """A budget or a level, never both: the API refuses that."""
    wanted, effort = body.get("thinking") or {}, body.get("reasoning_effort")
    kind = wanted.get("type")
    if not kind and not effort:
        return {}
    if kind == "disabled" or (not kind and effort == "none"):
        return {"thinkingBudget": 0}
    out: JSON = {"includeThoughts": wanted.get("display") != "omitted"}
    counted = as_name.startswith(_COUNTED)
    if kind == "enabled":
        out["thinkingBudget"] = _within(wanted["budget_tokens"], as_name, max_tokens)
    elif effort in _BUDGETS:
        out |= {"thinkingBudget": _BUDGETS[effort]} if counted else {"thinkingLevel": str(effort).upper()}
    elif counted:
        out["thinkingBudget"] = _AS_IT_LIKES
    return out


def _within(budget: int, as_name: str, max_tokens: int) -> int:
    """It leaves something of the output limit, which may be lower than the client's, for the answer."""
    most = next((most for name, most in _MOST if as_name.startswith(name)), budget)
    return min(budget, most, max(1, max_tokens - 1))


def _resolution(messages: list[JSON]) -> str | None:
    """`detail` of images: it is one setting for all of a call."""
    said = [message.get("content") for message in messages]
    found = [part for content in said if isinstance(content, list) for part in content]
    details = [part["image_url"].get("detail") for part in found if part["type"] == "image_url"]
    if "high" in details:
        return "MEDIA_RESOLUTION_HIGH"
    return "MEDIA_RESOLUTION_LOW" if details and all(detail == "low" for detail in details) else None
