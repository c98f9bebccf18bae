"""A finished call becomes metrics and, on request, one JSON log line. Never prompts, never keys."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

import orjson

from gateway.call import Usage
from gateway.charging.changes import Changes
from gateway.charging.rating import percent_text
from gateway.metrics import Metrics

MICRO = 1_000_000
OTHER = "other"
_log = logging.getLogger("gateway.recorder")


class Finished:
    """One call as it ended. Names are configured ones, or "" when the call did not get that far.

    Only what a call comes to know is set on it, because to set all of these would cost more than to count them.
    """

    route = ""
    model = ""
    backend = ""
    outcome = "aborted"
    status = 0
    stream = False
    attempts = 0
    usage: Usage | None = None
    charged_uc = 0
    overage_uc = 0
    reserved_uc = 0
    cost = 0  # micro-units of currency
    ended = 0.0
    waited_s = 0.0
    first_token_s: float | None = None
    refusal = ""
    hit = False  # answered, and charged for, without a backend
    saved = 0  # micro-units of currency that a backend would have taken

    def __init__(self, request_id: str, *, tenant: str = "", started: float = 0.0) -> None:
        self.request_id = request_id
        self.tenant = tenant
        self.started = started


class _Answers:
    """The series of one route, model and backend, kept because every answer of theirs moves most of them."""

    __slots__ = ("cost", "duration", "first_token", "input", "output", "per_token")

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str]) -> None:
        self.duration = metrics.duration.of(labels)
        self.first_token = metrics.first_token.of(labels)
        self.per_token = metrics.per_token.of(labels)
        self.input = metrics.tokens.of((*labels, "input"))
        self.output = metrics.tokens.of((*labels, "output"))
        self.cost = metrics.cost.of((labels[1],))


CUT_OFF: Final = frozenset({"partial", "quota_exhausted"})  # before the backend could say what was used


class Recorder:
    """`log` gets one line per call, or is None. Tenant labels: the first `top` with traffic, the rest `other`.

    State: the tenants that have a label of their own, and the series of answers.
    """

    def __init__(self, metrics: Metrics, *, top: int, log: Callable[[bytes], None] | None) -> None:
        self._metrics = metrics
        self._top = top
        self._log = log
        self._labelled: set[str] = set()
        self._answers: dict[tuple[str, str, str], _Answers] = {}
        self._overhead = {True: metrics.overhead.of(("true",)), False: metrics.overhead.of(("false",))}

    def record(self, call: Finished) -> None:
        metrics = self._metrics
        metrics.requests.inc((call.route, call.model, call.backend, call.outcome, call.status))
        if call.refusal:
            metrics.limit_refusals.inc((call.refusal,))
        if call.reserved_uc:
            self.credited(call.tenant, "reserved", call.reserved_uc)
        if call.backend:
            self._of_answer(call)
        elif call.hit:
            self._of_hit(call)
        if self._log is not None:
            self._log(_line(call))

    def _of_answer(self, call: Finished) -> None:
        labels = (call.route, call.model, call.backend)
        series = self._answers.get(labels)
        if series is None:
            series = self._answers[labels] = _Answers(self._metrics, labels)
        total_s = call.ended - call.started
        overhead_s = total_s - call.waited_s
        series.duration.observe(total_s)
        self._overhead[call.stream].observe(overhead_s if overhead_s > 0 else 0.0)
        if call.first_token_s is not None:
            series.first_token.observe(call.first_token_s)
        if call.usage is not None:
            self._of_usage(call, call.usage, series)

    def _of_hit(self, call: Finished) -> None:
        """No backend worked: what is told of backends and of their tokens is not told of it."""
        self._overhead[call.stream].observe(max(0.0, call.ended - call.started - call.waited_s))
        self._metrics.saved.inc(("exact_cache",), call.saved / MICRO)
        self.credited(call.tenant, "settled", call.charged_uc)
        if call.overage_uc:
            self.credited(call.tenant, "overage", call.overage_uc)

    def _of_usage(self, call: Finished, usage: Usage, series: _Answers) -> None:
        output = usage.output_tokens
        series.input.observe(usage.input_tokens)
        series.output.observe(output)
        series.cost.value += call.cost / MICRO
        if call.first_token_s is not None and output > 1:
            series.per_token.observe((call.waited_s - call.first_token_s) / (output - 1))
        if usage.flags:
            self._of_flags(usage.flags, call.backend)
        self.credited(call.tenant, "settled", call.charged_uc)
        if call.overage_uc:
            self.credited(call.tenant, "overage", call.overage_uc)

    def _of_flags(self, flags: tuple[str, ...], backend: str) -> None:
        if "estimated" in flags and CUT_OFF.isdisjoint(flags):
            self._metrics.usage_missing.inc((backend,))
        if "bad_usage" in flags:
            self._metrics.usage_bad.inc((backend,))

    def credited(self, tenant: str, kind: str, uc: int) -> None:
        """Moved by a call: this is what gives a tenant a label of its own, as long as there are any."""
        if len(self._labelled) < self._top:
            self._labelled.add(tenant)
        self._count(tenant, kind, uc)

    def expired(self, tenant: str, uc: int) -> None:
        self._count(tenant, "expired", uc)

    def committed(self, seconds: float, changes: Changes) -> None:
        """What is durable since the last commit."""
        self._metrics.committed(seconds, len(changes.closings))
        for _, account, _, kind, uc in changes.entries:
            if kind == "expired":
                self.expired(account, uc)
        for alert in changes.alerts:
            self._metrics.package_alerts.inc((percent_text(alert.level),))
            _log.warning("alert: %s", alert)

    def _count(self, tenant: str, kind: str, uc: int) -> None:
        self._metrics.credits.inc((tenant if tenant in self._labelled else OTHER, kind), uc / MICRO)

    def by_label(self, tenants: Iterable[str]) -> dict[str, list[str]]:
        """For gauges: tenants without traffic are shown as long as there are labels left, and keep none."""
        named: list[str] = []
        rest: list[str] = []
        for tenant in tenants:
            (named if tenant in self._labelled else rest).append(tenant)
        left = self._top - len(self._labelled)
        out = {tenant: [tenant] for tenant in (*named, *rest[:left])}
        if rest[left:]:
            out.setdefault(OTHER, []).extend(rest[left:])
        return out


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
