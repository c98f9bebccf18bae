"""OpenAI's responses, as a client."""

from __future__ import annotations

import orjson

from tests.pairs.events import split
from tests.pairs.meaning import JSON, Ask, Assistant, Heard, Image, Said, System, Text, ToolCall, ToolResult, User


class ResponsesClient:
    name = "responses"
    path = "/v1/responses"

    def headers(self, key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    def asks(self, ask: Ask, model: str, *, stream: bool) -> JSON:
        body: JSON = {"model": model, "max_output_tokens": ask.max_tokens, "store": False}
        body["input"] = [item for turn in ask.turns for item in items(turn)]
        if ask.tools:
            body["tools"] = [
                {"type": "function", "name": t.name, "description": t.description, "parameters": t.schema}
                for t in ask.tools
            ]
        if ask.choice:
            plain = ask.choice in ("auto", "required", "none")
            body["tool_choice"] = ask.choice if plain else {"type": "function", "name": ask.choice}
        if ask.schema is not None:
            form = {"type": "json_schema", "name": "answer", "schema": ask.schema, "strict": True}
            body["text"] = {"format": form}
        if ask.temperature is not None:
            body["temperature"] = ask.temperature
        assert not ask.stop, "there is no such field"
        return body | ({"stream": True} if stream else {})

    def hears(self, answer: JSON) -> Said:
        assert answer["object"] == "response"
        output = answer["output"]
        messages = [item for item in output if item["type"] == "message"]
        text = "".join(p["text"] for m in messages for p in m["content"] if p["type"] == "output_text")
        thoughts = [item for item in output if item["type"] == "reasoning"]
        thought = "".join(p["text"] for item in thoughts for p in item.get("summary") or item.get("content") or ())
        calls = tuple(
            ToolCall(item["call_id"], item["name"], orjson.loads(item["arguments"]))
            for item in output
            if item["type"] == "function_call"
        )
        usage = answer["usage"]
        counts = usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"], usage["output_tokens"]
        return Said(text, calls, thought, stop_of(answer, calls), *counts)

    def hears_stream(self, stream: bytes) -> Heard:
        """By its last event; what was streamed before must say the same."""
        heard, text, arguments, number = Heard(), "", dict[str, str](), -1
        for name, data in split(stream):
            assert name == data["type"]
            assert data["sequence_number"] == number + 1 or name == "error"
            number += 1
            if name == "response.output_text.delta":
                text += data["delta"]
            elif name == "response.function_call_arguments.delta":
                arguments[data["item_id"]] = arguments.get(data["item_id"], "") + data["delta"]
            elif name in ("response.completed", "response.incomplete"):
                said = self.hears(data["response"])
                counts = said.read, said.cached, said.written
                heard = Heard(said.text, said.thought, list(said.calls), said.stop, *counts, complete=True)
                assert said.text == text
                items = [item for item in data["response"]["output"] if item["type"] == "function_call"]
                assert {item["id"]: item["arguments"] for item in items} == arguments
            elif name == "error":
                heard.error = str(data["message"])
            elif name == "response.failed":
                heard.error = str(data["response"]["error"]["message"])
        heard.text = heard.text or text
        return heard

    def error(self, answer: JSON) -> str:
        assert answer["error"].keys() >= {"message", "type", "param", "code"}
        return str(answer["error"]["message"])


def stop_of(answer: JSON, calls: tuple[ToolCall, ...]) -> str:
    if answer["status"] == "incomplete":
        return {"max_output_tokens": "length", "content_filter": "filter"}[answer["incomplete_details"]["reason"]]
    assert answer["status"] == "completed"
    return "tools" if calls else "stop"


def items(turn: System | User | Assistant | ToolResult) -> list[JSON]:
    match turn:
        case System(text):
            return [{"type": "message", "role": "system", "content": text}]
        case User(parts):
            return [{"type": "message", "role": "user", "content": [part(p) for p in parts]}]
        case Assistant(text, calls):
            said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
            called = [
                {
                    "type": "function_call",
                    "call_id": c.id,
                    "name": c.name,
                    "arguments": dumped(c.arguments),
                }
                for c in calls
            ]
            return [*([said] if text else []), *called]
        case ToolResult(id_, _, text):
            return [{"type": "function_call_output", "call_id": id_, "output": text}]


def dumped(value: JSON) -> str:
    return orjson.dumps(value).decode()


def part(one: Text | Image) -> JSON:
    if isinstance(one, Text):
        return {"type": "input_text", "text": one.text}
    return {"type": "input_image", "image_url": f"data:{one.mime};base64,{one.data}", "detail": "auto"}
