"""Findings as plain values: the JSON of `POST /admin/v1/explain` and `moma explain --json`.

Credits and prices are decimal strings, costs are numbers in units of the currency, times are seconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

from gateway.call import Call
from gateway.charging.flags import meaning
from gateway.charging.rating import credits_text
from gateway.config.model import Config, Route
from gateway.errors import GatewayError
from gateway.explain.detail import detail
from gateway.explain.findings import Findings
from gateway.limits import Gate
from gateway.routing.breaker import CLOSED, HALF_OPEN, OPEN
from gateway.routing.estimate import estimated_input, expected_cost, expected_counts, expected_output
from gateway.routing.policies import TERMS, Target, expected_seconds, weights_of
from gateway.routing.preview import Preview

Fields = dict[str, Any]
BREAKERS: Final = {CLOSED: "closed", HALF_OPEN: "half_open", OPEN: "open"}
NO_LIVE_STATE: Final = (
    "No gateway was asked, so there is no live state: breakers are taken as closed, limits as unused, speeds as unknown"
    " and conversations as new."
)


def shown(found: Findings, config: Config, generation: int | None) -> Fields:
    call, preview = found.call, found.preview
    route = preview.route if preview is not None else None
    decision = preview.decision if preview is not None else None
    return {
        "model": call.model if call is not None else None,
        "alias_of": config.aliases.get(call.model) if call is not None else None,
        "endpoint": found.endpoint,
        "tenant": found.caller.tenant or None,
        "plan": found.caller.plan.name or None,
        "live": generation is not None,
        "config": generation,
        "refusal": None if found.refusal is None else _refusal(found.refusal),
        "route": route.name if route is not None else None,
        "policy": route.policy if route is not None else None,
        "weights": _weights(route, call),
        "reason": decision.reason if decision is not None else None,
        "affinity": _affinity(route, preview),
        "waits": found.waits,
        "first": _target(found.first) if found.first is not None else None,
        "order": [_target(target) for target in decision.targets] if decision is not None else [],
        "fallback": {
            "error": [_target(target) for target in decision.on_error] if decision is not None else [],
            "context": [_target(target) for target in decision.on_context] if decision is not None else [],
        },
        "expected": _expected(found),
        "candidates": [] if preview is None or call is None else _candidates(found, preview, call),
        "reserve": None if found.funds is None else credits_text(found.funds.reserved_uc),
        "funds": _funds(found),
        "cache": {"name": found.cache, "verdict": found.cached[0], "why": found.cached[1]},
        "limits": {
            "tenant": {} if found.gate is None else _limits(found.gate, found.now),
            "backends": _limits_of_backends(found),
        },
        "currency": config.currency,
        "notes": list(_notes(found, config, generation)),
    }


def _target(target: Target) -> Fields:
    return {"model": target.model.name, "backend": target.backend.name}


def _refusal(error: GatewayError) -> Fields:
    """What the client would get."""
    told = error.body()["error"]
    return {"status": error.status, **told, "retry_after_s": error.retry_after_s}


def _weights(route: Route | None, call: Call | None) -> Fields | None:
    if route is None or call is None or route.policy != "balanced":
        return None
    weights = zip(TERMS, weights_of(route.weigh, call.prefer), strict=True)
    return {"prefer": call.prefer or None, **{term: round(weight, 4) for term, weight in weights}}


def _affinity(route: Route | None, preview: Preview | None) -> Fields | None:
    """By what a conversation is known, and the target that served it last, if that is remembered and up."""
    if route is None or preview is None:
        return None
    return {"by": route.affinity, "last": None if preview.warm is None else _target(preview.warm)}


def _expected(found: Findings) -> Fields | None:
    call, preview = found.call, found.preview
    if call is None or preview is None:
        return None
    return {
        "input_tokens": estimated_input(call),
        "output_tokens": round(_output(call, preview)),
        "choices": call.choices,
        "context_needed": found.needed,
        "needs": sorted(call.needs),
    }


def _output(call: Call, preview: Preview) -> float:
    return expected_output(call, preview.live.output(preview.route.name if preview.route is not None else ""))


def _candidates(found: Findings, preview: Preview, call: Call) -> list[Fields]:
    """All that the route stands for: first those that would be asked, in turn; then what was removed."""
    asked = {id(target): place for place, target in enumerate(found.room.asked if found.room is not None else (), 1)}
    chances, removals = _chances(preview), found.removals()
    scores = {
        id(target): {name: round(values[place], 6) for name, values in preview.scores.items()}
        for place, target in enumerate(preview.considered)
    }
    rows = [
        {
            **_target(target),
            "as": target.as_name,
            "role": role,
            "asked": asked.get(id(target)),
            "removed_by": (why := removals.get(id(target))),
            "detail": None if why is None else detail(why, target, found, preview),
            "scores": scores.get(id(target)),
            "chance": chances.get(id(target)),
            **_measures(target, preview, call, found.now),
        }
        for target, role in _roles(preview)
    ]
    return sorted(rows, key=lambda row: row["asked"] or len(rows) + 1)


def _roles(preview: Preview) -> list[tuple[Target, str]]:
    """Each target once."""
    short = preview.short
    if short is None:
        return []
    picked = [*short.targets, *(target for target, _ in short.removed)]
    fallbacks = [*short.on_error, *short.on_context, *(target for target, _ in short.removed_fallbacks)]
    seen = {id(target): (target, "fallback") for target in fallbacks} | {id(t): (t, "target") for t in picked}
    return [seen.pop(id(target)) for target in (*picked, *fallbacks) if id(target) in seen]


def _chances(preview: Preview) -> dict[int, float]:
    """Of coming first, where the policy chose: those that chance decides between are drawn in proportion to weight."""
    total = sum(target.weight for target in preview.firsts)
    chances = {id(target): 0.0 for target in preview.considered}
    return chances | {id(target): round(target.weight / total, 4) for target in preview.firsts}


def _measures(target: Target, preview: Preview, call: Call, now: float) -> Fields:
    """What is known of a target, removed or not."""
    route, live = preview.route, preview.live
    assert route is not None
    measures, model = live.of(target.key), target.model
    counts = expected_counts(call)
    cost = expected_cost(model, estimated_input(call), _output(call, preview), call.choices, counts) / 1e6
    known = measures.first_token_s is not None
    slow = live.state(target.key, now) == CLOSED and measures.breaker.share(now) < 1.0
    return {
        "expected_cost": round(cost, 9),
        "expected_seconds": round(expected_seconds(live, route.name, [target], call, now)[0], 3) if known else None,
        "quality": model.quality,
        "price": {bucket: credits_text(model.price[bucket]) for bucket in ("input", "output")},
        "weight": target.weight,
        "breaker": "slow_start" if slow else BREAKERS[live.state(target.key, now)],
        "in_flight": live.in_flight.get(target.backend.name, 0),
    }


def _funds(found: Findings) -> Fields | None:
    """None where nobody pays; `pays` says whether the tenant's package covers the call."""
    funds = found.funds
    if funds is None or not found.caller.tenant:
        return None
    asked, allowed = funds.quote.max_tokens, funds.max_tokens
    return {
        "pays": funds.available_uc is not None,
        "available": None if funds.available_uc is None else credits_text(funds.available_uc),
        "max_tokens": allowed,
        "slice_tokens": funds.slice_tokens,
        "lowered_from": asked if asked != allowed else None,
    }


