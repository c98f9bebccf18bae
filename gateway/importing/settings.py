"""router_settings, litellm_settings and general_settings: what of them routes.yaml can say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from gateway.importing.deployments import number, read_number
from gateway.importing.draft import Draft
from gateway.importing.report import Report
from gateway.importing.source import KeyPath, Tree

Values = Mapping[str, Any]
STRATEGIES: Final = {
    "simple-shuffle": "",
    "least-busy": "least_busy counts calls in flight relative to the limit of each backend",
    "latency-based-routing": "fastest expects seconds from averages of this process",
    "cost-based-routing": "cheapest goes by the prices in routes.yaml; each deployment is a model of its own for that",
    "usage-based-routing": "least_busy takes its place; rpm and tpm of a backend pass over it when they are used up",
    "usage-based-routing-v2": "least_busy takes its place; rpm and tpm of a backend pass over it when they are used up",
}
METRICS: Final = "see /metrics, and `moma serve --log-calls` for a line per call"
TENANTS: Final = "tenants, keys and credits are in this gateway's own ledger: `moma tenant add`, `moma key add`"
# (what it was, what to do) of settings that have no place here.
ELSEWHERE: Final[Mapping[str, tuple[str, str]]] = {
    "database_url": ("keys, teams, budgets and models of LiteLLM's database are not in the file", TENANTS),
    "store_model_in_db": ("models live in routes.yaml here", "list those of the database there"),
    "max_budget": ("budgets are the credits of a plan here", "write plans with grants"),
    "budget_duration": ("budgets are the credits of a plan here", "write every: month at the grant"),
    "drop_params": ("requests go out as clients send them", "backends say what they do not take"),
    "allowed_fails": (
        "a breaker opens after five failures in a row, or by defaults.breaker.errors of a window",
        "see docs/routing.md",
    ),
    "enable_pre_call_checks": ("context and capabilities are always checked before a call here", ""),
    "redis_host": ("limits and health are kept in the process, no Redis is needed", ""),
    "redis_port": ("limits and health are kept in the process, no Redis is needed", ""),
    "redis_password": ("limits and health are kept in the process, no Redis is needed", ""),
    "redis_url": ("limits and health are kept in the process, no Redis is needed", ""),
    "callbacks": ("nothing is called back", METRICS),
    "success_callback": ("nothing is called back", METRICS),
    "failure_callback": ("nothing is called back", METRICS),
    "service_callbacks": ("nothing is called back", METRICS),
    "alerting": ("alerts are made of metrics", METRICS),
    "max_parallel_requests": ("concurrency is a limit of a plan or a backend here", "write concurrency there"),
    "global_max_parallel_requests": ("concurrency is a limit of a plan or a backend here", "write concurrency there"),
    "content_policy_fallbacks": ("a refusal of a filter is passed on to the client", ""),
    "disable_cooldowns": ("breakers are always on", "errors: 100% and a short cooldown come close"),
    "retry_policy": ("retries are alike for all errors that can be retried", "see defaults.retry"),
    "allowed_fails_policy": ("failures count alike", "see defaults.breaker"),
    "model_group_retry_policy": ("retries are alike for all models", "see defaults.retry"),
}


@dataclass
class Settings:
    strategy: str = "simple-shuffle"
    fallbacks: dict[str, list[str]] = field(default_factory=dict)
    default_fallbacks: list[str] = field(default_factory=list)
    context_fallbacks: dict[str, list[str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    cache: str = ""
    said_at: dict[tuple[str, str], KeyPath] = field(default_factory=dict)  # the fallbacks of a name, by kind

    def fallbacks_of(self, group: str) -> list[str]:
        """Its own, else those of all."""
        wanted = self.fallbacks.get(group, self.fallbacks.get("*", self.default_fallbacks))
        return [name for name in wanted if name != group]

    def context_fallbacks_of(self, group: str) -> list[str]:
        wanted = self.context_fallbacks.get(group, self.context_fallbacks.get("*", []))
        return [name for name in wanted if name != group]


class _Section:
    """One section as it is read: what nobody has asked for is reported at the end."""

    def __init__(self, tree: Tree, name: str, report: Report) -> None:
        value = tree.value.get(name)
        self.values: Values = value if isinstance(value, dict) else {}
        self.path: KeyPath = (name,)
        self.report = report
        if value is not None and not isinstance(value, dict):
            report.lost(self.path, "is no mapping")

    def take(self, key: str) -> Any:
        self.report.see((*self.path, key))
        return self.values.get(key)

    def number(self, key: str) -> Decimal | None:
        return read_number(self.values.get(key), self.at(key), self.report)

    def mapping(self, key: str) -> Values:
        value = self.take(key)
        if value is not None and not isinstance(value, dict):
            self.report.lost(self.at(key), "is no mapping")
        return value if isinstance(value, dict) else {}

    def at(self, key: str) -> KeyPath:
        return (*self.path, key)

    def close(self) -> None:
        for key, (what, todo) in ELSEWHERE.items():
            if self.values.get(key) not in (None, False):
                self.report.lost(self.at(key), what, todo)
            self.report.see(self.at(key))
        self.report.rest(self.path, self.values)


def read_settings(tree: Tree, report: Report, draft: Draft) -> Settings:
    settings = Settings()
    router, litellm, general = (
        _Section(tree, name, report) for name in ("router_settings", "litellm_settings", "general_settings")
    )
    _strategy(router, settings)
    for section in (litellm, router):  # the router's own come last, and win
        _fallbacks(section, settings)
        _retries(section, draft)
    _timeouts(router, litellm, draft)
    _aliases(router, settings)
    _cache(litellm, settings, draft)
    _master_key(general, draft)
    for section in (router, litellm, general):
        section.close()
    return settings


def _strategy(router: _Section, settings: Settings) -> None:
    strategy = router.take("routing_strategy")
    if strategy is None:
        return
    settings.strategy = str(strategy)
    note = STRATEGIES.get(settings.strategy)
    if note is None:
        router.report.lost(
            router.at("routing_strategy"), f"{strategy} is not known; names are weighted over their backends"
        )
    elif note:
        router.report.changed(router.at("routing_strategy"), note, "see docs/routing.md")


def _fallbacks(section: _Section, settings: Settings) -> None:
    kinds = {
        "error": ("fallbacks", settings.fallbacks),
        "context": ("context_window_fallbacks", settings.context_fallbacks),
    }
    for kind, (key, known) in kinds.items():
        value = section.take(key)
        found = _lists(value)
        if value and not found:
            section.report.lost(section.at(key), "is no list of names with those that they fall back on")
        known |= found
        settings.said_at |= {(kind, name): section.at(key) for name in found}
    default = section.take("default_fallbacks")
    if isinstance(default, list):
        settings.default_fallbacks = [str(name) for name in default]
    elif default is not None:
        section.report.lost(section.at("default_fallbacks"), "is no list")


def _lists(value: Any) -> dict[str, list[str]]:
    """A mapping of lists, or a list of such mappings; a fallback with parameters of its own counts by its model."""
    out: dict[str, list[str]] = {}
    for part in value if isinstance(value, list) else [value]:
        for name, targets in part.items() if isinstance(part, dict) else ():
            found = targets if isinstance(targets, list) else [targets]
            out[str(name)] = [str(target.get("model") if isinstance(target, dict) else target) for target in found]
    return out


def _retries(section: _Section, draft: Draft) -> None:
    retries = section.number("num_retries")
    if retries is not None:
        draft.defaults["retry"] = {"attempts": min(100, int(retries) + 1)}
    cooldown = section.number("cooldown_time")
    if cooldown:
        draft.defaults["breaker"] = {"cooldown": duration(cooldown)}


def _timeouts(router: _Section, litellm: _Section, draft: Draft) -> None:
    everywhere = litellm.number("request_timeout")
    total = router.number("timeout") or everywhere
    first = router.number("stream_timeout")
    timeout = {"first_token": first, "total": total}
    if written := {name: duration(seconds) for name, seconds in timeout.items() if seconds}:
        draft.defaults["timeout"] = written


def duration(seconds: Decimal) -> str:
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{max(1, int(seconds * 1000))}ms"


def _aliases(router: _Section, settings: Settings) -> None:
    for alias, target in router.mapping("model_group_alias").items():
        if isinstance(target, dict):
            if target.get("hidden"):
                router.report.changed((*router.at("model_group_alias"), alias), "aliases are shown in /v1/models here")
            target = target.get("model")
        settings.aliases[str(alias)] = str(target)


def _cache(litellm: _Section, settings: Settings, draft: Draft) -> None:
    """A cache is named by routes here; a model that is called by its own name has none."""
    on, params = litellm.take("cache"), litellm.mapping("cache_params")
    if not on:
        return
    cache: dict[str, Any] = {"mode": "exact"}
    if (ttl := number(params.get("ttl"))) is not None and ttl:
        cache["ttl"] = duration(ttl)
    settings.cache = "imported"
    draft.cache["imported"] = cache
    litellm.report.changed(
        litellm.at("cache"),
        "a cache belongs to a route, and is kept by tenant in the process; answers with temperature above 0 are not",
        "write cache: imported at further routes, and sampled: true at the cache if those shall be kept too",
    )
    if "semantic" in str(params.get("type", "")):
        litellm.report.lost(litellm.at("cache_params"), "a semantic cache became an exact one")


def _master_key(general: _Section, draft: Draft) -> None:
    key = general.take("master_key")
    draft.server["admin_key"] = "env:MOMA_ADMIN_KEY"
    if key is None:
        return
    path, text = general.at("master_key"), str(key)
    if text.startswith("os.environ/"):
        draft.server["admin_key"] = f"env:{text.removeprefix('os.environ/')}"
        general.report.changed(path, "it is the key of the admin API only; calls need the key of a tenant", TENANTS)
    else:
        todo = "put it, or better a new one, into the environment as MOMA_ADMIN_KEY"
        general.report.changed(path, "a key stands in the file; it was not copied, and serves the admin API only", todo)
