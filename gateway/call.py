"""The nouns of a call: what was asked, what it used, what came back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

TOKEN_BUCKETS: Final = (
    "input", "input_cached", "input_cache_write", "input_cache_write_1h", "input_audio", "input_image",
    "output", "output_reasoning", "output_audio",
)  # fmt: skip
COUNT_BUCKETS: Final = ("calls", "images", "audio_ms", "compute_ms")
BUCKETS: Final = TOKEN_BUCKETS + COUNT_BUCKETS  # the fixed order in which charges are split
_INPUT: Final = frozenset(bucket for bucket in TOKEN_BUCKETS if bucket.startswith("input"))
_OUTPUT: Final = frozenset(TOKEN_BUCKETS) - _INPUT

JSON = dict[str, Any]


@dataclass(slots=True)
class Usage:
    """Disjoint buckets in tokens or counts: `quantities` has only non-zero entries and never None.

    `source` is "reported" or "estimated"; `flags` (zero_usage, bad_usage, estimated, partial) go on the charge record.
    """

    quantities: dict[str, int]
    source: str = "reported"
    flags: tuple[str, ...] = ()
    input_tokens: int = field(init=False)
    output_tokens: int = field(init=False)

    @property
    def rated_tokens(self) -> int | None:
        """What rate limits count; None where the backend is not to be believed."""
        return None if "bad_usage" in self.flags else self.input_tokens + self.output_tokens

    def __post_init__(self) -> None:
        self.input_tokens = self.output_tokens = 0
        for bucket, n in self.quantities.items():
            if bucket in _INPUT:
                self.input_tokens += n
            elif bucket in _OUTPUT:
                self.output_tokens += n


@dataclass(slots=True)
class Request:
    """What the edge knows of an HTTP request: header names are lower case; `body` is complete."""

    request_id: str
    endpoint: str  # chat | completions | embeddings | a dialect of chat: messages | responses
    headers: dict[str, str]
    body: bytes
    once: str = ""  # digest of tenant and Idempotency-Key


@dataclass(slots=True)
class Call:
    """A parsed and bounded client request. `body` is OpenAI's form of it, and is never changed in place."""

    request_id: str
    endpoint: str
    model: str
    body: JSON
    stream: bool
    wants_usage: bool  # the client asked for the usage chunk of a stream
    max_tokens: int | None  # as asked; None when absent
    choices: int  # prompts x max(n, best_of): what output is multiplied by
    input_bound: int  # never less than what any backend's tokenizer counts, media apart
    media_parts: int  # images and files, whose bytes say nothing about tokens
    needs: frozenset[str]  # capabilities: tools, json, vision
    deadline_s: float | None  # the client's own
    session: str = ""  # x-session-id
    prefer: str = ""  # x-moma-prefer: cost, latency, quality, balanced
    cache_control: str = ""
    once: str = ""
    debug: bool = False
    dialect: str = ""  # what the client speaks, where that is not the form of OpenAI's endpoint
    original: JSON = field(default_factory=dict)  # the request in that dialect; `body` is it in the middle form
    beyond: tuple[str, ...] = ()  # its fields that only that dialect can say
    own_headers: dict[str, str] = field(default_factory=dict)  # for backends of that dialect


@dataclass(slots=True)
class Answer:
    """A complete response: what a sink gets at once."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Sink(Protocol):
    """Where a call's answer goes. `begin` then `write`* then `finish` for a stream, `send` for all else.

    `whole` is false for a stream that breaks: its last bytes say why.
    """

    @property
    def begun(self) -> bool:
        """The client has seen a byte: nothing may be retried and no status can change."""

    async def begin(self, status: int, headers: dict[str, str]) -> None: ...

    async def write(self, chunk: bytes) -> None: ...

    async def finish(self, last: bytes = b"", *, whole: bool = True) -> None: ...

    async def send(self, answer: Answer) -> None: ...
