"""An entry of LiteLLM's model_list: what it reaches, as what, and what it costs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.importing.providers import FOREIGN, PROVIDERS, Provider, provider_of
from gateway.importing.report import Report
from gateway.importing.source import KeyPath

Values = Mapping[str, Any]
NO_KEYS: Final = frozenset({"", "none", "null", "dummy", "fake", "fake-key", "empty", "not-needed", "anything", "na"})
LIMITS: Final = {"rpm": "rpm", "tpm": "tpm", "max_parallel_requests": "concurrency"}
ENDPOINTS: Final = {"chat": (), "completion": ("completions",), "embedding": ("embeddings",), "responses": ()}
PRICES: Final = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "input_cost_per_token_cache_hit": "input_cached",
    "cache_read_input_token_cost": "input_cached",
    "cache_creation_input_token_cost": "input_cache_write",
    "cache_creation_input_token_cost_above_1hr": "input_cache_write_1h",
    "input_cost_per_audio_token": "input_audio",
    "output_cost_per_audio_token": "output_audio",
    "output_cost_per_reasoning_token": "output_reasoning",
}
CAN: Final = {"supports_function_calling": "tools", "supports_response_schema": "json", "supports_vision": "vision"}
PARAMETERS: Final = frozenset({
    "temperature", "max_tokens", "max_completion_tokens", "top_p", "top_k", "n", "stop", "seed", "presence_penalty",
    "frequency_penalty", "response_format", "tools", "tool_choice", "reasoning_effort", "thinking", "extra_body",
})  # fmt: skip
_SECRET_NAME: Final = re.compile(r"key|token|auth|secret|password|cookie", re.IGNORECASE)


@dataclass
class Deployment:
    """One entry. `identity` tells which entries may share a backend; prices are per 1M tokens."""

    path: KeyPath
    group: str
    provider: str
    base_url: str
    as_name: str
    key: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    quirks: dict[str, Any] = field(default_factory=dict)
    weight: Decimal | None = None
    order: int = 1
    mode: str = "chat"
    price: dict[str, Decimal] = field(default_factory=dict)
    context: int | None = None
    max_output: int | None = None
    can: list[str] | None = None
    tags: list[str] = field(default_factory=list)

    @property
    def identity(self) -> tuple[Any, ...]:
        own = self.path if self.limits else ()  # a limit is the deployment's own
        return self.provider, self.base_url, self.key, tuple(self.headers.items()), own


class Secrets:
    """Names for the secrets that stand in the file: one for each. They are compared, and never shown."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def variable(self, secret: str, group: str) -> str:
        base = f"{_variable(group).upper()}_API_KEY"
        if secret not in self._names:
            used = set(self._names.values())
            numbers = (f"_{number}" if number > 1 else "" for number in range(1, len(used) + 2))
            self._names[secret] = next(base + number for number in numbers if base + number not in used)
        return self._names[secret]


def deployment(entry: Any, path: KeyPath, report: Report, table: Values, secrets: Secrets) -> Deployment | None:
    """None where it cannot be carried over; the report says why. `table` is LiteLLM's own, of prices and limits."""
    if not isinstance(entry, dict) or not isinstance(entry.get("litellm_params"), dict) or not entry.get("model_name"):
        report.lost(path, "is no deployment: it has no model_name, or no litellm_params")
        return None
    name, params, at = str(entry["model_name"]), entry["litellm_params"], (*path, "litellm_params")
    info: Values = entry["model_info"] if isinstance(entry.get("model_info"), dict) else {}
    for key in (path, (*path, "model_name"), at, (*path, "model_info")):
        report.see(key)
    if "*" in name or "*" in str(params.get("model", "")):
        report.lost(
            (*path, "model_name"),
            f"is a wildcard: {name}",
            "write a pattern under catalogues, or list each model with its price",
        )
        return None
    found = _reached(name, params, path, report)
    if found is None:
        return None
    found.key = _key(params, at, report, found, secrets)
    found.headers = _headers(params, at, report)
    found.limits = {LIMITS[k]: int(params[k]) for k in LIMITS if _positive(params.get(k), (*at, k), report)}
    _weights(found, params, at, report)
    _facts(found, params, info, path, report, table)
    _leftovers(params, info, path, report)
    if found.mode not in ENDPOINTS:
        why = f"{found.mode} is not served here; {name} loses this deployment"
        report.lost((*path, "model_info", "mode"), why, "leave it with LiteLLM for now")
        return None
    return found


