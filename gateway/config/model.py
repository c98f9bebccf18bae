"""routes.yaml as frozen values, made once per load. Durations are seconds, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.config.sources import Sources

_UC_PER_PRICED: Final = 10**12  # a price is of 1M credits


@dataclass(frozen=True)
class Secret:
    """A reference such as `env:NAME` or `file:/path`; the value is resolved by `serve` and never printed."""

    reference: str


@dataclass(frozen=True)
class Server:
    host: str = "127.0.0.1"
    port: int = 8080
    max_body: int = 20_000_000
    admin_key: Secret | None = None
    metrics_key: Secret | None = None
    admin_listen: str | None = None
    drain_s: float = 30.0


@dataclass(frozen=True)
class Outage:
    """What becomes of new calls while the ledger's store is down: with `serve` they go on, up to so much in all."""

    when_down: str = "refuse"  # | serve
    exposure_uc: int = 10_000_000_000_000


@dataclass(frozen=True)
class Responses:
    """How long responses of `/v1/responses` are kept since their conversation was last used, and how much of them."""

    keep_s: float = 30 * 86_400.0
    max_bytes: int = 1_000_000_000


@dataclass(frozen=True)
class Timeout:
    connect_s: float = 3.0
    first_token_s: float = 30.0
    idle_s: float = 30.0
    total_s: float = 300.0


@dataclass(frozen=True)
class Retry:
    attempts: int = 3
    backoff_min_s: float = 0.2
    backoff_max_s: float = 5.0


@dataclass(frozen=True)
class Breaker:
    window_s: float = 30.0
    errors: float = 0.5
    min_requests: int = 10
    cooldown_s: float = 20.0


@dataclass(frozen=True)
class Queue:
    """How many calls may wait at one limit, and for how long."""

    length: int = 100
    wait_s: float = 5.0


@dataclass(frozen=True)
class Check:
    """A GET that a backend in order answers with 2xx."""

    path: str
    every_s: float = 10.0
    timeout_s: float = 2.0


@dataclass(frozen=True)
class Limits:
    """None is unlimited. rpm and tpm per minute."""

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None

    @property
    def given(self) -> dict[str, int]:
        limits = {"rpm": self.rpm, "tpm": self.tpm, "concurrency": self.concurrency}
        return {kind: limit for kind, limit in limits.items() if limit is not None}


# Providers whose OpenAI-like API is known to differ, and how (gateway/adapters/quirks.py).
PROVIDERS: Final = (
    "deepseek", "llamacpp", "minimax", "mistral", "moonshot", "ollama", "openai", "qwen", "sglang", "vllm", "volcano",
    "zhipu",
)  # fmt: skip


@dataclass(frozen=True)
class Quirks:
    """In what a backend differs from OpenAI: like one of PROVIDERS, and what is said beside that. None: nothing is."""

    include_usage: bool | None = None
    max_tokens_field: str | None = None
    like: str | None = None


@dataclass(frozen=True)
class Backend:
    name: str
    kind: str
    base_url: str  # without a trailing slash
    keys: tuple[Secret, ...] = ()
    region: str | None = None
    chip: str | None = None
    limits: Limits = Limits()
    on_disconnect: str = "estimate"
    tags: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    quirks: Quirks = Quirks()
    check: Check | None = None
    api_version: str | None = None  # of Azure's paths with a deployment


@dataclass(frozen=True)
class Via:
    backend: str
    as_name: str  # the backend's name for the model
    weight: int = 1


@dataclass(frozen=True)
class Model:
    """`rates` are micro-credits per unit of a usage bucket, `price` micro-units of currency per 1M units.

    Both are complete over all buckets: what `input` and `output` cover is filled in at load.
    """

    name: str
    via: tuple[Via, ...]
    context: int
    max_output: int
    price: Mapping[str, int]
    rates: Mapping[str, int]
    quality: float = 0.5
    can: frozenset[str] | None = None  # None: not stated, so nothing is refused for it
    tags: tuple[str, ...] = ()
    endpoints: frozenset[str] = frozenset({"chat", "completions"})
    max_image_tokens: int = 2048
    tokenizer: str | None = None


@dataclass(frozen=True)
class Catalogue:
    """What one of `catalogues` stands for: `models` by their names here; those that are `dearer` cost more than their
    price once the input is long."""

    name: str
    of: str  # the family
    date: str  # of its facts
    backend: str
    models: tuple[str, ...]
    dearer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Require:
    """A hard filter over backends; empty means any."""

    region: frozenset[str] = frozenset()
    chip: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    def broken_by(self, backend: Backend) -> str | None:
        """What of it a backend does not meet: region, chip or tags; None when it meets all."""
        if self.region and backend.region not in self.region:
            return "region"
        if self.chip and backend.chip not in self.chip:
            return "chip"
        if self.tags and self.tags.isdisjoint(backend.tags):
            return "tags"
        return None


@dataclass(frozen=True)
class Fallback:
    """A model to turn to, with what the route it was reached by requires beside what the first route does."""

    model: str
    require: Require = Require()


