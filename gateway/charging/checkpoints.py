"""What long streams have passed on so far, in the rows of their holds: what a crash leaves of them is charged by it.

At most what was delivered: a piece of a stream is at least one token, and only what the call itself holds pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nsmallest
from typing import Any, Final

import orjson

from gateway.call import Usage
from gateway.charging import paying
from gateway.charging.image import Image
from gateway.charging.metering import count_late
from gateway.charging.rating import cost_uc, provider_cost
from gateway.charging.records import CRASH, Hold, Progress, Receipt
from gateway.charging.splitting import shares

MOST_NOTED: Final = 1_000  # at once: those that were noted longest ago
FLAGS: Final = (CRASH, "estimated")


def note(image: Image, now_ms: int) -> bool:
    """Queues the rows of streams that go on and have one; whether there are any."""
    running = (hold for hold in image.holds.values() if hold.progress is not None and hold.stored and hold.dispatched)
    news = False
    for hold in nsmallest(MOST_NOTED, running, key=lambda hold: hold.noted_ms):
        hold.noted_ms = now_ms
        progress = hold.progress() if hold.progress is not None else None
        passed = None if progress is None else _text(hold, progress)
        if passed != hold.passed:
            hold.passed, news = passed, True
            image.changes.holds[hold.charge_id] = hold
    return news


def _text(hold: Hold, progress: Progress) -> str:
    """Who pays is told where grants of several cards do: units and cards are not to be found from the row."""
    said: dict[str, Any] = {
        "usage": progress.quantities,
        "uc": cost_uc(progress.quantities, progress.rates),
        "cost": provider_cost(progress.quantities, progress.price),
    }
    if hold.covered is not None:
        offer = next(one for one in hold.quote.offers if (one.model, one.backend) == (hold.model, hold.backend))
        found = shares(hold.parts, offer, progress.quantities, capped=True)
        said["split"] = [share.value for share in found]
        said["parts"] = {share.grant.id: share.uc for share in found if share.grant is not None and share.uc}
    return orjson.dumps(said).decode()


def settled(image: Image, hold: Hold, held: Mapping[str, int], now_ms: int) -> Receipt:
    """The end of a dispatched hold that a crash left: at its last checkpoint, without one at 0. `held`: by grant."""
    said = orjson.loads(hold.passed) if hold.passed else {"parts": {}}
    parts = said["parts"] if "parts" in said else _own(held, said["uc"])
    grants = image.grants
    if not parts or any(grants[name].available < uc for name, uc in parts.items()):
        return Receipt("settled", Usage({}, "estimated"), hold.model, hold.backend, flags=(CRASH,))
    for name, uc in parts.items():
        grants[name].available -= uc
        grants[name].spent += uc
        image.changes.grants[name] = grants[name]
    charged_uc = sum(parts.values())
    paying.book(image, hold, charged_uc, 0)
    end = Receipt(
        "settled", Usage(said["usage"], "estimated"), hold.model, hold.backend, charged_uc, parts=parts,
        cost=said["cost"], flags=FLAGS, split=said.get("split", ()),
    )  # fmt: skip
    for name in hold.quote.account_path:
        count_late(image.changes, image.accounts[name].meters, hold, end)
    return end


def _own(held: Mapping[str, int], left_uc: int) -> dict[str, int]:
    parts = {}
    for name, uc in held.items():
        used_uc = min(uc, left_uc)
        left_uc -= used_uc
        if used_uc:
            parts[name] = used_uc
    return parts
