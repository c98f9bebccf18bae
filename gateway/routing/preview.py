"""The decision that a router would take next, taken by its own code over copies of all that it may change."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.call import Call
from gateway.config.model import Plan, Route
from gateway.errors import GatewayError
from gateway.routing.live import Live
from gateway.routing.policies import Order, Policy, Scores, Target, policy_of
from gateway.routing.router import Decision, Router
from gateway.routing.shortlist import Shortlist

MAX_DRAWS: Final = 64  # chances that are looked into one by one
HIGHEST: Final = 1.0 - 2.0**-53  # that random() returns


@dataclass(slots=True)
class Preview:
    """What the router would say: a decision, or the refusal in its place.

    `considered` are the targets that the policy chose from, with their `scores`; `firsts` those of them that may come
    first, as far as chance decides it; `live` and `rng` the copies, as the decision left them.
    """

    live: Live
    rng: random.Random
    route: Route | None = None
    short: Shortlist | None = None
    decision: Decision | None = None
    refusal: GatewayError | None = None
    considered: Sequence[Target] = ()
    warm: Target | None = None
    scores: Scores = field(default_factory=dict)
    firsts: Sequence[Target] = ()


def preview(
    router: Router, call: Call, plan: Plan, needed: int, *, tenant: str, now: float, instead: str | None = None,
    after: Preview | None = None,
) -> Preview:  # fmt: skip
    """Changes nothing of the router: the same call, if it follows, is decided alike; `after` another decision on it."""
    route = router.route_of(call.model if instead is None else instead)
    live, rng = router.state() if after is None else (after.live, after.rng)
    out = Preview(live, rng, route)
    if route is not None:
        policy = _Watched(policy_of(route, live, rng))
        router = router.aside(route, live, rng, policy)
        out.short = router.shortlist(route, call, needed, instead=instead is not None)
    try:
        out.decision = router.route(call, plan, needed, tenant=tenant, now=now, instead=instead)
    except GatewayError as error:
        out.refusal = error
    if route is not None and out.decision is not None:
        out.considered, warm = policy.considered, policy.warm
        out.warm = None if warm is None else out.considered[warm]
        out.scores = policy.scores(out.considered, call, now)
        out.firsts = _firsts(route, live, out.considered, call, now, warm)
    return out


class _Watched:
    """A policy that keeps what it was asked."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.considered: Sequence[Target] = ()
        self.warm: int | None = None

    def order(self, targets: Sequence[Target], call: Call, now: float, warm: int | None = None) -> Order:
        self.considered, self.warm = targets, warm
        return self._policy.order(targets, call, now, warm)

    def scores(self, targets: Sequence[Target], call: Call, now: float) -> Scores:
        return self._policy.scores(targets, call, now)


class LoadedDice(random.Random):
    """Each draw is the lowest that there is, and the one at `lucky` the highest. State: `draws` so far."""

    def __init__(self, lucky: int) -> None:
        super().__init__()
        self.draws = 0
        self._lucky = lucky

    def __deepcopy__(self, _: object) -> LoadedDice:
        return LoadedDice(self._lucky)

    def random(self) -> float:
        self.draws += 1
        return HIGHEST if self.draws - 1 == self._lucky else 0.0


def _firsts(
    route: Route, live: Live, targets: Sequence[Target], call: Call, now: float, warm: int | None
) -> Sequence[Target]:
    """A policy draws once for each target that chance decides on: each of them is let win in turn.

    Of too many to try all are said to be possible.
    """
    found: dict[tuple[str, str], Target] = {}
    lucky = draws = 0
    while lucky <= draws:
        dice = LoadedDice(lucky)
        order, _ = policy_of(route, live, dice).order(targets, call, now, warm)
        found.setdefault(order[0].key, order[0])
        draws = dice.draws - 1
        if draws > MAX_DRAWS:
            return targets
        lucky += 1
    return list(found.values())
