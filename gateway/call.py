"""The nouns of a call: what was asked, what it used, what came back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

TOKEN_BUCKETS: Final = (
    "input", "input_cached", "input_cache_write", "input_cache_write_1h", "input_audio", "input_image",
    "output", "output_reasoning", "output_audio",
)  # fmt: skip
COUNT_BUCKETS: Final = ("calls", "images", "audio_ms", "compute_ms")
BUCKETS: Final = TOKEN_BUCKETS + COUNT_BUCKETS  # the fixed order in which charges are split
ENDPOINTS: Final = (
    "chat", "completions", "embeddings", "rerank", "images", "speech", "transcriptions", "translations",
)  # fmt: skip
_INPUT: Final = frozenset(bucket for bucket in TOKEN_BUCKETS if bucket.startswith("input"))
_OUTPUT: Final = frozenset(TOKEN_BUCKETS) - _INPUT

LIMITED: Final = frozenset({"chat", "completions"})  # whose output has a limit that a call may name
READING: Final = frozenset({"embeddings", "rerank"})  # which write nothing, and draw nothing by chance

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


class Pieces(Protocol):
    """Bytes that need not be in memory all at once."""

    size: int
    content_type: str

    def pieces(self) -> AsyncIterator[bytes]:
        """All of them, from the start each time."""


class Upload(Pieces, Protocol):
    """The file of a form, kept until nobody needs it any more. `head` is its first bytes, `digest` that of all.

    `lines` are the headers of its part, written by us.
    """

    lines: bytes
    head: bytes
    digest: str


@dataclass(slots=True)
class Request:
    """What the edge knows of an HTTP request: header names are lower case; `body` is complete.

    That of a form is the JSON of its fields; the file stays beside it.
    """

    request_id: str
    endpoint: str  # one of ENDPOINTS, or a dialect of chat: messages | responses
    headers: dict[str, str]
    body: bytes
    once: str = ""  # digest of tenant and Idempotency-Key
    upload: Upload | None = None
    at_s: int = 0  # of the wall clock


@dataclass(frozen=True, slots=True)
class Work:
    """What a call asks for that is not chat, completions or embeddings.

    `texts` are what a model reads, and how often; `longest` the bytes of what has its context to itself, of `prompts`
    in all; `sound` the most tokens that audio beside them may be. `counts` is the most that the call may take of what
    is counted, `taken` what it takes of it as soon as it is asked, where nobody says so. `outputs` is how many answers
    it may write whose length nothing limits; of what is `slow`, the first event may come as late as a whole answer.
    """

    texts: tuple[tuple[str, int], ...]
    longest: int
    prompts: int = 1
    sound: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    taken: Mapping[str, int] = field(default_factory=dict)
    outputs: int = 0
    stream: bool = False
    slow: bool = False
    upload: Upload | None = None

    @property
    def bound(self) -> int:
        """Never less than what is counted as read, templates apart."""
        return self.sound + sum(len(text.encode()) * times for text, times in self.texts)


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
    needs: frozenset[str]  # capabilities: tools, json, vision, extras (what is billed beside tokens)
    deadline_s: float | None  # the client's own
    session: str = ""  # x-session-id
    prefer: str = ""  # x-moma-prefer: cost, latency, quality, balanced
    cache_control: str = ""
    once: str = ""
    debug: bool = False
    dialect: str = ""  # what the client speaks, where that is not the form of OpenAI's endpoint
    original: JSON = field(default_factory=dict)  # the request in that dialect; `body` is it in the middle form
    beyond: tuple[str, ...] = ()  # its fields that only that dialect can say
    created: int = 0  # when it came, in seconds of the wall clock
    own_headers: dict[str, str] = field(default_factory=dict)  # for backends of that dialect
    documents: int = 0  # media parts of any length, such as a PDF or a film
    work: Work | None = None  # of an endpoint that is not chat, completions or embeddings

    @property
    def late(self) -> bool:
        """Nothing may be heard of its answer before it is whole."""
        if self.work is not None and self.work.slow:
            return True
        return not self.stream and self.endpoint not in READING


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
