"""An OpenAI-compatible backend that needs no model: the "large" one of `make run`.

It echoes the last user message with honest token counts, so that every number a caller sees can be checked by hand.
The wording lives in `answers`; here are the HTTP shapes. `python -m gateway.demo.backend PORT` runs it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web

from gateway.demo.answers import Choice, Invalid, Json, choices, completion_choices, embeddings, header, ranked, usage

HOST = "127.0.0.1"
MAX_BODY_BYTES = 64_000_000
MODELS = ("large",)


@dataclass(slots=True)
class Answer:
    """A status with either one JSON body or the events of a stream."""

    status: int
    body: Json | None = None
    events: list[bytes] | None = None


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
    operation = {
        "/v1/chat/completions": _chat,
        "/v1/completions": _complete,
        "/v1/embeddings": _embed,
        "/v1/rerank": _rerank,
    }.get(path)
    if method != "POST" or operation is None:
        return Answer(404, error(f"no {method} {path}", "not_found"))
    try:
        body = json.loads(raw)
        if not isinstance(body, dict):
            raise Invalid("the body is not an object")
        return operation(body)
    except (ValueError, TypeError, AttributeError, KeyError) as problem:
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
    if reply.events is None:
        return web.json_response(reply.body, status=reply.status)
    response = web.StreamResponse(status=reply.status, headers={"content-type": "text/event-stream"})
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


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "moma-demo"}


def main() -> None:
    web.run_app(make_app(pace_s=0.02), host=HOST, port=int(sys.argv[1]), print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
