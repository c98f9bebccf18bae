"""Usage over time as a picture: a bar for each day, in a colour for each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from gateway.charging.daily import Day
from gateway.status.html import Html, el
from gateway.status.sections import number

MOST_SERIES: Final = 5  # as many colours can be told apart; the rest is one more
OTHERS: Final = "other models"
_WIDTH: Final = 20  # of a day, in units of the picture
_HEIGHT: Final = 1000


def chart(days: Sequence[str], used: Sequence[Day]) -> Html:
    """Tokens by day and model."""
    series = _series(used)
    tokens: dict[str, Counter[str]] = {day: Counter() for day in days}
    for one in used:
        if one.day in tokens:
            tokens[one.day][one.model if one.model in series else OTHERS] += one.tokens
    most = max(1, *(of.total() for of in tokens.values()))
    names = [*series, *([OTHERS] if any(of[OTHERS] for of in tokens.values()) else [])]
    bars = [_bar(place, day, tokens[day], names, most) for place, day in enumerate(days)]
    title = f"Tokens a day over the last {len(days)} days; the highest day is {most:,}"
    picture = el(
        "svg", _lines(len(days)), *bars, viewBox=f"0 0 {len(days) * _WIDTH} {_HEIGHT}", preserveAspectRatio="none",
        role="img", aria_label=title,
    )  # fmt: skip
    scale = el("div", el("span", number(most)), el("span", number(most / 2)), el("span", "0"), class_="scale")
    ends = el("div", *(el("span", day[5:]) for day in (days[0], days[len(days) // 2], days[-1])), class_="days")
    return el("figure", scale, picture, ends, _legend(names), class_="usage")


def _series(used: Sequence[Day]) -> list[str]:
    """The models that were used most, the one used most first."""
    sums: Counter[str] = Counter()
    for one in used:
        sums[one.model] += one.tokens
    most = sums.most_common(MOST_SERIES + 1)
    return [model for model, _ in (most if len(most) <= MOST_SERIES else most[:MOST_SERIES])]


def _lines(days: int) -> Html:
    return el("path", d=f"M0 1H{days * _WIDTH}M0 {_HEIGHT // 2}H{days * _WIDTH}", class_="grid")


def _bar(place: int, day: str, tokens: Counter[str], names: Sequence[str], most: int) -> Html:
    """From the bottom up; what there is to say of the day is said where the pointer is."""
    parts, below = [], 0
    for at, name in enumerate(names):
        top, bottom = (round(_HEIGHT * n / most) for n in (below + tokens[name], below))
        below += tokens[name]
        if top > bottom:
            x, y, height = place * _WIDTH + 3, _HEIGHT - top, top - bottom
            parts.append(el("rect", x=x, y=y, width=_WIDTH - 6, height=height, class_=f"s{at}"))
    said = [f"{name}: {tokens[name]:,}" for name in names if tokens[name]]
    if not said:
        return Html("")
    return el("g", el("title", "\n".join([f"{day}: {tokens.total():,} tokens", *said])), *parts)


def _legend(names: Sequence[str]) -> Html:
    items = (el("li", el("i", class_=f"s{at}"), name) for at, name in enumerate(names))
    return el("ul", *items, class_="legend") if names else Html("")
