"""What was found out about one call: as values of the gateway, before they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.call import Call
from gateway.charging.grants import Grant, hours_of
from gateway.charging.rating import Quote
from gateway.charging.splitting import pays
from gateway.errors import GatewayError, ModelNotFound
from gateway.limits import Gate
from gateway.routing.policies import Target
from gateway.routing.preview import Preview
from gateway.tenants import Caller

Key = tuple[str, str]  # (backend, model)


@dataclass(slots=True)
class Funds:
    """What would be held. `available_uc` is None where nobody pays, or what there is does not suffice."""

    quote: Quote
    max_tokens: int | None
    reserved_uc: int
    available_uc: int | None = None
    covered: frozenset[tuple[str, str]] | None = None  # (model, backend) of those that it pays for; None: all
    closed: Sequence[Grant] = ()  # which pay at other hours of the day
    slice_tokens: int | None = None  # what is held at first, of a hold that grows with its stream

    def covers(self, target: Target) -> bool:
        return self.covered is None or (target.model.name, target.backend.name) in self.covered

    def hours(self, target: Target) -> list[str]:
        """At which it would be paid for."""
        offers = (
            one for one in self.quote.offers if (one.model, one.backend) == (target.model.name, target.backend.name)
        )
        return [hours for offer in offers for hours in hours_of(g for g in self.closed if pays(g, offer))]


@dataclass(slots=True)
class Room:
    """`asked` in turn; `full` are the targets whose backend is at a limit (rpm, tpm, concurrency).

    When all are, the call waits for the first of them that has room: which that will be is not known, `awaited` is the
    first in order.
    """

    asked: list[Target] = field(default_factory=list)
    full: dict[Key, str] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)
    awaited: Target | None = None
    refusal: GatewayError | None = None


@dataclass(slots=True)
class Findings:
    """Filled step by step; what comes after a step that could not be taken is None. `refusal` is the first one."""

    caller: Caller
    endpoint: str
    now: float
    call: Call | None = None
    gate: Gate | None = None
    needed: int = 0
    cache: str | None = None
    cached: tuple[str, str] = ("bypass", "the call is refused before")  # what `x-moma-cache` would be, and why
    preview: Preview | None = None
    funds: Funds | None = None
    room: Room | None = None
    waits: list[str] = field(default_factory=list)  # in the queue of its tenant, of backends
    refusal: GatewayError | None = None
    flags: tuple[str, ...] = ()  # how it goes on that no credits cover

    def refuse(self, error: GatewayError | None) -> None:
        """The client hears the first."""
        if self.refusal is None:
            self.refusal = error

    @property
    def first(self) -> Target | None:
        """Whom the call would be sent to."""
        if self.refusal is not None or self.room is None:
            return None
        return self.room.asked[0] if self.room.asked else self.room.awaited

    def removals(self) -> dict[int, str]:
        """By the id of a target: what keeps it from being asked. Who is not in it would be, in its turn."""
        preview, room = self.preview, self.room
        if preview is None or preview.short is None:
            return {}
        short, decision = preview.short, preview.decision
        kept = (*short.targets, *short.on_error, *short.on_context)
        out = {id(target): why for target, why in (*short.removed_fallbacks, *short.removed)}
        if decision is None or room is None:
            why = "allow" if isinstance(preview.refusal, ModelNotFound) else "refused"
            return out | {id(target): why for target in kept}
        asked = {id(target) for target in (*room.asked, *decision.on_context)}
        for target in kept:
            if id(target) in asked:
                out.pop(id(target), None)
            elif self.funds is not None and not self.funds.covers(target):
                out[id(target)] = "package"
            else:
                out[id(target)] = "limit" if target.key in room.full else "breaker"
        return out
