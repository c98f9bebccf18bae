"""What the demo backend says: pure functions from a request body to choices, vectors and token counts.

A token is a word, a Han character or a punctuation mark, with the blanks before it. Answers echo the last user
message; `min_tokens` (as in vLLM) makes them longer, `max_tokens` and `max_completion_tokens` cut them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import time
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

PIECE = re.compile(r"\s*(?:[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+|[^\w\s])")
TOKENS_PER_MESSAGE = 3
TOKENS_PER_IMAGE = 85
MAX_CHOICES = 128
MAX_TOKENS = 100_000
VECTOR_LENGTH = 16
MAX_VECTOR_LENGTH = 4096
MAX_SCHEMA_DEPTH = 20


class Invalid(ValueError):
    """The request is malformed."""


@dataclass(slots=True)
class Choice:
    """One answer: its text in tokens, or a call of the function `tool` with these tokens as arguments."""

    pieces: list[str]
    finish_reason: str
    tool: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        return len(self.pieces) + (count(self.tool) if self.tool else 0)

    @property
    def message(self) -> Json:
        if self.tool is None:
            return {"role": "assistant", "content": self.text, "refusal": None}
        return {"role": "assistant", "content": None, "tool_calls": [_tool_call(self.tool, self.text)]}

    @property
    def deltas(self) -> list[Json]:
        if self.tool is None:
            return [{"role": "assistant", "content": ""}, *({"content": piece} for piece in self.pieces)]
        opening = {"index": 0, **_tool_call(self.tool, "")}
        pieces = ({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in self.pieces)
        return [{"role": "assistant", "content": None, "tool_calls": [opening]}, *pieces]


def choices(body: Json) -> tuple[list[Choice], int]:
    """The choices of a chat and its prompt tokens."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Invalid("messages must be a list that is not empty")
    prompt_tokens = sum(TOKENS_PER_MESSAGE + _message_tokens(message) for message in messages)
    prompt_tokens += count(json.dumps(body["tools"])) if body.get("tools") else 0
    called = _called_tool(body, messages[-1])
    if called is not None:
        made = _choice(body, json.dumps(minimal(called.get("parameters") or {})), tool=str(called["name"]))
    else:
        made = _choice(body, _structured(body) or f"You said: {_last_user_text(messages)}")
    return [made] * _n(body), prompt_tokens


def completion_choices(body: Json) -> tuple[list[Choice], int]:
    """The choices of a legacy completion, `n` for each prompt, and its prompt tokens."""
    prompts = inputs(body.get("prompt"))
    made = [_choice(body, f"You said: {_input_text(prompt)}") for prompt in prompts for _ in range(_n(body))]
    return made, sum(_input_tokens(prompt) for prompt in prompts)


def embeddings(body: Json) -> tuple[list[list[float] | str], int]:
    """A unit vector for each input, the same each time; base64 is little-endian float32."""
    texts = inputs(body.get("input"))
    length = int(body.get("dimensions") or VECTOR_LENGTH)
    if not 0 < length <= MAX_VECTOR_LENGTH:
        raise Invalid("dimensions is out of range")
    vectors: list[list[float] | str] = []
    for text in texts:
        numbers = _vector(_input_text(text), length)
        packed = base64.b64encode(struct.pack(f"<{length}f", *numbers)).decode()
        vectors.append(packed if body.get("encoding_format") == "base64" else numbers)
    return vectors, sum(_input_tokens(text) for text in texts)


def ranked(body: Json) -> tuple[list[Json], int]:
    """The documents with the most words of the query first, and the tokens of each pair."""
    query, documents = str(body["query"]), body["documents"]
    texts = [document["text"] if isinstance(document, dict) else document for document in documents]
    words = set(query.lower().split())
    scores = [len(words & set(text.lower().split())) / max(1, len(words)) for text in texts]
    order = sorted(range(len(texts)), key=lambda place: -scores[place])[: body.get("top_n") or len(texts)]
    results = [
        {"index": place, "relevance_score": scores[place]}
        | ({"document": {"text": texts[place]}} if body.get("return_documents") else {})
        for place in order
    ]
    return results, sum(count(query) + count(text) for text in texts)


