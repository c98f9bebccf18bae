"""A finished call becomes metrics and, on request, one JSON log line. Never prompts, never keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson
from prometheus_client import Counter

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
    reserved_uc: int = 0
    cost: int = 0  # micro-units of currency
    started: float = 0.0
    ended: float = 0.0
    waited_s: float = 0.0
    first_token_s: float | None = None
    refusal: str = ""


class _Series:
    """The time series of one route, model and backend: `labels()` costs three times an observation."""

    __slots__ = ("cost", "duration", "first_token", "input", "output", "per_token")

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str]) -> None:
        self.duration = metrics.duration.labels(*labels)
        self.first_token = metrics.first_token.labels(*labels)
        self.per_token = metrics.per_token.labels(*labels)
        self.cost = metrics.cost.labels(labels[1])
        self.input = metrics.tokens.labels(*labels, "input")
        self.output = metrics.tokens.labels(*labels, "output")


class Recorder:
    """`log` gets one line per call, or is None. Tenant labels: the first `top` seen, the rest `other`.

    State: the time series in use, by their labels.
    """

    def __init__(self, metrics: Metrics, *, top: int, log: Callable[[bytes], None] | None) -> None:
        self._metrics = metrics
        self._top = top
        self._log = log
        self._labelled: set[str] = set()
        self._ended: dict[tuple[str, str, str, str, int], Counter] = {}
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._credits: dict[tuple[str, str], Counter] = {}
        self._overhead = {stream: metrics.overhead.labels(str(stream).lower()) for stream in (True, False)}

    def record(self, call: Finished) -> None:
        labels = (call.route, call.model, call.backend, call.outcome, call.status)
        ended = self._ended.get(labels)
        if ended is None:
            ended = self._ended[labels] = self._metrics.requests.labels(*labels)
        ended.inc()
        if call.refusal:
            self._metrics.limit_refusals.labels(call.refusal).inc()
        if call.reserved_uc:
            self.credited(call.tenant, "reserved", call.reserved_uc)
        if call.backend:
            self._of_answer(call)
        if self._log is not None:
            self._log(_line(call))

    def _of_answer(self, call: Finished) -> None:
        labels, total_s = (call.route, call.model, call.backend), call.ended - call.started
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series(self._metrics, labels)
        series.duration.observe(total_s)
        self._overhead[call.stream].observe(max(0.0, total_s - call.waited_s))
        if call.first_token_s is not None:
            series.first_token.observe(call.first_token_s)
        if call.usage is not None:
            self._of_usage(call, call.usage, series)

    def _of_usage(self, call: Finished, usage: Usage, series: _Series) -> None:
        output = usage.output_tokens
        series.input.observe(usage.input_tokens)
        series.output.observe(output)
        if call.first_token_s is not None and output > 1:
            series.per_token.observe((call.waited_s - call.first_token_s) / (output - 1))
        if usage.flags:
            self._of_flags(usage.flags, call.backend)
        self.credited(call.tenant, "settled", call.charged_uc)
        if call.overage_uc:
            self.credited(call.tenant, "overage", call.overage_uc)
        if call.cost:
            series.cost.inc(call.cost / MICRO)

    def _of_flags(self, flags: tuple[str, ...], backend: str) -> None:
        if "estimated" in flags and "partial" not in flags:  # cut off before the backend could say it
            self._metrics.usage_missing.labels(backend).inc()
        if "bad_usage" in flags:
            self._metrics.usage_bad.labels(backend).inc()

    def credited(self, tenant: str, kind: str, uc: int) -> None:
        label = self.tenant_label(tenant)
        counter = self._credits.get((label, kind))
        if counter is None:
            counter = self._credits[label, kind] = self._metrics.credits.labels(label, kind)
        counter.inc(uc / MICRO)

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
