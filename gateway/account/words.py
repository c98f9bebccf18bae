"""Amounts and times of statements for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

CARDS: Final = {"standard": "credits", "raw": "raw tokens"}
KINDS: Final = {
    "subscription": "Subscription, a period", "change": "Change of a subscription", "rollover": "Rolled over",
    "order": "Package", "code": "Code", "compensation": "Compensation", "plan": "Plan", "grant": "Credited",
    "refund": "Refund", "revoked": "Taken back",
}  # fmt: skip
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
NONE: Final = "–"


def amount(text: str) -> str:
    """Exact, with thousands apart."""
    return f"{Decimal(text):,f}"


def money(text: str) -> str:
    """Exact, with two decimals at least."""
    value = Decimal(text)
    return f"{value:,.2f}" if value == round(value, 2) else f"{value:,f}"


def unit(card: str) -> str:
    """What an amount of a card is called."""
    return CARDS.get(card, f"credits of {card}")


def amounts(cards: Mapping[str, str]) -> str:
    """Of several cards, which are not added up."""
    return ", ".join(f"{amount(text)} {unit(card)}" for card, text in cards.items()) or NONE


def month(value: Mapping[str, Any]) -> str:
    """November 2026; of another span its two ends."""
    if value["month"]:
        return f"{MONTHS[int(value['month'][5:]) - 1]} {value['month'][:4]}"
    zone = value.get("timezone") or "UTC"
    return f"{when(value['from'], zone)} to {when(value['to'], zone)}"


def when(iso: str, zone: str, form: str = "%Y-%m-%d %H:%M") -> str:
    return datetime.fromisoformat(iso).astimezone(ZoneInfo(zone)).strftime(form)


def package(name: str | None) -> str:
    """What a grant came from: `package:home` is home, `plan:trial` is the plan trial."""
    kind, _, rest = (name or "").partition(":")
    if not rest:
        return name or "credited"
    return rest if kind == "package" else f"{kind} {rest}"
