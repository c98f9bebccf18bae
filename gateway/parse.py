"""Bytes to a Call: every client value is bounded before it is used. Pure."""

from __future__ import annotations

import math
from typing import Any

import orjson

from gateway.call import JSON, Call, Request
from gateway.errors import InvalidValue

MAX_NESTING = 64
MAX_MESSAGES = 4096
MAX_PROMPTS = 2048
MAX_TOKENS_CAP = 1_000_000
MAX_MODEL_CHARS = 256
TEMPLATE_TOKENS = 32
MESSAGE_TOKENS = 8
MEDIA = frozenset({"image_url", "input_audio", "file", "input_image"})
TEXT_FIELDS = ("tools", "functions", "response_format", "tool_choice", "suffix", "prediction")
_INTEGERS = {
    "n": 128, "best_of": 20, "max_tokens": MAX_TOKENS_CAP, "max_completion_tokens": MAX_TOKENS_CAP,
    "dimensions": 65536,
}  # fmt: skip


def parse_call(request: Request) -> Call:
    """Raises InvalidValue with `param` naming the field."""
    body = _object(request.body)
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL_CHARS or not model.isprintable():
        raise InvalidValue("model is a name from GET /v1/models.", param="model")
    stream = body.get("stream")
    if stream not in (None, False, True) or (isinstance(stream, int) and not isinstance(stream, bool)):
        raise InvalidValue("stream is true or false.", param="stream")
    if stream and request.endpoint == "embeddings":
        raise InvalidValue("Embeddings are not streamed.", param="stream")
    numbers = {field: _integer(body, field, most) for field, most in _INTEGERS.items()}
    prompts, bound, media = _input(request.endpoint, body)
    n, best_of = numbers["n"] or 1, numbers["best_of"] or 1
    if numbers["best_of"] and best_of < n:
        raise InvalidValue("best_of is at least n.", param="best_of")
    return Call(
        request_id=request.request_id,
        endpoint=request.endpoint,
        model=model,
        body=body,
        stream=bool(stream),
        wants_usage=_wants_usage(body),
        max_tokens=numbers["max_completion_tokens"] or numbers["max_tokens"],
        choices=prompts * max(n, best_of),
        input_bound=bound,
        media_parts=media,
        needs=_needs(body, media),
        deadline_s=_deadline_s(request.headers.get("x-stainless-read-timeout")),
        debug=request.headers.get("x-moma-debug", "").lower() == "true",
    )


def _object(data: bytes) -> JSON:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidValue("The body is not valid JSON.") from error
    if not isinstance(body, dict):
        raise InvalidValue("The body is not a JSON object.")
    if data.count(b"[") + data.count(b"{") > MAX_NESTING and _too_deep(body):
        raise InvalidValue(f"The body is nested deeper than {MAX_NESTING}.")
    return body


def _too_deep(body: JSON) -> bool:
    level: list[Any] = [body]
    for _ in range(MAX_NESTING):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _integer(body: JSON, field: str, most: int) -> int | None:
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidValue(f"{field} is a whole number from 1 to {most}.", param=field)
    return value


def _wants_usage(body: JSON) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidValue("stream_options is an object.", param="stream_options")
    return options.get("include_usage") is True


def _needs(body: JSON, media: int) -> frozenset[str]:
    needs = set()
    if body.get("tools") or body.get("functions"):
        needs.add("tools")
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") in ("json_schema", "json_object"):
        needs.add("json")
    if media:
        needs.add("vision")
    return frozenset(needs)


def _deadline_s(text: str | None) -> float | None:
    try:
        seconds = float(text) if text else math.nan
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _input(endpoint: str, body: JSON) -> tuple[int, int, int]:
    """Number of prompts, bound of their tokens, number of media parts."""
    extra = sum(len(orjson.dumps(body[field])) for field in TEXT_FIELDS if body.get(field) is not None)
    if endpoint == "chat":
        bound, media = _messages(body.get("messages"))
        return 1, bound + extra, media
    field = "prompt" if endpoint == "completions" else "input"
    prompts, bound = _prompts(body.get(field), field)
    return prompts, bound + extra, 0


def _messages(messages: object) -> tuple[int, int]:
    if not isinstance(messages, list) or not messages or len(messages) > MAX_MESSAGES:
        raise InvalidValue(f"messages is a list of 1 to {MAX_MESSAGES} messages.", param="messages")
    bound, media = TEMPLATE_TOKENS, 0
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidValue("A message is an object with a role.", param=f"messages[{index}]")
        content = message.get("content")
        bound += MESSAGE_TOKENS
        if isinstance(content, str) and len(message) == 2:
            bound += len(content.encode()) + len(message["role"])
            continue
        parts = content if isinstance(content, list) else [content]
        pictures = sum(isinstance(part, dict) and part.get("type") in MEDIA for part in parts)
        media += pictures
        kept = [part for part in parts if not (isinstance(part, dict) and part.get("type") in MEDIA)]
        bound += len(orjson.dumps({**message, "content": kept}))
    return bound, media


def _prompts(prompt: object, field: str) -> tuple[int, int]:
    """A string, strings, a token list or token lists."""
    if isinstance(prompt, str) and prompt:
        return 1, TEMPLATE_TOKENS + len(prompt.encode())
    if not isinstance(prompt, list) or not prompt:
        raise InvalidValue(f"{field} is a text, a list of texts, or tokens.", param=field)
    if all(type(item) is int and item >= 0 for item in prompt):
        return 1, TEMPLATE_TOKENS + len(prompt)
    if len(prompt) > MAX_PROMPTS:
        raise InvalidValue(f"{field} has at most {MAX_PROMPTS} entries.", param=field)
    bound = 0
    for item in prompt:
        if isinstance(item, str):
            bound += TEMPLATE_TOKENS + len(item.encode())
        elif isinstance(item, list) and item and all(type(token) is int and token >= 0 for token in item):
            bound += TEMPLATE_TOKENS + len(item)
        else:
            raise InvalidValue(f"{field} is a text, a list of texts, or tokens.", param=field)
    return len(prompt), bound
