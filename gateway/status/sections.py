"""The parts of the status page, each made of one `View`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from gateway import __version__
from gateway.config.model import Backend, Config, Route
from gateway.metrics import TargetState
from gateway.status.html import Child, Html, el, join
from gateway.status.traffic import Look, Recent

MOST_ROWS: Final = 50
SHORT_CHARS: Final = 20
NONE: Final = "–"
_STATES: Final = ("up", "trying", "down")  # by moma_breaker_state
_TIMES: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


class CacheShown(Protocol):
    """`lookups` since the start, by result: hit, miss, bypass, coalesced."""

    @property
    def cache(self) -> str: ...

    @property
    def entries(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    @property
    def lookups(self) -> Mapping[str, int]: ...


@dataclass(slots=True)
class View:
    """What a page shows. `tenants`: (label, micro-credits left); `minutes`: (calls, errors) of each of the last 60.

    `reloaded`: whether the last edit of routes.yaml is in force; `waiting`: calls, by the limit at which they wait.
    """

    config: Config
    generation: int
    now_ms: int
    up_s: float
    not_ready: Sequence[str]
    ledger_available: bool
    open_holds: int
    targets: Sequence[TargetState]
    tenants: Sequence[tuple[str, int]]
    recent: Recent
    so_far: Look
    minutes: Sequence[tuple[int, int]]
    caches: Sequence[CacheShown] = ()
    reloaded: bool = True
    waiting: Mapping[str, int] = field(default_factory=dict)

    def since_start(self, what: str, of: str = "") -> float:
        return self.so_far.count.get((what, of), 0.0)


def banner(view: View) -> Html:
    """Ready or not, and why not."""
    at = datetime.fromtimestamp(view.now_ms / 1000, ZoneInfo(view.config.timezone))
    state = pill("not ready", "down") if view.not_ready else pill("ready", "up")
    reasons = el("p", "; ".join(view.not_ready), class_="bad") if view.not_ready else Html("")
    return el(
        "header",
        el("h1", "MoMA gateway ", state),
        el("p", f"{__version__} · up {span(view.up_s)} · {at:%Y-%m-%d %H:%M:%S %Z}", class_="quiet"),
        reasons,
        _queue(view.waiting),
    )


def _queue(waiting: Mapping[str, int]) -> Html:
    """Nothing while nobody waits."""
    words = [f"{count:,} at the limits of {limit}" for limit, count in waiting.items() if count]
    return el("p", f"Calls that wait: {', '.join(words)}", class_="bad") if words else Html("")


def tiles(view: View) -> Html:
    recent = view.recent
    errors, calls = recent.total("errors"), recent.total("calls")
    answered = calls - recent.total("refusals")
    first = (seconds(recent.quantile("first_token", q)) for q in (0.5, 0.95))
    currency = view.config.currency
    return el(
        "section",
        _tile("Calls a minute", number(recent.rate("calls")), f"{number(recent.rate('refusals'))} refused"),
        _tile(
            "Errors", percent(errors / answered if answered else None), f"{number(recent.rate('errors'))} a minute",
            bad=errors > 0,
        ),
        _tile(
            "Tokens a minute", number(recent.rate("tokens")),
            f"{number(recent.rate('tokens_input'))} in, {number(recent.rate('tokens_output'))} out",
        ),
        _tile("First token, p50", next(first), f"p95 {next(first)}"),
        _tile("Credits a minute", number(recent.rate("settled")), f"{number(view.since_start('settled'))} since start"),
        _tile(
            "Cost an hour", f"{number(recent.rate('cost') * 60)} {currency}",
            f"{number(view.since_start('cost'))} {currency} since start",
        ),
        class_="tiles",
    )  # fmt: skip


def _tile(name: str, value: str, more: str, *, bad: bool = False) -> Html:
    return el(
        "div", el("h2", name), el("p", value, class_="value bad" if bad else "value"), el("p", more, class_="quiet"),
        class_="tile",
    )  # fmt: skip


def chart(view: View) -> Html:
    """Calls of each minute of the last hour as bars, errors in their foot; nothing before the first minute."""
    if not view.minutes:
        return Html("")
    most = max(1, *(calls for calls, _ in view.minutes))
    bars = []
    for place, (calls, errors) in enumerate(view.minutes, start=60 - len(view.minutes)):
        for count, name in ((calls, "calls"), (min(errors, calls), "errors")):
            height = round(1000 * count / most)
            if height:
                bars.append(el("rect", x=place * 10 + 1, y=1000 - height, width=8, height=height, class_=name))
    title = f"Calls a minute over the last hour; the highest bar is {most:,}"
    picture = el("svg", *bars, viewBox="0 0 600 1000", preserveAspectRatio="none", role="img", aria_label=title)
    return el("section", el("h2", title), picture, class_="chart")


def backends_table(view: View) -> Html:
    by_backend: dict[str, list[TargetState]] = {name: [] for name in view.config.backends}
    for target in view.targets:
        by_backend.setdefault(target.backend, []).append(target)
    rows = [_backend_row(view, backend, by_backend[name]) for name, backend in view.config.backends.items()]
    heads = (
        "Backend",
        "Health",
        "In flight",
        "Tries a minute",
        "Failed",
        "First token p50 / p95",
        "Whole call p50 / p95",
    )
    return table("Backends", heads, rows)


def _backend_row(view: View, backend: Backend, targets: Sequence[TargetState]) -> list[Child]:
    recent, name = view.recent, backend.name
    place = " · ".join(part for part in (backend.region, backend.chip) if part)
    in_flight = sum(target.in_flight for target in targets)
    most = backend.limits.concurrency
    failed = recent.share("failures", "attempts", name)
    return [
        join(name, el("small", place)) if place else name,
        health(targets),
        f"{in_flight} of {most:,}" if most else str(in_flight),
        number(recent.rate("attempts", name)),
        el("span", percent(failed), class_="bad") if failed else percent(failed),
        *(
            " / ".join(seconds(recent.quantile(what, q, name)) for q in (0.5, 0.95))
            for what in ("first_token", "duration")
        ),
    ]


def health(targets: Sequence[TargetState]) -> Html:
    """Of a backend: it is down as far as the breakers of its models say so."""
    worst = max((target.breaker for target in targets), default=0)
    hit = sum(target.breaker == worst for target in targets)
    if not targets:
        return pill("no model", "quiet")
    if worst == 0 or hit == len(targets):
        return pill(_STATES[worst], _STATES[worst])
    return pill(f"{hit} of {len(targets)} {_STATES[worst]}", "trying")


def routes_table(view: View) -> Html:
    rows: list[list[Child]] = [
        [
            name,
            route.policy,
            _targets_of(route),
            number(view.recent.rate("route_calls", name)),
            percent(view.recent.share("route_errors", "route_calls", name)),
        ]
        for name, route in view.config.routes.items()
    ]
    return table("Routes", ("Route", "Policy", "Models", "Calls a minute", "Errors"), rows) if rows else Html("")


def _targets_of(route: Route) -> Html:
    more = dict.fromkeys(fallback.model for fallback in (*route.fallback_error, *route.fallback_context))
    picked = some(route.pick)
    notes = ([f"then {some(more)}"] if more else []) + ([f"cache {route.cache}"] if route.cache else [])
    return join(picked, el("small", " · ".join(notes))) if notes else join(picked)


def models_table(view: View) -> Html:
    """Those with a target that is not up, then by traffic, then as routes.yaml has them."""
    targets: dict[str, list[TargetState]] = {name: [] for name in view.config.models}
    for target in view.targets:
        targets.setdefault(target.model, []).append(target)
    rate = view.recent.rate
    names = sorted(
        view.config.models,
        key=lambda name: (-max((t.breaker for t in targets[name]), default=0), -rate("model_calls", name)),
    )
    rows: list[list[Child]] = [
        [
            name,
            el("span", *(pill(target.backend, _STATES[target.breaker]) for target in targets[name]), class_="pills"),
            str(sum(target.in_flight for target in targets[name])),
            number(rate("model_calls", name)),
            number(rate("tokens", name)),
        ]
        for name in names[:MOST_ROWS]
    ]
    heads = ("Model", "Backends", "In flight", "Calls a minute", "Tokens a minute")
    return table("Models", heads, rows, left_out=len(names) - len(rows))


def tenants_table(view: View) -> Html:
    """Those that spent most since the start."""
    spent = view.since_start
    order = sorted(view.tenants, key=lambda tenant: -spent("settled", tenant[0]))
    rows: list[list[Child]] = [
        [
            name,
            number(view.recent.rate("settled", name)),
            number(spent("settled", name)),
            number(spent("overage", name)),
            el("span", number(uc / 1_000_000), class_="bad") if uc <= 0 else number(uc / 1_000_000),
        ]
        for name, uc in order[:MOST_ROWS]
    ]
    heads = ("Tenant", "Credits a minute", "Spent since start", "Beyond its package", "Credits left")
    return table("Tenants", heads, rows, left_out=len(order) - len(rows)) if rows else Html("")


def caches_table(view: View) -> Html:
    """Since the start; a call that follows the same call under way is a hit."""
    rows: list[list[Child]] = []
    for cache in view.caches:
        looks = cache.lookups
        hits, misses = looks.get("hit", 0) + looks.get("coalesced", 0), looks.get("miss", 0)
        rows.append(
            [
                cache.cache,
                percent(hits / (hits + misses) if hits + misses else None),
                f"{hits:,}",
                f"{misses:,}",
                f"{looks.get('bypass', 0):,}",
                f"{cache.entries:,}",
                f"{cache.bytes / 1e6:,.1f} MB",
            ]
        )
    heads = ("Cache", "Hit rate", "Hits", "Misses", "Bypassed", "Answers kept", "Size")
    return table("Caches", heads, rows) if rows else Html("")


def facts(view: View) -> Html:
    """The ledger and the configuration in force."""
    recent = view.recent
    commits = recent.total("commits")
    ledger: tuple[tuple[str, Child], ...] = (
        ("Store", pill("available", "up") if view.ledger_available else pill("not available", "down")),
        ("Open holds", f"{view.open_holds:,}"),
        ("Commits a minute", number(recent.rate("commits"))),
        ("Commit p95", seconds(recent.quantile("commit", 0.95))),
        ("Charges a commit", number(recent.total("rows") / commits) if commits else NONE),
    )
    config = view.config
    setup: tuple[tuple[str, Child], ...] = (
        ("Generation", str(view.generation)),
        ("Last reload", pill("in force", "up") if view.reloaded else pill("refused, see the log", "down")),
        ("Backends", f"{len(config.backends):,}"),
        ("Models", f"{len(config.models):,}"),
        ("Routes", f"{len(config.routes):,}"),
        ("Plans", f"{len(config.plans):,}"),
    )
    return el("section", _facts("Ledger", ledger), _facts("Configuration", setup), class_="facts")


def _facts(title: str, pairs: Iterable[tuple[str, Child]]) -> Html:
    return el("div", el("h2", title), el("dl", *(el("div", el("dt", k), el("dd", v)) for k, v in pairs)))


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Child]], left_out: int = 0) -> Html:
    """On a narrow screen each row becomes a card, where a cell says itself what it is."""
    lines = [
        el(
            "tr",
            el("th", row[0], scope="row", role="rowheader"),
            *(
                el("td", el("b", head, class_="label"), _cell(cell), role="cell")
                for head, cell in zip(heads[1:], row[1:], strict=True)
            ),
            role="row",
        )
        for row in rows
    ]
    more = el("p", f"{left_out:,} more are not shown.", class_="quiet") if left_out > 0 else Html("")
    head = el("thead", el("tr", *(el("th", head, scope="col") for head in heads)))
    return el("section", el("h2", title), el("table", head, el("tbody", *lines), role="table"), more)


def _cell(cell: Child) -> Html:
    """Short text is not broken into lines, as names may have to be."""
    short = not isinstance(cell, Html) and len(str(cell)) <= SHORT_CHARS
    return el("span", cell, class_="short" if short else "")


def pill(text: str, state: str) -> Html:
    return el("span", text, class_=f"pill {state}")


def some(names: Iterable[str], most: int = 4) -> str:
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def number(value: float) -> str:
    """Three digits that matter; large ones in thousands or millions."""
    if value >= 1e6:
        return f"{value / 1e6:,.2f} M"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2g}" if value >= 0.001 else f"{value:.6f}".rstrip("0").rstrip(".")


def percent(share: float | None) -> str:
    if share is None:
        return NONE
    return f"{share:.2%}" if 0 < share < 0.1 else f"{share:.0%}"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.1f} s"


def span(value: float) -> str:
    """The largest unit and the next: 3 d 4 h."""
    units = list(_TIMES)
    while len(units) > 1 and value < units[0][0]:
        units.pop(0)
    first, *rest = units
    count, left = divmod(int(value), first[0])
    more = left // rest[0][0] if rest else 0
    return f"{count} {first[1]} {more} {rest[0][1]}" if more else f"{count} {first[1]}"