def _reached(name: str, params: Values, path: KeyPath, report: Report) -> Deployment | None:
    at = (*path, "litellm_params")
    wanted = str(params.get("model") or "")
    provider, as_name = provider_of(wanted)
    report.see((*at, "model"))
    if params.get("custom_llm_provider"):
        report.see((*at, "custom_llm_provider"))
        provider, as_name = str(params["custom_llm_provider"]), wanted.removeprefix(f"{params['custom_llm_provider']}/")
    if provider in FOREIGN:
        why = f"{provider} is not spoken to in this version; {name} loses this deployment"
        report.lost((*at, "model"), why, "reach it by an OpenAI-compatible address, or leave it with LiteLLM for now")
        return None
    if provider not in PROVIDERS:
        prefix = wanted.partition("/")[0] if "/" in wanted else provider or wanted
        why = f"no provider is known by the name {prefix}; {name} loses this deployment"
        report.lost(
            (*at, "model"), why, "if it speaks the OpenAI dialect, write openai/ before the name and an api_base"
        )
        return None
    if not as_name:
        why = f"names no model of {provider}; {name} loses this deployment"
        report.lost((*at, "model"), why, "write the provider's name for it behind the slash")
        return None
    base_url = _base_url(params, at, report, PROVIDERS[provider])
    return Deployment(path, name, provider, base_url, as_name)


def _base_url(params: Values, at: KeyPath, report: Report, provider: Provider) -> str:
    key = "base_url" if params.get("base_url") else "api_base"
    report.see((*at, "api_base"))
    report.see((*at, "base_url"))
    written = str(params.get(key) or "")
    if written.startswith("os.environ/"):
        variable = written.removeprefix("os.environ/")
        report.fill(
            (*at, key), f"the address comes from the environment ({variable})", "write it as base_url of the backend"
        )
        return ""
    parts = urlsplit(written)
    if parts.username or parts.password or parts.query:
        report.fill(
            (*at, key), "the address holds credentials or a query, which were not copied", "write it without them"
        )
        return ""
    base = written.rstrip("/") or provider.base_url
    if not base:
        report.fill((*at, key), "there is no address", "write base_url of the backend")
    elif provider.note:
        report.changed((*at, "model"), provider.note)
    if written and provider.path and not base.endswith(provider.path):
        base += provider.path
    return base


def _key(params: Values, at: KeyPath, report: Report, found: Deployment, secrets: Secrets) -> str:
    """A reference to a secret, never the secret: one that stands in the file gets a variable of its own."""
    path = (*at, "api_key")
    report.see(path)
    written = params.get("api_key")
    if written is None:
        provider = PROVIDERS[found.provider]
        return f"env:{provider.key_env}" if provider.key_env else ""
    text = str(written)
    if text.startswith("os.environ/"):
        return f"env:{_variable(text.removeprefix('os.environ/'))}"
    if text.lower() in NO_KEYS:
        return ""
    variable = secrets.variable(text, found.group)
    report.changed(path, "a key stands in the file; it was not copied", f"put it into the environment as {variable}")
    return f"env:{variable}"


def _variable(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text)
    return name if not name[:1].isdigit() else f"K_{name}"


def _headers(params: Values, at: KeyPath, report: Report) -> dict[str, str]:
    out: dict[str, str] = {}
    for key in ("extra_headers", "headers"):
        report.see((*at, key))
        given = params.get(key)
        for name, value in given.items() if isinstance(given, dict) else ():
            if _SECRET_NAME.search(str(name)) or str(value).startswith("os.environ/"):
                report.lost(
                    (*at, key, str(name)), "a header may hold a secret, so it was not copied", "keys: takes secrets"
                )
            else:
                out[str(name).lower()] = str(value)
    if organization := params.get("organization"):
        report.see((*at, "organization"))
        if str(organization).startswith("os.environ/"):
            report.lost((*at, "organization"), "headers take no variable", "write headers: {openai-organization: ...}")
        else:
            out["openai-organization"] = str(organization)
    return out


