"""What a client's dialect has to offer: its requests in the middle form, and answers in its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.call import JSON


class Encoder(Protocol):
    """A stream of chunks in the dialect's own events, made for one call."""

    def feed(self, chunk: JSON) -> bytes: ...

    def end(self, usage: JSON | None) -> bytes:
        """What ends the stream well; `usage` is that of the middle form."""


class Closing(Protocol):
    """The end of a stream in the dialect's own events that is cut short. State: what of it is open."""

    def note(self, event: bytes) -> None: ...

    def end(self, usage: JSON | None) -> bytes:
        """Closes what is open, as if max_tokens had ended it."""


class Dialect(Protocol):
    """A module. All of it is pure."""

    def body(self, original: JSON) -> tuple[JSON, tuple[str, ...]]:
        """The request in the middle form, and the fields that only its own dialect can say. Raises InvalidValue."""

    def answer(self, value: JSON, original: JSON) -> JSON:
        """A whole answer of the middle form in its own."""

    @property
    def Encoder(self) -> Callable[[JSON], Encoder]: ...  # noqa: N802

    def headers(self, request_id: str) -> dict[str, str]:
        """By which its SDKs find the id of a request, where that is not `x-request-id`."""

    def error(self, value: JSON, status: int) -> JSON:
        """The body of an error; `value` is the error object of the OpenAI form."""

    def error_event(self, value: JSON, status: int) -> bytes:
        """How a stream ends that breaks after its first byte."""

    def whole(self, stream: bytes) -> JSON | None:
        """The whole answer that a complete stream stands for; None if it is unclear."""

    def replay(self, answer: JSON) -> bytes | None:
        """The other way; None for an answer whose shape is not known."""

    def finished(self, answer: JSON) -> bool:
        """Whether it ended by itself: not cut off, not filtered."""
