"""A backend that costs next to nothing: fixed answers from a raw protocol. `python -m benchmarks.upstream PORT`."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import orjson
import uvloop

MESSAGE_USAGE = {"input_tokens": 210, "output_tokens": 120}
USAGE = {"prompt_tokens": 210, "completion_tokens": 120, "total_tokens": 330}
EVENTS = 52  # as in the measured workload: role, 49 pieces, the finish, the usage


def whole_answer() -> bytes:
    """0.7 KB of chat completion."""
    message = {"role": "assistant", "content": "The quick brown fox jumps over the lazy dog. " * 9}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return orjson.dumps({**body, "usage": USAGE})


def stream_answer() -> bytes:
    """52 events and [DONE], each a chunk of HTTP as servers send them, in one burst."""
    pieces: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
    pieces += [{"content": f" word{n}"} for n in range(EVENTS - 3)]
    events = [_event([{"index": 0, "delta": piece, "finish_reason": None}]) for piece in pieces]
    events.append(_event([{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    events.append(_event([], usage=USAGE))
    events.append(b"data: [DONE]\n\n")
    return b"".join(_chunk(event) for event in events) + b"0\r\n\r\n"


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + orjson.dumps({**body, **more}) + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def message_answer() -> bytes:
    """The same in Anthropic's dialect."""
    content = [{"type": "text", "text": "The quick brown fox jumps over the lazy dog. " * 9}]
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content}
    return orjson.dumps({**body, "stop_reason": "end_turn", "stop_sequence": None, "usage": MESSAGE_USAGE})


def message_stream() -> bytes:
    """As many pieces, between the events that Anthropic puts around them."""
    head: dict[str, object] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
    head |= {"content": [], "stop_reason": None}
    events: list[dict[str, object]] = [{"type": "message_start", "message": {**head, "usage": MESSAGE_USAGE}}]
    events.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f" word{n}"}}
        for n in range(EVENTS - 3)
    ]
    events.append({"type": "content_block_stop", "index": 0})
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 120}})
    events.append({"type": "message_stop"})
    named = [b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event)) for event in events]
    return b"".join(_chunk(event) for event in named) + b"0\r\n\r\n"


WHOLE = whole_answer()
MESSAGE = message_answer()
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = stream_answer()
_ANSWERS = {  # by whether Anthropic's path was asked, and for a stream
    (False, False): _HEAD % (len(WHOLE), WHOLE),
    (False, True): _STREAM_HEAD + STREAM,
    (True, False): _HEAD % (len(MESSAGE), MESSAGE),
    (True, True): _STREAM_HEAD + message_stream(),
}


class Upstream(asyncio.Protocol):
    """Requests are told apart by their length alone; a body that asks for a stream says so."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            start = head.find(b"content-length:")
            length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._transport.write(_ANSWERS[head.startswith(b"post /v1/messages"), b'"stream":true' in body])


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
