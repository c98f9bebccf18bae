"""Calls at once on one package for five of them: who is served, and what is spent beyond it.

With holds of all that a call may use, and with holds in slices that grow in mid-stream.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, cast

import uvloop

from gateway.adapters.adapter import StreamReader
from gateway.call import BUCKETS, Usage
from gateway.charging import directory
from gateway.charging.grants import PACK_PRIORITY
from gateway.charging.ledger import Ledger, open_ledger
from gateway.charging.offers import RAW, STANDARD, offered
from gateway.charging.rating import Quote
from gateway.charging.units import UC_PER_CREDIT
from gateway.clock import LoopClock
from gateway.config.model import Plan
from gateway.errors import QuotaExhausted
from gateway.slices import SLICE_TOKENS, Slices

INPUT: Final = 200
OUTPUT: Final = 8_192
PACKAGE: Final = 5 * (INPUT + OUTPUT)
PIECE: Final = 16  # tokens a read
RATES: Final = dict.fromkeys(BUCKETS, 1)
OFFER: Final = offered("m", "a", "", frozenset(), RATES)
Wanted = Callable[[random.Random], int]
WANTED: Final[dict[str, Wanted]] = {
    "all": lambda chance: OUTPUT,
    "1 to 8,192": lambda chance: chance.randint(1, OUTPUT),
}


@dataclass(slots=True)
class Writing:
    """A stream of a token a piece, as far as it has come."""

    tokens: int = 0
    ended: bool = False

    def written(self) -> tuple[int, int]:
        return self.tokens, self.tokens

    def passed_text(self) -> str:
        return ""


def overspend(calls: int, wanted: str, *, raw: bool, sliced: bool) -> tuple[Counter[str], int, int]:
    """How the calls ended, the micro-credits spent, and those beyond the package."""

    async def run(path: str) -> tuple[Counter[str], int, int]:
        ledger = await open_ledger(path, LoopClock(asyncio.get_running_loop()), "UTC", {"none": Plan("none")})
        ledger.change(directory.add_account, "t", "none", None, ())
        package_uc = PACKAGE * (UC_PER_CREDIT if raw else 1)
        card = RAW if raw else STANDARD
        ledger.change(directory.add_grant, "t", package_uc, None, PACK_PRIORITY, None, None, card, None)
        chance = random.Random(calls)
        tokens = [WANTED[wanted](chance) for _ in range(calls)]
        ends = await asyncio.gather(*(_call(ledger, n, tokens[n], sliced=sliced) for n in range(calls)))
        ledger.check_invariants()
        account = ledger.tenant("t")
        await ledger.aclose()
        return Counter(ends), account.settled_uc, max(0, account.settled_uc - package_uc)

    with tempfile.TemporaryDirectory(dir=".") as folder:
        return uvloop.run(run(f"{folder}/ledger.db"))


async def _call(ledger: Ledger, number: int, wanted: int, *, sliced: bool) -> str:
    name, deadline_ms = f"ch-{number}", 2**50
    quote = Quote(
        "t", ("t",), name, "chat", "m", "standard", 1, INPUT, 1, OUTPUT, deadline_ms,
        input_tokens=INPUT, offers=(OFFER,),
    )  # fmt: skip
    try:
        hold = await ledger.reserve(name, replace(quote, slice_tokens=SLICE_TOKENS if sliced else 0), clamp=False)
    except QuotaExhausted:
        return "refused"
    ledger.dispatched(name, "a", "m")
    writing, end = Writing(), "whole"
    slices = None
    if hold.held_tokens is not None:
        slices = Slices(lambda more: ledger.extend(name, more), _counted(writing), 1, hold.held_tokens, OUTPUT)
    while writing.tokens < wanted:
        await asyncio.sleep(0)
        writing.tokens = min(wanted, writing.tokens + PIECE)
        if slices is not None and not await slices.cover(cast(StreamReader, writing)):
            end = "cut"
            break
    flags = ("estimated", "quota_exhausted") if end == "cut" else ()  # as the pipeline settles it
    usage = Usage({"input": INPUT, "output": writing.tokens}, flags=flags)
    await ledger.settle(name, usage, model_served="m", backend="a", rates=RATES, price=RATES)
    return end


def _counted(writing: Writing) -> Callable[[str], asyncio.Future[int]]:
    def count(_: str) -> asyncio.Future[int]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(writing.tokens)
        return future

    return count


def table(at_once: tuple[int, ...]) -> int:
    """Prints it; returns what was spent beyond all the packages."""
    print("\n| calls at once | each writes | hold | card | whole | cut | refused | package used | beyond |")
    print("|---|---|---|---|---|---|---|---|---|")
    beyond = 0
    for calls in at_once:
        for wanted in WANTED:
            for sliced in (False, True):
                for raw in (False, True):
                    ends, spent, over_uc = overspend(calls, wanted, raw=raw, sliced=sliced)
                    beyond += over_uc
                    used = spent / PACKAGE / (UC_PER_CREDIT if raw else 1)
                    hold, card = "slices" if sliced else "whole", RAW if raw else STANDARD
                    print(
                        f"| {calls:,} | {wanted} | {hold} | {card} | "
                        f"{ends['whole']} | {ends['cut']} | {ends['refused']:,} | {used:.0%} | {over_uc} |"
                    )
    return beyond
