"""What one call has acquired so far."""

from __future__ import annotations

from gateway.admission import Entry
from gateway.cache.flight import Flight
from gateway.charging.in_force import InForce
from gateway.charging.records import Receipt
from gateway.dispatch import Delivery
from gateway.recorder import Finished
from gateway.routing.router import Decision


class Life:
    """What one call has acquired so far, so that its end can give it back. Every field is set once, and the decision
    again where the package's end asks for another."""

    __slots__ = (
        "charge_id", "decision", "delivery", "dispatched", "endpoint", "entry", "flags", "flight", "lowered_to",
        "rates", "receipt", "record",
    )  # fmt: skip

    def __init__(self, record: Finished, endpoint: str) -> None:
        self.record = record
        self.endpoint = endpoint  # as it was called: it says how errors look
        self.delivery = Delivery()
        self.charge_id = ""
        self.dispatched = False
        self.entry: Entry | None = None
        self.decision: Decision | None = None
        self.rates: InForce | None = None  # at its reserve: they price it
        self.flags: tuple[str, ...] = ()  # of the charge: how it goes on that no credits covered
        self.receipt: Receipt | None = None
        self.lowered_to: int | None = None
        self.flight: Flight | None = None  # its task is what ends this call

    def limits(self) -> dict[str, str]:
        return self.entry.headers() if self.entry is not None else {}
