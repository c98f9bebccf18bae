"""A client's bytes become a Call: every value that decides anything is checked and bounded before it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from gateway.bounded import MAX_CONTAINERS, BeyondReason, loads
from gateway.call import JSON, Call, Request, Work
from gateway.dialects.known import DIALECTS
from gateway.dialects.messages_extras import extras
from gateway.dialects.messages_request import body_to_count
from gateway.endpoints.known import WORKS
from gateway.errors import InvalidValue
from gateway.tokens import MESSAGE_TOKENS, TEMPLATE_TOKENS

MAX_MODEL_CHARS: Final = 256
MAX_MESSAGES: Final = 4096
MAX_PROMPTS: Final = 2048
MAX_N: Final = 128
MAX_BEST_OF: Final = 20
MAX_DIMENSIONS: Final = 65_536
MAX_MAX_TOKENS: Final = 1_000_000
MAX_TOKEN_ID: Final = 2**31
# What backends call the output limit and the number of choices beside the API's own names: a limit that came past us
# under another name would cost more than was held.
OUTPUT_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "n_predict")
CHOICES: Final = ("n", "n_cmpl")
OWN_HEADERS: Final = ("anthropic-version", "anthropic-beta")  # what a dialect says beside its body
PREFER: Final = ("cost", "latency", "quality", "balanced")

_MEDIA: Final = frozenset(
    {"image_url", "input_image", "image", "input_audio", "audio_url", "file", "input_file", "video_url"}
)
_IMAGES: Final = frozenset({"image_url", "input_image", "image"})
_SOUND: Final = frozenset({"input_audio"})
SOUND_BYTES_PER_TOKEN: Final = 16  # of base64: 32 tokens a second, of which the smallest codecs make 750 bytes
_MEDIA_DATA: Final = frozenset({"url", "data", "file_data", "image_url", "audio_url", "video_url", "file_url"})
# Settings: whatever they hold, a model does not read it. All other text of a body counts.
_NOT_READ: Final = frozenset({
    "messages", "prompt", "input", "model", "user", "metadata", "logit_bias", "stop", "stream_options",
    "safety_identifier", "prompt_cache_key", "service_tier", "encoding_format", "modalities",
})  # fmt: skip

_INTEGERS: Final = {
    **dict.fromkeys(OUTPUT_LIMITS, (1, MAX_MAX_TOKENS)), **dict.fromkeys(CHOICES, (1, MAX_N)),
    "best_of": (1, MAX_BEST_OF), "dimensions": (1, MAX_DIMENSIONS), "seed": (-(2**63), 2**64 - 1),
}  # fmt: skip
_NEEDING: Final = ("tools", "functions", "response_format")
_NO_NEEDS: Final[frozenset[str]] = frozenset()
_NOTHING: Final[tuple[str, ...]] = ()
_NO_HEADERS: Final[dict[str, str]] = {}


def parse_call(request: Request) -> Call:
    """Raises InvalidValue; `param` names the field."""
    dialect = DIALECTS.get(request.endpoint)
    return _call(request, None if dialect is None else dialect.body)


def parse_count(request: Request) -> Call:
    """Of a call whose input is to be counted, and nothing else. Raises InvalidValue."""
    return _call(request, body_to_count)


def _call(request: Request, to_middle: Callable[[JSON], tuple[JSON, tuple[str, ...]]] | None) -> Call:
    """`to_middle` makes the middle form of a body in another dialect than that of OpenAI's endpoint."""
    body = original = parse_object(request.body)
    endpoint, beyond = request.endpoint, _NOTHING
    if to_middle is not None:
        endpoint, (body, beyond) = "chat", to_middle(original)
    if len(request.body) > MAX_CONTAINERS:  # only then there may be as many
        _check_arguments(body)
    model = _model(body)
    if endpoint in WORKS:
        return _working(request, model, body, WORKS[endpoint](body, request.upload))
    stream = endpoint != "embeddings" and _boolean(body, "stream")
    wants_usage = _wants_usage(body)
    max_tokens = _integers(body)
    prompts, bound, media, images, documents = _input(endpoint, body)
    return Call(
        request_id=request.request_id,
        endpoint=endpoint,
        model=model,
        body=body,
        stream=stream,
        wants_usage=stream and wants_usage,
        max_tokens=max_tokens,
        choices=prompts * _choices(body),
        input_bound=bound + TEMPLATE_TOKENS + _other_bytes(body),
        media_parts=media,
        needs=_needs(body, images, extras=bool(beyond) and extras(original)),
        deadline_s=_deadline_s(request.headers),
        session=request.headers.get("x-session-id", ""),
        prefer=_prefer(request.headers),
        cache_control=request.headers.get("cache-control", ""),
        once=request.once,
        debug=request.headers.get("x-moma-debug", "").strip().lower() == "true",
        dialect="" if to_middle is None else request.endpoint,
        original=original,
        beyond=beyond,
        created=request.at_s,
        documents=documents,
        own_headers=_NO_HEADERS if to_middle is None else _own_headers(request.headers),
    )


