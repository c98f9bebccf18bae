"""The URL table, the sink of an HTTP answer, and the error boundary."""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson

from gateway.account.page import PATH as ACCOUNT
from gateway.account.page import AccountPage
from gateway.admin.api import Admin
from gateway.backends.failures import SHUTDOWN_RETRY_S
from gateway.call import Answer, Request, Sink
from gateway.dialects import messages_models
from gateway.dialects.known import id_headers
from gateway.dialects.messages_models import VERSION_HEADER
from gateway.errors import (
    UNFORESEEN,
    GatewayError,
    InvalidKey,
    InvalidValue,
    MethodNotAllowed,
    NotConfigured,
    NotFound,
    ShuttingDown,
)
from gateway.failing import error_answer, error_event
from gateway.form import read_form
from gateway.generation import Generation
from gateway.keeping import PATH as RESPONSES
from gateway.keeping import Keeping
from gateway.metrics import Metrics
from gateway.once import HEADER, Once, Serve
from gateway.request import HttpRequest
from gateway.status.page import StatusPage
from gateway.tenants import Caller

_ENDPOINTS = {
    "/v1/chat/completions": "chat", "/v1/completions": "completions", "/v1/embeddings": "embeddings",
    "/v1/messages": "messages", "/v1/responses": "responses",
    "/v1/rerank": "rerank", "/v1/images/generations": "images", "/v1/audio/speech": "speech",
    "/v1/audio/transcriptions": "transcriptions", "/v1/audio/translations": "translations",
}  # fmt: skip
_FORMS = ("/v1/audio/transcriptions", "/v1/audio/translations")
_MESSAGES = "/v1/messages"
_KEPT = "responses"  # the endpoint whose answers are
_VERSIONS = ("1.1", "1.0")
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_UNKEPT = "cache-control: no-cache\r\n"
_STREAM_LINES = f"content-type: text/event-stream; charset=utf-8\r\n{_UNKEPT}"
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_log = logging.getLogger("gateway.server")


class HttpSink:
    """Writes an answer to the client as it comes.

    State: the head that waits for the first chunk, so that they leave together, whether a stream has not ended yet,
    whether the client knows chunks (HTTP/1.0 does not: there the end of the connection ends a stream), whether the
    stream is one of events, and whether the head has let it use the connection again.
    """

    __slots__ = ("_chunked", "_events", "_generation", "_head", "_promised", "_request", "begun", "streaming")

    def __init__(self, request: HttpRequest, generation: int) -> None:
        self._request = request
        self._generation = generation
        self._head = b""
        self._chunked = request.version == "1.1"
        self._events = True
        self._promised = False
        self.begun = self.streaming = False

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        if not self._chunked:
            self._request.keep_alive = False
        lines = _STREAM_LINES
        if "content-type" in headers:
            lines, self._events = _UNKEPT, headers["content-type"].startswith("text/event-stream")
        self._begin(status, lines, headers, "\r\ntransfer-encoding: chunked" if self._chunked else "")
        self.streaming = True

    async def write(self, chunk: bytes) -> None:
        if chunk:
            await self._request.write(self._led(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk))

    async def finish(self, last: bytes = b"", *, whole: bool = True) -> None:
        """Bytes of sound have no room for an event that says what went wrong: there the answer breaks off."""
        self.streaming = False
        if not (whole or self._events):
            self._request.abort()
            return
        self._request.keep_alive = self._promised  # though a shutdown may have begun: the client does not know
        if self._chunked:
            last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if last else b"0\r\n\r\n"
        self._request.end(self._led(last))

    async def send(self, answer: Answer) -> None:
        self._begin(answer.status, "", answer.headers, f"\r\ncontent-length: {len(answer.body)}")
        await self._request.write(self._led(b"" if self._request.method == "HEAD" else answer.body))

    def _begin(self, status: int, before: str, headers: dict[str, str], framing: str) -> None:
        assert not self.begun, "an answer has one head"
        lines = "\r\n".join(map(": ".join, headers.items()))
        if not lines.isascii():
            lines = "\r\n".join(f"{name}: {_escaped(value)}" for name, value in headers.items())
        assert lines.count("\n") == len(headers) - 1, "a header of an answer holds a line break"
        self._promised = self._request.keep_alive
        if not self._promised:
            framing += "\r\nconnection: close"
        elif not self._chunked:
            framing += "\r\nconnection: keep-alive"
        own = f"x-moma-config: {self._generation}\r\ndate: {_http_date(int(time.time()))}"
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\n{before}{lines}{framing}\r\n{own}\r\n\r\n"
        self._head = head.encode("ascii")
        self.begun = True

    def _led(self, data: bytes) -> bytes:
        """With the head in front, once."""
        if not self._head:
            return data
        head, self._head = self._head, b""
        return head + data


@lru_cache(maxsize=1)
def _http_date(second: int) -> str:
    """Kept, because a thousand answers of one second have the same."""
    return formatdate(second, usegmt=True)


