"""Two configurations compared: what changes, in words, for whom, and from when on. Never a key, nor its hash."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from gateway.changes.flat import Hidden, KeyHashes, Path, Value, Values, compact, flat, item_text, share_text
from gateway.charging.offers import STANDARD
from gateway.config.model import Config
from gateway.config.secrets import Secrets
from gateway.routing.live import Live
from gateway.routing.router import Router

NOW: Final = "now"
NEXT_PERIOD: Final = "next_period"
RESTART: Final = "restart"
# All others are in force for each call that begins after the swap.
_LATER: Final[Mapping[Path, str]] = {
    ("server", "host"): RESTART,
    ("server", "port"): RESTART,
    ("ledger",): RESTART,
    ("outage", "when_down"): RESTART,
    ("outage", "exposure"): RESTART,
    ("timezone",): RESTART,
    ("tenant_label_top",): RESTART,
    ("plans", "grants"): NEXT_PERIOD,
    ("plans", "exhausted", "payg", "price"): NEXT_PERIOD,
    ("plans", "exhausted", "payg", "cap"): NEXT_PERIOD,
    ("plans", "alerts"): NEXT_PERIOD,
}
_SAID: Final = {NOW: "", NEXT_PERIOD: ", from each tenant's next period", RESTART: ", takes effect after a restart"}
_NOUNS: Final = {
    "backends": "backend", "models": "model", "aliases": "alias", "routes": "route", "plans": "plan",
    "tenants": "tenant", "caches": "cache", "packages": "package", "rate_cards": "rate card",
}  # fmt: skip
_SECTIONS: Final = {  # where they stand in routes.yaml, if not under their own name
    "ledger": "storage.ledger", "outage": "storage", "tenant_label_top": "observability.tenant_label",
    "timeout": "defaults.timeout", "retry": "defaults.retry", "breaker": "defaults.breaker", "queue": "defaults.queue",
}  # fmt: skip
_NOT_COMPARED: Final = frozenset(
    {"warnings", "sources", "catalogues"}
)  # they follow from the rest, or say where it stands
_TOLD: Final = 12  # names in one line
_MAX_CHARS: Final = 200  # of one value


@dataclass(frozen=True)
class Change:
    """One thing that differs. `old` and `new` are None where there is nothing; `whom` is "" where it is everybody."""

    section: str
    name: str
    key: str
    old: str | None
    new: str | None
    when: str  # now | next_period | restart
    whom: str
    text: str


def changes(old: Config, new: Config) -> list[Change]:
    """In the order of `Config`; none when both do the same."""
    concerned = _Concerned(old, new)
    found: list[Change] = []
    for section in (one.name for one in fields(Config) if one.name not in _NOT_COMPARED):
        before, after = getattr(old, section), getattr(new, section)
        if section in _NOUNS:
            found += _of_names(section, before, after, concerned)
        elif before != after:
            found += _of_values(section, "", flat(before), flat(after), "")
    return found


def turned(old: Secrets, new: Secrets, config: Config) -> list[Change]:
    """Secrets with another value behind the same reference."""
    server = config.server
    owners = [(f"backend {name}", secret) for name, backend in config.backends.items() for secret in backend.keys]
    owners += [(f"server.{key}", secret) for key in ("admin_key", "metrics_key") if (secret := getattr(server, key))]
    return [
        Change("secrets", secret.reference, "", None, None, NOW, owner, f"{owner}: another value of {secret.reference}")
        for owner, secret in owners
        if old.values.get(secret.reference, new.of(secret)) != new.of(secret)
    ]


def _of_names(section: str, old: Mapping[str, Any], new: Mapping[str, Any], concerned: _Concerned) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        if name in old and name in new and old[name] == new[name]:
            continue
        whom, about = concerned.by(section, name), f"{_NOUNS[section]} {name}"
        if name not in new:
            text = f"{about} is gone{_gone(section)}{_for(whom)}"
            yield Change(section, name, "", _known_as(old[name]), None, NOW, whom, text)
        elif name not in old:
            text = f"{about} is new{_begins(section, new[name])}{_for(whom)}"
            yield Change(section, name, "", None, _known_as(new[name]), NOW, whom, text)
        else:
            yield from _of_values(section, name, flat(old[name]), flat(new[name]), whom)
    if [name for name in old if name in new] != [name for name in new if name in old]:
        yield Change(section, "", "", None, None, NOW, "", f"{section} stand in another order")


def _known_as(value: Any) -> str | None:
    """What an alias stands for."""
    return value if isinstance(value, str) else None


def _gone(section: str) -> str:
    if section == "tenants":
        return " from routes.yaml: its keys there stop working; its account, grants and other keys stay in the ledger"
    if section == "plans":
        return ": tenants that still have it may call nothing"
    if section == "caches":
        return ": its answers go"
    if section == "packages":
        return ": it is sold no more; what was sold of it goes on"
    if section == "rate_cards":
        return ": nothing is sold on it any more; what was goes on by its last version"
    return ": calls that name it are refused" if section in ("models", "aliases", "routes") else ""


def _begins(section: str, value: Any) -> str:
    if section == "aliases":
        return f": it stands for {value}"
    if section == "models":
        return f": served by {_words([item_text(via) for via in value.via])}"
    if section == "routes":
        return f": {value.policy} over {_words(value.pick)}"
    if section == "caches":
        return f": answers live {value.ttl_s:g}s, a hit is charged {share_text(value.charge_ppm)}"
    return f" with plan {value.plan}" if section == "tenants" else ""


def _of_values(section: str, name: str, old: Values, new: Values, whom: str) -> Iterator[Change]:
    about = f"{_NOUNS[section]} {name}: " if name else ""
    for path in dict.fromkeys((*old, *new)):
        before, after = old.get(path), new.get(path)
        if before == after or _covered(path, old, new):
            continue
        key = ".".join(path)
        named = key if name else ".".join((_SECTIONS.get(section, section), *path))
        when = _LATER.get((section, *path), NOW)
        what = f"{about}{named} " if named else about
        percent = "" if path == ("port",) else _percent(before, after)
        text = f"{what}{_difference(before, after)}{percent}{_unit(section, path)}{_for(whom)}{_SAID[when]}"
        yield Change(section, name, key, _shown(before), _shown(after), when, whom, text)


def _covered(path: Path, old: Values, new: Values) -> bool:
    """A bucket that costs what its family does, before and after: the change of the family says it."""
    if len(path) < 2 or path[0] not in ("price", "rates"):
        return False
    family = (path[0], path[1].partition("_")[0])
    return path != family and family in old and old[path] == old[family] and new.get(path) == new.get(family)


def _unit(section: str, path: Path) -> str:
    if path[:1] == ("price",):
        return "" if section == "packages" else " per 1M"
    return " credits per token" if "rates" in path else ""


def _for(whom: str) -> str:
    return f" ({whom})" if whom else ""


def _difference(old: Value, new: Value) -> str:
    if isinstance(old, Hidden) or isinstance(new, Hidden):
        return "is gone" if new is None else "is new" if old is None else "has another value"
    if isinstance(old, KeyHashes) and isinstance(new, KeyHashes):
        gained, lost = len(new.hashes - old.hashes), len(old.hashes - new.hashes)
        return _both([f"{gained} added"] if gained else [], [f"{lost} removed, refused from now on"] if lost else [])
    if isinstance(old, tuple) and isinstance(new, tuple) and set(old) != set(new):
        added, dropped = [w for w in new if w not in old], [w for w in old if w not in new]
        return _both([f"adds {_words(added)}"] if added else [], [f"drops {_words(dropped)}"] if dropped else [])
    return f"{_shown(old) or 'none'} -> {_shown(new) or 'none'}"


def _both(gains: list[str], losses: list[str]) -> str:
    return ", ".join([*gains, *losses])


def _percent(old: Value, new: Value) -> str:
    try:
        before, after = float(old), float(new)  # type: ignore[arg-type] # what is no number raises
    except (TypeError, ValueError):
        return ""
    if isinstance(old, bool) or before <= 0:
        return ""
    return f" ({(after - before) / before * 100:+.4g} %)"


def _shown(value: Value) -> str | None:
    if value is None or isinstance(value, Hidden):
        return None
    if isinstance(value, KeyHashes):
        return str(len(value.hashes))
    if isinstance(value, tuple):
        return _words(value) or None
    if isinstance(value, bool | str):
        return str(value)[:_MAX_CHARS]
    return compact(value) if isinstance(value, int) else f"{value:g}"


def _words(words: Sequence[str]) -> str:
    more = f" and {len(words) - _TOLD} more" if len(words) > _TOLD else ""
    return ", ".join(words[:_TOLD])[:_MAX_CHARS] + more


class _Concerned:
    """For whom a name matters: those who may call it, the models behind it, its tenants, the routes that name it."""

    def __init__(self, old: Config, new: Config) -> None:
        self._old = old
        self._new = new
        self._names = [_names_by_plan(config) for config in (old, new)]

    def by(self, section: str, name: str) -> str:
        """In both configurations together; "" when it is everybody."""
        if section == "backends":
            configs = (self._new, self._old)
            models = {m.name: None for c in configs for m in c.models.values() for v in m.via if v.backend == name}
            return f"models {_words(list(models))}" if models else "no model uses it"
        if section == "plans":
            tenants = {t.name: None for c in (self._new, self._old) for t in c.tenants.values() if t.plan == name}
            mine = f"tenants {_words(list(tenants))} and " if tenants else ""
            return f"{mine}those of the ledger that have it"
        if section == "packages":
            return "orders from now on" if name in self._old.packages and name in self._new.packages else ""
        if section == "tenants":
            return ""
        if section == "rate_cards":
            return self._by_card(name)
        if section == "caches":
            routes = {r.name: None for c in (self._new, self._old) for r in c.routes.values() if r.cache == name}
            return f"routes {_words(list(routes))}" if routes else "no route names it"
        plans = {plan: None for names in self._names for plan, allowed in names.items() if name in allowed}
        if not plans:
            return "no plan allows it"
        return "" if plans.keys() >= self._new.plans.keys() else f"plans {_words(list(plans))}"

    def _by_card(self, name: str) -> str:
        """The cards that stand on it, and what is sold on it or on them; of standard that would be nearly all."""
        configs = (self._new, self._old)
        stands: dict[str | None, list[str]] = {}
        for card, terms in ((card, t) for c in configs for card, of in c.rate_cards.items() for t in of):
            stands.setdefault(terms.base, []).append(card)
        above = {name: None}
        waiting = [name]
        while waiting:
            more = [card for card in stands.get(waiting.pop(), ()) if card not in above]
            above |= dict.fromkeys(more)
            waiting += more
        sold = {p.name: None for c in configs for p in c.packages.values() if p.card in above and p.card != STANDARD}
        cards = [card for card in above if card != name]
        said = [f"cards {_words(cards)}"] if cards else []
        return ", ".join([*said, *([f"packages {_words(list(sold))}"] if sold else [])])


def _names_by_plan(config: Config) -> dict[str, set[str]]:
    """What may be called, by the very code that decides it for calls."""
    router = Router(config, random.Random(), Live(config.breaker))
    return {name: set(router.names(plan)) for name, plan in config.plans.items()}