def _working(request: Request, model: str, body: JSON, work: Work) -> Call:
    """A call of one of the other endpoints."""
    return Call(
        request_id=request.request_id,
        endpoint=request.endpoint,
        model=model,
        body=body,
        stream=work.stream,
        wants_usage=False,
        max_tokens=None,
        choices=work.prompts,
        input_bound=work.bound + TEMPLATE_TOKENS * work.prompts,
        media_parts=0,
        needs=_NO_NEEDS,
        deadline_s=_deadline_s(request.headers),
        session=request.headers.get("x-session-id", ""),
        prefer=_prefer(request.headers),
        cache_control=request.headers.get("cache-control", ""),
        once=request.once,
        debug=request.headers.get("x-moma-debug", "").strip().lower() == "true",
        work=work,
    )


def _own_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in OWN_HEADERS if name in headers}


def parse_object(data: bytes) -> JSON:
    """JSON that is an object, and neither deep nor wide beyond reason. Raises InvalidValue."""
    try:
        body = loads(data)
    except BeyondReason as error:
        raise InvalidValue(f"The body {error}.") from None
    except ValueError as error:
        raise InvalidValue(f"The body is not valid JSON: {error}.") from None
    if not isinstance(body, dict):
        raise InvalidValue("The body must be a JSON object.")
    return body


def _check_arguments(body: JSON) -> None:
    """Of all calls of tools together, as JSON in texts is neither deep nor wide beyond reason."""
    calls = [call for message in _objects(body.get("messages")) for call in _objects(message.get("tool_calls"))]
    texts = [function.get("arguments") for call in calls for function in _objects([call.get("function")])]
    if sum(text.count("[") + text.count("{") for text in texts if isinstance(text, str)) > MAX_CONTAINERS:
        said = f"The arguments of all tool calls have more than {MAX_CONTAINERS} lists and objects."
        raise InvalidValue(said, param="messages")


def _objects(value: Any) -> list[JSON]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _model(body: JSON) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL_CHARS or not model.isprintable():
        raise InvalidValue(f"'model' must be a name of at most {MAX_MODEL_CHARS} printable characters.", param="model")
    return model


