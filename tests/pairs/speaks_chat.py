"""OpenAI's chat completions, as a client and as a backend."""

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

STOPS = {"stop": "stop", "length": "length", "tools": "tool_calls", "filter": "content_filter"}
OF_STOP = {theirs: ours for ours, theirs in STOPS.items()}
HEAD = {"id": "chatcmpl-1", "created": 1, "model": "backend-model"}


class ChatClient:
    name = "chat"
    path = "/v1/chat/completions"

    def headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    def asks(self, ask: Ask, model: str, *, stream: bool) -> JSON:
        body: JSON = {"model": model, "max_tokens": ask.max_tokens, "messages": [m for t in ask.turns for m in turn(t)]}
        if ask.tools:
            body["tools"] = [
                {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.schema}}
                for t in ask.tools
            ]
        if ask.choice:
            plain = ask.choice in ("auto", "required", "none")
            body["tool_choice"] = ask.choice if plain else {"type": "function", "function": {"name": ask.choice}}
        if ask.schema is not None:
            shape = {"name": "answer", "schema": ask.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        if ask.temperature is not None:
            body["temperature"] = ask.temperature
        if ask.stop:
            body["stop"] = list(ask.stop)
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def hears(self, answer: JSON) -> Said:
        assert answer["object"] == "chat.completion"
        choice = answer["choices"][0]
        message = choice["message"]
        assert message["role"] == "assistant"
        calls = tuple(called(call) for call in message.get("tool_calls") or ())
        thought = message.get("reasoning_content") or ""
        return Said(message["content"] or "", calls, thought, OF_STOP[choice["finish_reason"]], *usage(answer["usage"]))

    def hears_stream(self, stream: bytes) -> Heard:
        heard, calls = Heard(), dict[int, JSON]()
        for _, chunk in split(stream):
            if chunk == "[DONE]":
                heard.complete = True
                continue
            if "error" in chunk:
                heard.error = self.error(chunk)
                continue
            assert chunk["object"] == "chat.completion.chunk"
            if chunk.get("usage"):
                heard.read, heard.cached, heard.written = usage(chunk["usage"])
            for choice in chunk["choices"]:
                delta = choice["delta"]
                heard.text += delta.get("content") or ""
                heard.thought += delta.get("reasoning_content") or ""
                for call in delta.get("tool_calls") or ():
                    known = calls.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                    known["id"] += call.get("id") or ""
                    function = call.get("function") or {}
                    known["name"] += function.get("name") or ""
                    known["arguments"] += function.get("arguments") or ""
                if choice.get("finish_reason"):
                    heard.stop = OF_STOP[choice["finish_reason"]]
        heard.calls = [ToolCall(c["id"], c["name"], orjson.loads(c["arguments"])) for c in calls.values()]
        return heard

    def error(self, answer: JSON) -> str:
        assert answer["error"].keys() >= {"message", "type", "param", "code"}
        return str(answer["error"]["message"])


class ChatBackend:
    kind = "openai"
    settings = ""

    def base_url(self, url: str) -> str:
        return f"{url}/v1"

    def streams(self, path: str, body: JSON) -> bool:
        return bool(body.get("stream"))

    def understands(self, path: str, headers: Any, body: JSON) -> Ask:
        assert path == "/v1/chat/completions"
        assert headers["authorization"] == "Bearer the-key"
        return understood(body)

    def says(self, said: Said) -> JSON:
        message: JSON = {"role": "assistant", "content": said.text or None}
        if said.thought:
            message["reasoning_content"] = said.thought
        if said.calls:
            message["tool_calls"] = [written(call) for call in said.calls]
        choice = {"index": 0, "message": message, "finish_reason": STOPS[said.stop], "logprobs": None}
        return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": told(said)}

    def events(self, said: Said) -> list[bytes]:
        deltas: list[JSON] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": piece} for piece in pieces(said.thought)]
        deltas += [{"content": piece} for piece in pieces(said.text)]
        for index, call in enumerate(said.calls):
            whole = written(call)
            arguments = whole["function"].pop("arguments")
            whole["function"]["arguments"] = ""
            deltas.append({"tool_calls": [{"index": index, **whole}]})
            deltas += [{"tool_calls": [{"index": index, "function": {"arguments": p}}]} for p in pieces(arguments)]
        out = [event(chunk([{"index": 0, "delta": delta, "finish_reason": None}])) for delta in deltas]
        out.append(event(chunk([{"index": 0, "delta": {}, "finish_reason": STOPS[said.stop]}])))
        return [*out, event({**chunk([]), "usage": told(said)}), event(b"[DONE]")]

    def refuses(self, status: int, message: str) -> JSON:
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


class AzureBackend(ChatBackend):
    """Azure OpenAI, at a path of a deployment, with what its filter says."""

    kind = "azure"
    settings = "api_version: preview"

    def base_url(self, url: str) -> str:
        return f"{url}/openai"

    def understands(self, path: str, headers: Any, body: JSON) -> Ask:
        assert path == "/openai/deployments/backend-model/chat/completions"
        assert headers["api-key"] == "the-key"
        limit = body.pop("max_completion_tokens", None)
        return understood(body if limit is None else {**body, "max_tokens": limit})

    def events(self, said: Said) -> list[bytes]:
        found = {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}
        return [event({**chunk([]), **found}), *super().events(said)]


def chunk(choices: list[JSON]) -> JSON:
    return {**HEAD, "object": "chat.completion.chunk", "choices": choices}


def told(said: Said) -> JSON:
    return {
        "prompt_tokens": said.read,
        "completion_tokens": said.written,
        "total_tokens": said.read + said.written,
        "prompt_tokens_details": {"cached_tokens": said.cached},
    }


def usage(value: JSON) -> tuple[int, int, int]:
    cached = (value.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return value["prompt_tokens"], cached, value["completion_tokens"]


def written(call: ToolCall) -> JSON:
    function = {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()}
    return {"id": call.id, "type": "function", "function": function}


def called(call: JSON) -> ToolCall:
    assert call["type"] == "function"
    return ToolCall(call["id"], call["function"]["name"], orjson.loads(call["function"]["arguments"]))


def turn(one: System | User | Assistant | ToolResult) -> list[JSON]:
    match one:
        case System(text):
            return [{"role": "system", "content": text}]
        case User((Text(text),)):
            return [{"role": "user", "content": text}]
        case User(parts):
            return [{"role": "user", "content": [part(p) for p in parts]}]
        case Assistant(text, calls):
            message: JSON = {"role": "assistant", "content": text or None}
            return [message | ({"tool_calls": [written(call) for call in calls]} if calls else {})]
        case ToolResult(id_, _, text):
            return [{"role": "tool", "tool_call_id": id_, "content": text}]


def part(one: Text | Image) -> JSON:
    if isinstance(one, Text):
        return {"type": "text", "text": one.text}
    return {"type": "image_url", "image_url": {"url": f"data:{one.mime};base64,{one.data}"}}


def understood(body: JSON) -> Ask:
    names: dict[str, str] = {}
    turns = tuple(heard_turn(message, names) for message in body["messages"])
    tools = []
    for tool in body.get("tools") or ():
        assert tool["type"] == "function"
        function = tool["function"]
        tools.append(Tool(function["name"], function["description"], function["parameters"]))
    choice = body.get("tool_choice") or ""
    form = body.get("response_format")
    stop: Any = body.get("stop") or ()
    limit: int = body["max_completion_tokens"] if "max_completion_tokens" in body else body["max_tokens"]
    return Ask(
        turns,
        tuple(tools),
        choice if isinstance(choice, str) else choice["function"]["name"],
        None if form is None else form["json_schema"]["schema"],
        limit,
        body.get("temperature"),
        (stop,) if isinstance(stop, str) else tuple(stop),
    )


def heard_turn(message: JSON, names: dict[str, str]) -> System | User | Assistant | ToolResult:
    role: str = message["role"]
    content: Any = message.get("content")
    if role in ("system", "developer"):
        return System(plain(content))
    if role == "tool":
        return ToolResult(message["tool_call_id"], names[message["tool_call_id"]], plain(content))
    if role == "assistant":
        calls = tuple(called(call) for call in message.get("tool_calls") or ())
        names |= {call.id: call.name for call in calls}
        return Assistant(plain(content), calls)
    if isinstance(content, str):
        return User((Text(content),))
    return User(tuple(heard_part(one) for one in content or ()))


def plain(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(one["text"] for one in content)


def heard_part(one: JSON) -> Text | Image:
    if one["type"] == "text":
        return Text(one["text"])
    head, _, data = one["image_url"]["url"].partition(";base64,")
    return Image(data, head.removeprefix("data:"))
