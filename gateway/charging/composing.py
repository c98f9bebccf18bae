"""One statement, composed of what records, entries and sales come to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from gateway.charging.figures import REPAID, Figures, Reach, Use
from gateway.charging.grants import Grant, burn_key
from gateway.charging.rating import credits_text
from gateway.charging.statement_lines import Line
from gateway.charging.units import UC_PER_CREDIT

MOVES: Final = ("granted", "spent", "expired", "revoked")
SUMS: Final = ("opening", *MOVES, "closing")
SOLD: Final = {"subscription": "subscriptions", "change": "subscriptions", "order": "packs", "code": "codes"}


@dataclass(frozen=True)
class Before:
    """What a statement goes on from: micro-credits left of each grant, those spent of each purse, and debt."""

    left: Mapping[str, int] = field(default_factory=dict)
    spent: Mapping[str, int] = field(default_factory=dict)
    debt: int = 0


@dataclass(frozen=True)
class Book:
    """What statements of one reach are made of. `owned`: the grants of an account that moved or had something left;
    `members`: the accounts that may have drawn on those of an account; `keys`: names by id."""

    figures: Figures
    owned: Mapping[str, list[Grant]]
    lines: Mapping[str, list[Line]]
    members: Mapping[str, list[str]]
    keys: Mapping[str, str]
    currency: str = ""


@dataclass(slots=True)
class Balance:
    """Of one grant: what it had, and what moved, by kind. `before`: what was spent of a purse before."""

    grant: Grant
    opening: int
    moved: Counter[str]
    before: int = 0

    @property
    def closing(self) -> int:
        return self.opening + self.moved["granted"] - sum(self.moved[kind] for kind in MOVES[1:])

    @property
    def sums(self) -> Counter[str]:
        moved = {kind: self.moved[kind] for kind in MOVES}
        return Counter({"opening": self.opening, **moved, "closing": self.closing})

    @property
    def amount(self) -> int:
        """What is billed for a purse: rounded up over all that was spent since it began, so that the statements of its
        months add up to one."""
        payg = self.grant.payg
        return payg.amount(self.before + self.moved["spent"]) - payg.amount(self.before) if payg else 0


def composed(tenant: str, reach: Reach, book: Book, before: Before) -> dict[str, Any]:
    """Credits and money as decimal strings. Sums at the top are over all cards; `cards` has them card by card."""
    moved = book.figures.moved
    every = [
        Balance(grant, before.left.get(grant.id, 0), moved.get(grant.id, Counter()), before.spent.get(grant.id, 0))
        for grant in sorted(book.owned.get(tenant, ()), key=burn_key)
    ]
    balances, purses = [one for one in every if not one.grant.payg], [one for one in every if one.grant.payg]
    uses = book.figures.used.get(tenant, {})
    own = _total(uses.values())
    sold = book.lines.get(tenant, ())
    return {
        "tenant": tenant, "from": _iso(reach.from_ms), "to": _iso(reach.to_ms),
        **_texts(_added(balances)), "reserved": "0", "overage": credits_text(own.overage),
        "debt": credits_text(before.debt + debt_of(book.figures, tenant)),
        "debt_repaid": credits_text(sum(one.moved[REPAID] for one in every)),
        "calls": own.calls, "by_model": _by_model(uses), "by_key": _by_key(uses, book.keys),
        "cards": {card: _texts(_added(some)) for card, some in _grouped(balances, lambda one: one.grant.card).items()},
        "by_package": _by_package(balances), "by_member": _by_member(tenant, book, every),
        "payg": [_billed(one) for one in purses if one.moved["spent"]],
        "purses": [_purse(one) for one in purses if one.closing],
        "left": [_left(one) for one in balances if one.closing],
        "lines": [_shown(line) for line in sold], "money": _money(sold, purses, book.currency),
    }  # fmt: skip


def _total(uses: Collection[Use]) -> Use:
    total = Use()
    for use in uses:
        total.add(use)
    return total


def _added(balances: Collection[Balance]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in balances:
        found.update(one.sums)
    return found


def _texts(sums: Mapping[str, int], names: Collection[str] = SUMS) -> dict[str, str]:
    return {name: credits_text(sums[name]) for name in names}


def _grouped(balances: Collection[Balance], by: Any) -> dict[Any, list[Balance]]:
    found: dict[Any, list[Balance]] = {}
    for one in balances:
        found.setdefault(by(one), []).append(one)
    return found


def _by_model(uses: Mapping[tuple[str, str | None], Use]) -> list[dict[str, Any]]:
    models: dict[str, Use] = {}
    for (model, _), use in uses.items():
        models.setdefault(model, Use()).add(use)
    return [{"model": model, **_used(use)} for model, use in sorted(models.items()) if use.calls]


def _by_key(uses: Mapping[tuple[str, str | None], Use], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """`key` is null for keys of routes.yaml, which have no id, and calls from before keys were recorded."""
    found: dict[str | None, Use] = {}
    for (_, key_id), use in uses.items():
        found.setdefault(key_id, Use()).add(use)
    return [
        {"key": key, "name": names.get(key or "", ""), **_used(use)}
        for key, use in sorted(found.items(), key=lambda item: item[0] or "")
        if use.calls
    ]


def _used(use: Use) -> dict[str, Any]:
    return {
        "calls": use.calls, "credits": credits_text(use.charged), "usage": dict(sorted(use.usage.items())),
        "cards": _cards(use.cards),
    }  # fmt: skip


def _cards(cards: Mapping[str, int]) -> dict[str, str]:
    return {card: credits_text(uc) for card, uc in sorted(cards.items()) if uc}


def _by_package(balances: Collection[Balance]) -> list[dict[str, Any]]:
    """Grants that came from the same thing, and pay by the same card."""
    groups = _grouped(balances, lambda one: (one.grant.source_ref, one.grant.card))
    return [
        {"package": source, "card": card, "grants": len(some), **_texts(_added(some))}
        for (source, card), some in groups.items()
    ]


def _by_member(tenant: str, book: Book, balances: Collection[Balance]) -> list[dict[str, Any]]:
    """The tenant and those below it: their calls, what they were charged, and what of it the tenant's grants paid.

    None of a tenant that is alone.
    """
    cards = {one.grant.id: one.grant.card for one in balances}
    drawn: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for grant, card in cards.items():
        for member, uc in book.figures.drawn.get(grant, {}).items():
            drawn[member][card] += uc
    names = {tenant, *book.members.get(tenant, ()), *drawn}
    if len(names) == 1:
        return []
    found = []
    for name in sorted(names, key=lambda name: (name != tenant, name)):
        use = _total(book.figures.used.get(name, {}).values())
        found.append({"tenant": name, "calls": use.calls, "cards": _cards(use.cards), "drawn": _cards(drawn[name])})
    return found


def _left(one: Balance) -> dict[str, Any]:
    grant = one.grant
    return {
        "grant": grant.id, "package": grant.source_ref, "card": grant.card, "credits": credits_text(one.closing),
        "expires_at": None if grant.expires_ms is None else _iso(grant.expires_ms),
    }  # fmt: skip


def _billed(one: Balance) -> dict[str, Any]:
    """`price` is of 1M credits."""
    grant, payg = one.grant, one.grant.payg
    assert payg is not None
    return {
        "grant": grant.id, "package": grant.source_ref, "card": grant.card, "price": credits_text(payg.price),
        "credits": credits_text(one.moved["spent"]), "amount": credits_text(one.amount),
    }  # fmt: skip


def _purse(one: Balance) -> dict[str, str]:
    """What the next statement goes on from."""
    spent = one.before + one.moved["spent"]
    return {"grant": one.grant.id, "spent": credits_text(spent), "left": credits_text(one.closing)}


def _shown(line: Line) -> dict[str, Any]:
    return {
        "kind": line.kind, "at": _iso(line.ms), "what": line.what, "quantity": line.quantity, "card": line.card,
        "credits": credits_text(line.credits_uc), "price": credits_text(line.price), "order": line.order or None,
        "subscription": line.subscription or None,
    }  # fmt: skip


def _money(sold: Collection[Line], purses: Collection[Balance], currency: str) -> dict[str, str]:
    sums = Counter[str](dict.fromkeys(SOLD.values(), 0))
    sums["payg"] = sum(one.amount for one in purses)
    for line in sold:
        if line.price:
            sums[SOLD.get(line.kind, "other")] += line.price
    return {
        "currency": currency,
        **{n: credits_text(of) for n, of in sums.items()},
        "total": credits_text(sums.total()),
    }


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def uc_of(text: str) -> int:
    """What `credits_text` has made."""
    return int(Decimal(text) * UC_PER_CREDIT)


def debt_of(found: Figures, tenant: str) -> int:
    return sum(use.debt for use in found.used.get(tenant, {}).values()) - found.repaid[tenant]
