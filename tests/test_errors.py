"""Every error has the one shape, and what its class promises."""

from __future__ import annotations

import orjson
import pytest

from gateway import errors

SHOWN = [
    (errors.InvalidKey("m"), 401, "invalid_request_error", "invalid_api_key"),
    (errors.NotFound("m"), 404, "invalid_request_error", "not_found"),
    (errors.ModelNotFound("m"), 404, "invalid_request_error", "model_not_found"),
    (errors.MethodNotAllowed("m"), 405, "invalid_request_error", "method_not_allowed"),
    (errors.InvalidValue("m"), 400, "invalid_request_error", "invalid_value"),
    (errors.ContextTooLong("m"), 400, "invalid_request_error", "context_length_exceeded"),
    (errors.RequestTooLarge("m"), 413, "invalid_request_error", "request_too_large"),
    (errors.Conflict("m"), 409, "invalid_request_error", "conflict"),
    (errors.RateLimited("m", kind="rpm", retry_after_s=1), 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.QuotaExhausted("m"), 429, "insufficient_quota", "insufficient_quota"),
    (errors.BackendFailed("m"), 502, "api_error", "backend_error"),
    (errors.NoBackend("m"), 503, "api_error", "no_backend_available"),
    (errors.BackendOverloaded("m"), 429, "rate_limit_error", "backend_overloaded"),
    (errors.DeadlineExceeded("m"), 504, "api_error", "deadline_exceeded"),
    (errors.StoreUnavailable("m"), 503, "api_error", "store_unavailable"),
]


@pytest.mark.parametrize(("error", "status", "type_", "code"), SHOWN, ids=lambda v: getattr(v, "code", None))
def test_the_table_of_errors(error: errors.GatewayError, status: int, type_: str, code: str) -> None:
    assert error.status == status
    body = orjson.loads(errors.encoded(error))["error"]
    assert (body["type"], body["code"], body["message"], body["param"]) == (type_, code, "m", None)


def test_the_clients_faults_and_the_services_are_told_apart() -> None:
    for error, status, _, code in SHOWN:
        service = status >= 500 or code == "backend_overloaded"
        assert isinstance(error, errors.ServiceError) == service
        assert isinstance(error, errors.CallRejected) != service


@pytest.mark.parametrize(
    ("wait_s", "whole", "millis"), [(0.0, "1", "0"), (0.2, "1", "200"), (1.0, "1", "1000"), (1.001, "2", "1001"),
                                    (60, "60", "60000"), (-5, "1", "0"), (2.0004, "3", "2001"),
                                    (1.0000000001, "1", "1000")],
)  # fmt: skip
def test_advice_to_retry_is_never_too_early(wait_s: float, whole: str, millis: str) -> None:
    headers = errors.NoBackend("m", retry_after_s=wait_s).headers()
    assert (headers["retry-after"], headers["retry-after-ms"]) == (whole, millis)


def test_without_advice_there_is_no_header() -> None:
    assert errors.NoBackend("m").headers() == {}


def test_an_exhausted_package_is_not_worth_a_retry() -> None:
    error = errors.QuotaExhausted("m", limit="5", used="4", reserved="1", resets_at=None, scope="t")
    assert error.headers() == {"x-should-retry": "false"}
    body = error.body()["error"]
    assert set(body) == {"message", "type", "param", "code", "limit", "used", "reserved", "resets_at", "scope"}
