"""What is answered while the ledger's store is down, if the operator wants that: up to so many credits in all."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.charging.records import Hold
from gateway.errors import StoreUnavailable


@dataclass(slots=True)
class Exposure:
    """`limit_uc` 0: no new call is taken. State: what calls of this outage hold, and all that they have taken."""

    limit_uc: int = 0
    taken_uc: int = 0
    held: dict[str, int] = field(default_factory=dict)

    def take(self, hold: Hold) -> None:
        """Raises StoreUnavailable for a call that does not fit."""
        if self.taken_uc + hold.reserved_uc > self.limit_uc:
            raise StoreUnavailable("the ledger's store is not available, and storage.exposure is used up")
        self.held[hold.charge_id] = hold.reserved_uc
        self.taken_uc += hold.reserved_uc

    def fitting(self, hold: Hold, tokens: int) -> int:
        """Of so many more tokens of each choice those that there is room for, at the dearest rate of any card."""
        if hold.charge_id not in self.held:
            return tokens
        quote = hold.quote
        dearest_uc = max((card.output for offer in quote.offers for card in offer.dearest.values()), default=0)
        each_uc = max(quote.output_uc_per_token, dearest_uc * quote.choices)
        return min(tokens, max(0, self.limit_uc - self.taken_uc) // each_uc) if each_uc else tokens

    def grown(self, hold: Hold) -> None:
        """A hold that takes more than it did when the call began."""
        if hold.charge_id in self.held:
            self.taken_uc += hold.reserved_uc - self.held[hold.charge_id]
            self.held[hold.charge_id] = hold.reserved_uc

    def closed(self, charge_id: str, charged_uc: int) -> None:
        held_uc = self.held.pop(charge_id, None)
        if held_uc is not None:
            self.taken_uc += charged_uc - held_uc

    def over(self) -> None:
        """The store is back. Calls that began in the outage count no more."""
        self.taken_uc = 0
        self.held.clear()
