"""LiteLLM's config.yaml to a draft of routes.yaml, and a report of what could not be carried over as it was."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import gcd, lcm
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.importing.deployments import ENDPOINTS, Deployment, Secrets, deployment, number
from gateway.importing.draft import Draft
from gateway.importing.report import Report
from gateway.importing.settings import Settings, read_settings
from gateway.importing.source import Tree

Values = Mapping[str, Any]
SECTIONS: Final = ("model_list", "router_settings", "litellm_settings", "general_settings")
POLICIES: Final = {
    "least-busy": "least_busy",
    "latency-based-routing": "fastest",
    "cost-based-routing": "cheapest",
    "usage-based-routing": "least_busy",
    "usage-based-routing-v2": "least_busy",
}
MAX_WEIGHT: Final = 1_000_000


def convert(tree: Tree, table: Values) -> tuple[Draft, Report]:
    """`table` is LiteLLM's own of prices and limits by model, or empty."""
    report, draft = Report(tree), Draft(tree.file)
    groups = _groups(tree, report, table)
    settings = read_settings(tree, report, draft)
    names = _Backends(draft, report)
    for group, entries in groups.items():
        _group(group, entries, settings, draft, report, names)
    _fallbacks_exist(settings, draft, report)
    _aliases(settings, draft, report)
    for key in tree.value:
        if key not in SECTIONS:
            _other_section(key, report)
    return draft, report


def _groups(tree: Tree, report: Report, table: Values) -> dict[str, list[Deployment]]:
    """Deployments by the name that clients use."""
    entries = tree.value.get("model_list")
    groups: dict[str, list[Deployment]] = {}
    if not isinstance(entries, list) or not entries:
        report.lost(
            ("model_list",), "there is no list of models", "models that live in LiteLLM's database are not in the file"
        )
        return groups
    secrets = Secrets()
    for index, entry in enumerate(entries):
        found = deployment(entry, ("model_list", str(index)), report, table, secrets)
        if found is not None:
            groups.setdefault(found.group, []).append(found)
    return groups


class _Backends:
    """Names for what is reached: one for each address, key and set of headers. State: names by identity."""

    def __init__(self, draft: Draft, report: Report) -> None:
        self._draft = draft
        self._report = report
        self._names: dict[tuple[Any, ...], str] = {}

    def of(self, found: Deployment) -> str:
        name = self._names.get(found.identity)
        if name is None:
            name = self._names[found.identity] = _free(_backend_name(found), self._draft.backends)
            entry: dict[str, Any] = {"kind": "openai"}
            if found.base_url:
                entry["base_url"] = found.base_url
            else:
                self._draft.fill["backends", name] = "base_url"
            if found.key:
                entry["keys"] = [found.key]
            if found.limits:
                entry["limits"] = found.limits
            if found.headers:
                entry["headers"] = found.headers
            self._draft.backends[name] = entry
        return name


def _backend_name(found: Deployment) -> str:
    """The provider, and where it is when that is not the provider's own place."""
    provider = found.provider.replace("_", "-").removesuffix("-chat")
    host = urlsplit(found.base_url).hostname or ""
    ours = found.provider in ("azure", "hosted_vllm", "custom_openai", "openai_like", "litellm_proxy", "vllm")
    if not host:
        return f"{provider}-{re.sub(r'[^a-z0-9]+', '-', found.group.lower())}"
    if not (ours or "localhost" in host or re.fullmatch(r"[\d.]+", host)):
        return provider
    place = host if re.fullmatch(r"[\d.]+", host) else host.partition(".")[0]
    return f"{provider}-{re.sub(r'[^a-z0-9]+', '-', place.lower())}"


def _free(name: str, used: Mapping[str, Any]) -> str:
    number_ = 2
    candidate = name
    while candidate in used:
        candidate, number_ = f"{name}-{number_}", number_ + 1
    return candidate


def _group(
    group: str, entries: Sequence[Deployment], settings: Settings, draft: Draft, report: Report, names: _Backends
) -> None:
    """A model with its `via`; a route in front of it where the name falls back, has orders or a policy of its own."""
    policy = _policy(entries, settings)
    tiers: dict[Any, list[Deployment]] = {}
    for entry in sorted(entries, key=lambda entry: entry.order):
        tiers.setdefault((entry.order, entry.path if policy == "cheapest" else ()), []).append(entry)
    error, context = settings.fallbacks_of(group), settings.context_fallbacks_of(group)
    if len(tiers) == 1 and policy == "weighted" and not error and not context:
        _model(group, group, entries, draft, report, names)
        return
    models: list[tuple[int, str]] = []
    for tier in tiers.values():
        model = _free(
            f"{group}-{len(models) + 1}" if len(tiers) > 1 else f"{group}-model", {**draft.models, **draft.routes}
        )
        models.append((tier[0].order, model))
        _model(model, group, tier, draft, report, names)
    first = models[0][0]
    picked = [model for order, model in models if order == first]
    error = [*(model for order, model in models if order != first), *error]
    fallback = {kind: wanted for kind, wanted in (("error", error), ("context", context)) if wanted}
    route: dict[str, Any] = {"pick": picked, "policy": policy}
    draft.routes[group] = {**route, "fallback": fallback} if fallback else route
    if settings.cache:
        draft.routes[group]["cache"] = settings.cache


def _policy(entries: Sequence[Deployment], settings: Settings) -> str:
    return POLICIES.get(settings.strategy, "weighted") if len(entries) > 1 else "weighted"


