"""What the walks of the ledger's state machine are made of: a tree with its plans, and steps to draw from."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from gateway.config.model import Exhausted, Payg, Plan, PlanGrant
from tests.charging.model import DAY_MS, Offer

START_MS = 1_706_691_600_000  # 31 January, so that a month later is the 29th of February
HOUR_MS = 3_600_000
PURSE = (200, "month", 1001)  # what ben pays for afterwards, at a millionth of the currency each
OFFERS: dict[str, tuple[Offer, ...]] = {
    "top": ((500, "month", 20), (150, None, 20)), "ann": ((300, "day", 20),), "ben": (PURSE,),
}  # fmt: skip
LEVELS = {("top", 20): (500_000, 1_000_000), ("ben", 1001): (1_000_000,)}  # by owner and priority
PLANS = {
    "top": Plan("top", (PlanGrant(500, "month"), PlanGrant(150)), alerts=(500_000, 1_000_000)),
    "ann": Plan("ann", (PlanGrant(300, "day"),)),
    "ben": Plan("ben", exhausted=Exhausted(Payg(10**12, 200)), alerts=(1_000_000,)),
}
CARDS = ({"m": {"input": 1, "output": 1}}, {"m": {"input": 2, "output": 3}})
TENANTS = st.sampled_from(["top", "ann", "ben"])
# Never 50 ms in sum, nor that after a deadline: there floats decide.
PAUSES = (17, 30, 60, HOUR_MS, 6 * HOUR_MS, DAY_MS, 9 * DAY_MS, 33 * DAY_MS)
BEFORE, AT = -1, -2  # the next start or end of a grant
LATER = st.sampled_from((*(0, 0, 60) * 5, BEFORE, AT, *PAUSES))
LIVES = (*(40 * DAY_MS + HOUR_MS // 2,) * 3, 5 * HOUR_MS + HOUR_MS // 2, HOUR_MS // 2)
PICKS = st.integers(0, 30)


class Ask(NamedTuple):
    """What a reserve is asked for, and whether the call is sent to a backend at once."""

    tenant: str
    input_uc: int
    rate: int
    tokens: int | None
    clamp: bool
    send: bool
    life: int


class Use(NamedTuple):
    """What an open call has used; `pick` says which one."""

    pick: int
    input: int
    output: int
    flags: tuple[str, ...] = ()


class Gift(NamedTuple):
    """A grant that is added by hand."""

    owner: str
    uc: int
    priority: int
    after: int
    lasts: int | None
    ref: str | None


GIFTS = st.builds(
    Gift, TENANTS, st.integers(20, 600), st.sampled_from([10, 30]), st.sampled_from([0, 0, HOUR_MS]),
    st.sampled_from([None, None, 2 * HOUR_MS, 20 * DAY_MS]), st.sampled_from([None, None, "a", "b"]),
)  # fmt: skip
TOKENS = st.none() | st.integers(0, 150) | st.integers(0, 300) | st.integers(256, 900)
ASKS = st.builds(
    Ask, TENANTS, st.integers(0, 200), st.integers(1, 3), TOKENS,
    st.booleans(), st.sampled_from([True, True, False]), st.sampled_from(LIVES),
)  # fmt: skip
CAPS = st.dictionaries(
    st.sampled_from(["total", "day", "5h"]),
    st.dictionaries(st.sampled_from(["credits", "calls"]), st.integers(1, 8) | st.integers(100, 2000), min_size=1),
    max_size=2,
)
FLAGS = st.sampled_from([(), (), (), ("bad_usage",), ("estimated",), ("partial",), ("cache_hit",)])
USES = st.builds(Use, PICKS, st.integers(0, 100), st.integers(0, 200) | st.integers(0, 3000), FLAGS)
