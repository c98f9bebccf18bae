"""What the schema cannot see: names that must exist, and what would match nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.call import READING
from gateway.config import card_names
from gateway.config.known import doubtful, must_exist
from gateway.config.model import Cache, Payg
from gateway.config.structure import near
from gateway.config.yaml_source import Source

Values = Mapping[str, Any]
Path = tuple[str, ...]
MAX_VALID_S: Final = 36_500 * 86_400.0
MAX_PAYG_UC: Final = 10**18
MAX_PICKED: Final = 100_000  # models that routes and their fallbacks stand for, all together


def check(source: Source, values: Values) -> None:
    """Adds a problem for each to the source.

    `values` lack what has a problem of its own, and nothing is said that may follow from that one alone.
    """
    if _picks_too_much(source, values) or card_names.too_much(source, values):
        return
    for name, backend in values.get("backends", {}).items():
        if "api_version" in backend and backend.get("kind", "azure") != "azure":
            source.problem(("backends", name, "api_version"), "is for backends of the kind azure", "take it out")
    for name, model in values.get("models", {}).items():
        _model(source, values, name, model)
    for name, route in values.get("routes", {}).items():
        _route(source, values, name, route)
    for name, cache in values.get("cache", {}).items():
        if cache.get("max_entry", 0) > cache.get("max_bytes", Cache.max_bytes):
            source.problem(("cache", name, "max_entry"), "is larger than max_bytes")
    card_names.check(source, values)
    for name, plan in values.get("plans", {}).items():
        _plan(source, values, name, plan)
        _ending(source, values, ("plans", name), plan)
    _packages(source, values)
    for name, tenant in values.get("tenants", {}).items():
        must_exist(source, ("tenants", name, "plan"), tenant.get("plan"), values.get("plans", {}), "plans")
    _keys_are_of_one_tenant(source, values)
    for alias, target in values.get("aliases", {}).items():
        must_exist(source, ("aliases", alias), target, _reachable(values), "models", "routes")
        if alias in _reachable(values):
            source.problem(("aliases", alias), "is the name of a model or route already")


def selected(models: Mapping[str, Values], pick: Any) -> tuple[str, ...]:
    """The models that a `pick` means, in file order."""
    if not isinstance(pick, Mapping):
        return tuple(pick)
    wanted = set(pick.get("tags", ()))
    return tuple(name for name, model in models.items() if wanted <= set(model.get("tags", ())))


def _picks_too_much(source: Source, values: Values) -> bool:
    """A selector is short and what it stands for is not: many of them would be a bomb like that of aliases."""
    models, routes = values.get("models", {}), values.get("routes", {})
    sizes: dict[str, int] = {}
    left = MAX_PICKED
    for name, route in routes.items():
        sizes[name] = len(selected(models, route.get("pick", ())))
        left -= sizes[name]
        if left < 0:
            break
    for name, route in routes.items():
        left -= sum(sizes.get(target, 1) for targets in route.get("fallback", {}).values() for target in targets)
        if left < 0:
            source.problem(("routes", name), f"all routes together pick more than {MAX_PICKED:,} models")
            return True
    return False


def _model(source: Source, values: Values, name: str, model: Values) -> None:
    path = ("models", name)
    for index, backend in enumerate(_backends(model)):
        must_exist(source, (*path, "via", str(index)), backend, values.get("backends", {}), "backends")
    reads = READING.issuperset(model.get("endpoints", ("chat",))) or source.doubts((*path, "endpoints"))
    for bucket in ("input",) if reads else ("input", "output"):
        if bucket not in model.get("price", ()) and not source.doubts((*path, "price", bucket)):
            source.problem((*path, "price"), f"has no {bucket}", "a price of 0 must be written")
    if "context" in model and model.get("max_output", 0) > model["context"]:
        source.problem((*path, "max_output"), "is larger than context")


def _backends(model: Values) -> list[str | None]:
    """In the order of `via`; None for an entry with a problem of its own."""
    return [via if isinstance(via, str) else (via or {}).get("backend") for via in model.get("via", ())]


def _route(source: Source, values: Values, name: str, route: Values) -> None:
    path, models, routes = ("routes", name), values.get("models", {}), values.get("routes", {})
    if name in models:
        source.problem(path, "is the name of a model already")
    pick = route.get("pick", ())
    if isinstance(pick, Mapping):
        unsure = source.doubts((*path, "pick", "tags")) or doubtful(source, "models", "tags")
        if not unsure and not selected(models, pick):
            tags = {tag for model in models.values() for tag in model.get("tags", ())}
            source.problem((*path, "pick"), "matches no model", near(pick["tags"][0], tags, source))
    else:
        for index, model in enumerate(pick):
            must_exist(source, (*path, "pick", str(index)), model, models, "models")
    for kind, names in route.get("fallback", {}).items():
        for index, target in enumerate(names):
            at = (*path, "fallback", kind, str(index))
            must_exist(source, at, target, {**models, **routes}, "models", "routes")
            if target == name:
                source.problem(at, "falls back on itself")
    must_exist(source, (*path, "cache"), route.get("cache"), values.get("cache", {}), "cache")
    weigh = route.get("weigh")
    if weigh and not any(weigh.values()):
        source.problem((*path, "weigh"), "has no weight above 0")
    _require(source, values, path, route)


def _require(source: Source, values: Values, path: Path, route: Values) -> None:
    """Each word must be some backend's, and together they must leave the route a target."""
    backends, require = values.get("backends", {}), route.get("require", {})
    clear = not source.doubts((*path, "require"))
    for key, wanted in require.items():
        known = {word for backend in backends.values() for word in _words(backend, key)}
        for word in wanted:
            clear = clear and word in known
            if word is not None and word not in known and not doubtful(source, "backends", key):
                source.problem((*path, "require", key), f"no backend has the {key} {word}", near(word, known, source))
    meant = _meant(source, values, path, route) if clear else []
    if meant and not any(
        all(set(wanted) & set(_words(backend, key)) for key, wanted in require.items()) for backend in meant
    ):
        source.problem((*path, "require"), "leaves no backend of the models that are picked")


