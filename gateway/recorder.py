"""A finished call becomes metrics and, on request, one JSON log line. Never prompts, never keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from gateway.call import Usage
from gateway.metrics import Metrics

MICRO = 1_000_000
_STREAM = {True: ("true",), False: ("false",)}


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
    reserved_uc: int = 0
    cost: int = 0  # micro-units of currency
    started: float = 0.0
    ended: float = 0.0
    waited_s: float = 0.0
    first_token_s: float | None = None
    refusal: str = ""


class Recorder:
    """`log` gets one line per call, or is None. Tenant labels: the first `top` seen, the rest `other`.

    State: the tenants that have a label of their own.
    """

    def __init__(self, metrics: Metrics, *, top: int, log: Callable[[bytes], None] | None) -> None:
        self._metrics = metrics
        self._top = top
        self._log = log
        self._labelled: set[str] = set()

    def record(self, call: Finished) -> None:
        metrics = self._metrics
        metrics.requests.inc((call.route, call.model, call.backend, call.outcome, call.status))
        if call.refusal:
            metrics.limit_refusals.inc((call.refusal,))
        if call.reserved_uc:
            self.credited(call.tenant, "reserved", call.reserved_uc)
        if call.backend:
            self._of_answer(call)
        if self._log is not None:
            self._log(_line(call))

    def _of_answer(self, call: Finished) -> None:
        metrics, total_s = self._metrics, call.ended - call.started
        labels = (call.route, call.model, call.backend)
        metrics.duration.observe(labels, total_s)
        overhead_s = total_s - call.waited_s
        metrics.overhead.observe(_STREAM[call.stream], overhead_s if overhead_s > 0 else 0.0)
        if call.first_token_s is not None:
            metrics.first_token.observe(labels, call.first_token_s)
        if call.usage is not None:
            self._of_usage(call, call.usage, labels)

    def _of_usage(self, call: Finished, usage: Usage, labels: tuple[str, str, str]) -> None:
        metrics, output = self._metrics, usage.output_tokens
        metrics.tokens.observe((*labels, "input"), usage.input_tokens)
        metrics.tokens.observe((*labels, "output"), output)
        if call.first_token_s is not None and output > 1:
            metrics.per_token.observe(labels, (call.waited_s - call.first_token_s) / (output - 1))
        if usage.flags:
            self._of_flags(usage.flags, call.backend)
        self.credited(call.tenant, "settled", call.charged_uc)
        if call.overage_uc:
            self.credited(call.tenant, "overage", call.overage_uc)
        if call.cost:
            metrics.cost.inc((call.model,), call.cost / MICRO)

    def _of_flags(self, flags: tuple[str, ...], backend: str) -> None:
        if "estimated" in flags and "partial" not in flags:  # cut off before the backend could say it
            self._metrics.usage_missing.inc((backend,))
        if "bad_usage" in flags:
            self._metrics.usage_bad.inc((backend,))

    def credited(self, tenant: str, kind: str, uc: int) -> None:
        self._metrics.credits.inc((self.tenant_label(tenant), kind), uc / MICRO)

    def tenant_label(self, tenant: str) -> str:
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
