"""The steps of `Pipeline.handle` up to its dispatch, by the same code over copies of all that they change."""

from __future__ import annotations

from typing import Any, Final, Protocol

from gateway.call import Call, Request
from gateway.charging.preview import Terms
from gateway.charging.rating import Quote
from gateway.clock import Clock
from gateway.config.model import Config, Plan
from gateway.dispatch import no_room
from gateway.errors import GatewayError, QuotaExhausted, RateLimited
from gateway.explain.findings import Findings, Funds, Room
from gateway.explain.shown import shown
from gateway.limits import Gate, Gates
from gateway.parse import parse_call
from gateway.quote import quoted
from gateway.routing.estimate import estimated_input, needed_context
from gateway.routing.live import Live
from gateway.routing.preview import preview
from gateway.routing.router import Decision, Router
from gateway.routing.turns import Turns
from gateway.tenants import Caller
from gateway.tokens import Tokenizer

NO_CARD: Final = 0  # nothing is held, so no charge will name its version
ANYBODY: Final = Caller("", Plan(""), ())  # no tenant was named: everything is allowed, nothing is limited


class Purse(Protocol):
    """What is asked of a ledger."""

    def preview(self, quote: Quote, *, clamp: bool) -> Terms: ...


class Explainer:
    """Collaborators only, those of the pipeline and of dispatch; none of them is changed.

    `generation` of the configuration; None: nothing runs, so that nothing is known of the present state.
    """

    def __init__(
        self,
        *,
        config: Config,
        generation: int | None,
        router: Router,
        gates: Gates,
        backend_gates: Gates,
        purse: Purse,
        tokenizer: Tokenizer,
        clock: Clock,
    ) -> None:
        self._config = config
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
        found.refuse(_refused(found.gate, estimated_input(call)))
        needed = needed_context(call)
        if self._router.near_limit(call.model, needed):
            needed = await self._tokenizer.counted(call, needed)
        found.needed = needed
        found.preview = preview(self._router, call, caller.plan, needed, tenant=caller.tenant, now=found.now)
        found.refuse(found.preview.refusal)
        if found.preview.decision is not None:
            found.funds, refusal = await self._funds(caller, call, found.preview.decision)
            found.refuse(refusal)
            found.room = self._room(call, found.preview.decision, found.preview.live, found.now)
            found.refuse(found.room.refusal)
        return found

    async def _funds(self, caller: Caller, call: Call, decision: Decision) -> tuple[Funds, GatewayError | None]:
        """As `Pipeline._reserve`: counts exactly, then lowers max_tokens, before it refuses."""
        ends_ms = self._clock.wall_ms() + int(self._config.timeout.total_s * 1000)
        quote = quoted(caller, call, decision, call.input_bound, card_version=NO_CARD, deadline_ms=ends_ms)
        unpaid = Funds(quote, quote.max_tokens, quote.ceiling(quote.max_tokens))
        if caller is ANYBODY:
            return unpaid, None
        try:
            terms = self._purse.preview(quote, clamp=False)
        except QuotaExhausted:
            bound = await self._tokenizer.bound(call)
            quote = quoted(caller, call, decision, bound, card_version=NO_CARD, deadline_ms=ends_ms)
            try:
                terms = self._purse.preview(quote, clamp=True)
            except QuotaExhausted as error:
                return Funds(quote, quote.max_tokens, quote.ceiling(quote.max_tokens)), error
        except GatewayError as error:  # the store is away
            return unpaid, error
        return Funds(quote, terms.max_tokens, terms.reserved_uc, terms.available_uc), None

    def _room(self, call: Call, decision: Decision, live: Live, now: float) -> Room:
        """Whom dispatch would ask in turn, if each failed, and whom a limit keeps it from asking."""
        turns = Turns([*decision.targets, *decision.on_error])
        room, last = Room(), None
        for place in turns.fresh(live, now) or turns.next_round(live, now):
            target = turns.targets[place]
            gate = self._backend_gates.aside(target.backend.name, target.backend.limits)
            room.gates[target.backend.name] = gate
            refusal = _refused(gate, call.input_bound // 4)
            if refusal is None:
                room.asked.append(target)
            else:
                last, room.full[target.key] = refusal, refusal.kind
        if last is not None and not room.asked:
            room.refusal = no_room(last)
        return room


def _refused(gate: Gate, tokens: int) -> RateLimited | None:
    """Why the limits would not let so many tokens in."""
    try:
        gate.aside().admit(tokens)
    except RateLimited as error:
        return error
    return None
