"""Anthropic's messages, as a client and as a backend."""

from __future__ import annotations

from typing import Any

import orjson

from tests.pairs.events import event, pieces, split
from tests.pairs.meaning import (
    JSON,
    Ask,
    Assistant,
    Heard,
    Image,
    Said,
    System,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    User,
)

STOPS = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use", "filter": "refusal"}
OF_STOP = {theirs: ours for ours, theirs in STOPS.items()}
CHOICES = {"auto": "auto", "required": "any", "none": "none"}
OF_CHOICE = {theirs: ours for ours, theirs in CHOICES.items()}


class MessagesClient:
    name = "messages"
    path = "/v1/messages"

    def headers(self, key: str) -> dict[str, str]:
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}

    def asks(self, ask: Ask, model: str, *, stream: bool) -> JSON:
        body: JSON = {"model": model, "max_tokens": ask.max_tokens, "messages": spoken(ask)}
        system = [turn.text for turn in ask.turns if isinstance(turn, System)]
        if system:
            body["system"] = "\n\n".join(system)
        if ask.tools:
            body["tools"] = [
                {"name": tool.name, "description": tool.description, "input_schema": tool.schema} for tool in ask.tools
            ]
        if ask.choice:
            plain = ask.choice in CHOICES
            body["tool_choice"] = {"type": CHOICES[ask.choice]} if plain else {"type": "tool", "name": ask.choice}
        if ask.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": ask.schema}}
        if ask.temperature is not None:
            body["temperature"] = ask.temperature
        if ask.stop:
            body["stop_sequences"] = list(ask.stop)
        return body | ({"stream": True} if stream else {})

    def hears(self, answer: JSON) -> Said:
        assert (answer["type"], answer["role"]) == ("message", "assistant")
        assert answer["id"].startswith("msg_")
        assert "stop_sequence" in answer
        content = answer["content"]
        text = "".join(block["text"] for block in content if block["type"] == "text")
        thought = "".join(block["thinking"] for block in content if block["type"] == "thinking")
        calls = tuple(ToolCall(b["id"], b["name"], b["input"]) for b in content if b["type"] == "tool_use")
        return Said(text, calls, thought, OF_STOP[answer["stop_reason"]], *usage(answer["usage"]))

    def hears_stream(self, stream: bytes) -> Heard:
        heard, open_, block, arguments = Heard(), -1, {}, ""
        blocks, counts, begun = 0, {}, False
        for name, data in split(stream):
            assert name == data["type"], "each event is named as its type"
            match name:
                case "message_start":
                    assert not begun
                    begun = True
                    assert data["message"]["content"] == []
                    assert data["message"]["stop_reason"] is None
                    counts = dict(data["message"]["usage"])
                case "content_block_start":
                    assert begun
                    assert open_ < 0, "one block at a time"
                    assert data["index"] == blocks
                    open_, block, arguments, blocks = data["index"], data["content_block"], "", blocks + 1
                case "content_block_delta":
                    assert data["index"] == open_
                    delta = data["delta"]
                    assert {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking",
                            "input_json_delta": "tool_use"}[delta["type"]] == block["type"]  # fmt: skip
                    heard.text += delta.get("text", "")
                    heard.thought += delta.get("thinking", "")
                    arguments += delta.get("partial_json", "")
                case "content_block_stop":
                    assert data["index"] == open_
                    open_ = -1
                    if block["type"] == "tool_use":
                        heard.calls.append(ToolCall(block["id"], block["name"], orjson.loads(arguments or "{}")))
                case "message_delta":
                    assert open_ < 0
                    heard.stop = OF_STOP[data["delta"]["stop_reason"]]
                    counts |= data["usage"]
                case "message_stop":
                    heard.complete = True
                case "error":
                    heard.error = self.error(data)
                case _:
                    assert name == "ping"
        if counts:
            heard.read, heard.cached, heard.written = usage(counts)
        return heard

    def error(self, answer: JSON) -> str:
        assert answer["type"] == "error"
        assert answer["error"].keys() >= {"type", "message"}
        return str(answer["error"]["message"])