def _weights(found: Deployment, params: Values, at: KeyPath, report: Report) -> None:
    found.weight = read_number(params.get("weight"), (*at, "weight"), report)
    order = read_number(params.get("order"), (*at, "order"), report)
    found.order = 1 if order is None else int(order)


def _facts(found: Deployment, params: Values, info: Values, path: KeyPath, report: Report, table: Values) -> None:
    """Prices and limits: the entry's own first, then those of the table."""
    for place in ("model_info", "litellm_params"):
        for key in (*PRICES, *CAN, "max_input_tokens", "max_output_tokens", "max_tokens", "mode", "base_model"):
            if place == "model_info" or key in PRICES:
                report.see((*path, place, key))
                if key in PRICES or key.endswith("_tokens"):
                    read_number((info if place == "model_info" else params).get(key), (*path, place, key), report)
    known = {**_entry_of(table, params, info), **{k: v for k, v in params.items() if k in PRICES}, **info}
    found.mode = str(known.get("mode") or ("completion" if found.provider.startswith("text-completion") else "chat"))
    found.price = {bucket: per_million(known[key], (*path, "model_info", key), report) for key, bucket in PRICES.items()
                   if number(known.get(key)) is not None}  # fmt: skip
    context, output = (
        number(known.get("max_input_tokens")),
        number(known.get("max_output_tokens") or known.get("max_tokens")),
    )
    found.context = None if context is None else int(context)
    found.max_output = None if output is None else int(output)
    if all(isinstance(info.get(key), bool) for key in CAN):
        found.can = [word for key, word in CAN.items() if info[key]]
    elif any(key in info for key in CAN):
        report.lost((*path, "model_info"), "only some of what the model can is stated, so nothing is refused for it",
                    "write can: [tools, json, vision] with what it can")  # fmt: skip
    groups = info.get("access_groups")
    report.see((*path, "model_info", "access_groups"))
    found.tags = [str(group) for group in groups] if isinstance(groups, list) else []


def _entry_of(table: Values, params: Values, info: Values) -> Values:
    wanted = str(params.get("model") or "")
    for name in (str(info.get("base_model") or ""), wanted, provider_of(wanted)[1]):
        if isinstance(entry := table.get(name), Mapping):
            return entry
    return {}


def per_million(value: Any, path: KeyPath, report: Report) -> Decimal:
    """A price per token as one per 1M tokens, with the six decimals that there are."""
    exact = (number(value) or Decimal(0)) * 1_000_000
    rounded = exact.quantize(Decimal("0.000001"), ROUND_HALF_UP)
    if rounded != exact:
        report.changed(path, f"{value} a token is rounded to {rounded:f} per 1M tokens")
    return rounded


def read_number(value: Any, path: KeyPath, report: Report) -> Decimal | None:
    """As `number`; what is none is reported."""
    report.see(path)
    found = number(value)
    if found is None and value is not None:
        report.lost(path, "is no number of at least 0", "write it as one")
    return found


def number(value: Any) -> Decimal | None:
    """LiteLLM takes 1e-06 for a number, which YAML 1.1 does not."""
    if value is None or isinstance(value, bool):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and found >= 0 else None


def _positive(value: Any, path: KeyPath, report: Report) -> bool:
    return (read_number(value, path, report) or 0) >= 1


def _leftovers(params: Values, info: Values, path: KeyPath, report: Report) -> None:
    at = (*path, "litellm_params")
    for key in params:
        if key in PARAMETERS:
            report.lost(
                (*at, key), "is a default for requests, which go out as clients send them", "let clients send it"
            )
        elif key in ("timeout", "stream_timeout", "max_retries"):
            report.lost(
                (*at, key), "is set for all deployments together here", "see defaults.timeout and defaults.retry"
            )
        elif key == "tags":
            report.lost(
                (*at, key),
                "routing by tags of a request is not done here",
                "give such deployments a route of their own",
            )
        elif key == "region_name":
            report.lost(
                (*at, key),
                "the region of a deployment is not carried over",
                "write region: at its backend, and require: {region: [...]} at the routes that must not leave it",
            )
        elif key in ("api_version", "drop_params", "additional_drop_params"):
            report.changed((*at, key), "is not needed, or not used")
    report.rest(at, params)
    report.rest((*path, "model_info"), info)
