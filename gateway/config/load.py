"""routes.yaml to a Config: every problem in one report, and a warning for what this version does not do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gateway.call import BUCKETS
from gateway.config import names
from gateway.config.catalogues import DEFAULT_CURRENCY, expand
from gateway.config.model import (
    Backend,
    Breaker,
    Cache,
    CardHours,
    CardTerms,
    Catalogue,
    Check,
    Config,
    Exhausted,
    Fallback,
    Limits,
    Model,
    Outage,
    Package,
    Payg,
    Plan,
    PlanGrant,
    Queue,
    Quirks,
    Require,
    Responses,
    Retry,
    Route,
    Secret,
    Server,
    Tenant,
    Timeout,
    Via,
)
from gateway.config.schema import SCHEMA
from gateway.config.sources import Sources
from gateway.config.structure import Structure
from gateway.config.yaml_source import ConfigError, KeyPath, Problem, Source, read

__all__ = ["ConfigError", "Problem", "load"]
Values = Mapping[str, Any]
T = TypeVar("T")
SCOPED_PRIORITY, MONTHLY_PRIORITY, PACK_PRIORITY, WALLET_PRIORITY = 10, 20, 30, 50


def load(path: Path) -> Config:
    """Raises ConfigError with all problems."""
    sources = Sources(path)
    try:
        source = read(path, sources)
        structure = Structure(source)
        values = structure.read(source.value, SCHEMA)
        models, catalogues = expand(source, values)
        values = {**values, "models": models}
        names.check(source, values)
        if source.problems:
            raise ConfigError(source.problems)
    except ConfigError as error:
        error.sources = sources
        raise
    warnings = (*_later(structure), *_warnings(values), *_dearer(catalogues))
    config = _config(values, catalogues, warnings, sources)
    _place_secrets(source, sources, config)
    return config


def _place_secrets(source: Source, sources: Sources, config: Config) -> None:
    """For the report on one that is not set."""
    paths: list[tuple[Secret, KeyPath]] = [
        (secret, ("backends", name, "keys", str(index)))
        for name, backend in config.backends.items()
        for index, secret in enumerate(backend.keys)
    ]
    server = config.server
    named = {"admin_key": server.admin_key, "metrics_key": server.metrics_key}
    paths += [(secret, ("server", key)) for key, secret in named.items() if secret is not None]
    for secret, path in paths:
        sources.secrets.setdefault(secret.reference, source.place(path))


def _config(values: Values, catalogues: Mapping[str, Catalogue], warnings: tuple[str, ...], sources: Sources) -> Config:
    models, storage = values["models"], values.get("storage", {})
    defaults = values.get("defaults", {})
    return Config(
        currency=values.get("currency", DEFAULT_CURRENCY),
        timezone=values.get("timezone", "UTC"),
        server=_made(Server, values.get("server", {}), drain="drain_s"),
        ledger=storage.get("ledger", "sqlite:moma.db"),
        timeout=Timeout(**{f"{key}_s": value for key, value in defaults.get("timeout", {}).items()}),
        retry=_retry(defaults.get("retry", {})),
        breaker=_made(Breaker, defaults.get("breaker", {}), window="window_s", cooldown="cooldown_s"),
        queue=_made(Queue, defaults.get("queue", {}), wait="wait_s"),
        backends={name: _backend(name, value) for name, value in values.get("backends", {}).items()},
        models={name: _model(name, value) for name, value in models.items()},
        aliases=values.get("aliases", {}),
        routes={name: _route(name, value, values) for name, value in values.get("routes", {}).items()},
        plans={name: _plan(name, value) for name, value in values.get("plans", {}).items()},
        tenants={
            name: Tenant(name, value["plan"], value.get("keys", ()))
            for name, value in values.get("tenants", {}).items()
        },
        catalogues=catalogues,
        caches={name: _cache(name, value) for name, value in values.get("cache", {}).items()},
        packages={name: _package(name, value) for name, value in values.get("packages", {}).items()},
        rate_cards={name: _rate_card(value) for name, value in values.get("rate_cards", {}).items()},
        tenant_label_top=values.get("observability", {}).get("tenant_label", 50),
        warnings=warnings,
        sources=sources,
        outage=_made(
            Outage, {key: storage[key] for key in ("when_down", "exposure") if key in storage}, exposure="exposure_uc"
        ),
        responses=_responses(storage.get("responses", {})),
    )


def _responses(value: Values | None) -> Responses | None:
    return None if value is None else _made(Responses, value, keep="keep_s")


def _made(cls: Callable[..., T], values: Values, **renamed: str) -> T:
    return cls(**{renamed.get(key, key): value for key, value in values.items()})


def _retry(values: Values) -> Retry:
    low, high = values.get("backoff", (0.2, 5.0))
    return Retry(values.get("attempts", 3), low, high)


def _backend(name: str, value: Values) -> Backend:
    rest = {key: item for key, item in value.items() if key not in ("limits", "quirks", "hours", "check")}
    return Backend(
        name=name,
        limits=Limits(**value.get("limits", {})),
        quirks=_quirks(value.get("quirks", {})),
        check=_made(Check, value["check"], every="every_s", timeout="timeout_s") if "check" in value else None,
        **rest,
    )


def _quirks(value: Any) -> Quirks:
    """A name alone is a backend like that provider's."""
    return Quirks(like=value) if isinstance(value, str) else Quirks(**value)


