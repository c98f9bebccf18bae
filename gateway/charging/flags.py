"""What the flags of a charge record mean, in words."""

from __future__ import annotations

from typing import Final

FLAGS: Final = {
    "estimated": "the backend reported no usage: prompt and answer were counted here, at most what was held",
    "bad_usage": "the backend reported what is impossible: cut to the limits, at most what was held",
    "zero_usage": "the backend reported that nothing was used",
    "partial": "the answer broke off, or the client left: charged is what was passed on",
    "quota_exhausted": "the package was used up in mid-stream: the answer ends there, charged is what was passed on",
    "cache_hit": "answered from a cache or by the same call under way; no backend was asked",
    "downgraded": "no credits covered the call on the route that was asked for: it went to a cheaper one",
    "throttled": "no credits covered the call: it went on slowly, for nothing",
    "crash": "the gateway ended in the middle of the call: charged is what its stream had noted as passed on",
    "overdue": "the call's deadline passed and nobody closed it: nothing is charged",
    "aborted": "the client left, and nothing is charged for what a backend may have done",
    "failed": "no backend answered: nothing is charged",
    "refused": "a backend refused the call: nothing is charged",
    "completed": "the call ended without anything to charge",
}


def meaning(flag: str) -> str:
    name, _, share = flag.partition(":")
    if name == "charge" and share:
        return f"the cache's share of {share} is charged, rounded down to a millionth of a credit"
    return FLAGS.get(flag, "this version of the gateway does not know it")
