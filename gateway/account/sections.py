"""The parts of the page at `/account`, each made of one `View`."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from gateway.account.chart import chart
from gateway.account.forms import tokens
from gateway.account.view import DAYS, KEYS_DAYS, View
from gateway.account.words import NONE, amount, amounts, money, month, package, unit, when
from gateway.charging.last_calls import LastCall
from gateway.charging.records import Key
from gateway.status.html import Child, Html, el, join
from gateway.status.sections import number, pill, table

PATH: Final = "/account"
MOST_GRANTS: Final = 30
SOON_MS: Final = 7 * 86_400_000
FORMS: Final = ("html", "csv", "json")


def banner(view: View, key: str) -> Html:
    out = el("form", el("button", "Log out"), method="post", action=f"{PATH}/logout")
    known = f"{view.at(view.now_ms)} {view.zone}" + (f" · with the key {key}" if key else "")
    return el("header", el("div", el("h1", view.tenant), el("p", known, class_="quiet")), out, class_="bar")


def tiles(view: View) -> Html:
    """What is left by card, and what was used lately."""
    parts = [
        _tile(
            f"Left, {unit(card)}", number(float(of["available"])),
            f"{number(float(of['reserved']))} held, {number(float(of['spent']))} spent", Decimal(of["available"]) <= 0,
        )
        for card, of in view.usage["cards"].items()
    ] or [_tile("Left", "0", "there is no package", True)]  # fmt: skip
    today, all_ = (_sum(view, days) for days in (view.days[-1:], view.days))
    parts.append(_tile("Tokens today", number(today[1]), f"{today[0]:,} calls"))
    parts.append(_tile(f"Tokens in {DAYS} days", number(all_[1]), f"{all_[0]:,} calls"))
    return el("section", *parts, class_="tiles")


def _sum(view: View, days: Any) -> tuple[int, int]:
    used = [one for one in view.used if one.day in days]
    return sum(one.calls for one in used), sum(one.tokens for one in used)


def _tile(name: str, value: str, more: str, bad: bool = False) -> Html:
    shown = el("p", value, class_="value bad" if bad else "value")
    return el("div", el("h2", name), shown, el("p", more, class_="quiet"), class_="tile")


def packages(view: View) -> Html:
    """What is left of each grant, in the order in which they are drawn on."""
    grants = view.usage["grants"]
    rows = [_grant(view, grant) for grant in grants[:MOST_GRANTS]]
    if not rows:
        return el("section", el("h2", "Packages"), el("p", "There is nothing to spend: no package runs."))
    return table("Packages", ("Package", "Left", "Expires"), rows, left_out=len(grants) - len(rows))


def _grant(view: View, grant: Mapping[str, Any]) -> list[Child]:
    notes = [] if grant["account"] == view.tenant else [f"shared, of {grant['account']}"]
    notes += [f"only for {', '.join(words)}" for words in (grant["scope"] or {}).values()]
    left, all_ = Decimal(grant["available"]), Decimal(grant["granted"])
    name = package(grant["package"])
    return [
        join(name, el("small", " · ".join(notes))) if notes else name,
        _left(f"{number(float(left))} of {number(float(all_))} {unit(grant['card'])}", left, all_),
        _expiry(view, grant["expires_at"]),
    ]


def _left(text: str, left: Decimal, all_: Decimal) -> Html:
    """In words and as a bar."""
    share = left / all_ if all_ else Decimal(0)
    per_mille = round(share * 1000)
    state = "low" if share < Decimal("0.1") else "left"
    bar = el(
        "svg", el("rect", width=1000, height=10, class_="ground"),
        el("rect", width=per_mille, height=10, class_=state), viewBox="0 0 1000 10", preserveAspectRatio="none",
        role="img", aria_label=f"{float(share):.0%} left", class_="meter",
    )  # fmt: skip
    return join(text, bar)


def _expiry(view: View, expires_at: str | None) -> Child:
    if expires_at is None:
        return "never"
    text = when(expires_at, str(view.zone))
    soon = text < view.at(view.now_ms + SOON_MS)
    return el("span", text, class_="short soon") if soon else text


def purses(view: View) -> Html:
    """What may be used beyond the packages, and what it comes to so far."""
    rows: list[list[Child]] = [
        [
            package(one["package"]),
            _left(f"{money(one['amount'])} of at most {money(one['cap'])}", *_share(one)),
            f"{money(one['price'])} for 1M",
            _expiry(view, one["expires_at"]),
        ]
        for one in view.usage["payg"]
    ]
    return (
        table("Beyond the packages, paid afterwards", ("Package", "So far", "Price", "Until"), rows)
        if rows
        else Html("")
    )


def _share(one: Mapping[str, Any]) -> tuple[Decimal, Decimal]:
    cap = Decimal(one["cap"])
    return cap - Decimal(one["amount"]), cap


def caps(view: View) -> Html:
    rows: list[list[Child]] = [
        [
            f"{cap['window']}, {cap['unit']}",
            _left(f"{cap['left']} of {cap['limit']}", Decimal(cap["left"]), Decimal(cap["limit"])),
            when(cap["resets_at"], str(view.zone)) if cap["resets_at"] else NONE,
            cap["account"],
        ]
        for cap in view.usage["caps"]
    ]
    return table("Caps", ("Window", "Left", "New", "Of"), rows) if rows else Html("")


def usage(view: View) -> Html:
    if not view.used:
        return el("section", el("h2", "Usage"), el("p", f"No calls in the last {DAYS} days.", class_="quiet"))
    of = f", {view.tenant} and all below it" if view.members else ""
    return el("section", el("h2", f"Tokens by day and model, last {DAYS} days{of}"), chart(view.days, view.used))


def models(view: View) -> Html:
    sums: dict[str, list[int]] = {}
    for one in view.used:
        of = sums.setdefault(one.model, [0, 0, 0])
        of[0], of[1], of[2] = of[0] + one.calls, of[1] + one.input, of[2] + one.output
    order = sorted(sums.items(), key=lambda item: -sum(item[1][1:]))
    rows: list[list[Child]] = [[name, *(f"{n:,}" for n in of)] for name, of in order]
    heads = ("Model", "Calls", "Input tokens", "Output tokens")
    return table(f"Models, last {DAYS} days", heads, rows) if rows else Html("")


def members(view: View) -> Html:
    """Who used most, of a tenant that has others below it."""
    rows: list[list[Child]] = [[name, *(f"{n:,}" for n in of)] for name, *of in view.members]
    heads = ("Member", "Calls", "Input tokens", "Output tokens")
    return table(f"Members, last {DAYS} days", heads, rows) if rows else Html("")


def calls(view: View) -> Html:
    rows = [_call(view, call) for call in view.calls]
    if not rows:
        return Html("")
    return table("Last calls", ("When", "Model", "Tokens in, out", "Charged", "Why"), rows)


def _call(view: View, call: LastCall) -> list[Child]:
    read, written = tokens(call.usage)
    names = {key.id: key.name or key.id for key in view.keys}
    served = call.served or "by nobody"
    asked = "" if call.asked == call.served else f"asked for {call.asked}"
    by = names.get(call.key_id, call.key_id)
    notes = " · ".join(part for part in (asked, f"key {by}" if by else "") if part)
    return [
        view.at(call.ms),
        join(served, el("small", notes)) if notes else served,
        f"{read:,}, {written:,}",
        amounts(call.cards) if call.cards else "nothing",
        _why(call),
    ]


def _why(call: LastCall) -> Html:
    """The price, who paid it, and what was unusual: behind a word, which opens without a script."""
    price = [f"{n:,} {bucket.replace('_', ' ')} × {amount(rate)}" for bucket, n, rate in call.price if rate != "0"]
    paid = [f"{amount(text)} paid by {package(of) if of else 'nobody'}" for of, text in call.paid]
    items = [" + ".join(price)] if price else []
    lines = [*items, *paid, *call.flags, f"request {call.request_id}"]
    return el("details", el("summary", "details"), el("ul", *(el("li", line) for line in lines)))


def keys(view: View) -> Html:
    """Names, ids and times: the secret itself is known to nobody here."""
    rows = [_key(view, key) for key in view.keys]
    if not rows:
        return Html("")
    return table("Keys", ("Key", "State", "Made", "Last used"), rows)


def _key(view: View, key: Key) -> list[Child]:
    used = view.last_used.get(key.id)
    return [
        join(key.name or key.id, el("small", key.id)) if key.name else key.id,
        _state(view, key),
        view.at(key.created_ms),
        f"not in {KEYS_DAYS} days" if used is None else view.at(used),
    ]


def _state(view: View, key: Key) -> Html:
    if key.revoked_ms is not None:
        return pill("revoked", "down")
    if not key.valid(view.now_ms):
        return pill("expired", "down")
    if key.expires_ms is not None:
        return join(pill("valid", "up"), el("small", f"until {view.at(key.expires_ms)}"))
    return pill("valid", "up")


def statements(view: View) -> Html:
    rows = [_statement(one) for one in view.statements]
    if not rows:
        words = "There is none yet: the first is cut when this month has ended."
        return el("section", el("h2", "Statements"), el("p", words, class_="quiet"))
    return table("Statements", ("Month", "Calls", "Left at the end", "Charges", "Open"), rows)


def _statement(one: Mapping[str, Any]) -> list[Child]:
    sums = one["money"]
    names = {"html": "page", "csv": "CSV", "json": "JSON"}
    links = (el("a", names[form], href=f"{PATH}/statements/{one['month']}.{form}") for form in FORMS)
    return [
        month(one),
        f"{one['calls']:,}",
        amounts({card: of["closing"] for card, of in one["cards"].items()}),
        f"{money(sums['total'])} {sums['currency']}" if sums["total"] != "0" else NONE,
        el("span", *links, class_="links"),
    ]