def _meant(source: Source, values: Values, path: Path, route: Values) -> list[Values]:
    """The backends of the models that are picked; none when a problem leaves open which they are, or what they have."""
    backends, models, pick = values.get("backends", {}), values.get("models", {}), route.get("pick", ())
    picked = selected(models, pick)
    if source.doubts((*path, "pick")) or (isinstance(pick, Mapping) and doubtful(source, "models", "tags")):
        return []
    via = {str(backend) for name in picked for backend in _backends(models.get(name, {}))}
    places = [("models", name, "via") for name in picked]
    places += [("backends", name, key) for name in via for key in route.get("require", {})]
    if not (models.keys() >= set(picked) and backends.keys() >= via) or any(map(source.doubts, places)):
        return []
    return [backends[name] for name in via]


def _words(backend: Values, key: str) -> Iterable[str]:
    value = backend.get(key, ())
    return (value,) if isinstance(value, str) else value


def _plan(source: Source, values: Values, name: str, plan: Values) -> None:
    """What `allow` lists is a name, or a tag of a model."""
    for index, grant in enumerate(plan.get("grants", ())):
        card_names.known_card(source, values, ("plans", name, "grants", str(index), "card"), grant.get("card"))
    if doubtful(source, "models", "tags"):
        return
    tags = {tag for model in values.get("models", {}).values() for tag in model.get("tags", ())}
    known = {**_reachable(values), **values.get("aliases", {}), **dict.fromkeys(tags)}
    for index, allowed in enumerate(plan.get("allow", ())):
        must_exist(source, ("plans", name, "allow", str(index)), allowed, known, "models", "routes", "aliases")


def _packages(source: Source, values: Values) -> None:
    for name, package in values.get("packages", {}).items():
        _package(source, values, ("packages", name), package)
        _ending(source, values, ("packages", name), package)
    if not source.problems:
        card_names.pay_something(source, values)


def _package(source: Source, values: Values, path: Path, package: Values) -> None:
    """What recurs ends with its periods, what is granted once after its time."""
    _scope(source, values, (*path, "scope"), package.get("scope", {}))
    card_names.known_card(source, values, (*path, "card"), package.get("card"))
    if source.doubts((*path, "every")):
        return
    if "every" in package and "valid" in package:
        source.problem((*path, "valid"), "is for what is granted once", "with every, say how many periods it has")
    for key in ("periods", "rollover", "caps") if "every" not in package else ():
        if key in package:
            source.problem((*path, key), "is for packages with every")
    if package.get("valid", 0) > MAX_VALID_S:
        source.problem((*path, "valid"), "is at most 36500d", "without it, the credits never expire")


def _scope(source: Source, values: Values, path: Path, scope: Values) -> None:
    """What nothing has would never be paid for."""
    card_names.check_hours(source, (*path, "hours"), scope.get("hours", ()), apart=False)
    models, backends = values.get("models", {}), values.get("backends", {})
    known = {
        "models": models,
        "tags": {tag: None for model in models.values() for tag in model.get("tags", ())},
        "regions": {backend["region"]: None for backend in backends.values() if "region" in backend},
    }
    if doubtful(source, "models", "tags") or doubtful(source, "backends", "region"):
        return
    for kind in (kind for kind in known if kind in scope):
        for index, word in enumerate(scope[kind]):
            must_exist(
                source, (*path, kind, str(index)), word, known[kind], "backends" if kind == "regions" else "models"
            )


def _ending(source: Source, values: Values, path: Path, owner: Values) -> None:
    """`exhausted` and `alerts` of a plan or package."""
    exhausted, at = owner.get("exhausted"), (*path, "exhausted")
    if exhausted == {} and not source.doubts(at):
        source.problem(at, "says nothing", "known: block, payg, downgrade, throttle")
    if isinstance(exhausted, Mapping):
        must_exist(source, (*at, "downgrade"), exhausted.get("downgrade"), _reachable(values), "models", "routes")
        _payg(source, (*at, "payg"), exhausted.get("payg", {}))
        if exhausted.get("throttle") == {} and not source.doubts((*at, "throttle")):
            source.problem((*at, "throttle"), "has no limit", "such as {rpm: 2, tpm: 10k}")
    alerts = owner.get("alerts", ())
    for index, share in enumerate(alerts):
        if share is not None and (share == 0 or share in alerts[:index]):
            says = "stands here twice" if share else "is above 0%"
            source.problem((*path, "alerts", str(index)), says)


def _payg(source: Source, path: Path, payg: Values) -> None:
    """The credits that the cap buys must be some, and fit."""
    price, cap = payg.get("price"), payg.get("cap")
    if price == 0:
        source.problem((*path, "price"), "is above 0", "what is for nothing is a throttle")
    elif price is not None and cap is not None and not 0 < Payg(price, cap).credits_uc <= MAX_PAYG_UC:
        source.problem((*path, "cap"), "buys no credit, or more than 10^12 of them, at this price")


def _keys_are_of_one_tenant(source: Source, values: Values) -> None:
    owners: dict[str, str] = {}
    for name, tenant in values.get("tenants", {}).items():
        for index, hashed in enumerate(tenant.get("keys", ())):
            if hashed is not None and owners.setdefault(hashed, name) != name:
                source.problem(("tenants", name, "keys", str(index)), f"is a key of {owners[hashed]} already")


def _reachable(values: Values) -> Values:
    return {**values.get("models", {}), **values.get("routes", {})}
