"""The steps of `Pipeline.handle` up to its dispatch, by the same code over copies of all that they change."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol, TypeVar

from gateway.admission import slow_name, slowed
from gateway.cache.caches import Caches
from gateway.cached import sites_of, verdict
from gateway.call import Call, Request
from gateway.charging.beyond import Beyond, beyond
from gateway.charging.in_force import Cards, InForce
from gateway.charging.preview import Terms
from gateway.charging.rating import THROTTLED, Quote
from gateway.clock import Clock
from gateway.config.model import Config, Plan
from gateway.errors import BackendOverloaded, GatewayError, QuotaExhausted
from gateway.explain.findings import Findings, Funds, Room
from gateway.explain.shown import shown
from gateway.goingon import needed_there, requoting, ways
from gateway.limits import Gate, Gates
from gateway.parse import parse_call
from gateway.quote import quoted
from gateway.routing.estimate import estimated_input, needed_context
from gateway.routing.live import Live
from gateway.routing.policies import Target
from gateway.routing.preview import Preview, preview
from gateway.routing.router import Decision, Router
from gateway.routing.turns import Turns
from gateway.tenants import Caller
from gateway.tokens import Tokenizer

T = TypeVar("T")
ANYBODY: Final = Caller("", Plan(""), ())  # no tenant was named: everything is allowed, nothing is limited


class Purse(Protocol):
    """What is asked of a ledger."""

    def preview(self, quote: Quote, *, clamp: bool) -> Terms: ...

    def look(self, read: Callable[..., T], *terms: Any) -> T: ...


class Explainer:
    """Collaborators only, those of the pipeline and of dispatch; none of them is changed.

    `generation` of the configuration, and `caches`; None: nothing runs, so that nothing is known of the present state.
    """

    def __init__(
        self,
        *,
        config: Config,
        cards: Cards,
        generation: int | None,
        router: Router,
        gates: Gates,
        backend_gates: Gates,
        purse: Purse,
        tokenizer: Tokenizer,
        clock: Clock,
        caches: Caches | None,
    ) -> None:
        self._sites = sites_of(config)
        self._caches = caches
        self._config = config
        self._cards = cards
        self._generation = generation
        self._router = router
        self._gates = gates
        self._backend_gates = backend_gates
        self._purse = purse
        self._tokenizer = tokenizer
        self._clock = clock

    async def explain(self, caller: Caller, request: Request) -> dict[str, Any]:
        """What would become of this request of this caller now. Never raises for what the client did wrong."""
        return shown(await self.findings(caller, request), self._config, self._generation)

    async def findings(self, caller: Caller, request: Request) -> Findings:
        found = Findings(caller, request.endpoint, now=self._clock.now())
        try:
            call = found.call = parse_call(request)
        except GatewayError as error:
            found.refuse(error)
            return found
        found.gate = self._gates.aside(caller.tenant, caller.plan.limits)
        self._admit(found, found.gate, estimated_input(call))
        self._look_up(found, caller, call)
        needed = needed_context(call)
        if self._router.near_limit(call.model, needed):
            needed = await self._tokenizer.counted(call, needed)
        found.needed = needed
        found.preview = preview(self._router, call, caller.plan, needed, tenant=caller.tenant, now=found.now)
        found.refuse(found.preview.refusal)
        if found.preview.decision is not None:
            found.funds, refusal = await self._funds(found, caller, call, found.preview.decision)
            found.refuse(refusal)
            assert found.preview.decision is not None
            found.room = self._room(call, found.preview.decision, found.preview.live, found.now)
            found.refuse(found.room.refusal)
            found.waits += ["backends"] if found.room.awaited is not None else []
        return found

    def _look_up(self, found: Findings, caller: Caller, call: Call) -> None:
        site = self._sites.get(call.model)
        if site is None:
            found.cached = ("bypass", "no cache on this route")
            return
        found.cache = site.cache.name
        try:
            found.cached = verdict(site, self._caches, caller, call)
        except GatewayError as error:
            found.refuse(error)

    async def _funds(
        self, found: Findings, caller: Caller, call: Call, decision: Decision
    ) -> tuple[Funds, GatewayError | None]:
        """As `Pipeline._reserve`: counts exactly, then lowers max_tokens, then goes on as the package says of its end,
        before it refuses."""
        now_ms = self._clock.wall_ms()
        rates, ends_ms = self._cards.at(now_ms), now_ms + int(self._config.timeout.total_s * 1000)
        quote = quoted(caller, call, decision, call.input_bound, rates=rates, deadline_ms=ends_ms)
        unpaid = Funds(quote, quote.max_tokens, quote.ceiling(quote.max_tokens))
        if caller is ANYBODY:
            return unpaid, None
        try:
            terms = self._purse.preview(quote, clamp=False)
        except QuotaExhausted:
            bound = await self._tokenizer.bound(call)
            quote = quoted(caller, call, decision, bound, rates=rates, deadline_ms=ends_ms)
            try:
                terms = self._purse.preview(quote, clamp=True)
            except QuotaExhausted as error:
                return await self._beyond(found, caller, call, decision, quote, rates, bound, error)
        except GatewayError as error:  # the store is away
            return unpaid, error
        decision.keep(terms.covered)
        return _funds(quote, terms), None

    async def _beyond(
        self, found: Findings, caller: Caller, call: Call, decision: Decision, quote: Quote, rates: InForce,
        bound: int, refusal: QuotaExhausted,
    ) -> tuple[Funds, GatewayError | None]:  # fmt: skip
        """As `GoingOn.reserve`. What is found out then is about the route that the call goes by."""
        previews: dict[int, Preview] = {}
        said = Beyond() if refusal.capped else self._purse.look(beyond, quote)
        needed = await needed_there(said, self._router, self._tokenizer, call, decision.needed)

        def reroute(name: str) -> Decision:
            asked = self._router, call, caller.plan, needed
            one = preview(*asked, tenant=caller.tenant, now=found.now, instead=name, after=found.preview)
            if one.decision is None:
                raise one.refusal or refusal
            previews[id(one.decision)] = one
            return one.decision

        unpaid = Funds(quote, quote.max_tokens, quote.ceiling(quote.max_tokens))
        for way in ways(said, decision, quote, reroute, requoting(caller, call, quote, rates, bound)):
            if way.throttle is not None:
                gate = self._gates.aside(slow_name(way.throttle.account), way.throttle.limits)
                tokens = estimated_input(call)
                if gate.aside().take(tokens) is None:
                    return unpaid, slowed(gate, tokens)
            try:
                terms = self._purse.preview(way.quote, clamp=True)
            except QuotaExhausted as error:
                if error.capped:
                    return unpaid, error
                continue
            found.preview = previews.get(id(way.decision), found.preview)
            found.flags = way.flags if way.throttle is None else (*way.flags, THROTTLED)
            way.decision.keep(terms.covered)
            return _funds(way.quote, terms), None
        return unpaid, refusal

    def _room(self, call: Call, decision: Decision, live: Live, now: float) -> Room:
        """Whom dispatch would ask in turn, if each failed, and whom a limit keeps it from asking."""
        tokens = call.input_bound // 4
        turns = Turns([*decision.targets, *decision.on_error])
        room, full = Room(), list[Target]()
        for place in turns.fresh(live, now) or turns.next_round(live, now):
            target = turns.targets[place]
            gate = self._backend_gates.aside(target.backend.name, target.backend.limits)
            room.gates[target.backend.name] = gate
            if gate.aside().take(tokens) is not None:
                room.asked.append(target)
            else:
                full.append(target)
                room.full[target.key] = gate.refusal(tokens).kind
        if not room.asked:
            self._queue(room, full, tokens)
        return room

    def _queue(self, room: Room, full: list[Target], tokens: int) -> None:
        """As `Waiting.room`: nobody waits for a bucket that needs longer than one may wait."""
        gates = [room.gates[target.backend.name] for target in full]
        lacks_s = [gate.lacks_s(tokens) for gate in gates]
        if self._waits(lacks_s):
            room.awaited = full[0]
        elif full:
            retry_s = min(gate.retry_s(tokens) for gate in gates)
            room.refusal = BackendOverloaded("Every backend for this model is at its limit.", retry_after_s=retry_s)

    def _waits(self, lacks_s: list[float]) -> bool:
        queue = self._config.queue
        return queue.length > 0 and any(one == inf or one <= queue.wait_s for one in lacks_s)

    def _admit(self, found: Findings, gate: Gate, tokens: int) -> None:
        """A rate that is exceeded is told at once; for concurrency a call waits."""
        if gate.aside().take(tokens) is not None:
            return
        error = gate.over_rate(tokens)
        if error is None and self._waits([gate.lacks_s(tokens)]):
            found.waits.append("tenant")
        else:
            found.refuse(error or gate.busy("concurrency", tokens))


def _funds(quote: Quote, terms: Terms) -> Funds:
    held = terms.reserved_uc, terms.available_uc, terms.covered, terms.closed, terms.slice_tokens
    return Funds(quote, terms.max_tokens, *held)
