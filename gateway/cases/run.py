"""Cases against routes.yaml: what would become of each call, compared with what is expected of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from gateway.cases.load import Case
from gateway.charging.rating import credits_text
from gateway.clock import Clock, Timer
from gateway.config.model import Config
from gateway.explain.asked import request_of
from gateway.explain.explainer import ANYBODY
from gateway.explain.offline import Offline
from gateway.routing.preview import LoadedDice
from gateway.tenants import Caller
from gateway.tokens import Tokenizer

Fields = dict[str, Any]
TENANT_OF_A_PLAN: Final = "test"


class StillClock:
    """Time does not pass within a case: limits that are used up stay so."""

    def __init__(self, wall_ms: int) -> None:
        self._wall_ms = wall_ms

    def now(self) -> float:
        return 0.0

    def wall_ms(self) -> int:
        return self._wall_ms

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        raise NotImplementedError("nothing waits here")

    async def sleep(self, delay_s: float) -> None:
        raise NotImplementedError("nothing waits here")


@dataclass(frozen=True)
class Difference:
    """One expectation that does not hold, in words."""

    key: str
    expected: str
    got: str


@dataclass(frozen=True)
class Outcome:
    """`seen` are the explanations of all that chance may make of the call: mostly one."""

    case: Case
    seen: Sequence[Fields]
    differences: Sequence[Difference]

    @property
    def passed(self) -> bool:
        return not self.differences


async def run_case(case: Case, config: Config, tokenizer: Tokenizer, wall_ms: int) -> Outcome:
    clock: Clock = StillClock(wall_ms)
    offline = Offline(config, clock, tokenizer)
    caller = _caller(case, config, offline)
    for backend, model in case.down:
        offline.fail(backend, model)
    for backend in case.full:
        offline.fill(backend)
    request = request_of(case.body, case.endpoint, dict(case.headers))
    seen: list[Fields] = []
    lucky = draws = 0
    while lucky <= draws:  # a policy draws at most once for each candidate: each of them is let win in turn
        value = await offline.explainer(LoadedDice(lucky)).explain(caller, request)
        if not any(_same(value, other) for other in seen):
            seen.append(value)
        draws = len(value["candidates"]) - 1 if _by_chance(value) else 0
        lucky += 1
    return Outcome(case, seen, list(_differences(case.expect, seen)))


def _caller(case: Case, config: Config, offline: Offline) -> Caller:
    if case.tenant is not None:
        return offline.caller(case.tenant)
    if case.plan is not None:
        offline.admit(TENANT_OF_A_PLAN, config.plans[case.plan])
        return offline.caller(TENANT_OF_A_PLAN)
    return ANYBODY


def _by_chance(value: Fields) -> bool:
    return any(row["chance"] not in (None, 0.0, 1.0) for row in value["candidates"])


def _same(one: Fields, other: Fields) -> bool:
    return bool(one["first"] == other["first"] and one["order"] == other["order"])


def _differences(expect: Mapping[str, Any], seen: Sequence[Fields]) -> Iterable[Difference]:
    refusal = seen[0]["refusal"]
    wanted = expect.get("refusal")
    if wanted is not None:
        got = _refusal(refusal)
        if refusal is None or wanted not in (str(refusal["status"]), refusal["code"]):
            yield Difference("refusal", wanted, got if refusal is not None else f"none: it goes to {_firsts(seen)}")
    elif refusal is not None:
        yield Difference("refusal", "none", _refusal(refusal))
    for key, value in expect.items():
        if key != "refusal" and (refusal is None or key in ("route", "policy", "removed", "order", "fallback")):
            yield from CHECKS[key](value, seen)


def _refusal(refusal: Fields | None) -> str:
    return "none" if refusal is None else f"{refusal['status']} {refusal['code']}: {refusal['message']}"


def _firsts(seen: Sequence[Fields]) -> str:
    return " or ".join(dict.fromkeys(_name(value["first"]) for value in seen))


def _name(target: Fields) -> str:
    return f"{target['model']}@{target['backend']}"


def _one_of(key: str) -> Callable[[Any, Sequence[Fields]], Iterable[Difference]]:
    """Whom the call would be sent to must be one of those, whatever chance decides."""

    def check(wanted: Sequence[str], seen: Sequence[Fields]) -> Iterable[Difference]:
        if any(value["first"][key] not in wanted for value in seen):
            yield Difference(key, " or ".join(wanted), _firsts(seen))

    return check


def _same_as(key: str) -> Callable[[Any, Sequence[Fields]], Iterable[Difference]]:
    def check(wanted: str, seen: Sequence[Fields]) -> Iterable[Difference]:
        if seen[0][key] != wanted:
            yield Difference(key, wanted, str(seen[0][key]))

    return check


def _order(wanted: Sequence[tuple[str, str]], seen: Sequence[Fields]) -> Iterable[Difference]:
    orders = dict.fromkeys(", ".join(map(_name, value["order"])) or "nothing" for value in seen)
    expected = ", ".join(f"{model}@{backend}" for model, backend in wanted)
    if list(orders) != [expected]:
        yield Difference("order", expected, " or ".join(orders))


def _fallback(wanted: Sequence[tuple[str, str]], seen: Sequence[Fields]) -> Iterable[Difference]:
    expected = ", ".join(f"{model}@{backend}" for model, backend in wanted) or "nothing"
    got = ", ".join(map(_name, seen[0]["fallback"]["error"])) or "nothing"
    if got != expected:
        yield Difference("fallback", expected, got)


def _removed(wanted: Mapping[tuple[str, str], str], seen: Sequence[Fields]) -> Iterable[Difference]:
    removed = {(row["model"], row["backend"]): row["removed_by"] for row in seen[0]["candidates"]}
    for (model, backend), why in wanted.items():
        target = f"{model}@{backend}"
        if (model, backend) not in removed:
            yield Difference("removed", f"{target} by {why}", f"{target} is no candidate")
        elif removed[model, backend] != why:
            got = removed[model, backend]
            yield Difference("removed", f"{target} by {why}", f"by {got}" if got else "it is not removed")


def _max_reserve(wanted_uc: int, seen: Sequence[Fields]) -> Iterable[Difference]:
    if Decimal(seen[0]["reserve"]) * 1_000_000 > wanted_uc:
        yield Difference("max_reserve", credits_text(wanted_uc), f"{seen[0]['reserve']} credits")


def _max_cost(wanted_micro: int, seen: Sequence[Fields]) -> Iterable[Difference]:
    """The expected cost of whom the call would be sent to."""
    dearest = max(_cost_of_first(value) for value in seen)
    if dearest * 1_000_000 > wanted_micro:
        yield Difference("max_cost", credits_text(wanted_micro), f"{dearest:.6f} {seen[0]['currency']} expected")


def _cost_of_first(value: Fields) -> float:
    first = next(row for row in value["candidates"] if row["asked"] == 1)
    return float(first["expected_cost"])


Check = Callable[[Any, Sequence[Fields]], Iterable[Difference]]
CHECKS: Final[Mapping[str, Check]] = {
    "model": _one_of("model"),
    "backend": _one_of("backend"),
    "route": _same_as("route"),
    "policy": _same_as("policy"),
    "order": _order,
    "fallback": _fallback,
    "removed": _removed,
    "max_reserve": _max_reserve,
    "max_cost": _max_cost,
}