def _boolean(body: JSON, name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidValue(f"'{name}' must be true or false.", param=name)


def _integers(body: JSON) -> int | None:
    """Checks all that are bounded; returns the least output limit. Null is none given; True, 1.0 and "1" are none."""
    least = None
    for name, value in body.items():
        if name in _INTEGERS and value is not None:
            low, high = _INTEGERS[name]
            if type(value) is not int or not low <= value <= high:
                raise InvalidValue(f"'{name}' must be an integer from {low} to {high}.", param=name)
            if name in OUTPUT_LIMITS and (least is None or value < least):
                least = value
    return least


def _wants_usage(body: JSON) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidValue("'stream_options' must be an object.", param="stream_options")
    wanted = options.get("include_usage")
    if wanted is not None and not isinstance(wanted, bool):
        raise InvalidValue(
            "'stream_options.include_usage' must be true or false.", param="stream_options.include_usage"
        )
    return bool(wanted)


def _choices(body: JSON) -> int:
    n: int = body.get("n") or 1
    best_of: int = body.get("best_of") or n
    if best_of < n:
        raise InvalidValue("'best_of' must not be less than 'n'.", param="best_of")
    return max(best_of, body.get("n_cmpl") or 1)


def _input(endpoint: str, body: JSON) -> tuple[int, int, int, int, int]:
    """(prompts, bytes or tokens in them, media parts, images among these, documents and films among these)."""
    if endpoint == "chat":
        return _messages(body)
    name = "input" if endpoint == "embeddings" else "prompt"
    prompts, bound = _prompts(body, name)
    return prompts, bound, 0, 0, 0


def _messages(body: JSON) -> tuple[int, int, int, int, int]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= MAX_MESSAGES:
        raise InvalidValue(f"'messages' must be a list of 1 to {MAX_MESSAGES} messages.", param="messages")
    bound = media = images = documents = 0
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidValue("A message must be an object.", param=f"messages[{place}]")
        for name, value in message.items():
            if isinstance(value, str):
                bound += len(value) if value.isascii() else len(value.encode())
            elif name == "content" and isinstance(value, list):
                text, found, seen, long = _parts(value)
                bound, media, images, documents = bound + text, media + found, images + seen, documents + long
            else:
                bound += _json_bytes(value)
        bound += MESSAGE_TOKENS
    return 1, bound, media, images, documents


def _parts(parts: list[Any]) -> tuple[int, int, int, int]:
    """(bytes of text, media parts, images, documents): what an image is made of says nothing about tokens, and what a
    document is made of not even how many pages it has."""
    text = media = images = documents = 0
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind in _MEDIA:
            media += 1
            images += kind in _IMAGES
            documents += kind not in _IMAGES and kind not in _SOUND
            text += _media_text(part)
            text += _sound_tokens(part) if kind in _SOUND else 0
        else:
            text += _json_bytes(part)
    return text, media, images, documents


def _sound_tokens(part: JSON) -> int:
    held = part.get("input_audio")
    data = held.get("data") if isinstance(held, dict) else None
    return len(data) // SOUND_BYTES_PER_TOKEN if isinstance(data, str) else 0


def _media_text(part: JSON) -> int:
    """Text beside the data of a media part, such as a file's name."""
    total = 0
    for name, value in part.items():
        if isinstance(value, dict):
            total += _media_text(value)
        elif name not in _MEDIA_DATA:
            total += _json_bytes(value)
    return total


def _prompts(body: JSON, name: str) -> tuple[int, int]:
    """(prompts, what is in them): a text, texts, tokens, or lists of tokens."""
    value = body.get(name)
    if isinstance(value, str):
        return 1, _text_bytes(value)
    if not isinstance(value, list) or not value:
        raise InvalidValue(f"'{name}' must be a text or a non-empty list.", param=name)
    if _is_tokens(value):
        return 1, len(value)
    if len(value) > MAX_PROMPTS:
        raise InvalidValue(f"'{name}' has more than {MAX_PROMPTS} entries.", param=name)
    if all(isinstance(text, str) for text in value):
        return len(value), sum(_text_bytes(text) for text in value)
    if all(isinstance(tokens, list) and tokens and _is_tokens(tokens) for tokens in value):
        return len(value), sum(len(tokens) for tokens in value)
    raise InvalidValue(f"'{name}' must hold only texts, only tokens, or only lists of tokens.", param=name)


def _is_tokens(value: list[Any]) -> bool:
    return all(type(token) is int and 0 <= token < MAX_TOKEN_ID for token in value)


def _other_bytes(body: JSON) -> int:
    """Tools, a response format, documents: a template may show any of it to the model."""
    total = 0
    for name, value in body.items():
        if name not in _NOT_READ and isinstance(value, (str, list, dict)) and value:
            total += _json_bytes(value)
    return total


def _text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _json_bytes(value: Any) -> int:
    return len(orjson.dumps(value)) if value is not None else 0


def _needs(body: JSON, images: int, *, extras: bool) -> frozenset[str]:
    if not images and not extras and body.keys().isdisjoint(_NEEDING):
        return _NO_NEEDS
    needs = set()
    if body.get("tools") or body.get("functions"):
        needs.add("tools")
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") in ("json_schema", "json_object"):
        needs.add("json")
    if images:
        needs.add("vision")
    if extras:
        needs.add("extras")
    return frozenset(needs)


def _prefer(headers: Mapping[str, str]) -> str:
    prefer = headers.get("x-moma-prefer")
    if prefer is None:
        return ""
    if prefer not in PREFER:
        raise InvalidValue(f"'x-moma-prefer' must be one of {', '.join(PREFER)}.", param="x-moma-prefer")
    return prefer


def _deadline_s(headers: Mapping[str, str]) -> float | None:
    """What OpenAI's SDKs say they will wait; nonsense is no deadline."""
    text = headers.get("x-stainless-read-timeout")
    if text is None:
        return None
    try:
        deadline_s = float(text)
    except ValueError:
        return None
    return deadline_s if math.isfinite(deadline_s) and deadline_s > 0 else None