def _model(
    name: str, group: str, entries: Sequence[Deployment], draft: Draft, report: Report, names: _Backends
) -> None:
    first = entries[0]
    model: dict[str, Any] = {"via": _via(name, entries, report, names)}
    missing = []
    embeds = first.mode == "embedding"
    for key, values in (("context", [e.context for e in entries]), ("max_output", [e.max_output for e in entries])):
        known = [value for value in values if value is not None]
        if known:
            model[key] = min(known)  # what all of them can take
        elif key == "max_output" and embeds:
            model[key] = 1  # nothing is written
        else:
            missing.append(key)
    model["price"] = _price(entries, report)
    missing += [f"price of {b}" for b in (("input",) if embeds else ("input", "output")) if b not in model["price"]]
    if first.can is not None and all(entry.can == first.can for entry in entries):
        model["can"] = first.can
    if tags := list(dict.fromkeys(tag for entry in entries for tag in entry.tags)):
        model["tags"] = tags
    if endpoints := ENDPOINTS[first.mode]:
        model["endpoints"] = list(endpoints)
    draft.models[name] = model
    if missing:
        wanted = ", ".join(missing)
        draft.fill["models", name] = f"{wanted} (prices in USD per 1M tokens; 0 must be written)"
        report.fill(first.path, f"{group}: {wanted} are not in the file", f"write them at models.{name}")


def _price(entries: Sequence[Deployment], report: Report) -> dict[str, Decimal]:
    """The dearest of each bucket: a model has one price here, and a cost must not be counted too low."""
    buckets = list(dict.fromkeys(bucket for entry in entries for bucket in entry.price))
    prices = {bucket: [entry.price[bucket] for entry in entries if bucket in entry.price] for bucket in buckets}
    if any(len(set(found)) > 1 for found in prices.values()):
        why = "deployments of one name have different prices; the dearest is written"
        report.changed(entries[0].path, why, "make them models of their own, behind a route, if the difference matters")
    return {bucket: max(found) for bucket, found in prices.items()}


def _via(name: str, entries: Sequence[Deployment], report: Report, names: _Backends) -> list[Any]:
    weights = _weights(entries)
    out: list[Any] = []
    for entry, weight in zip(entries, weights, strict=True):
        if not weight:
            report.lost((*entry.path, "litellm_params", "weight"), "a weight of 0 is never chosen, so it was left out")
            continue
        backend = names.of(entry)
        via: dict[str, Any] = {"backend": backend}
        if entry.as_name != name:
            via["as"] = entry.as_name
        if weight != 1:
            via["weight"] = weight
        out.append(via if len(via) > 1 else backend)
    return out or [names.of(entries[0])]


def _weights(entries: Sequence[Deployment]) -> list[int]:
    """As LiteLLM's shuffle: by weight, else by rpm, else by tpm, as far as the first entry has them; else alike."""
    shares = [(entry.weight, number(entry.limits.get("rpm")), number(entry.limits.get("tpm"))) for entry in entries]
    for values in zip(*shares, strict=True):
        if len(entries) > 1 and values[0] is not None:
            return _whole([value or Decimal(0) for value in values])
    return [1] * len(entries)


def _whole(values: Sequence[Decimal]) -> list[int]:
    """The smallest whole numbers in the same proportion, as far as six digits tell."""
    most = max(values)
    if not most:
        return [1] * len(values)
    exact = [value.as_integer_ratio() for value in values]
    common = lcm(*(below for _, below in exact))
    whole = [above * (common // below) for above, below in exact]
    divisor = gcd(*whole)
    whole = [value // divisor for value in whole]
    if max(whole) <= MAX_WEIGHT:
        return whole
    return [max(1, round(MAX_WEIGHT * value / most)) if value else 0 for value in values]


def _fallbacks_exist(settings: Settings, draft: Draft, report: Report) -> None:
    """Names that were lost on the way would be errors of routes.yaml; and what is said of names that are not there."""
    for (_, name), path in settings.said_at.items():
        if name != "*" and name not in draft.models and name not in draft.routes:
            report.lost(path, f"{name} is no model here, so that nothing falls back", "name one that is")
    for name, route in draft.routes.items():
        for kind, wanted in list(route.get("fallback", {}).items()):
            known = [
                target for target in wanted if (target in draft.models or target in draft.routes) and target != name
            ]
            for target in wanted:
                if target not in known:
                    path = settings.said_at.get((kind, name), ("litellm_settings", "default_fallbacks"))
                    report.lost(path, f"{name} falls back on {target}, which is not there")
            if known:
                route["fallback"][kind] = known
            else:
                del route["fallback"][kind]
        if not route.get("fallback", True):
            del route["fallback"]


def _aliases(settings: Settings, draft: Draft, report: Report) -> None:
    for alias, target in settings.aliases.items():
        path = ("router_settings", "model_group_alias", alias)
        if alias in draft.models or alias in draft.routes:
            report.lost(path, "is the name of a model already")
        elif target in draft.models or target in draft.routes:
            draft.aliases[alias] = target
        else:
            report.lost(path, f"stands for {target}, which is not there")


def _other_section(key: str, report: Report) -> None:
    if key == "environment_variables":
        report.lost(
            (key,), "values were not copied, they may be secrets", "put them into the environment of `moma serve`"
        )
    else:
        report.lost((key,), "has no counterpart here")
