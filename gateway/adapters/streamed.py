"""Streams that are no chat: bytes of sound, and events that say their type. Both pass as they come.

A call of these has no max_tokens and no hold that grows, so nobody asks how many tokens they have written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gateway.adapters.chunks import choices_of, parsed, text_of
from gateway.call import JSON, Call, Usage
from gateway.errors import AttemptFailed
from gateway.sound import HEAD_BYTES, PCM_BYTES_PER_S, milliseconds, wav_of
from gateway.sse import EventSplitter, event_data

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024  # one may hold an image
PARTIAL_IMAGE: Final = "image_generation.partial_image"
IMAGES: Final = frozenset({PARTIAL_IMAGE, "image_generation.completed"})
ENDS: Final = frozenset({"image_generation.completed", "speech.audio.done", "transcript.text.done"})
_ERROR: Final = b"event: error"
Count = Callable[[Sequence[JSON], int], Usage | None]  # of what was said of usage, and how many answers have ended


class Passing:
    """What both have in common: nothing is held back, and there is nothing to add. State: `started`, `done`."""

    def __init__(self) -> None:
        self.started = self.done = False

    @property
    def ended(self) -> bool:
        return self.done

    @property
    def usage(self) -> Usage | None:
        return None

    @property
    def said_usage(self) -> tuple[Any, bytes]:
        return None, b""

    @property
    def least(self) -> int:
        return 0

    @property
    def counts(self) -> Mapping[str, int]:
        """What was passed on of what is counted, beside tokens."""
        return {}

    def flush(self) -> bytes:
        return b""

    def tail(self) -> bytes:
        return b""

    def passed_text(self) -> str:
        return ""

    def written(self) -> tuple[int, int]:
        return 0, 0

    def cut_short(self, usage: Usage, reason: str) -> bytes:
        raise AssertionError("a hold of these does not grow")


class SoundStream(Passing):
    """Speech. State: `_head`, the first bytes, which say of a WAV how it is made, and `_size`."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._format = call.body.get("response_format")
        self._most_ms = call.work.counts["audio_ms"] if call.work is not None else 0
        self._head = b""
        self._size = 0

    def feed(self, data: bytes) -> bytes:
        self.started = True
        self._size += len(data)
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        return data

    def complete_at_eof(self) -> bool:
        """HTTP says where it ends."""
        return self.started

    @property
    def counts(self) -> Mapping[str, int]:
        """Nothing of what is compressed: how long that is, nobody can tell without playing it."""
        start, rate = 0, PCM_BYTES_PER_S
        if self._format != "pcm":
            wav = wav_of(self._head) if self._format == "wav" else None
            if wav is None:
                return {}
            start, rate = wav.start, wav.bytes_per_s
        ms = min(self._most_ms, milliseconds(max(0, self._size - start), rate))
        return {"audio_ms": ms} if ms else {}


class EventStream(Passing):
    """Images, speech or a transcript in events; ends when as many answers have ended as were asked for.

    State: `_splitter`, `_ended` (answers, of `_answers`), `_usages` as they were said, `_partly` (images that were seen
    in part, or whole), `_text` of a transcript.
    """

    def __init__(self, answers: int, count: Count) -> None:
        super().__init__()
        self._splitter = EventSplitter(MAX_EVENT_BYTES)
        self._answers = answers
        self._count = count
        self._usages: list[JSON] = []
        self._ended = 0
        self._partly = 0
        self._text: list[str] = []

    @property
    def usage(self) -> Usage | None:
        return self._count(self._usages, self._ended)

    @property
    def counts(self) -> Mapping[str, int]:
        return {"images": self._partly} if self._partly else {}

    def feed(self, data: bytes) -> bytes:
        if self.done:
            return b""
        events = self._splitter.feed(data)
        for event in events:
            self._note(event)
        self.started = self.started or bool(events)
        return b"".join(events)

    def complete_at_eof(self) -> bool:
        if not self.done and self._splitter.rest.strip():
            return False
        return self.done or self._ended > 0

    def passed_text(self) -> str:
        return "".join(self._text)

    def _note(self, event: bytes) -> None:
        """Raises AttemptFailed("broken") for an error."""
        data = event_data(event)
        if data is None or not data.strip():
            return
        if data.strip() == b"[DONE]":
            self.done = True
            return
        said = parsed(data)
        kind = said.get("type")
        if kind == "error" or event.lstrip().startswith(_ERROR):
            raise AttemptFailed("broken", "the backend sent an error in its stream")
        if isinstance(said.get("usage"), dict):
            self._usages = [*self._usages, said["usage"]][-self._answers :]
        if kind in ENDS:
            self._ended += 1
            self.done = self._ended >= self._answers
        if kind in IMAGES:
            self._partly = min(self._answers, max(self._partly, self._ended + (kind == PARTIAL_IMAGE)))
        elif isinstance(said.get("delta"), str):
            self._text.append(said["delta"])
        else:  # vLLM writes transcripts in chunks like those of a chat
            self._text += [text_of(choice.get("delta")) for choice in choices_of(said)]
