"""Messages of a chat as Gemini's contents: what was said, in parts, by `user` or `model`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from gateway.adapters import gemini_signatures as signatures
from gateway.call import JSON

SYSTEM_ROLES: Final = frozenset({"system", "developer"})
MEDIA: Final = frozenset({"image_url", "video_url", "audio_url"})
# A type may be given for a URL; Gemini finds out what has none here.
_TYPES: Final = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "heic": "image/heic",
    "heif": "image/heif", "pdf": "application/pdf", "mp3": "audio/mp3", "wav": "audio/wav", "mp4": "video/mp4",
}  # fmt: skip
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+=-]+)*;base64,")
_SUFFIX: Final = re.compile(r"\.(\w{2,4})(?:[?#]|$)")


def contents(messages: list[JSON], *, stand_in: bool) -> tuple[list[JSON], list[JSON]]:
    """(parts of the system instruction, contents). System messages are one instruction, wherever they stand.

    `stand_in`: calls without a signature get one that the model lets pass.
    """
    system: list[JSON] = []
    said: list[JSON] = []
    names: dict[str, str] = {}
    results: list[JSON] = []  # of the calls before: all in one content, as Gemini counts them against the calls
    for message in messages:
        role = message["role"]
        if role == "tool":
            if not results:
                said.append({"role": "user", "parts": results})
            results.append(_result(message, names))
            continue
        results = []
        if role in SYSTEM_ROLES:
            system += parts(message.get("content"))
        elif role == "assistant":
            said.append({"role": "model", "parts": _spoken(message, names, stand_in=stand_in)})
        else:
            said.append({"role": "user", "parts": parts(message.get("content"))})
    return system, said


def parts(content: Any) -> list[JSON]:
    if content is None:
        return []
    return [{"text": content}] if isinstance(content, str) else [_part(one) for one in content]


def data_url(url: Any) -> tuple[str, str] | None:
    """(media type, base64) of a data URL; None for anything else."""
    head = _DATA_URL.match(url) if isinstance(url, str) else None
    return (head[1], url[head.end() :]) if head else None


def _part(part: JSON) -> JSON:
    kind = part["type"]
    if kind in MEDIA:
        return _media(part[kind]["url"])
    if kind == "input_audio":
        audio = part["input_audio"]
        return {"inlineData": {"mimeType": f"audio/{audio['format']}", "data": audio["data"]}}
    if kind == "file":
        return _media(part["file"]["file_data"])
    return {"text": part[kind]}  # text, refusal


def _media(url: str) -> JSON:
    data = data_url(url)
    if data is not None:
        return {"inlineData": {"mimeType": data[0], "data": data[1]}}
    suffix = _SUFFIX.search(url)
    kind = _TYPES.get(suffix[1].lower()) if suffix else None
    return {"fileData": {"fileUri": url, **({"mimeType": kind} if kind else {})}}


def _spoken(message: JSON, names: dict[str, str], *, stand_in: bool) -> list[JSON]:
    """What the model said and called; `names` learns which id is a call of which function."""
    signed = signatures.by_place(message.get("thinking_blocks"))
    spoken = parts(message.get("content"))
    if spoken and signatures.TEXT in signed:
        spoken[-1]["thoughtSignature"] = signed[signatures.TEXT]
    for place, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        names[call["id"]] = function["name"]
        args = orjson.loads(function.get("arguments") or "{}")
        part: JSON = {"functionCall": {"id": call["id"], "name": function["name"], "args": args}}
        signature = signatures.of_call(call) or signed.get(str(place))
        if signature is None and stand_in and place == 0:  # of parallel calls only the first is signed
            signature = signatures.STAND_IN
        spoken.append(part if signature is None else {**part, "thoughtSignature": signature})
    return spoken or [{"text": ""}]


def _result(message: JSON, names: Mapping[str, str]) -> JSON:
    """The keys `output` and `error` are the API's own; images stand beside the text."""
    found = parts(message.get("content"))
    text = "".join(part.get("text", "") for part in found)
    given: JSON = {
        "id": message["tool_call_id"],
        "name": names[message["tool_call_id"]],
        "response": {"error" if message.get("is_error") else "output": text},
    }
    media = [part for part in found if "text" not in part]
    return {"functionResponse": {**given, "parts": media} if media else given}
