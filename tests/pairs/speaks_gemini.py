"""Gemini's generateContent, as a backend."""

from __future__ import annotations

from typing import Any

from tests.pairs.events import event, pieces
from tests.pairs.meaning import JSON, Ask, Assistant, Image, Said, System, Text, Tool, ToolCall, ToolResult, User

STOPS = {"stop": "STOP", "length": "MAX_TOKENS", "tools": "STOP", "filter": "SAFETY"}
MODES = {"AUTO": "auto", "ANY": "required", "NONE": "none"}


class GeminiBackend:
    kind = "gemini"
    settings = ""

    def base_url(self, url: str) -> str:
        return f"{url}/v1beta"

    def streams(self, path: str, body: JSON) -> bool:
        return path.endswith(":streamGenerateContent")

    def understands(self, path: str, headers: Any, body: JSON) -> Ask:
        assert path.removeprefix("/v1beta/models/backend-model:") in ("generateContent", "streamGenerateContent")
        assert headers["x-goog-api-key"] == "the-key"
        known = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings"}
        assert body.keys() <= known
        config = body["generationConfig"]
        tools = []
        for one in body.get("tools") or ():
            for function in one["functionDeclarations"]:
                schema = function.get("parametersJsonSchema", function.get("parameters"))
                tools.append(Tool(function["name"], function["description"], schema))
        calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
        names = calling.get("allowedFunctionNames")
        schema = config.get("responseJsonSchema", config.get("responseSchema"))
        assert (schema is None) or config["responseMimeType"] == "application/json"
        return Ask(
            tuple(heard(body)),
            tuple(tools),
            names[0] if names else MODES.get(calling.get("mode", ""), ""),
            schema,
            config["maxOutputTokens"],
            config.get("temperature"),
            tuple(config.get("stopSequences") or ()),
        )

    def says(self, said: Said) -> JSON:
        parts: list[JSON] = [{"text": said.thought, "thought": True}] if said.thought else []
        parts += [{"text": said.text}] if said.text else []
        parts += [{"functionCall": {"id": c.id, "name": c.name, "args": c.arguments}} for c in said.calls]
        return answer(parts, STOPS[said.stop], told(said))

    def events(self, said: Said) -> list[bytes]:
        out = [answer([{"text": piece, "thought": True}]) for piece in pieces(said.thought)]
        out += [answer([{"text": piece}]) for piece in pieces(said.text)]
        out += [answer([{"functionCall": {"id": c.id, "name": c.name, "args": c.arguments}}]) for c in said.calls]
        last = answer([{"text": ""}], STOPS[said.stop], told(said))
        return [event(one) for one in [*out, last]]

    def refuses(self, status: int, message: str) -> JSON:
        name = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED"}.get(status, "INTERNAL")
        return {"error": {"code": status, "message": message, "status": name}}


def answer(parts: list[JSON], stop: str = "", usage: JSON | None = None) -> JSON:
    candidate: JSON = {"index": 0, "content": {"role": "model", "parts": parts}}
    if stop:
        candidate["finishReason"] = stop
    counted = {"promptTokenCount": 1, "totalTokenCount": 1} if usage is None else usage
    return {"candidates": [candidate], "usageMetadata": counted, "modelVersion": "backend-model", "responseId": "r1"}


def told(said: Said) -> JSON:
    return {
        "promptTokenCount": said.read,
        "cachedContentTokenCount": said.cached,
        "candidatesTokenCount": said.written,
        "totalTokenCount": said.read + said.written,
    }


def heard(body: JSON) -> list[System | User | Assistant | ToolResult]:
    turns: list[System | User | Assistant | ToolResult] = []
    if "systemInstruction" in body:
        turns.append(System("\n\n".join(part["text"] for part in body["systemInstruction"]["parts"])))
    for content in body["contents"]:
        parts = content["parts"]
        assert parts
        if content["role"] == "model":
            calls = tuple(
                ToolCall(p["functionCall"].get("id", ""), p["functionCall"]["name"], p["functionCall"]["args"])
                for p in parts
                if "functionCall" in p
            )
            turns.append(Assistant("".join(p.get("text", "") for p in parts), calls))
            continue
        assert content["role"] == "user"
        results = [p["functionResponse"] for p in parts if "functionResponse" in p]
        turns += [ToolResult(r.get("id", ""), r["name"], returned(r["response"])) for r in results]
        said = tuple(heard_part(p) for p in parts if "functionResponse" not in p)
        if said:
            turns.append(User(said))
    return turns


def returned(response: JSON) -> str:
    """The API takes an object: a text is under `output` there (or `result`)."""
    [(name, value)] = response.items()
    assert name in ("output", "result")
    return str(value)


def heard_part(part: JSON) -> Text | Image:
    if "text" in part:
        return Text(part["text"])
    inline = part["inlineData"]
    return Image(inline["data"], inline["mimeType"])
