"""An OpenAI-compatible backend that needs no model: the "large" one of `make run`.

It echoes the last user message with honest token counts, so that every number a caller sees can be checked by hand.
The wording lives in `answers`; here are the HTTP shapes. `python -m gateway.demo.backend PORT` runs it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway.demo.answers import (
    Choice,
    Invalid,
    Json,
    choices,
    completion_choices,
    count,
    embeddings,
    header,
    ranked,
    usage,
)
from gateway.demo.media import (
    CHUNK_BYTES,
    Heard,
    heard,
    image_usage,
    images_asked,
    picture,
    spoken,
    transcript,
)

HOST = "127.0.0.1"
MAX_BODY_BYTES = 64_000_000
MODELS = ("large",)


@dataclass(slots=True)
class Answer:
    """A status with one JSON body, a text, or the pieces of a stream."""

    status: int
    body: Json | None = None
    text: str | None = None
    events: list[bytes] | None = None
    kind: str = "text/event-stream"


def make_app(pace_s: float = 0.0) -> web.Application:
    """The backend as an application; `pace_s` passes between the events of a stream."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await send(request, answer(request.method, request.path, await request.read()), pace_s)

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_route("*", "/{tail:.*}", handle)
    return app


def answer(method: str, path: str, raw: bytes) -> Answer:
    """What an honest backend says to this request."""
    if (method, path) == ("GET", "/v1/models"):
        return Answer(200, {"object": "list", "data": [_model(name) for name in MODELS]})
    operation, by_form = OPERATIONS.get(path), path in FORMS
    if method != "POST" or not (operation or by_form):
        return Answer(404, error(f"no {method} {path}", "not_found"))
    try:
        if operation is None:
            return _hear(heard(raw))
        body = json.loads(raw)
        if not isinstance(body, dict):
            raise Invalid("the body is not an object")
        return operation(body)
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as problem:
        return Answer(400, error(f"invalid request: {problem}", "invalid_value"))


def error(message: str, code: str, kind: str = "invalid_request_error") -> Json:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def event(payload: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def send(request: web.Request, reply: Answer, pace_s: float = 0.0) -> web.StreamResponse:
    """Write an answer to the client."""
    if reply.text is not None:
        return web.Response(text=reply.text, status=reply.status)
    if reply.events is None:
        return web.json_response(reply.body, status=reply.status)
    response = web.StreamResponse(status=reply.status, headers={"content-type": reply.kind})
    await response.prepare(request)
    for item in reply.events:
        await response.write(item)
        if pace_s:
            await asyncio.sleep(pace_s)
    await response.write_eof()
    return response


def _chat(body: Json) -> Answer:
    made, prompt_tokens = choices(body)
    counted = usage(prompt_tokens, made)
    if body.get("stream"):
        return Answer(200, events=list(_chat_events(body, made, counted)))
    full = [
        {"index": i, "message": choice.message, "logprobs": None, "finish_reason": choice.finish_reason}
        for i, choice in enumerate(made)
    ]
    return Answer(200, header("chat.completion", body) | {"choices": full, "usage": counted})


def _chat_events(body: Json, made: list[Choice], counted: Json) -> Iterator[bytes]:
    shared = header("chat.completion.chunk", body)
    for index, choice in enumerate(made):
        for delta in choice.deltas:
            part = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            yield event(shared | {"choices": [part]})
        last = {"index": index, "delta": {}, "logprobs": None, "finish_reason": choice.finish_reason}
        yield event(shared | {"choices": [last]})
    yield from _end(body, shared, counted)


def _complete(body: Json) -> Answer:
    made, prompt_tokens = completion_choices(body)
    counted = usage(prompt_tokens, made)
    shared = header("text_completion", body)
    if body.get("stream"):
        return Answer(200, events=list(_completion_events(body, shared, made, counted)))
    full = [
        {"index": i, "text": choice.text, "logprobs": None, "finish_reason": choice.finish_reason}
        for i, choice in enumerate(made)
    ]
    return Answer(200, shared | {"choices": full, "usage": counted})


def _completion_events(body: Json, shared: Json, made: list[Choice], counted: Json) -> Iterator[bytes]:
    for index, choice in enumerate(made):
        for text in choice.pieces:
            part = {"index": index, "text": text, "logprobs": None, "finish_reason": None}
            yield event(shared | {"choices": [part]})
        last = {"index": index, "text": "", "logprobs": None, "finish_reason": choice.finish_reason}
        yield event(shared | {"choices": [last]})
    yield from _end(body, shared, counted)


def _end(body: Json, shared: Json, counted: Json) -> Iterator[bytes]:
    if (body.get("stream_options") or {}).get("include_usage"):
        yield event(shared | {"choices": [], "usage": counted})
    yield DONE


def _embed(body: Json) -> Answer:
    vectors, tokens = embeddings(body)
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    counted = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(200, {"object": "list", "model": body.get("model"), "data": data, "usage": counted})


def _rerank(body: Json) -> Answer:
    results, tokens = ranked(body)
    return Answer(200, {"model": body.get("model"), "results": results, "usage": {"total_tokens": tokens}})


def _paint(body: Json) -> Answer:
    prompt, n = images_asked(body)
    usage = image_usage(prompt, n)
    if not body.get("stream"):
        return Answer(200, {"created": 0, "data": [{"b64_json": picture(prompt, i)} for i in range(n)], "usage": usage})
    partly: list[Json] = [
        {"type": "image_generation.partial_image", "partial_image_index": i, "b64_json": picture(prompt, 0)}
        for i in range(body.get("partial_images") or 0)
    ]
    done = {"type": "image_generation.completed", "b64_json": picture(prompt, 0), "usage": usage}
    return Answer(200, events=[event(one) for one in [*partly, done]])


def _speak(body: Json) -> Answer:
    sound, kind = spoken(body)
    pieces = [sound[place : place + CHUNK_BYTES] for place in range(0, len(sound), CHUNK_BYTES)]
    if body.get("stream_format") != "sse":
        return Answer(200, events=pieces, kind=kind)
    deltas: list[Json] = [{"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()} for piece in pieces]
    tokens = {"input_tokens": count(body["input"]), "output_tokens": len(pieces)}
    tokens["total_tokens"] = sum(tokens.values())
    return Answer(200, events=[event(one) for one in [*deltas, {"type": "speech.audio.done", "usage": tokens}]])


def _hear(form: Heard) -> Answer:
    if form.fields.get("stream") != "true":
        said = transcript(form)
        return Answer(200, text=said) if isinstance(said, str) else Answer(200, said)
    deltas = [event({"type": "transcript.text.delta", "delta": piece}) for piece in form.pieces]
    done = {"type": "transcript.text.done", "text": "".join(form.pieces), "usage": form.tokens}
    return Answer(200, events=[*deltas, event(done)])


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "moma-demo"}


OPERATIONS: Final = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _complete,
    "/v1/embeddings": _embed,
    "/v1/rerank": _rerank,
    "/v1/images/generations": _paint,
    "/v1/audio/speech": _speak,
}
FORMS: Final = ("/v1/audio/transcriptions", "/v1/audio/translations")


def main() -> None:
    web.run_app(make_app(pace_s=0.02), host=HOST, port=int(sys.argv[1]), print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