class AnthropicBackend:
    kind = "anthropic"
    settings = ""

    def base_url(self, url: str) -> str:
        return f"{url}/v1"

    def streams(self, path: str, body: JSON) -> bool:
        return bool(body.get("stream"))

    def understands(self, path: str, headers: Any, body: JSON) -> Ask:
        assert path == "/v1/messages"
        assert headers["x-api-key"] == "the-key"
        assert headers["anthropic-version"] == "2023-06-01"
        assert "authorization" not in headers
        known = {"model", "max_tokens", "messages", "system", "tools", "tool_choice", "output_config", "temperature",
                 "stop_sequences", "stream", "metadata", "thinking", "top_p", "top_k", "service_tier"}  # fmt: skip
        assert body.keys() <= known, "the API refuses what it does not know"
        tools = tuple(Tool(t["name"], t["description"], t["input_schema"]) for t in body.get("tools") or ())
        choice = body.get("tool_choice") or {"type": ""}
        form = (body.get("output_config") or {}).get("format")
        return Ask(
            tuple(heard(body)),
            tools,
            choice["name"] if choice["type"] == "tool" else OF_CHOICE.get(choice["type"], ""),
            None if form is None else form["schema"],
            body["max_tokens"],
            body.get("temperature"),
            tuple(body.get("stop_sequences") or ()),
        )

    def says(self, said: Said) -> JSON:
        content: list[JSON] = []
        if said.thought:
            content.append({"type": "thinking", "thinking": said.thought, "signature": "c2lnbmVk"})
        if said.text:
            content.append({"type": "text", "text": said.text})
        content += [{"type": "tool_use", "id": c.id, "name": c.name, "input": c.arguments} for c in said.calls]
        return {**head(), "content": content, "stop_reason": STOPS[said.stop], "usage": told(said)}

    def events(self, said: Said) -> list[bytes]:
        whole = self.says(said)
        counted = told(said)
        start = {**head(), "content": [], "stop_reason": None, "usage": {**counted, "output_tokens": 1}}
        out = [event({"type": "message_start", "message": start}, "message_start"), event({"type": "ping"}, "ping")]
        for index, block in enumerate(whole["content"]):
            empty, deltas = opened(block)
            begin = {"type": "content_block_start", "index": index, "content_block": empty}
            out.append(event(begin, "content_block_start"))
            out += [
                event({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta")
                for delta in deltas
            ]
            out.append(event({"type": "content_block_stop", "index": index}, "content_block_stop"))
        delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        last = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": said.written}}
        return [*out, event(last, "message_delta"), event({"type": "message_stop"}, "message_stop")]

    def refuses(self, status: int, message: str) -> JSON:
        kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011abc"}


def head() -> JSON:
    return {"id": "msg_01abc", "type": "message", "role": "assistant", "model": "backend-model", "stop_sequence": None}


def told(said: Said) -> JSON:
    return {
        "input_tokens": said.read - said.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": said.cached,
        "output_tokens": said.written,
    }


def usage(value: JSON) -> tuple[int, int, int]:
    cached = value.get("cache_read_input_tokens") or 0
    return (
        value["input_tokens"] + cached + (value.get("cache_creation_input_tokens") or 0),
        cached,
        value["output_tokens"],
    )


def opened(block: JSON) -> tuple[JSON, list[JSON]]:
    if block["type"] == "text":
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": p} for p in pieces(block["text"])]
    if block["type"] == "thinking":
        deltas: list[JSON] = [{"type": "thinking_delta", "thinking": p} for p in pieces(block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signed]
    arguments = orjson.dumps(block["input"]).decode()
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces(arguments)]]
    return {**block, "input": {}}, deltas


def spoken(ask: Ask) -> list[JSON]:
    """Turns alternate: what tools returned is what a user says."""
    out: list[JSON] = []
    for turn in ask.turns:
        match turn:
            case User(parts):
                role, blocks = "user", [block(part) for part in parts]
            case Assistant(text, calls):
                said = [{"type": "text", "text": text}] if text else []
                used = [{"type": "tool_use", "id": c.id, "name": c.name, "input": c.arguments} for c in calls]
                role, blocks = "assistant", [*said, *used]
            case ToolResult(id_, _, text):
                role, blocks = "user", [{"type": "tool_result", "tool_use_id": id_, "content": text}]
            case _:
                continue
        if out and out[-1]["role"] == role:
            out[-1]["content"] += blocks
        else:
            out.append({"role": role, "content": blocks})
    return out


def block(part: Text | Image) -> JSON:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image", "source": {"type": "base64", "media_type": part.mime, "data": part.data}}


def heard(body: JSON) -> list[System | User | Assistant | ToolResult]:
    turns: list[System | User | Assistant | ToolResult] = []
    system = body.get("system")
    if isinstance(system, str):
        turns.append(System(system))
    elif system:
        turns.append(System("\n\n".join(one["text"] for one in system)))
    names: dict[str, str] = {}
    before = ""
    for message in body["messages"]:
        assert message["role"] in ("user", "assistant")
        assert message["role"] != before, "roles alternate"
        before = message["role"]
        content = message["content"]
        blocks: list[JSON] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        assert blocks, "no message is empty"
        if before == "assistant":
            calls = tuple(ToolCall(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use")
            names |= {call.id: call.name for call in calls}
            turns.append(Assistant("".join(b["text"] for b in blocks if b["type"] == "text"), calls))
            continue
        results = [b for b in blocks if b["type"] == "tool_result"]
        turns += [ToolResult(b["tool_use_id"], names[b["tool_use_id"]], text_of(b["content"])) for b in results]
        parts = tuple(heard_part(b) for b in blocks if b["type"] != "tool_result")
        if parts:
            turns.append(User(parts))
    return turns


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def heard_part(one: JSON) -> Text | Image:
    if one["type"] == "text":
        return Text(one["text"])
    source = one["source"]
    assert source["type"] == "base64"
    return Image(source["data"], source["media_type"])
