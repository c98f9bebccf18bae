"""What the schema cannot see: names that must exist, and what would match nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.config.structure import near
from gateway.config.yaml_source import Source

Values = Mapping[str, Any]
Path = tuple[str, ...]


def check(source: Source, values: Values) -> None:
    """Adds a problem for each to the source. `values` are exact and complete."""
    for name, model in values.get("models", {}).items():
        _model(source, values, name, model)
    for name, route in values.get("routes", {}).items():
        _route(source, values, name, route)
    for name, plan in values.get("plans", {}).items():
        _plan(source, values, name, plan)
    for name, tenant in values.get("tenants", {}).items():
        _known(source, ("tenants", name, "plan"), tenant["plan"], values.get("plans", {}))
    _keys_are_of_one_tenant(source, values)
    for alias, target in values.get("aliases", {}).items():
        _known(source, ("aliases", alias), target, _reachable(values))
        if alias in _reachable(values):
            source.problem(("aliases", alias), "is the name of a model or route already")


def selected(models: Mapping[str, Values], pick: Any) -> tuple[str, ...]:
    """The models that a `pick` means, in file order."""
    if not isinstance(pick, Mapping):
        return tuple(pick)
    wanted = set(pick["tags"])
    return tuple(name for name, model in models.items() if wanted <= set(model.get("tags", ())))


def _model(source: Source, values: Values, name: str, model: Values) -> None:
    path = ("models", name)
    for index, via in enumerate(model["via"]):
        backend = via if isinstance(via, str) else via["backend"]
        _known(source, (*path, "via", str(index)), backend, values.get("backends", {}))
    price = model["price"]
    needed = {"input"} if set(model.get("endpoints", ("chat",))) == {"embeddings"} else {"input", "output"}
    for bucket in sorted(needed - set(price)):
        source.problem((*path, "price"), f"has no {bucket}", "a price of 0 must be written")
    if model["max_output"] > model["context"]:
        source.problem((*path, "max_output"), "is larger than context")


def _route(source: Source, values: Values, name: str, route: Values) -> None:
    path, models, routes = ("routes", name), values.get("models", {}), values.get("routes", {})
    if name in models:
        source.problem(path, "is the name of a model already")
    pick = route["pick"]
    if isinstance(pick, Mapping):
        if not selected(models, pick):
            tags = {tag for model in models.values() for tag in model.get("tags", ())}
            source.problem((*path, "pick"), "matches no model", near(pick["tags"][0], tags))
    else:
        for index, model in enumerate(pick):
            _known(source, (*path, "pick", str(index)), model, models)
    for kind, names in route.get("fallback", {}).items():
        for index, target in enumerate(names):
            at = (*path, "fallback", kind, str(index))
            _known(source, at, target, {**models, **routes})
            if target == name:
                source.problem(at, "falls back on itself")
    if "cache" in route:
        _known(source, (*path, "cache"), route["cache"], values.get("cache", {}))
    if route.get("weigh") and not any(route["weigh"].values()):
        source.problem((*path, "weigh"), "has no weight above 0")
    _require(source, values, path, route)


def _require(source: Source, values: Values, path: Path, route: Values) -> None:
    """Each word must be some backend's, and together they must leave the route a target."""
    backends, models, require = values.get("backends", {}), values.get("models", {}), route.get("require", {})
    for key, wanted in require.items():
        known = {word for backend in backends.values() for word in _words(backend, key)}
        for word in wanted:
            if word not in known:
                source.problem((*path, "require", key), f"no backend has the {key} {word}", near(word, known))
    picked = [models[name] for name in selected(models, route["pick"]) if name in models]
    via = {v if isinstance(v, str) else v["backend"] for model in picked for v in model["via"]}
    meant = [backends[name] for name in via if name in backends]
    if meant and not any(
        all(set(wanted) & set(_words(backend, key)) for key, wanted in require.items()) for backend in meant
    ):
        source.problem((*path, "require"), "leaves no backend of the models that are picked")


def _words(backend: Values, key: str) -> Iterable[str]:
    value = backend.get(key, ())
    return (value,) if isinstance(value, str) else value


def _plan(source: Source, values: Values, name: str, plan: Values) -> None:
    """What `allow` lists is a name, or a tag of a model."""
    tags = {tag for model in values.get("models", {}).values() for tag in model.get("tags", ())}
    known = {**_reachable(values), **values.get("aliases", {}), **dict.fromkeys(tags)}
    for index, allowed in enumerate(plan.get("allow", ())):
        _known(source, ("plans", name, "allow", str(index)), allowed, known)


def _keys_are_of_one_tenant(source: Source, values: Values) -> None:
    owners: dict[str, str] = {}
    for name, tenant in values.get("tenants", {}).items():
        for index, hashed in enumerate(tenant.get("keys", ())):
            if owners.setdefault(hashed, name) != name:
                source.problem(("tenants", name, "keys", str(index)), f"is a key of {owners[hashed]} already")


def _reachable(values: Values) -> Values:
    return {**values.get("models", {}), **values.get("routes", {})}


def _known(source: Source, path: Path, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        source.problem(path, f"there is no {name}", near(name, known))
