"""How the calls of each of these endpoints are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.call import JSON, Upload, Work
from gateway.endpoints import images, rerank, speech, transcripts

WORKS: Final[Mapping[str, Callable[[JSON, Upload | None], Work]]] = {
    "rerank": rerank.work,
    "images": images.work,
    "speech": speech.work,
    "transcriptions": transcripts.work,
    "translations": transcripts.work,
}
