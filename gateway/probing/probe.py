"""All trials of a backend in their order, and what follows from them for routes.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.probing.asker import Asker, Place
from gateway.probing.listing import Listed, listed
from gateway.probing.trials import NO, TRIALS, UNCLEAR, YES, Finding, Talk, chat

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Probed:
    """`findings` by what was tried, in order. `quirks`, `can`, `context` and `max_output` as routes.yaml has them."""

    model: str
    findings: Mapping[str, Finding]
    asked: int
    quirks: Mapping[str, Any] = field(default_factory=dict)
    can: tuple[str, ...] = ()
    context: int | None = None
    max_output: int | None = None

    @property
    def answers(self) -> bool:
        return "chat" in self.findings and self.findings["chat"].verdict == YES


async def probe(asker: Asker, place: Place, model: str | None, progress: Progress) -> Probed:
    """`model` None: the first that the backend lists. Without an answer to the first call nothing else is tried."""
    progress("models")
    there, answer = await listed(asker, place.kind)
    findings = {"models": _models(there, asker.said(answer) if not answer.ok else "it lists none")}
    model = model or (there[0].name if there else None)
    if model is None:
        return Probed("", findings, asker.asked)
    progress("chat")
    findings["chat"], talk = await chat(asker, model)
    if findings["chat"].verdict != YES:
        return Probed(model, findings, asker.asked)
    findings["output limit"] = _limit(findings["chat"], talk)
    for name, trial in TRIALS.items():
        progress(name)
        findings[name] = await trial(talk)
    return _concluded(model, findings, asker.asked, next((one for one in there if one.name == model), Listed(model)))


def _models(there: list[Listed], why: str) -> Finding:
    if not there:
        return Finding(NO, why)
    names = ", ".join(one.name for one in there[:3])
    return Finding(YES, f"{len(there)}: {names}{', ...' if len(there) > 3 else ''}")


def _limit(first: Finding, talk: Talk) -> Finding:
    kept = first.facts["limit"]
    seen = {True: "is kept", False: "is accepted and not kept: holds may be too small", None: "may be kept or not"}
    return Finding({True: YES, False: NO, None: UNCLEAR}[kept], f"{talk.limit_field} {seen[kept]}")


def _concluded(model: str, findings: Mapping[str, Finding], asked: int, said: Listed) -> Probed:
    quirks: dict[str, Any] = {}
    if findings["stream"].facts.get("stream_options") is False:
        quirks["include_usage"] = False
    if (limit_field := findings["chat"].facts["limit_field"]) != "max_tokens":
        quirks["max_tokens_field"] = limit_field
    sure = {name for name, finding in findings.items() if finding.verdict == YES}
    can = {"tools": "tools" in sure, "json": bool(sure & {"json_schema", "json_object"}), "vision": "vision" in sure}
    limits = findings["context"].facts
    return Probed(
        model,
        findings,
        asked,
        quirks,
        tuple(name for name, able in can.items() if able),
        said.context or limits.get("context"),
        said.max_output or limits.get("max_output"),
    )
