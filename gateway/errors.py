"""The error tree. Whose fault it is shows in the class; status, type and code belong to the class.

GatewayError
  CallRejected                 the client's: never retried, never reaches a backend
    InvalidKey 401, PasswordNeeded 401 (an InvalidKey that makes a browser ask)
    NotFound 404               ModelNotFound 404       MethodNotAllowed 405     NotConfigured 404
    PreviousNotFound 400
    InvalidValue 400           ContextTooLong 400       RequestTooLarge 413    Conflict 409
    AccountNotActive 403       NotAllowed 403           VersionMismatch 412     KeyReused 422
    RateLimited 429            QuotaExhausted 429      BackendRefusal (the backend's 4xx, passed on)
    ConfigRefused 422
    NotCached 504
  ServiceError                 ours or theirs, as the client sees it
    BackendFailed 502          NoBackend 503            BackendOverloaded 429
    DeadlineExceeded 504       StoreUnavailable 503     ShuttingDown 503
  AttemptFailed                one try against one target; dispatch decides what follows (never shown as it is)
  NoRoom                       waited in vain at a limit; whose limit it was says the caller (never shown as it is)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

UNFORESEEN = "The gateway failed. The request id helps to find out why."
_NOISE_MS = 1e-3  # of sums of times


class GatewayError(Exception):
    """Has a public shape: `{"error": {"message", "type", "param", "code"}}` with a status and headers."""

    status: int = 500
    type: str = "api_error"
    code: str = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        refusal: str = "",
        **extra: Any,
    ) -> None:
        """`refusal`: the label of moma_limit_refusals_total, where a limit is the reason."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.refusal = refusal
        self.extra: Mapping[str, Any] = extra

    def body(self) -> dict[str, Any]:
        """The JSON object that goes to the client; always all four keys."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": {**error, **self.extra}}

    def headers(self) -> dict[str, str]:
        """Retry advice: what OpenAI's SDKs obey. Rounded up, for who comes too early is refused again."""
        if self.retry_after_s is None:
            return {}
        wait_ms = max(0, math.ceil(self.retry_after_s * 1000 - _NOISE_MS))
        return {"retry-after": str(max(1, -(-wait_ms // 1000))), "retry-after-ms": str(wait_ms)}


class CallRejected(GatewayError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class InvalidValue(CallRejected):
    pass


class InvalidKey(CallRejected):
    status = 401
    code = "invalid_api_key"


class PasswordNeeded(InvalidKey):
    """A browser asks its user for the key then."""

    def headers(self) -> dict[str, str]:
        return {"www-authenticate": 'Basic realm="MoMA gateway", charset="UTF-8"'}


class NotFound(CallRejected):
    status = 404
    code = "not_found"


class PreviousNotFound(CallRejected):
    """The response that a call goes on from is not kept, or not for this tenant."""

    code = "previous_response_not_found"


class AccountNotActive(CallRejected):
    """Suspended or closed by the operator."""

    status = 403
    code = "account_not_active"


class NotAllowed(CallRejected):
    """What the role of an admin key does not reach."""

    status = 403
    code = "not_allowed"


class VersionMismatch(CallRejected):
    """An edit of what was changed meanwhile; `extra` carries the `version` that is in force."""

    status = 412
    code = "version_mismatch"


class ModelNotFound(CallRejected):
    status = 404
    code = "model_not_found"


class NotConfigured(CallRejected):
    """The path is known, and no model of routes.yaml serves it."""

    status = 404
    code = "not_configured"

    def __init__(self, endpoint: str) -> None:
        super().__init__(f"No model of this gateway serves {endpoint}. Its operator has to add one to routes.yaml.")


class MethodNotAllowed(CallRejected):
    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: Sequence[str] = ()) -> None:
        """`allow`: the methods that the path takes."""
        super().__init__(message)
        self._allow = allow

    def headers(self) -> dict[str, str]:
        return {"allow": ", ".join(self._allow)} if self._allow else {}


class Conflict(CallRejected):
    status = 409
    code = "conflict"


class KeyReused(CallRejected):
    """An Idempotency-Key of another call."""

    status = 422
    code = "idempotency_key_reused"


class RequestTooLarge(CallRejected):
    status = 413
    code = "request_too_large"


class ConfigRefused(CallRejected):
    """A reload that changes nothing; `extra` carries the problems of routes.yaml."""

    status = 422
    code = "invalid_config"


class ContextTooLong(CallRejected):
    code = "context_length_exceeded"


class RateLimited(CallRejected):
    """`kind` is rpm, tpm, concurrency or queue_timeout: the label of the metric. `limits`: x-ratelimit-* headers."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, kind: str, retry_after_s: float, limits: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s, refusal=kind)
        self.kind = kind
        self._limits = limits or {}

    def headers(self) -> dict[str, str]:
        return {**self._limits, **super().headers()}


class QuotaExhausted(CallRejected):
    """`extra` carries limit, used, reserved, resets_at, scope (section 5 of the design).

    `capped`: by a cap, which holds whatever a package says of its end.
    """

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str, *, capped: bool = False, **extra: Any) -> None:
        super().__init__(message, refusal="quota", **extra)
        self.capped = capped

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}


class NotCached(CallRejected):
    """`Cache-Control: only-if-cached`, and no stored answer: the status is that of RFC 9111, 5.2.1.7."""

    status = 504
    code = "not_cached"

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}


class BackendRefusal(CallRejected):
    """A backend's 400, 409, 413 or 422, passed on in its own words; status, type and code are the backend's."""

    def __init__(self, message: str, *, status: int, type_: str, code: str, param: str | None) -> None:
        super().__init__(message, param=param)
        self.status = status
        self.type = type_
        self.code = code


class ServiceError(GatewayError):
    status = 502
    code = "backend_error"


class BackendFailed(ServiceError):
    pass


class NoBackend(ServiceError):
    status = 503
    code = "no_backend_available"


class BackendOverloaded(ServiceError):
    status = 429
    type = "rate_limit_error"
    code = "backend_overloaded"


class DeadlineExceeded(ServiceError):
    status = 504
    code = "deadline_exceeded"


class StoreUnavailable(ServiceError):
    status = 503
    code = "store_unavailable"


class ShuttingDown(ServiceError):
    status = 503
    code = "shutting_down"


class AttemptFailed(GatewayError):
    """One try that did not work.

    kind: connect, timeout, deadline (of the call), shutdown, status, broken (bad or cut answer);
    `backend_status` is 0 without one;
    `free`: nothing reached the backend, so it costs nothing of the retry budget.
    """

    def __init__(
        self, kind: str, message: str, *, backend_status: int = 0, body: bytes = b"", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.kind = kind
        self.backend_status = backend_status
        self.answer_body = body

    @property
    def free(self) -> bool:
        return self.kind == "connect"


class NoRoom(GatewayError):
    """`kind`: queue (no place to wait, or no hope in time) or queue_timeout."""

    def __init__(self, kind: str, retry_after_s: float) -> None:
        super().__init__("no room", retry_after_s=retry_after_s, refusal=kind)
        self.kind = kind


def encoded(error: GatewayError) -> bytes:
    return orjson.dumps(error.body())
