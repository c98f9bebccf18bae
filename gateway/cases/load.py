"""routes.test.yaml to cases: every problem in one report, as of routes.yaml."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gateway.cases.schema import SCHEMA, TYPED
from gateway.config.model import Config
from gateway.config.sources import Sources
from gateway.config.structure import Structure, near
from gateway.config.yaml_source import ConfigError, Source, read

Values = Mapping[str, Any]
KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """`body` as its bytes come; `down` are targets by (backend, model), `full` backends.

    `expect` has the values read, `written` those of the file.
    """

    name: str
    file: str
    line: int
    body: bytes
    endpoint: str
    headers: Mapping[str, str]
    tenant: str | None
    plan: str | None
    down: tuple[tuple[str, str], ...]
    full: tuple[str, ...]
    expect: Values
    written: Values = field(default_factory=dict)


def load_cases(path: Path, config: Config) -> list[Case]:
    """In file order. Raises ConfigError with all problems; names are those of `config`."""
    source = read(path, Sources(path), TYPED)
    values = Structure(source).read(source.value, SCHEMA)
    cases = values.get("cases", {})
    if not source.problems and not cases:
        source.problem(("cases",), "has no case")
    made = [_case(source, name, case, config) for name, case in cases.items()]
    if source.problems:
        raise ConfigError(source.problems)
    return made


def _case(source: Source, name: str, case: Values, config: Config) -> Case:
    path = ("cases", name)
    _check(source, path, case, config)
    file, line = source.place(path)
    when = case.get("when", {})
    written = source.value["cases"][name]
    return Case(
        name=name,
        file=file,
        line=line,
        body=_body(source, (*path, "body"), case.get("body")),
        endpoint=case.get("endpoint", "chat"),
        headers=case.get("headers", {}),
        tenant=case.get("tenant"),
        plan=case.get("plan"),
        down=tuple(key for word in when.get("down", ()) for key in _targets(word, config)),
        full=when.get("full", ()),
        expect=case.get("expect", {}),
        written=written.get("expect", {}) if isinstance(written, dict) else {},
    )


def _body(source: Source, path: KeyPath, body: Any) -> bytes:
    """An object, or the content of a file beside this one."""
    if isinstance(body, str):
        file = Path(source.place(path)[0]).parent / body
        try:
            return file.read_bytes()
        except OSError as error:
            source.problem(path, f"cannot be read: {error.strerror}", f"looked for {file}")
    return b"" if body is None or isinstance(body, str) else orjson.dumps(body)


def _check(source: Source, path: KeyPath, case: Values, config: Config) -> None:
    """Names that do not exist would make an expectation that fails for ever, or never."""
    if "tenant" in case and "plan" in case:
        source.problem((*path, "plan"), "stands beside tenant, which has a plan already", "remove one")
    _known(source, (*path, "tenant"), case.get("tenant"), config.tenants, "tenant")
    _known(source, (*path, "plan"), case.get("plan"), config.plans, "plan")
    _check_when(source, (*path, "when"), case.get("when", {}), config)
    expect, at = case.get("expect", {}), (*path, "expect")
    if source.value["cases"][path[1]].get("expect") == {}:
        source.problem(at, "expects nothing", "such as model, backend or refusal")
    for key, known in (("model", config.models), ("backend", config.backends)):
        for name in expect.get(key, ()):
            _known(source, (*at, key), name, known, key)
    _known(source, (*at, "route"), expect.get("route"), {**config.routes, **config.models}, "route or model")
    for key in ("order", "fallback", "removed"):
        for target in expect.get(key, ()):
            if target is not None:
                _check_target(source, (*at, key), target, config)
    if "refusal" in expect and expect.keys() & {"model", "backend", "max_reserve"}:
        source.problem((*at, "refusal"), "stands beside what only a call that is served has", "remove one")


def _check_when(source: Source, path: KeyPath, when: Values, config: Config) -> None:
    for word in when.get("down", ()):
        if "@" in word and word not in config.backends:
            model, _, backend = word.rpartition("@")
            _check_target(source, (*path, "down"), (model, backend), config)
        else:
            _known(source, (*path, "down"), word, config.backends, "backend")
    for name in when.get("full", ()):
        _known(source, (*path, "full"), name, config.backends, "backend")
        limits = config.backends[name].limits if name in config.backends else None
        if limits is not None and not (limits.rpm or limits.tpm or limits.concurrency):
            source.problem((*path, "full"), f"backend {name} has no limits, so it is never full")


def _check_target(source: Source, path: KeyPath, target: tuple[str, str], config: Config) -> None:
    model, backend = target
    _known(source, path, model, config.models, "model")
    _known(source, path, backend, config.backends, "backend")
    if model in config.models and backend in config.backends:
        via = [via.backend for via in config.models[model].via]
        if backend not in via:
            source.problem(path, f"{model} is not served by {backend}", f"it is by {', '.join(via)}")


def _known(source: Source, path: KeyPath, name: str | None, known: Collection[str], noun: str) -> None:
    if name is not None and name not in known:
        source.problem(path, f"there is no {noun} {name}", near(name, known, source))


def _targets(word: str, config: Config) -> list[tuple[str, str]]:
    """A backend stands for all that it serves."""
    if word in config.backends:
        return [(word, model.name) for model in config.models.values() if any(v.backend == word for v in model.via)]
    model, _, backend = word.rpartition("@")
    return [(backend, model)]