def _escaped(value: str) -> str:
    """Names of models, backends and routes may be Chinese, headers may not: UTF-8, percent-encoded."""
    return value if value.isascii() else quote(value, safe=_PLAIN)


Handler = Callable[[HttpRequest, HttpSink, str], Awaitable[None]]


class Gateway:
    """Every URL. Health and metrics are open (metrics with a key if one is set); all else needs a credential.

    State: `draining`, from when on no new call is taken, and the `generation` that what comes now is served by.
    `reloads` gives what /readyz says of them.
    """

    def __init__(
        self,
        generation: Generation,
        admin: Admin,
        metrics: Metrics,
        status: StatusPage,
        account: AccountPage,
        *,
        reasons: Callable[[], list[str]],
        reloads: Callable[[], dict[str, Any]],
        next_id: Callable[[], str],
        once: Once,
        keeping: Keeping,
    ) -> None:
        self.generation = generation
        self._once = once
        self._keeping = keeping
        self._admin = admin
        self._metrics = metrics
        self._status = status
        self._account = account
        self._reasons = reasons
        self._reloads = reloads
        self._next_id = next_id
        self.draining = False
        self._table: dict[str, tuple[str, Handler]] = {
            **{path: ("POST", self._call) for path in _ENDPOINTS},
            "/v1/messages/count_tokens": ("POST", self._count_tokens),
            **{path: ("POST", self._call_by_form) for path in _FORMS},
            "/v1/models": ("GET", self._models),
            "/v1/usage": ("GET", self._usage),
            "/v1/redeem": ("POST", self._redeem),
            "/": ("GET", self._page),
            "/healthz": ("GET", self._healthz),
            "/readyz": ("GET", self._readyz),
            "/metrics": ("GET", self._scrape),
        }

    async def handle(self, http: HttpRequest) -> None:
        """The error boundary: whatever a handler raises becomes JSON of the one shape."""
        request_id = self._next_id()
        sink = HttpSink(http, self.generation.number)
        try:
            await self._handler(http)(http, sink, request_id)
        except GatewayError as error:
            await sink.send(error_answer(error, request_id, endpoint=_dialect(http.path)))
        except ConnectionError:
            raise
        except Exception:  # nobody foresaw it: its text does not go out
            _log.exception("a call failed unexpectedly (%s)", request_id)
            failed, endpoint = GatewayError(UNFORESEEN), _dialect(http.path)
            if sink.streaming:
                await sink.finish(error_event(failed, request_id, endpoint), whole=False)
            http.keep_alive = False
            if not sink.begun:
                await sink.send(error_answer(failed, request_id, endpoint=endpoint))

    def refuse(self, error: GatewayError) -> Answer:
        """The answer to what is no request, or finds no room; it may have been a call."""
        self._metrics.refused(error.status)
        answer = error_answer(error, self._next_id())
        answer.headers["x-moma-config"] = str(self.generation.number)
        return answer

    def _handler(self, http: HttpRequest) -> Handler:
        path = http.path
        if http.version not in _VERSIONS:
            raise InvalidValue("HTTP/1.1 and HTTP/1.0 are spoken here.")
        entry = self._table.get(path)
        if entry is None:  # calls are in the table: they pay for no comparison
            if path.startswith("/admin/v1/"):
                return self._administer
            if path == ACCOUNT or path.startswith(f"{ACCOUNT}/"):
                return self._show_account
            if path.startswith(f"{RESPONSES}/"):
                return self._response
            if path.startswith("/v1/models/"):
                entry = ("GET", self._model)
        if entry is None or http.method == "CONNECT":  # which names a host, no path of ours
            raise NotFound("There is nothing at this path. See GET /v1/models and the documentation.")
        method, handler = entry
        if http.method != method and not (http.method == "HEAD" and method == "GET"):
            raise MethodNotAllowed(f"This path takes {method}.", allow=[method])
        return handler

    async def _call(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        generation = self.generation  # until the end of the call, whatever comes meanwhile
        try:
            caller, endpoint = self._asked(http, generation)
            body = await http.body(generation.config.server.max_body)
        except GatewayError as error:
            self._metrics.refused(error.status)
            raise
        await self._serve(caller, Request(request_id, endpoint, http.headers, body), generation, sink)

    async def _call_by_form(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        generation = self.generation
        try:
            caller, endpoint = self._asked(http, generation)
            fields, file = await read_form(http, generation.config.server.max_body)
        except GatewayError as error:
            self._metrics.refused(error.status)
            raise
        await self._serve(caller, Request(request_id, endpoint, http.headers, fields, upload=file), generation, sink)

    async def _serve(self, caller: Caller, request: Request, generation: Generation, sink: HttpSink) -> None:
        request.at_s = int(time.time())
        if request.endpoint != _KEPT and HEADER not in request.headers:
            await generation.pipeline.handle(caller, request, sink)
            return
        serve: Serve = functools.partial(generation.pipeline.handle, caller)
        if request.endpoint == _KEPT:
            most = generation.config.server.max_body
            serve = functools.partial(self._keep, caller.tenant, serve, most)
        if HEADER in request.headers:
            await self._once.handle(caller, request, sink, serve)
        else:
            await serve(request, sink)

    async def _keep(self, tenant: str, serve: Serve, most: int, request: Request, sink: Sink) -> None:
        try:
            await self._keeping.handle(tenant, request, sink, most, serve)
        except GatewayError as error:  # the pipeline answers its own
            self._metrics.refused(error.status)
            raise

    def _asked(self, http: HttpRequest, generation: Generation) -> tuple[Caller, str]:
        """Who calls, and what for: asked before the body is read, as a stranger does not get to send 20 MB."""
        caller, endpoint = self._known(http, generation), _ENDPOINTS[http.path]
        if endpoint not in generation.pipeline.served:
            raise NotConfigured(endpoint)
        return caller, endpoint

    def _known(self, http: HttpRequest, generation: Generation) -> Caller:
        if self.draining:
            raise ShuttingDown("The gateway is shutting down.", retry_after_s=SHUTDOWN_RETRY_S)
        return generation.pipeline.authenticate(http.headers)

    async def _response(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        generation = self.generation
        tenant, most = generation.pipeline.authenticate(http.headers).tenant, generation.config.server.max_body
        value = await self._keeping.asked(tenant, http.method, http.path, http.query, most)
        await sink.send(_json(value, request_id))

    async def _count_tokens(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        generation = self.generation
        caller = self._known(http, generation)
        request = Request(request_id, "messages", http.headers, await http.body(generation.config.server.max_body))
        answer = _json(await generation.pipeline.count_tokens(caller, request), request_id)
        answer.headers |= id_headers(request_id, "messages")
        await sink.send(answer)

    async def _models(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        pipeline = self.generation.pipeline
        data = pipeline.models(pipeline.authenticate(http.headers))
        if VERSION_HEADER in http.headers:
            await sink.send(_json(messages_models.page([model["id"] for model in data]), request_id))
        else:
            await sink.send(_json({"object": "list", "data": data}, request_id))

    async def _model(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        pipeline = self.generation.pipeline
        caller = pipeline.authenticate(http.headers)
        model = pipeline.model(caller, http.path.removeprefix("/v1/models/"))
        await sink.send(
            _json(messages_models.one(model["id"]) if VERSION_HEADER in http.headers else model, request_id)
        )

    async def _usage(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        pipeline = self.generation.pipeline
        await sink.send(_json(pipeline.usage(pipeline.authenticate(http.headers)), request_id))

    async def _redeem(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        generation = self.generation
        caller, body = self._known(http, generation), await http.body(generation.config.server.max_body)
        status, value = await self._admin.redeem(caller.tenant, body, request_id)
        await sink.send(_json(value, request_id, status))

    async def _administer(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        generation = self.generation
        by = self._admin.authorise(http.headers, http.remote, generation.admin_key)
        body = await http.body(generation.config.server.max_body) if http.method in ("POST", "PUT", "PATCH") else b""
        asked = http.method, http.path, http.query, body, by, request_id, http.headers.get("if-match")
        status, value = await self._admin.handle(*asked)
        answer = _json(value, request_id, status)
        if "version" in value:
            answer.headers["etag"] = f'"{value["version"]}"'
        await sink.send(answer)

    async def _page(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        await sink.send(self._status.answer(http.headers, http.remote, request_id))

    async def _show_account(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        answer = await self._account.answer(http, self.generation.tenants)
        answer.headers["x-request-id"] = request_id
        await sink.send(answer)

    async def _healthz(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        await sink.send(_json({"status": "ok"}, request_id))

    async def _readyz(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        reasons = self._reasons()
        ready = {"ready": not reasons, "reasons": reasons, **self._reloads()}
        await sink.send(_json(ready, request_id, 503 if reasons else 200))

    async def _scrape(self, http: HttpRequest, sink: HttpSink, request_id: str) -> None:
        key = self.generation.metrics_key
        if key is not None:
            sent = http.headers.get("authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(sent, f"Bearer {key}".encode()):
                raise InvalidKey("The metrics key is missing or not valid.")
        headers = {"content-type": "text/plain; version=0.0.4; charset=utf-8", "x-request-id": request_id}
        pieces = []
        for piece in self._metrics.registry.pieces():
            pieces.append(piece)
            await asyncio.sleep(0)  # calls go on in between
        await sink.send(Answer(200, headers, b"".join(pieces)))


def _dialect(path: str) -> str:
    """What errors at this path look like."""
    return "messages" if path.startswith(_MESSAGES) else _ENDPOINTS.get(path, "")


def _json(value: object, request_id: str, status: int = 200) -> Answer:
    return Answer(status, {"content-type": "application/json", "x-request-id": request_id}, orjson.dumps(value))
