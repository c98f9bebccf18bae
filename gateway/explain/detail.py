"""What removed a target, in words: the constraint's name alone does not say what would have to change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gateway.explain.findings import Findings
from gateway.routing.policies import Target
from gateway.routing.preview import Preview

Say = Callable[[Target, Findings, Preview], str]


def detail(why: str, target: Target, found: Findings, preview: Preview) -> str:
    return SAYINGS[why](target, found, preview)


def _endpoint(target: Target, found: Findings, preview: Preview) -> str:
    return f"it serves {_all(target.model.endpoints)}, not {found.endpoint}"


def _capability(target: Target, found: Findings, preview: Preview) -> str:
    assert found.call is not None
    return f"it lacks {_all(found.call.needs - (target.model.can or frozenset()))}"


def _context(target: Target, found: Findings, preview: Preview) -> str:
    return f"its context is {target.model.context:,} tokens, the input has about {found.needed:,}"


def _region(target: Target, found: Findings, preview: Preview) -> str:
    return f"its region is {target.backend.region or 'not stated'}"


def _chip(target: Target, found: Findings, preview: Preview) -> str:
    return f"its chip is {target.backend.chip or 'not stated'}"


def _tags(target: Target, found: Findings, preview: Preview) -> str:
    return f"its tags are {_all(target.backend.tags)}" if target.backend.tags else "it has no tags"


def _allow(target: Target, found: Findings, preview: Preview) -> str:
    return f"plan {found.caller.plan.name} does not allow {found.call.model if found.call is not None else ''}"


def _refused(target: Target, found: Findings, preview: Preview) -> str:
    return "the call is refused before a fallback is asked"


def _limit(target: Target, found: Findings, preview: Preview) -> str:
    assert found.room is not None
    return f"its backend is at its limit of {found.room.full[target.key]}"


def _breaker(target: Target, found: Findings, preview: Preview) -> str:
    back_s = preview.live.back_in_s(target.key, found.now)
    return (
        f"it keeps failing, and is tried again in {back_s:.0f} s" if back_s else "it failed, and a probe is under way"
    )


def _package(target: Target, found: Findings, preview: Preview) -> str:
    says = f"no grant of {found.caller.tenant} pays for it"
    hours = found.funds.hours(target) if found.funds is not None else []
    return f"{says} at this hour; one does at {', '.join(hours)}" if hours else says


def _all(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


SAYINGS: Final[Mapping[str, Say]] = {
    "endpoint": _endpoint,
    "package": _package,
    "capability": _capability,
    "context": _context,
    "region": _region,
    "chip": _chip,
    "tags": _tags,
    "allow": _allow,
    "refused": _refused,
    "limit": _limit,
    "breaker": _breaker,
}