def _model(name: str, value: Values) -> Model:
    rest = {key: item for key, item in value.items() if key not in ("via", "price", "rates", "can", "endpoints")}
    if "endpoints" in value:
        rest["endpoints"] = frozenset(value["endpoints"])
    return Model(
        name=name,
        via=tuple(_via(name, via) for via in value["via"]),
        price=_covered(value["price"], 0),
        rates=_covered(value.get("rates", {}), 1_000_000),
        can=frozenset(value["can"]) if "can" in value else None,
        **rest,
    )


def _via(model: str, value: Any) -> Via:
    """A name alone is a backend that knows the model by our name."""
    return (
        Via(value, model)
        if isinstance(value, str)
        else Via(value["backend"], value.get("as", model), value.get("weight", 1))
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
    models, routes, fallback = values["models"], values["routes"], value.get("fallback", {})

    def resolved(wanted: Iterable[str]) -> tuple[Fallback, ...]:
        found: dict[Fallback, None] = {}
        for target in wanted:
            route = routes.get(target)
            picked = (target,) if route is None else names.selected(models, route["pick"])
            require = Require() if route is None else _required(route)
            found |= dict.fromkeys(Fallback(model, require) for model in picked)
        return tuple(found)

    return Route(
        name=name,
        pick=names.selected(models, value["pick"]),
        policy=value.get("policy", "ordered"),
        weigh=value.get("weigh", {}),
        require=_required(value),
        fallback_error=resolved(fallback.get("error", ())),
        fallback_context=resolved(fallback.get("context", ())),
        cache=value.get("cache"),
        affinity=value.get("affinity", "none" if value.get("policy", "ordered") == "ordered" else "prefix"),
    )


def _required(route: Values) -> Require:
    return Require(**{key: frozenset(words) for key, words in route.get("require", {}).items()})


def _cache(name: str, value: Values) -> Cache:
    """Where nothing is said of them, entries are as large as the default, or all of a cache that is smaller."""
    max_entry = min(Cache.max_entry, value.get("max_bytes", Cache.max_bytes))
    return _made(Cache, {"name": name, "max_entry": max_entry, **value}, ttl="ttl_s", charge="charge_ppm")


def _plan(name: str, value: Values) -> Plan:
    return Plan(
        name=name,
        grants=tuple(_made(PlanGrant, grant, credits="credits_uc") for grant in value.get("grants", ())),
        caps=value.get("caps", {}),
        limits=Limits(value.get("rpm"), value.get("tpm"), value.get("concurrency")),
        exhausted=_exhausted(value.get("exhausted")),
        alerts=tuple(sorted(value.get("alerts", ()))),
        allow=frozenset(value["allow"]) if "allow" in value else None,
        max_output=value.get("max_output"),
        priority=value.get("priority", Plan.priority),
        weight=value.get("weight", Plan.weight),
    )


def _rate_card(value: Any) -> tuple[CardTerms, ...]:
    """One version alone, or a list of them."""
    versions = (value,) if isinstance(value, Mapping) else value
    return tuple(sorted(map(_card_terms, versions), key=lambda terms: terms.effective))


def _card_terms(value: Values) -> CardTerms:
    given = dict(value)
    given["rates"] = {model: _covered(rates, 0) for model, rates in value.get("rates", {}).items()}
    if "hours" in value:
        given["hours"] = tuple(CardHours(_span(one), one["factor"]) for one in value["hours"])
    return CardTerms(**given)


def _span(value: Values) -> str:
    return f"{value['from']}-{value['to']}"


def _scope(value: Values) -> dict[str, tuple[str, ...]]:
    found = {kind: tuple(words) for kind, words in value.items() if kind not in ("hours", "agents")}
    return {**found, **({"hours": tuple(map(_span, value["hours"]))} if "hours" in value else {})}


def _package(name: str, value: Values) -> Package:
    """A wallet, which never ends, is spent last; what ends with its month before what lives longer, and first of all
    what pays for some things only."""
    priority = MONTHLY_PRIORITY if "every" in value else PACK_PRIORITY if "valid" in value else WALLET_PRIORITY
    if scope := _scope(value.get("scope", {})):
        priority = SCOPED_PRIORITY
    known = ("credits", "every", "periods", "valid", "price", "rollover", "priority", "once", "caps", "card")
    applied = {key: value[key] for key in known if key in value}
    read = {"exhausted": _exhausted(value.get("exhausted")), "alerts": tuple(sorted(value.get("alerts", ())))}
    renamed = {"credits": "credits_uc", "valid": "valid_s", "rollover": "rollover_uc"}
    return _made(Package, {"name": name, "priority": priority, "scope": scope, **applied, **read}, **renamed)


def _exhausted(value: Any) -> Exhausted:
    if not isinstance(value, Mapping):  # block
        return Exhausted()
    payg, throttle = value.get("payg"), value.get("throttle")
    return Exhausted(
        payg=None if payg is None else Payg(**payg),
        downgrade=value.get("downgrade"),
        throttle=None if throttle is None else Limits(**throttle),
    )


def _later(structure: Structure) -> Iterable[str]:
    """By name, so that nothing that was asked for is ignored in silence."""
    for (key, noun), owners in structure.later.items():
        if not noun:
            yield f"{key} is not applied in this version"
        elif len(owners) <= 3:
            yield from (f"{key} of {noun} {name} is not applied in this version" for name in owners)
        else:
            yield f"{key} of {len(owners)} {noun}s ({', '.join(owners[:3])}, ...) is not applied in this version"


def _warnings(values: Values) -> Iterable[str]:
    """Values that run as another one until this version knows them, and what decides nothing."""
    for name, route in values.get("routes", {}).items():
        policy = route.get("policy", "ordered")
        if "weigh" in route and policy != "balanced":
            yield f"weigh of route {name} decides nothing, as its policy is {policy}"
    used = {route.get("cache") for route in values.get("routes", {}).values()}
    for name, cache in values.get("cache", {}).items():
        if name not in used:
            yield f"cache {name} keeps nothing, as no route names it"
        if cache.get("mode") == "semantic":
            yield f"mode semantic of cache {name} runs as exact in this version"


def _dearer(catalogues: Mapping[str, Catalogue]) -> Iterable[str]:
    for name, catalogue in catalogues.items():
        if catalogue.dearer:
            first, more = catalogue.dearer[0], len(catalogue.dearer) - 1
            whose = f"{first} and {more} more" if more else first
            yield f"catalogue {name}: a long input of {whose} costs more than is counted here"
