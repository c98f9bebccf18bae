"""What a grant says beside its credits: that it is paid for afterwards, and what comes when it is used up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from gateway.config.model import Exhausted, Limits, Payg


@dataclass(frozen=True, slots=True)
class Ending:
    """Frozen with the grant, as its credits are.

    With `payg` the grant is a purse: it is spent last, and what is spent of it is billed. `downgrade` and `throttle`
    say what becomes of calls that no credits cover, as long as the grant lives; `alerts` at which shares of its
    credits, in millionths, somebody wants to know.
    """

    payg: Payg | None = None
    downgrade: str | None = None
    throttle: Limits | None = None
    alerts: tuple[int, ...] = ()


def ending(exhausted: Exhausted, alerts: tuple[int, ...]) -> Ending | None:
    """Of prepaid credits; None where there is nothing to say."""
    if exhausted == Exhausted() and not alerts:
        return None
    return Ending(None, exhausted.downgrade, exhausted.throttle, alerts)


def purse(payg: Payg, quantity: int, alerts: tuple[int, ...]) -> Ending:
    return Ending(Payg(payg.price, payg.cap * quantity), alerts=alerts)


def ending_text(what: Ending | None) -> str | None:
    """As it is stored."""
    return None if what is None else orjson.dumps(asdict(what)).decode()


def ending_of(text: str | None) -> Ending | None:
    if text is None:
        return None
    value: dict[str, Any] = orjson.loads(text)
    return Ending(**{**value, **_made(value), "alerts": tuple(value["alerts"])})


def exhausted_of(value: dict[str, Any]) -> Exhausted:
    """As `asdict` has made it."""
    return Exhausted(**{**value, **_made(value)})


def _made(value: dict[str, Any]) -> dict[str, Payg | Limits | None]:
    payg, throttle = value["payg"], value["throttle"]
    return {"payg": Payg(**payg) if payg else None, "throttle": Limits(**throttle) if throttle else None}