@dataclass(frozen=True)
class Route:
    """`pick` are model names; selectors and route names are resolved at load, in file order."""

    name: str
    pick: tuple[str, ...]
    policy: str = "ordered"
    weigh: Mapping[str, float] = field(default_factory=dict)
    require: Require = Require()
    fallback_error: tuple[Fallback, ...] = ()
    fallback_context: tuple[Fallback, ...] = ()
    cache: str | None = None
    affinity: str = "none"  # session | prefix | none


@dataclass(frozen=True)
class Cache:
    """Answers that are given again. `charge_ppm`: millionths of the rate that a hit is charged."""

    name: str
    mode: str = "exact"
    ttl_s: float = 600.0
    scope: str = "tenant"  # whose answers: the tenant's own | account: all tenants under one billing root
    charge_ppm: int = 0
    sampled: bool = False
    max_bytes: int = 64_000_000
    max_entry: int = 1_000_000


@dataclass(frozen=True)
class CardHours:
    """`factor` in millionths, at these hours of the day, such as 22:00-08:00."""

    span: str
    factor: int


@dataclass(frozen=True)
class CardTerms:
    """What a rate card is from a date on; "" is from the beginning.

    `factor` (in millionths) multiplies the rates of `base`, or of the models where the card is `standard`. `rates` are
    by name of a model or pattern, and come in their place. `hours` None: those of the base.
    """

    effective: str = ""
    base: str | None = None
    factor: int = 1_000_000
    rates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    hours: tuple[CardHours, ...] | None = None


@dataclass(frozen=True)
class PlanGrant:
    credits_uc: int
    every: str | None = None  # month | week | day | None: once
    card: str = "standard"


@dataclass(frozen=True)
class Payg:
    """Paid afterwards: `price` of 1M credits, and the most that a period may come to; in micro-units of currency."""

    price: int
    cap: int

    @property
    def credits_uc(self) -> int:
        """What the cap buys, rounded down."""
        return self.cap * _UC_PER_PRICED // self.price

    def amount(self, uc: int) -> int:
        """What so many micro-credits cost, rounded up: never more than the cap, as long as the credits suffice."""
        return -(-uc * self.price // _UC_PER_PRICED)


@dataclass(frozen=True)
class Exhausted:
    """What becomes of calls that the credits do not cover, in this order. Nothing of it: they are refused."""

    payg: Payg | None = None
    downgrade: str | None = None  # a route or model
    throttle: Limits | None = None  # for nothing, within these


Caps = Mapping[str, Mapping[str, int]]  # by window (total, month, week, day, 5h) and unit (credits in uc, calls)


@dataclass(frozen=True)
class Plan:
    name: str
    grants: tuple[PlanGrant, ...] = ()
    limits: Limits = Limits()
    exhausted: Exhausted = Exhausted()
    allow: frozenset[str] | None = None  # names or tags; None: everything
    max_output: int | None = None
    priority: int = 100  # the lowest is served first
    weight: int = 1
    caps: Caps = field(default_factory=dict)
    alerts: tuple[int, ...] = ()  # shares of the credits in millionths, in ascending order
    gone: bool = False  # not in routes.yaml any more, while the ledger has tenants with it


@dataclass(frozen=True)
class Package:
    """What is sold. Credits, rollover, caps and price (in micro-units of currency) are for one of an order's quantity.

    With `every` it is a subscription, of `periods` or until it is cancelled; without, one grant that lives `valid_s`.
    """

    name: str
    credits_uc: int
    every: str | None = None  # month | week | day | None: once
    periods: int | None = None
    valid_s: float | None = None  # None: for ever
    price: int = 0
    rollover_uc: int = 0  # the most that a period leaves to the next one
    priority: int = 30
    once: bool = False  # for each tenant, also after it has ended
    caps: Caps = field(default_factory=dict)
    card: str = "standard"  # | raw: a credit per token | one of rate_cards
    scope: Mapping[str, Sequence[str]] = field(default_factory=dict)  # models, tags, regions, hours; empty: everything
    exhausted: Exhausted = Exhausted()
    alerts: tuple[int, ...] = ()  # shares of the credits in millionths, in ascending order


@dataclass(frozen=True)
class Tenant:
    name: str
    plan: str
    key_hashes: tuple[str, ...] = ()  # lower-case hex SHA-256 of whole keys


@dataclass(frozen=True)
class Config:
    """One generation of routes.yaml. `warnings` name what is accepted but not done in this version."""

    currency: str
    timezone: str
    server: Server
    ledger: str  # "sqlite:PATH"
    timeout: Timeout
    retry: Retry
    breaker: Breaker
    backends: Mapping[str, Backend]
    models: Mapping[str, Model]
    aliases: Mapping[str, str]
    routes: Mapping[str, Route]
    plans: Mapping[str, Plan]
    tenants: Mapping[str, Tenant]
    queue: Queue = Queue()
    catalogues: Mapping[str, Catalogue] = field(default_factory=dict)
    caches: Mapping[str, Cache] = field(default_factory=dict)
    packages: Mapping[str, Package] = field(default_factory=dict)
    rate_cards: Mapping[str, tuple[CardTerms, ...]] = field(
        default_factory=dict
    )  # by name; in the order of their dates
    tenant_label_top: int = 50
    outage: Outage = Outage()
    responses: Responses | None = Responses()  # None: none are kept
    warnings: tuple[str, ...] = ()
    sources: Sources | None = field(default=None, compare=False, repr=False)
