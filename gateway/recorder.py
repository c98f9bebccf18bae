"""A finished call becomes metrics and, on request, one JSON log line. Never prompts, never keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from gateway.call import Usage
from gateway.metrics import Metrics

MICRO = 1_000_000


@dataclass(slots=True)
class Finished:
    """One call as it ended. Names are configured ones, or "" when the call did not get that far."""

    request_id: str
    tenant: str = ""
    route: str = ""
    model: str = ""
    backend: str = ""
    outcome: str = "aborted"
    status: int = 0
    stream: bool = False
    attempts: int = 0
    usage: Usage | None = None
    charged_uc: int = 0
    overage_uc: int = 0
    started: float = 0.0
    ended: float = 0.0
    waited_s: float = 0.0
    first_token_s: float | None = None
    refusal: str = ""


class Recorder:
    """`log` gets one line per call, or is None. Tenant labels: the first `top` seen, the rest `other`."""

    def __init__(self, metrics: Metrics, *, top: int, log: Callable[[bytes], None] | None) -> None:
        self._metrics = metrics
        self._top = top
        self._log = log
        self._labelled: set[str] = set()

    def record(self, call: Finished) -> None:
        metrics = self._metrics
        metrics.requests.labels(call.route, call.model, call.backend, call.outcome, str(call.status)).inc()
        if call.refusal:
            metrics.limit_refusals.labels(call.refusal).inc()
        if call.backend:
            self._of_answer(call)
        if self._log is not None:
            self._log(_line(call))

    def _of_answer(self, call: Finished) -> None:
        metrics, total_s = self._metrics, call.ended - call.started
        labels = (call.route, call.model, call.backend)
        metrics.duration.labels(*labels).observe(total_s)
        metrics.overhead.labels("true" if call.stream else "false").observe(max(0.0, total_s - call.waited_s))
        if call.first_token_s is not None:
            metrics.first_token.labels(*labels).observe(call.first_token_s)
        if call.usage is not None:
            self._of_usage(call, call.usage, labels)

    def _of_usage(self, call: Finished, usage: Usage, labels: tuple[str, str, str]) -> None:
        metrics, output = self._metrics, usage.output_tokens
        metrics.tokens.labels(*labels, "input").observe(usage.input_tokens)
        metrics.tokens.labels(*labels, "output").observe(output)
        if call.first_token_s is not None and output > 1:
            metrics.per_token.labels(*labels).observe((call.waited_s - call.first_token_s) / (output - 1))
        if "estimated" in usage.flags and "partial" not in usage.flags:  # cut off before the backend could say it
            metrics.usage_missing.labels(call.backend).inc()
        if "bad_usage" in usage.flags:
            metrics.usage_bad.labels(call.backend).inc()
        tenant = self._tenant_label(call.tenant)
        metrics.credits.labels(tenant, "settled").inc(call.charged_uc / MICRO)
        if call.overage_uc:
            metrics.credits.labels(tenant, "overage").inc(call.overage_uc / MICRO)

    def _tenant_label(self, tenant: str) -> str:
        if tenant not in self._labelled:
            if len(self._labelled) >= self._top:
                return "other"
            self._labelled.add(tenant)
        return tenant


def _line(call: Finished) -> bytes:
    return orjson.dumps(
        {
            "request_id": call.request_id,
            "tenant": call.tenant,
            "route": call.route,
            "model": call.model,
            "backend": call.backend,
            "outcome": call.outcome,
            "status": call.status,
            "stream": call.stream,
            "attempts": call.attempts,
            "usage": call.usage.quantities if call.usage else None,
            "charged_uc": call.charged_uc,
            "duration_ms": round((call.ended - call.started) * 1000, 3),
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )
