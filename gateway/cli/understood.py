"""What a Config means, as plain values: the same facts for `moma check` and `moma check --json`.

Prices and credits are decimal strings; None is "no limit" or "not stated".
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.admin.shown import shown_exhausted, shown_package
from gateway.call import BUCKETS
from gateway.charging.offers import STANDARD
from gateway.charging.rate_cards import tariffs
from gateway.charging.rating import credits_text, percent_text
from gateway.charging.tariffs import Tariff
from gateway.config.known import named
from gateway.config.model import (
    Backend,
    Cache,
    CardTerms,
    Catalogue,
    Config,
    Fallback,
    Limits,
    Model,
    Plan,
    Require,
    Route,
)
from gateway.routing.live import Live
from gateway.routing.router import Router

Facts = dict[str, Any]


def understood(config: Config) -> Facts:
    routes = [_route(config, route) for route in config.routes.values()]
    return {
        "currency": config.currency,
        "timezone": config.timezone,
        "ledger": config.ledger,
        "listen": f"{config.server.host}:{config.server.port}",
        "backends": [_backend(backend) for backend in config.backends.values()],
        "models": [_model(model) for model in config.models.values()],
        "catalogues": [_catalogue(catalogue) for catalogue in config.catalogues.values()],
        "routes": routes,
        "caches": [_cache(config, cache) for cache in config.caches.values()],
        "aliases": dict(config.aliases),
        "plans": [_plan(plan) for plan in config.plans.values()],
        "packages": [shown_package(package) for package in config.packages.values()],
        "rate_cards": [_card(config, name, terms) for name, of in config.rate_cards.items() for terms in of],
        "tariffs": [_tariff(name, one) for name, of in tariffs(config).items() for one in of],
        "tenants": [{"name": t.name, "plan": t.plan, "keys": len(t.key_hashes)} for t in config.tenants.values()],
        "queue": {"length": config.queue.length, "wait_s": config.queue.wait_s},
        "limits": [*_limits_of_plans(config), *_limits_of_backends(config, routes)],
    }


def never_asked(facts: Facts) -> Iterable[str]:
    """Models that a route names and that no backend may serve under its `require`: nothing else would tell."""
    why = "is never asked: none of its backends satisfies what is required"
    for route in facts["routes"]:
        for target in route["pick"]:
            if not target["backends"]:
                yield f"model {target['model']} of route {route['name']} {why}"
        for kind, targets in route["fallback"].items():
            for target in targets:
                if not target["backends"]:
                    yield f"{kind} fallback {target['model']} of route {route['name']} {why}"


def _backend(backend: Backend) -> Facts:
    return {
        "name": backend.name,
        "kind": backend.kind,
        "base_url": backend.base_url,
        "region": backend.region,
        "chip": backend.chip,
        "tags": list(backend.tags),
        "keys": len(backend.keys),
        "limits": _limits(backend.limits),
        "check": None if (check := backend.check) is None else f"{check.path} every {check.every_s:g} s",
    }


def _model(model: Model) -> Facts:
    return {
        "name": model.name,
        "backends": [{"backend": via.backend, "as": via.as_name, "weight": via.weight} for via in model.via],
        "context": model.context,
        "max_output": model.max_output,
        "price": _by_bucket(model.price),
        "rates": _by_bucket(model.rates),
        "endpoints": sorted(model.endpoints),
        "can": None if model.can is None else sorted(model.can),
        "tags": list(model.tags),
    }


def _catalogue(catalogue: Catalogue) -> Facts:
    return {
        "name": catalogue.name,
        "of": catalogue.of,
        "date": catalogue.date,
        "backend": catalogue.backend,
        "models": list(catalogue.models),
    }


def _by_bucket(values: Mapping[str, int]) -> dict[str, str]:
    """Input and output, and each further bucket that does not cost what its family does."""
    out = {family: credits_text(values[family]) for family in ("input", "output")}
    for bucket in BUCKETS:
        family = bucket.partition("_")[0]
        if values[bucket] != (values[family] if family in out else 0):
            out[bucket] = credits_text(values[bucket])
    return out


def _route(config: Config, route: Route) -> Facts:
    return {
        "name": route.name,
        "policy": route.policy,
        "pick": [_target(config, Fallback(model), route.require) for model in route.pick],
        "require": _words(route.require),
        "fallback": {
            "error": [_target(config, fallback, route.require) for fallback in route.fallback_error],
            "context": [_target(config, fallback, route.require) for fallback in route.fallback_context],
        },
    }


def _target(config: Config, wanted: Fallback, require: Require) -> Facts:
    """A model with those of its backends that satisfy the route, and the route it is fallen back on by."""
    names = dict.fromkeys(via.backend for via in config.models[wanted.model].via)
    backends = [config.backends[name] for name in names]
    return {
        "model": wanted.model,
        "backends": [b.name for b in backends if not (require.broken_by(b) or wanted.require.broken_by(b))],
    }


def _words(require: Require) -> dict[str, list[str]]:
    words = {"region": require.region, "chip": require.chip, "tags": require.tags}
    return {key: sorted(wanted) for key, wanted in words.items() if wanted}


def _cache(config: Config, cache: Cache) -> Facts:
    return {
        "name": cache.name,
        "routes": [route.name for route in config.routes.values() if route.cache == cache.name],
        "ttl_s": cache.ttl_s,
        "scope": cache.scope,
        "charge": percent_text(cache.charge_ppm),
        "sampled": cache.sampled,
        "max_bytes": cache.max_bytes,
        "max_entry": cache.max_entry,
    }


def _plan(plan: Plan) -> Facts:
    return {
        "name": plan.name,
        "grants": [
            {"credits": credits_text(grant.credits_uc), "every": grant.every, "card": grant.card}
            for grant in plan.grants
        ],
        "limits": _limits(plan.limits),
        "priority": plan.priority,
        "weight": plan.weight,
        "max_output": plan.max_output,
        "exhausted": shown_exhausted(plan.exhausted),
        "alerts": [percent_text(level) for level in plan.alerts],
        "allow": None if plan.allow is None else sorted(plan.allow),
    }


def _card(config: Config, name: str, terms: CardTerms) -> Facts:
    """One version; `models` are those that it names itself."""
    return {
        "name": name,
        "effective": terms.effective or None,
        "base": "the rates of the models" if name == STANDARD else terms.base,
        "factor": credits_text(terms.factor),
        "rates": {wanted: _by_bucket(rates) for wanted, rates in terms.rates.items()},
        "models": [model for model in config.models if named(terms.rates, model) is not None],
        "hours": None if terms.hours is None else {one.span: credits_text(one.factor) for one in terms.hours},
    }


def _tariff(card: str, tariff: Tariff) -> Facts:
    """What a card takes in the end, at its hours from its date on."""
    return {"card": card, **tariff.terms, "rates": {model: _by_bucket(of) for model, of in tariff.rates.items()}}


def _limits(limits: Limits) -> dict[str, int | None]:
    return {"rpm": limits.rpm, "tpm": limits.tpm, "concurrency": limits.concurrency}


def _limits_of_plans(config: Config) -> Iterable[Facts]:
    """A plan's limits are counted for each of its tenants, over all that the tenant may call."""
    router = Router(config, random.Random(), Live(config.breaker))
    for plan in config.plans.values():
        names = router.names(plan)
        yield _binding("plan", plan.name, plan.limits, "each tenant", names, ())


def _limits_of_backends(config: Config, routes: Sequence[Facts]) -> Iterable[Facts]:
    """A backend's limits are counted over all calls: models by their own name, routes, and what falls back on it."""
    for name, backend in config.backends.items():
        models = [model.name for model in config.models.values() if any(via.backend == name for via in model.via)]
        picked = [route["name"] for route in routes if _leads_to(route["pick"], name)]
        fallen = [
            route["name"]
            for route in routes
            if route["name"] not in picked and any(_leads_to(targets, name) for targets in route["fallback"].values())
        ]
        yield _binding("backend", name, backend.limits, "all calls", [*models, *picked], fallen)


def _leads_to(targets: Iterable[Facts], backend: str) -> bool:
    return any(backend in target["backends"] for target in targets)


def _binding(
    kind: str, name: str, limits: Limits, counts: str, binds: Sequence[str], fallbacks: Sequence[str]
) -> Facts:
    return {
        "of": kind,
        "name": name,
        **_limits(limits),
        "counted_for": counts,
        "binds": list(binds),
        "binds_fallback_of": list(fallbacks),
    }
