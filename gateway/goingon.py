"""How a call goes on that no credits cover: by a cheaper route, or slowly and for nothing. Both are tried in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.admission import Admission, Entry
from gateway.call import Call
from gateway.charging.beyond import Beyond, Throttle, beyond, for_nothing
from gateway.charging.in_force import InForce
from gateway.charging.ledger import Ledger
from gateway.charging.rating import DOWNGRADED, THROTTLED, Quote
from gateway.charging.records import Hold
from gateway.clock import Clock
from gateway.dispatch import Dispatcher
from gateway.errors import GatewayError, QuotaExhausted
from gateway.quote import quoted
from gateway.routing.estimate import estimated_input
from gateway.routing.router import Decision, Router
from gateway.tenants import Caller
from gateway.tokens import Tokenizer


@dataclass(slots=True)
class Way:
    """Another decision or quote than those of the call itself, and the flags that its charge gets for the decision."""

    decision: Decision
    quote: Quote
    flags: tuple[str, ...]
    throttle: Throttle | None = None


Reroute = Callable[[str], Decision]  # by the name of a route; raises where nothing of it serves the call
Requote = Callable[[Decision], Quote]


def ways(said: Beyond, decision: Decision, quote: Quote, reroute: Reroute, requote: Requote) -> Iterator[Way]:
    """What is to be tried, in its order. A cheaper route is turned to once, so there are no rings of them."""
    found = [Way(decision, quote, ())]
    if said.downgrade is not None and said.downgrade != decision.route:
        try:
            cheaper = reroute(said.downgrade)
        except GatewayError:  # it is gone from routes.yaml, or serves no such call
            pass
        else:
            cheaper.why += f";{DOWNGRADED}"
            found.insert(0, Way(cheaper, requote(cheaper), (DOWNGRADED,)))
            yield found[0]
    if said.throttle is not None:
        yield from _slowly(found, said.throttle)


def _slowly(found: list[Way], throttle: Throttle) -> Iterator[Way]:
    """By the cheaper route, if there is one, as long as the package is for what is there."""
    for way in found:
        covered = throttle.covered(way.quote.offers)
        if covered is None or covered:
            way.decision.keep(covered)
            way.decision.why += f";{THROTTLED}"
            yield Way(way.decision, for_nothing(way.quote), way.flags, throttle)
            return


class GoingOn:
    """Collaborators only."""

    def __init__(
        self, ledger: Ledger, router: Router, dispatcher: Dispatcher, admission: Admission, tokenizer: Tokenizer,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self._router = router
        self._dispatcher = dispatcher
        self._admission = admission
        self._tokenizer = tokenizer
        self._clock = clock

    async def reserve(
        self, charge_id: str, entry: Entry, caller: Caller, call: Call, bound: int, decision: Decision, quote: Quote,
        rates: InForce, refusal: QuotaExhausted,
    ) -> tuple[Hold, Way]:  # fmt: skip
        """The first way for which there is a hold. `bound` is that of the input, as it was counted.

        Raises the refusal when there is none, RateLimited when it is too narrow. What a cap refuses goes on in no way.
        """
        said = Beyond() if refusal.capped else self._ledger.look(beyond, quote)
        needed = await needed_there(said, self._router, self._tokenizer, call, decision.needed)

        def reroute(name: str) -> Decision:
            now, tenant = self._clock.now(), caller.tenant
            cheaper = self._router.route(call, caller.plan, needed, tenant=tenant, now=now, instead=name)
            self._dispatcher.shed(call, cheaper, caller.share)
            return cheaper

        for way in ways(said, decision, quote, reroute, requoting(caller, call, quote, rates, bound)):
            if way.throttle is not None:
                self._admission.slow(entry, way.throttle.account, way.throttle.limits, estimated_input(call))
            try:
                return await self._ledger.reserve(charge_id, way.quote, clamp=True), way
            except QuotaExhausted as error:
                if error.capped:
                    raise
        raise refusal


async def needed_there(said: Beyond, router: Router, tokenizer: Tokenizer, call: Call, needed: int) -> int:
    """The context that the input takes, counted exactly where the cheaper route's is near that."""
    if said.downgrade is None or not router.near_limit(said.downgrade, needed):
        return needed
    return await tokenizer.counted(call, needed)


def requoting(caller: Caller, call: Call, quote: Quote, rates: InForce, bound: int) -> Requote:
    """As `quote`, for another decision."""
    return lambda decision: quoted(caller, call, decision, bound, rates=rates, deadline_ms=quote.deadline_ms)
