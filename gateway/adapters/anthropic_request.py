"""A chat body as a request of Anthropic's Messages API. It takes what `beyond` lets pass, and never raises on that.

Source: https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from gateway.adapters.anthropic_models import hears_late_system
from gateway.adapters.anthropic_neutral import is_neutral
from gateway.adapters.anthropic_thinking import thinking_fields, thoughts
from gateway.call import JSON

SYSTEM_ROLES: Final = frozenset({"system", "developer"})
SERVICE_TIERS: Final = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
DATA_URL: Final = re.compile(r"data:(image/(?:jpe?g|png|gif|webp)|application/pdf);base64,", re.IGNORECASE)
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_NOT_IN_IDS: Final = re.compile(r"[^a-zA-Z0-9_-]")


def request(body: JSON, as_name: str, max_tokens: int, *, stream: bool) -> JSON:
    system, turns = _conversation(body["messages"], late=hears_late_system(as_name))
    sent: JSON = {"model": as_name, "max_tokens": max_tokens, "messages": turns}
    if system:
        sent["system"] = system
    if stream:
        sent["stream"] = True
    for name in ("temperature", "top_p", "top_k"):
        if not is_neutral(name, body.get(name)):
            sent[name] = body[name]
    _add_settings(sent, body)
    _add_thinking_and_format(sent, body, thinking_fields(body, as_name, max_tokens))
    _add_tools(sent, body)
    return sent


def _add_settings(sent: JSON, body: JSON) -> None:
    stop = body.get("stop")
    if stop:
        sent["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    user = body.get("user") or body.get("safety_identifier")
    if user:
        sent["metadata"] = {"user_id": user}
    if body.get("service_tier"):
        sent["service_tier"] = SERVICE_TIERS[body["service_tier"]]


def _add_thinking_and_format(sent: JSON, body: JSON, thinking: tuple[JSON | None, str | None]) -> None:
    if thinking[0]:
        sent["thinking"] = thinking[0]
    config: JSON = {"effort": thinking[1]} if thinking[1] else {}
    if not is_neutral("response_format", body.get("response_format")):
        config["format"] = {"type": "json_schema", "schema": _schema(body["response_format"]["json_schema"])}
    if config:
        sent["output_config"] = config


def _schema(wanted: JSON) -> JSON:
    """A format's description has its place in the schema here."""
    said = wanted.get("description")
    return {"description": said, **wanted["schema"]} if said else wanted["schema"]


def _add_tools(sent: JSON, body: JSON) -> None:
    tools, choice = body.get("tools"), body.get("tool_choice") or None
    if not tools:
        return
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        names = {tool["function"]["name"] for tool in choice["allowed_tools"]["tools"]}
        tools = [tool for tool in tools if tool["function"]["name"] in names]
        choice = choice["allowed_tools"]["mode"]
    sent["tools"] = [_tool(tool) for tool in tools]
    single = body.get("parallel_tool_calls") is False and choice != "none"
    if not choice and not single:
        return
    if isinstance(choice, dict):
        form: JSON = {"type": "tool", "name": choice["function"]["name"]}
    else:
        form = {"type": _CHOICES[choice or "auto"]}
    sent["tool_choice"] = {**form, "disable_parallel_tool_use": True} if single else form


def _tool(tool: JSON) -> JSON:
    function = tool["function"]
    made: JSON = {"name": function["name"], "input_schema": {"type": "object", **(function.get("parameters") or {})}}
    if function.get("description"):
        made["description"] = function["description"]
    if function.get("strict"):
        made["strict"] = True
    return _marked(made, tool)


def _conversation(messages: list[JSON], *, late: bool) -> tuple[list[JSON], list[JSON]]:
    """(system blocks, turns). `late`: system messages within the conversation may stay there."""
    system: list[JSON] = []
    turns: list[JSON] = []
    waiting: list[JSON] = []
    for message in messages:
        role = message["role"]
        if role in SYSTEM_ROLES:
            (waiting if late and turns else system).extend(_blocks(message.get("content")))
        elif role == "assistant":
            said = _said(message)
            if said:
                _place(turns, waiting)
                _add(turns, "assistant", said)
        else:
            _add(turns, "user", [_result(message)] if role == "tool" else _blocks(message.get("content")))
    _place(turns, waiting)
    return system + waiting, turns


def _place(turns: list[JSON], waiting: list[JSON]) -> None:
    """The API takes a system message only between a user's turn and the assistant's, or behind the last one."""
    if waiting and turns[-1]["role"] == "user":
        turns.append({"role": "system", "content": waiting.copy()})
        waiting.clear()


def _add(turns: list[JSON], role: str, blocks: list[JSON]) -> None:
    """Turns alternate, and the results of parallel calls belong into one."""
    if blocks and turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    elif blocks:
        turns.append({"role": role, "content": blocks})


def _said(message: JSON) -> list[JSON]:
    """Thinking comes first, which the API demands before calls of tools."""
    blocks = thoughts(message) + _blocks(message.get("content")) + _blocks(message.get("refusal"))
    for call in message.get("tool_calls") or ():
        function = call["function"]
        given = orjson.loads(function["arguments"] or b"{}")
        blocks.append({"type": "tool_use", "id": _id(call["id"]), "name": function["name"], "input": given})
    return blocks


def _result(message: JSON) -> JSON:
    result: JSON = {"type": "tool_result", "tool_use_id": _id(message["tool_call_id"])}
    content = message.get("content")
    if content:
        result["content"] = content if isinstance(content, str) else _blocks(content)
    if message.get("is_error"):
        result["is_error"] = True
    return _marked(result, message)


def _id(given: str) -> str:
    """Ids of other providers may have characters that the API refuses."""
    return _NOT_IN_IDS.sub("_", given)


def _blocks(content: Any) -> list[JSON]:
    """A text or parts; the API refuses texts of nothing but white space."""
    if not content:
        return []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [_marked(_block(part), part) for part in parts if part["type"] != "text" or part["text"].strip()]


def _block(part: JSON) -> JSON:
    kind = part["type"]
    if kind == "text":
        return {"type": "text", "text": part["text"]}
    if kind == "refusal":
        return {"type": "text", "text": part["refusal"]}
    if kind == "image_url":
        return {"type": "image", "source": _source(part["image_url"]["url"])}
    file = part["file"]
    document = {"type": "document", "source": _source(file["file_data"])}
    return {**document, "title": file["filename"]} if file.get("filename") else document


def _source(url: str) -> JSON:
    found = DATA_URL.match(url)
    if found is None:
        return {"type": "url", "url": url}
    kind = found[1].lower().replace("/jpg", "/jpeg")
    return {"type": "base64", "media_type": kind, "data": url[found.end() :]}


def _marked(block: JSON, part: JSON) -> JSON:
    """With the client's mark for the prompt cache."""
    if part.get("cache_control"):
        block["cache_control"] = part["cache_control"]
    return block
