"""What dispatch asks of a backend's dialect, and what it is made of.

The middle form is OpenAI's chat form: request bodies, whole answers and chunks, with the fields of docs/dialects.md.
An adapter serves calls of any client dialect: bytes pass through where both sides speak the same.
"""

from __future__ import annotations

from typing import Any, Protocol

from gateway.call import JSON, Call, Pieces, Usage
from gateway.config.model import Model, Quirks


class AnswerReader(Protocol):
    """A whole answer, made for one call."""

    def read(self, status: int, body: bytes) -> tuple[bytes, Usage | None]:
        """(the body for the client, usage or None when there is none). Raises AttemptFailed("broken")."""

    def passed_text(self) -> str:
        """All output of what was read: for counting it here."""


class StreamReader(Protocol):
    """A stream, made for one call: what to pass on now, and what it said of itself."""

    @property
    def started(self) -> bool:
        """Content, or a finish, was handed out."""

    @property
    def done(self) -> bool:
        """The backend has ended it well."""

    @property
    def ended(self) -> bool:
        """Every choice is known to have said why it ended."""

    @property
    def usage(self) -> Usage | None: ...

    @property
    def said_usage(self) -> tuple[Any, bytes]:
        """Usage as the backend said it last, which may be of the input alone, and the event of its own that it came
        in, if any."""

    @property
    def least(self) -> int:
        """Tokens that were passed on at the least; costs nothing."""

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on now, perhaps none. Raises AttemptFailed("broken")."""

    def complete_at_eof(self) -> bool:
        """Whether a stream that ended without its last event is whole."""

    def flush(self) -> bytes:
        """What is still held back, once."""

    def tail(self) -> bytes:
        """The last bytes of a settled stream."""

    def passed_text(self) -> str:
        """All output that was passed on."""

    def written(self) -> tuple[int, int]:
        """What was passed on, in pieces (each is at least a token), and the most tokens that it can be."""

    def cut_short(self, usage: Usage, reason: str) -> bytes:
        """A proper end of what its backend has not ended. `usage` is what `tail` tells from now on."""


class Adapter(Protocol):
    """One backend dialect. Stateless: what has a state is made for a call."""

    @property
    def endpoints(self) -> frozenset[str]:
        """The endpoints of calls that it can serve at all."""

    def beyond(self, call: Call) -> str | None:
        """The first field of the call that cannot be said in this dialect; None when all of it can."""

    def url(self, base_url: str, call: Call, as_name: str) -> str: ...

    def headers(self, call: Call, key: str | None) -> dict[str, str]: ...

    def body(self, call: Call, as_name: str, max_tokens: int | None, quirks: Quirks) -> bytes | Pieces: ...

    def answer(self, call: Call, model: Model) -> AnswerReader: ...

    def stream(self, call: Call, model: Model) -> StreamReader: ...

    def refused(self, call: Call, model: Model, body: bytes) -> tuple[bytes, Usage | None]:
        """An error's body in OpenAI's form, and what the call used nevertheless."""


class Decoder(Protocol):
    """A provider's stream as chunks of the middle form. State: `done`, once the provider said that it is complete."""

    done: bool

    @property
    def said_usage(self) -> JSON | None:
        """As far as it is known before the end, which has a chunk of it."""

    def feed(self, event: bytes) -> list[JSON]:
        """Of one whole event. Raises AttemptFailed("broken") for an error or nonsense."""


class Provider(Protocol):
    """A module that translates between the middle form and one provider's dialect of chat."""

    def beyond(self, body: JSON) -> str | None: ...

    def path(self, as_name: str, stream: bool) -> str: ...

    def credentials(self, key: str | None) -> dict[str, str]: ...

    def request(self, body: JSON, as_name: str, max_tokens: int, *, stream: bool) -> JSON: ...

    def answer(self, value: JSON) -> JSON:
        """Raises AttemptFailed("broken") for what is none."""

    @property
    def Decoder(self) -> type[Decoder]: ...  # noqa: N802

    def error(self, body: bytes) -> JSON:
        """message, type, code and param, as far as it is said; nothing of what cannot be read."""