def usage(prompt_tokens: int, made: list[Choice]) -> Json:
    completion_tokens = sum(choice.tokens for choice in made)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def header(kind: str, body: Json) -> Json:
    """The fields that all chunks of an answer share."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return {"id": f"demo-{digest[:24]}", "object": kind, "created": int(time.time()), "model": body.get("model")}


def count(text: str) -> int:
    return len(PIECE.findall(text))


def inputs(value: Any) -> list[str | list[int]]:
    """A text, tokens, or a list of either, as a list."""
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        return [value]
    if not isinstance(value, list) or not value or not all(isinstance(item, str | list) for item in value):
        raise Invalid("the input must be a text, tokens, or a list of either that is not empty")
    return value


def minimal(schema: Json, root: Json | None = None, depth: int = 0) -> Any:
    """The smallest value that fits a JSON schema (the parts that structured outputs allow)."""
    root = schema if root is None else root
    if depth > MAX_SCHEMA_DEPTH:
        raise Invalid("the schema nests too deeply")
    if "$ref" in schema:
        return minimal(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return minimal(schema[union][0], root, depth + 1)
    return _minimal_of_type(schema, root, depth)


def _minimal_of_type(schema: Json, root: Json, depth: int) -> Any:
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: minimal(properties.get(name, {}), root, depth + 1) for name in schema.get("required") or ()}
    if kind == "array":
        item = schema.get("items") or {}
        return [minimal(item, root, depth + 1) for _ in range(schema.get("minItems", 0))]
    if kind in ("integer", "number"):
        return schema["exclusiveMinimum"] + 1 if "exclusiveMinimum" in schema else schema.get("minimum", 0)
    simple: Json = {"string": "x" * schema.get("minLength", 0), "boolean": False, "null": None}
    return simple[kind]


def _resolve(reference: str, root: Json) -> Json:
    node: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        node = node[part] if part else node
    if not isinstance(node, dict):
        raise Invalid(f"{reference} is not a schema")
    return node


def _choice(body: Json, text: str, tool: str | None = None) -> Choice:
    stops = body.get("stop") or ()
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop, 1)[0]
    pieces: list[str] = PIECE.findall(text)
    wanted = min(int(body.get("min_tokens") or 0), MAX_TOKENS)
    if tool is None and len(pieces) < wanted:
        pieces += [" more"] * (wanted - len(pieces))
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise Invalid("max_tokens must be a positive integer")
    if limit is not None and len(pieces) > limit:
        return Choice(pieces[:limit], "length", tool)
    return Choice(pieces, "tool_calls" if tool else "stop", tool)


def _called_tool(body: Json, last: Json) -> Json | None:
    """The function to call: the one `tool_choice` names, else the first; only in answer to a user."""
    wanted = body.get("tool_choice")
    functions: list[Json] = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
    if not functions or last.get("role") != "user" or wanted == "none":
        return None
    if isinstance(wanted, dict):
        name = wanted["function"]["name"]
        return next((function for function in functions if function["name"] == name), functions[0])
    return functions[0]


def _structured(body: Json) -> str | None:
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return json.dumps(minimal(form["json_schema"].get("schema") or {}))
    return "{}" if form.get("type") == "json_object" else None


def _tool_call(name: str, arguments: str) -> Json:
    identity = hashlib.sha256(name.encode()).hexdigest()[:16]
    return {"id": f"call_{identity}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _n(body: Json) -> int:
    n: Any = body.get("n") or 1
    if type(n) is int and 0 < n <= MAX_CHOICES:
        return int(n)
    raise Invalid(f"n must be 1 to {MAX_CHOICES}")


def _last_user_text(messages: list[Json]) -> str:
    users = [message for message in messages if message.get("role") == "user"]
    return " ".join(_texts(users[-1])) if users else ""


def _texts(message: Json) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    return [str(part["text"]) for part in content or () if part.get("type") == "text"]


def _message_tokens(message: Json) -> int:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    images = sum(1 for part in parts if part.get("type") == "image_url")
    calls = sum(count(json.dumps(call.get("function"))) for call in message.get("tool_calls") or ())
    return sum(count(text) for text in _texts(message)) + images * TOKENS_PER_IMAGE + calls


def _input_text(value: str | list[int]) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value))


def _input_tokens(value: str | list[int]) -> int:
    return count(value) if isinstance(value, str) else len(value)


def _vector(text: str, length: int) -> list[float]:
    raw = hashlib.shake_256(text.encode()).digest(2 * length)
    numbers = [number - 32767.5 for number in struct.unpack(f"<{length}H", raw)]  # the half keeps all from being 0
    norm = sum(number * number for number in numbers) ** 0.5
    return [number / norm for number in numbers]
