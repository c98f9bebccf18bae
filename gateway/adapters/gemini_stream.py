"""A stream of Gemini's: each event is a GenerateContentResponse with what is new."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.adapters.gemini_answer import blocked, candidates, check, deltas, finish, head, index_of, logprobs
from gateway.adapters.gemini_citations import cited
from gateway.adapters.gemini_usage import usage
from gateway.bounded import loads_of_backend
from gateway.call import JSON
from gateway.errors import AttemptFailed
from gateway.sse import event_data


@dataclass(slots=True)
class _Progress:
    """How far a candidate is, what it has said, and the sources that were named for it last."""

    calls: int = 0
    ended: bool = False
    said: list[str] = field(default_factory=list)
    sources: Any = None


class Decoder:
    """There is no `[DONE]`: a stream is complete when each candidate has said why it ended.

    State: `_seen` (candidates), `_metadata` (usage as it was said last: it grows with the stream), `done`.
    """

    def __init__(self) -> None:
        self._seen: dict[int, _Progress] = {}
        self._metadata: Any = None
        self.done = False

    @property
    def said_usage(self) -> JSON | None:
        return usage(self._metadata)

    def feed(self, event: bytes) -> list[JSON]:
        """The chunks that an event makes. Raises AttemptFailed("broken")."""
        data = event_data(event)
        if data is None or not data.strip():
            return []
        value = _parsed(data)
        self._metadata = value.get("usageMetadata") or self._metadata
        about = head(value, "chat.completion.chunk")
        chunks = [{**about, "choices": [choice]} for choice in self._choices(value)]
        if self._seen and all(progress.ended for progress in self._seen.values()):
            self.done = True
            if (used := usage(self._metadata)) is not None:
                chunks.append({**about, "choices": [], "usage": used})
        return chunks

    def _choices(self, value: JSON) -> list[JSON]:
        found = candidates(value)
        choices = [choice for candidate in found for choice in self._told(value, candidate)]
        if not found and blocked(value):
            self._seen[0] = _Progress(ended=True)
            return [_choice(0, {"role": "assistant", "content": ""}), _choice(0, {}, reason="content_filter")]
        return choices

    def _told(self, value: JSON, candidate: JSON) -> list[JSON]:
        """What an event says of one candidate."""
        index = index_of(candidate)
        choices = []
        if index not in self._seen:
            self._seen[index] = _Progress()
            choices.append(_choice(index, {"role": "assistant", "content": ""}))
        progress = self._seen[index]
        for delta in deltas(value, candidate, progress.calls):
            progress.calls += "tool_calls" in delta
            progress.said.append(delta.get("content", ""))
            choices.append(_choice(index, delta))
        progress.sources = candidate.get("citationMetadata") or progress.sources
        if (scores := logprobs(candidate)) is not None:
            choices.append({**_choice(index, {}), "logprobs": scores})
        if (reason := finish(candidate, progress.calls)) is not None:
            progress.ended = True
            if progress.sources:
                choices.append(_choice(index, {"annotations": cited(progress.sources, "".join(progress.said))}))
            choices.append(_choice(index, {}, reason=reason))
        return choices


def _choice(index: int, delta: JSON, *, reason: str | None = None) -> JSON:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def _parsed(data: bytes) -> JSON:
    try:
        value: Any = loads_of_backend(data)
    except ValueError:
        raise AttemptFailed("broken", "the backend's answer is not JSON") from None
    check(value)
    return dict(value)
