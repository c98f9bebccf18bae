"""The URL table, the sink of an HTTP answer, and the error boundary."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import orjson
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time as _http_date

from gateway.admin import Admin
from gateway.call import Answer, Request
from gateway.edge import error_response
from gateway.errors import GatewayError, InvalidKey, InvalidValue, MethodNotAllowed, NotFound, RequestTooLarge
from gateway.metrics import Metrics
from gateway.pipeline import Pipeline

Handler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
_ENDPOINTS = {"/v1/chat/completions": "chat", "/v1/completions": "completions", "/v1/embeddings": "embeddings"}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


class _Written(web.StreamResponse):
    """What aiohttp gets back for an answer that the sink has put on the wire itself."""

    def __init__(self, status: int, *, keep_alive: bool) -> None:
        super().__init__(status=status)
        self._kept_alive = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._kept_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class HttpSink:
    """Writes a call's answer to the client as it comes; `response` is what the edge gets back.

    It makes head and chunks itself: a response object of aiohttp costs as much as routing and charging a call. State:
    the head that waits for the first chunk, so that they leave together, and whether the stream is chunked (HTTP/1.0
    has no chunks: there the end of the connection ends it).
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._head = b""
        self._chunked = request.version >= HttpVersion11
        self.response: _Written | None = None

    @property
    def begun(self) -> bool:
        return self.response is not None

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        framing = {"transfer-encoding": "chunked"} if self._chunked else {}
        self._begin(status, {**_STREAM_HEADERS, **headers, **framing}, keep=self._chunked)

    async def write(self, chunk: bytes) -> None:
        if chunk:
            await self._put(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)

    async def finish(self, last: bytes = b"") -> None:
        if self._chunked:
            last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if last else b"0\r\n\r\n"
        await self._put(last)
        await self._request.writer.write_eof()

    async def send(self, answer: Answer) -> None:
        self._begin(answer.status, {**answer.headers, "content-length": str(len(answer.body))}, keep=True)
        await self._put(answer.body)
        await self._request.writer.write_eof()

    def _begin(self, status: int, headers: dict[str, str], *, keep: bool) -> None:
        keep = keep and self._request.keep_alive
        self.response = _Written(status, keep_alive=keep)
        if not keep:
            headers["connection"] = "close"
        elif self._request.version < HttpVersion11:
            headers["connection"] = "keep-alive"
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        assert lines.count("\n") == len(headers), "a header of an answer holds a line break"
        self._head = f"HTTP/1.1 {status} {_REASONS[status]}\r\n{lines}date: {_http_date()}\r\n\r\n".encode("latin-1")

    async def _put(self, data: bytes) -> None:
        """Waits while the client has more than it reads. Raises ConnectionError when it has left."""
        head, self._head = self._head, b""
        await self._request.writer.write(head + data if head else data)


class Gateway:
    """Every URL. Health and metrics are open (metrics with a key if one is set); all else needs a credential."""

    def __init__(
        self,
        pipeline: Pipeline,
        admin: Admin,
        metrics: Metrics,
        *,
        max_body: int,
        metrics_key: str | None,
        reasons: Callable[[], list[str]],
        next_id: Callable[[], str],
    ) -> None:
        self._pipeline = pipeline
        self._admin = admin
        self._metrics = metrics
        self._max_body = max_body
        self._metrics_key = metrics_key
        self._reasons = reasons
        self._next_id = next_id
        self._table: dict[str, tuple[str, Handler]] = {
            **{path: ("POST", self._call) for path in _ENDPOINTS},
            "/v1/models": ("GET", self._models),
            "/v1/usage": ("GET", self._usage),
            "/healthz": ("GET", self._healthz),
            "/readyz": ("GET", self._readyz),
            "/metrics": ("GET", self._scrape),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The error boundary: whatever a handler raises becomes JSON of the one shape."""
        request_id = self._next_id()
        try:
            return await self._handler(request)(request, request_id)
        except GatewayError as error:
            return error_response(error, {"x-request-id": request_id})

    def _handler(self, request: web.BaseRequest) -> Handler:
        path = request.path
        if request.version < HttpVersion10:
            raise InvalidValue("HTTP/1.0 is the oldest version that is spoken here.")
        if path.startswith("/admin/v1/"):
            return self._administer
        entry = self._table.get(path)
        if entry is None and path.startswith("/v1/models/"):
            entry = ("GET", self._model)
        if entry is None:
            raise NotFound("There is nothing at this path. See GET /v1/models and the documentation.")
        method, handler = entry
        if request.method != method and not (request.method == "HEAD" and method == "GET"):
            raise MethodNotAllowed(f"This path takes {method}.")
        return handler

    async def _call(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        headers = _lower(http)
        caller = self._pipeline.authenticate(headers)  # before the body: a stranger does not get to send 20 MB
        body = await read_body(http, headers, self._max_body)
        sink = HttpSink(http)
        request = Request(request_id, _ENDPOINTS[http.path], headers, body)
        await self._pipeline.handle(caller, request, sink)
        assert sink.response is not None
        return sink.response

    async def _models(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        data = self._pipeline.models(self._pipeline.authenticate(_lower(http)))
        return _json({"object": "list", "data": data}, request_id)

    async def _model(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        caller = self._pipeline.authenticate(_lower(http))
        return _json(self._pipeline.model(caller, http.path.removeprefix("/v1/models/")), request_id)

    async def _usage(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        caller = self._pipeline.authenticate(_lower(http))
        return _json(self._pipeline.usage(caller), request_id)

    async def _administer(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        headers = _lower(http)
        self._admin.authorise(headers, http.remote or "")
        body = await read_body(http, headers, self._max_body) if http.method in ("POST", "PUT") else b""
        status, value = await self._admin.handle(http.method, http.path, dict(http.query), body)
        return _json(value, request_id, status)

    async def _healthz(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        return _json({"status": "ok"}, request_id)

    async def _readyz(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        reasons = self._reasons()
        return _json({"ready": not reasons, "reasons": reasons}, request_id, 503 if reasons else 200)

    async def _scrape(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        if self._metrics_key is not None:
            sent = http.headers.get("authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(sent, f"Bearer {self._metrics_key}".encode()):
                raise InvalidKey("The metrics key is missing or not valid.")
        return web.Response(
            body=self._metrics.exposition(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        )


async def read_body(http: web.BaseRequest, headers: Mapping[str, str], limit: int) -> bytes:
    """The whole body, refused before it is larger than `limit`. Raises RequestTooLarge or InvalidValue."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidValue("Compressed bodies are not accepted. Send the body as it is.")
    if (http.content_length or 0) > limit:
        raise _too_large(limit)
    if headers.get("expect", "").lower() == "100-continue" and http.transport is not None:
        http.transport.write(_CONTINUE)  # nothing of the answer can have gone out yet
    parts: list[bytes] = []
    size = 0
    while part := await http.content.readany():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return b"".join(parts)


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {limit} bytes, the limit of this gateway.")


def _lower(http: web.BaseRequest) -> dict[str, str]:
    """Header names in lower case; a credential that is sent twice is none."""
    headers = {name.lower(): value for name, value in http.headers.items()}
    if len(headers) < len(http.headers):  # something was sent twice
        credentials = [len(http.headers.getall(name, ())) for name in ("authorization", "x-api-key")]
        if max(credentials) > 1:
            headers.pop("authorization", None)
            headers.pop("x-api-key", None)
    return headers


def _json(value: object, request_id: str, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(value),
        headers={"content-type": "application/json", "x-request-id": request_id},
    )
