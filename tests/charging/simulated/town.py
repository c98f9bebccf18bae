"""Who lives in the simulation: three versions of one routes.yaml, and a ledger with a family, a firm and their keys."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from gateway.config.load import load
from gateway.config.model import Config

MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None  # what a disk does is for other tests
ADMIN_KEY: Final = "admin-key-of-the-simulation"
START_MS: Final = 1_706_691_600_000  # 31 January 2024 in Shanghai, so that a month later is the 29th of February
ZONE: Final = ZoneInfo("Asia/Shanghai")
TENANTS: Final = ("house", "ann", "ben", "firm", "desk", "solo")
PARENTS: Final = {"ann": "house", "ben": "house", "desk": "firm"}
PLANS: Final = {"house": "home", "ann": "member", "ben": "small", "firm": "none", "desk": "member", "solo": "daily"}
KEYS: Final = {f"sk-moma-{tenant}-{n}": tenant for tenant in TENANTS for n in (1, 2)}
STATIC_KEY: Final = "sk-moma-solo-0"
STATIC: Final = f'{{solo: {{plan: daily, keys: ["sha256:{hashlib.sha256(STATIC_KEY.encode()).hexdigest()}"]}}}}'
CODES: Final = tuple(f"code {number}" for number in range(5))
PACKAGES: Final = (
    "month", "pack", "tokens", "office", "trial", "yuan", "code", "day", "over", "slow", "down", "owl",
    "over", "slow", "down", "owl",
)  # fmt: skip
MODELS: Final = ("m", "m", "n", "auto", "auto", "kept", "kept", "gratis", "cheap", "e", "long", "long")
ROUTES: Final = """
version: 1
currency: CNY
timezone: Asia/Shanghai
server: {admin_key: env:MOMA_SIM_ADMIN_KEY}
storage: {ledger: "sqlite:/nowhere/moma.db"}
defaults:
  timeout: {connect: 3s, first_token: 20s, idle: 20s, total: 90s}
  retry: {attempts: 3, backoff: 200ms..2s}
  breaker: {window: 30s, errors: 90%, min_requests: 40, cooldown: 5s}
backends:
  a: {kind: openai, base_url: "http://a/v1", region: north, limits: {concurrency: 6}}
  b: {kind: openai, base_url: "http://b/v1", region: south, on_disconnect: drain}
  c: {kind: openai, base_url: "http://c/v1", region: south, on_disconnect: free}
models:
  m: {via: [a, b], context: 8k, max_output: 1k, price: {input: 1, output: 2}, rates: RATES, tags: [chat]}
  n: {via: [b], context: 8k, max_output: 500, price: {input: 2, output: 8}, tags: [chat],
    rates: {input: 3, output: 12}}
  cheap: {via: [c], context: 4k, max_output: 1k, price: {input: 0, output: 0},
    rates: {input: 0.25, output: 0.5, calls: 2}}
  e: {via: [a], context: 8k, max_output: 1, price: {input: 1}, rates: {input: 1}, endpoints: [embeddings]}
  long: {via: [a, b], context: 64k, max_output: 32k, price: {input: 1, output: 2}, rates: {input: 1, output: 1},
    tags: [chat]}
routes:
  auto: {pick: [m, n], policy: balanced, fallback: {error: [cheap]}}
  kept: {pick: [m], cache: shared}
  gratis: {pick: [n, m], cache: own}
cache:
  shared: {mode: exact, ttl: 10m, scope: account, charge: SHARE, sampled: true}
  own: {mode: exact, ttl: 10m, scope: tenant, sampled: true}
plans:
  home: {grants: [{credits: HOME, every: month}]}
  member: {rpm: 200, concurrency: 4, caps: {5h: {calls: 60}}}
  small: {tpm: 20k, caps: {day: {credits: 6k}, month: {credits: 30k}}}
  daily: {grants: [{credits: 4k, every: day}, {credits: 2k}], max_output: 200, exhausted: {downgrade: cheap}}
  none: {exhausted: {payg: {price: 5000, cap: 10}}}
rate_cards:
  evening:
  - {base: standard, factor: EVENING, hours: [{from: "17:01", to: "23:00", factor: 0.5}]}
  - {effective: 2024-02-20, base: standard, factor: 0.9, hours: [{from: "17:01", to: "23:00", factor: 0.3}]}
packages:
  month: {credits: 8k, every: month, price: 9.9, rollover: 3k}
  day: {credits: 900, every: day, periods: 5, rollover: 200}
  pack: {credits: 5k, valid: 30d, price: 5.99}
  tokens: {credits: 4k, card: raw, every: week, price: 9.9}
  office: {credits: 3k, valid: 90d, scope: {tags: [chat], regions: [south]}}
  trial: {credits: 2k, valid: 3d, once: true}
  yuan: {credits: 700, price: 1}
  code: {credits: 90k, every: month, price: 40, caps: {5h: {calls: 30}}}
  over: {credits: 800, every: month, price: 20, exhausted: {payg: {price: 10000, cap: 20}}, alerts: [50%, 100%]}
  slow: {credits: 600, every: week, price: 3, exhausted: {throttle: {rpm: 6, tpm: 40k}}, alerts: [80%]}
  down: {credits: 1200, valid: 40d, price: 2, exhausted: {downgrade: cheap}}
  owl: {credits: 3k, card: evening, every: week, price: 4, rollover: 1k}
tenants: TENANTS
"""
VERSIONS: Final = (
    {"RATES": "{input: 1, input_cached: 0.2, output: 2}", "SHARE": "25%", "HOME": "30k", "EVENING": "0.8"},
    {"RATES": "{input: 1.5, input_cached: 0.3, output: 4}", "SHARE": "25%", "HOME": "30k", "EVENING": "0.7"},
    {"RATES": "{input: 1, input_cached: 0.2, output: 2}", "SHARE": "50%", "HOME": "50k", "EVENING": "0.8"},
)


@functools.cache
def configs() -> tuple[Config, ...]:
    """Read once: that takes longer than a run."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        return tuple(_loaded(folder, version) for version in VERSIONS)


def _loaded(folder: str, version: Mapping[str, str]) -> Config:
    text = ROUTES.replace("TENANTS", STATIC)
    for word, value in version.items():
        text = text.replace(word, value)
    path = Path(folder, "routes.yaml")
    path.write_text(text)
    return load(path)


def configs_at(folder: str) -> tuple[Config, ...]:
    """With the ledger there."""
    return tuple(dataclasses.replace(config, ledger=f"sqlite:{folder}/moma.db") for config in configs())