def _limits_of_backends(found: Findings) -> Fields:
    gates = found.room.gates if found.room is not None else {}
    return {name: limits for name, gate in gates.items() if (limits := _limits(gate, found.now))}


def _limits(gate: Gate, now: float) -> Fields:
    """What is left of each limit that there is. The gate is a copy: it may be refilled up to now."""
    out: Fields = {}
    for kind, bucket in (("rpm", gate.rpm), ("tpm", gate.tpm)):
        if bucket is not None:
            bucket.refill(now)
            out[kind] = {"limit": bucket.capacity, "left": bucket.left, "reset_s": round(bucket.reset_s(), 3)}
    if gate.concurrency is not None:
        out["concurrency"] = {"limit": gate.concurrency, "left": max(0, gate.concurrency - gate.in_flight)}
    return out


def _notes(found: Findings, config: Config, generation: int | None) -> Iterable[str]:
    if generation is None:
        yield NO_LIVE_STATE
    if not found.caller.tenant:
        yield "No tenant was named: all names are allowed, and nothing is limited or paid."
    preview, call = found.preview, found.call
    yield from (f"{flag}: {meaning(flag)}." for flag in found.flags)
    if preview is not None and len(preview.firsts) > 1:
        yield "Which of several comes first is drawn by weight, anew for each call."
    if call is not None and preview is not None and preview.route is None:
        names = [*config.models, *config.aliases, *config.routes]
        near = difflib.get_close_matches(call.model, names, n=1)
        yield "There is no such model, alias or route" + (f": did you mean {near[0]}?" if near else ".")
