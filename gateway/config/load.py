"""routes.yaml to a Config: every problem in one report, and a warning for what this version does not do."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gateway.call import BUCKETS
from gateway.config.model import (
    Backend,
    Breaker,
    Config,
    Limits,
    Model,
    Plan,
    PlanGrant,
    Quirks,
    Require,
    Retry,
    Route,
    Secret,
    Server,
    Tenant,
    Timeout,
    Via,
)
from gateway.config.schema import SCHEMA, Kind
from gateway.config.yaml_source import ConfigError, Problem, Source, read

__all__ = ["ConfigError", "Problem", "load", "resolve", "unset_secrets"]
Values = Mapping[str, Any]
T = TypeVar("T")


def load(path: Path) -> Config:
    """Raises ConfigError with all problems."""
    source = read(path)
    values = _checked(source, source.value, SCHEMA, ())
    if not source.problems:
        _cross_check(source, values)
    if source.problems:
        raise ConfigError(source.problems)
    return _config(values)


def resolve(secret: Secret) -> str | None:
    """The value of a secret; None when it is not set."""
    scheme, _, name = secret.reference.partition(":")
    if scheme == "env":
        return os.environ.get(name) or None
    try:
        return Path(name).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def unset_secrets(config: Config) -> list[str]:
    secrets = [secret for backend in config.backends.values() for secret in backend.keys]
    secrets += [s for s in (config.server.admin_key, config.server.metrics_key) if s is not None]
    return sorted({secret.reference for secret in secrets if resolve(secret) is None})


def _checked(source: Source, value: Any, schema: Mapping[str, Kind], path: tuple[str, ...]) -> dict[str, Any]:
    """Known keys with exact values; `*` in a schema stands for names."""
    if value is None:
        value = {}
    if not isinstance(value, dict):
        source.problem(path, "is a mapping")
        return {}
    out = {}
    for key, item in value.items():
        kind = schema.get(key, schema.get("*"))
        where = (*path, key)
        if kind is None:
            source.problem(where, "is not a known key", _near(key, schema))
        elif isinstance(kind, Mapping):
            out[key] = _checked(source, item, kind, where)
        else:
            try:
                out[key] = kind(item)
            except ValueError as error:
                source.problem(where, str(error))
    return out


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(sorted(known)[:12])


def _cross_check(source: Source, values: Values) -> None:
    """Names that must exist, and what must be there."""
    if values.get("version") != 1:
        source.problem(("version",), "is 1", "write version: 1 at the top")
    for name, backend in values.get("backends", {}).items():
        _require(source, backend, ("backends", name), "kind", "base_url")
    for name, model in values.get("models", {}).items():
        _check_model(source, values, name, model)
    _check_routes(source, values)
    for name, tenant in values.get("tenants", {}).items():
        _require(source, tenant, ("tenants", name), "plan")
        _known(source, ("tenants", name, "plan"), tenant.get("plan"), values.get("plans", {}))
    for alias, target in values.get("aliases", {}).items():
        _known(source, ("aliases", alias), target, {**values.get("models", {}), **values.get("routes", {})})
        if alias in values.get("models", {}) or alias in values.get("routes", {}):
            source.problem(("aliases", alias), "is the name of a model or route already")
    storage = values.get("storage", {}).get("ledger", "sqlite:moma.db")
    if not storage.startswith("sqlite:"):
        source.problem(("storage", "ledger"), "is sqlite:PATH in this version")


def _check_model(source: Source, values: Values, name: str, model: Values) -> None:
    path = ("models", name)
    _require(source, model, path, "via", "context", "max_output", "price")
    for index, via in enumerate(model.get("via", ())):
        _known(source, (*path, "via", str(index)), via["backend"], values.get("backends", {}))
    price = model.get("price", {})
    needed = {"input"} if set(model.get("endpoints", ("chat",))) == {"embeddings"} else {"input", "output"}
    for bucket in sorted(needed - set(price)):
        source.problem((*path, "price"), f"has no {bucket}", "a price of 0 must be written")
    if model.get("max_output", 0) > model.get("context", 0):
        source.problem((*path, "max_output"), "is larger than context")


def _check_routes(source: Source, values: Values) -> None:
    models, routes = values.get("models", {}), values.get("routes", {})
    for name, route in routes.items():
        path = ("routes", name)
        _require(source, route, path, "pick")
        if name in models:
            source.problem(path, "is the name of a model already")
        pick = route.get("pick", ())
        if isinstance(pick, Mapping):
            if not _selected(models, pick):
                source.problem((*path, "pick"), "matches no model")
        else:
            for index, model in enumerate(pick):
                _known(source, (*path, "pick", str(index)), model, models)
        for kind, names in route.get("fallback", {}).items():
            for index, target in enumerate(names):
                _known(source, (*path, "fallback", kind, str(index)), target, {**models, **routes})
        if "cache" in route:
            _known(source, (*path, "cache"), route["cache"], values.get("cache", {}))
        _check_require(source, values, path, route.get("require", {}))


def _check_require(source: Source, values: Values, path: tuple[str, ...], require: Values) -> None:
    backends = values.get("backends", {}).values()
    for key in ("region", "chip"):
        for wanted in require.get(key, ()):
            if all(backend.get(key) != wanted for backend in backends):
                source.problem((*path, "require", key), f"no backend has the {key} {wanted}")


def _require(source: Source, value: Values, path: tuple[str, ...], *keys: str) -> None:
    for key in keys:
        if key not in value:
            source.problem(path, f"has no {key}")


def _known(source: Source, path: tuple[str, ...], name: Any, known: Mapping[str, Any]) -> None:
    if name is not None and name not in known:
        source.problem(path, f"there is no {name}", _near(str(name), known))


def _selected(models: Mapping[str, Values], pick: Values) -> tuple[str, ...]:
    wanted = set(pick.get("tags", ()))
    return tuple(name for name, model in models.items() if wanted <= set(model.get("tags", ())))


def _config(values: Values) -> Config:
    models = values.get("models", {})
    defaults = values.get("defaults", {})
    return Config(
        currency=values.get("currency", "CNY"),
        timezone=values.get("timezone", "UTC"),
        server=_made(Server, values.get("server", {}), drain="drain_s"),
        ledger=values.get("storage", {}).get("ledger", "sqlite:moma.db"),
        timeout=Timeout(**{f"{key}_s": value for key, value in defaults.get("timeout", {}).items()}),
        retry=_retry(defaults.get("retry", {})),
        breaker=_made(Breaker, defaults.get("breaker", {}), window="window_s", cooldown="cooldown_s"),
        backends={name: _backend(name, value) for name, value in values.get("backends", {}).items()},
        models={name: _model(name, value) for name, value in models.items()},
        aliases=values.get("aliases", {}),
        routes={name: _route(name, value, values) for name, value in values.get("routes", {}).items()},
        plans={name: _plan(name, value) for name, value in values.get("plans", {}).items()},
        tenants={
            name: Tenant(name, value["plan"], value.get("keys", ()))
            for name, value in values.get("tenants", {}).items()
        },
        tenant_label_top=values.get("observability", {}).get("tenant_label", 50),
        warnings=tuple(_warnings(values)),
    )


def _made(cls: Callable[..., T], values: Values, **renamed: str) -> T:
    return cls(**{renamed.get(key, key): value for key, value in values.items()})


def _retry(values: Values) -> Retry:
    low, high = values.get("backoff", (0.2, 5.0))
    return Retry(values.get("attempts", 3), low, high)


def _backend(name: str, value: Values) -> Backend:
    rest = {key: item for key, item in value.items() if key not in ("limits", "quirks", "hours")}
    return Backend(
        name=name, limits=Limits(**value.get("limits", {})), quirks=Quirks(**value.get("quirks", {})), **rest
    )


def _model(name: str, value: Values) -> Model:
    rest = {key: item for key, item in value.items() if key not in ("via", "price", "rates", "can", "endpoints")}
    if "endpoints" in value:
        rest["endpoints"] = frozenset(value["endpoints"])
    return Model(
        name=name,
        via=tuple(Via(v["backend"], v.get("as", name), v.get("weight", 1)) for v in value["via"]),
        price=_covered(value["price"], 0),
        rates=_covered(value.get("rates", {}), 1_000_000),
        can=frozenset(value["can"]) if "can" in value else None,
        **rest,
    )


def _covered(given: Values, default: int) -> dict[str, int]:
    """`input` and `output` cover the input and output buckets that are not named; counts cost nothing unless named."""
    out = {}
    for bucket in BUCKETS:
        family = bucket.partition("_")[0]
        tokens = family in ("input", "output")
        out[bucket] = given.get(bucket, given.get(family, default) if tokens else 0)
    return out


def _route(name: str, value: Values, values: Values) -> Route:
    models, routes = values["models"], values["routes"]

    def picked(route: Values) -> tuple[str, ...]:
        pick = route["pick"]
        return _selected(models, pick) if isinstance(pick, Mapping) else tuple(pick)

    def resolved(names: Iterable[str]) -> tuple[str, ...]:
        expanded = [model for n in names for model in (picked(routes[n]) if n in routes else (n,))]
        return tuple(dict.fromkeys(expanded))

    fallback = value.get("fallback", {})
    return Route(
        name=name,
        pick=picked(value),
        policy=value.get("policy", "ordered"),
        weigh=value.get("weigh", {}),
        require=Require(**{key: frozenset(item) for key, item in value.get("require", {}).items()}),
        fallback_error=resolved(fallback.get("error", ())),
        fallback_context=resolved(fallback.get("context", ())),
        cache=value.get("cache"),
    )


def _plan(name: str, value: Values) -> Plan:
    return Plan(
        name=name,
        grants=tuple(PlanGrant(grant["credits"], grant.get("every")) for grant in value.get("grants", ())),
        limits=Limits(value.get("rpm"), value.get("tpm"), value.get("concurrency")),
        exhausted=value.get("exhausted", "block"),
        allow=frozenset(value["allow"]) if "allow" in value else None,
        max_output=value.get("max_output"),
    )


def _warnings(values: Values) -> Iterable[str]:
    """By name, so that nothing that was asked for is ignored in silence."""
    yield from _route_warnings(values.get("routes", {}))
    for name, backend in values.get("backends", {}).items():
        if backend["kind"] != "openai":
            yield f"kind {backend['kind']} of backend {name} is spoken to as openai in this version"
        if backend.get("on_disconnect") == "drain":
            yield f"on_disconnect drain of backend {name} runs as estimate in this version"
        if "hours" in backend:
            yield f"hours of backend {name} is not applied in this version"
    for name, plan in values.get("plans", {}).items():
        if plan.get("exhausted", "block") != "block":
            yield f"exhausted {plan['exhausted']} of plan {name} runs as block in this version"
        for key in {"priority", "weight"} & set(plan):
            yield f"{key} of plan {name} is not applied in this version"


def _route_warnings(routes: Values) -> Iterable[str]:
    for name, route in routes.items():
        policy = route.get("policy", "ordered")
        if policy not in ("ordered", "weighted"):
            yield f"policy {policy} of route {name} runs as ordered in this version"
        for key in ("cache", "affinity", "when"):
            if key in route:
                yield f"{key} of route {name} is not applied in this version"
