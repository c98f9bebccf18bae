"""Many files at once: transcriptions of 10 MB each, the gateway's resident memory meanwhile, and chats beside them.

`python -m benchmarks.uploads`; ends with 1 when the memory is beyond its bound.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import aiohttp

from benchmarks import processes

UPLOADS: Final = 20
FILE_BYTES: Final = 10_000_000
LOOK_S: Final = 0.02
RSS_BOUND_MB: Final = 80.0  # beyond what the gateway had before; all files together are 200 MB
WARM_S: Final = 3.0  # the vocabulary is loaded in a thread after ready
_PATHS: Final = {"files": "audio/transcriptions", "bodies of JSON with an image": "chat/completions"}


@dataclass(frozen=True)
class Memory:
    """Resident MB before, at the most, and afterwards; how long all of it took."""

    before_mb: float
    most_mb: float
    after_mb: float
    took_s: float


def measure() -> dict[str, Memory]:
    found = {}
    for name, path in _PATHS.items():
        with processes.listener() as backend, processes.gateway(backend.port, routes=_routes()) as gateway:
            time.sleep(WARM_S)
            found[name] = asyncio.run(_sent(gateway, path))
    return found
