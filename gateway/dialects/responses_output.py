"""Chat chunks become a response: a stream says each event as it comes, a whole answer is the same in silence."""

from __future__ import annotations

from typing import Any

from gateway.call import JSON
from gateway.dialects.responses_items import FunctionCall, Message, Reasoning, Say
from gateway.dialects.responses_object import begun, ended, is_whole, stem_of, usage_of
from gateway.errors import AttemptFailed


class Output:
    """`response` is the object as far as it is known.

    State: that, what its ids have in common, the item that is open beside the calls, the calls by their index (open
    until the end, as backends may mix them), the items that have ended by their place, and why the answer ended.
    """

    def __init__(self, original: JSON, say: Say) -> None:
        self.response: JSON | None = None
        self._original = original
        self._say = say
        self._stem = ""
        self._open: Reasoning | Message | None = None
        self._calls: dict[int, FunctionCall] = {}
        self._ended: dict[int, JSON] = {}
        self._finish: str | None = None

    def feed(self, chunk: JSON) -> None:
        """Raises AttemptFailed("broken") for what is no chunk of chat."""
        try:
            if self.response is None:
                self._begin(chunk)
            for choice in chunk.get("choices") or ():
                if not choice.get("index"):  # this API has one choice
                    self._choice(choice)
        except (AttributeError, TypeError) as error:
            raise AttemptFailed("broken", "the backend sent no chunk of a chat") from error

    def end(self, usage: JSON | None) -> JSON:
        """The whole response; `usage` is chat's."""
        return self.close(usage_of(usage))

    def close(self, usage: JSON | None) -> JSON:
        if self.response is None:
            self._begin({})
        assert self.response is not None
        if is_whole(self._finish) and not self._calls and not isinstance(self._open, Message):
            self._message()  # an answer that says nothing is an empty text
        self._end_items()
        output = [self._ended[place] for place in sorted(self._ended)]
        self.response = ended(self.response, self._finish, output, usage)
        self._say(f"response.{self.response['status']}", {"response": self.response})
        return self.response

    def _begin(self, chunk: JSON) -> None:
        self._stem = stem_of(chunk.get("id"))
        told = chunk.get("created"), chunk.get("model"), chunk.get("service_tier")
        self.response = begun(self._original, self._stem, *told)
        self._say("response.created", {"response": self.response})
        self._say("response.in_progress", {"response": self.response})

    def _choice(self, choice: JSON) -> None:
        delta = choice.get("delta") or {}
        thought = _text(delta.get("reasoning_content") or delta.get("reasoning"))
        if thought:
            self._reasoning().add(thought)
        for block in delta.get("thinking_blocks") or ():
            self._reasoning().seal(block)
        self._said(delta, choice)
        for call in delta.get("tool_calls") or ():
            self._call(call)
        if choice.get("finish_reason") is not None:
            self._finish = choice["finish_reason"]
        if "x_moma" in choice and self.response is not None:
            self.response["x_moma"] = choice["x_moma"]

    def _said(self, delta: JSON, choice: JSON) -> None:
        text = _text(delta.get("content"))
        logprobs = (choice.get("logprobs") or {}).get("content") or ()
        if text or logprobs:
            self._message().add(text, logprobs)
        for annotation in delta.get("annotations") or ():
            self._message().annotate(annotation)
        refusal = _text(delta.get("refusal"))
        if refusal:
            self._message().refuse(refusal)

    def _call(self, delta: JSON) -> None:
        function = delta.get("function") or {}
        index = delta.get("index")
        if not isinstance(index, int):  # some backends send each call whole, and do not count them
            index = len(self._calls) if delta.get("id") or not self._calls else len(self._calls) - 1
        call, own_id = self._calls.get(index), _text(delta.get("id"))
        if call is not None and own_id and call.given_id not in ("", own_id):
            # Another id is another call: there are backends that give all of them one index.
            self._ended[call.place] = self._calls.pop(index).end("completed")
            call = None
        if call is None:
            self._end_open()
            place = self._place
            name = _text(function.get("name"))
            call = self._calls[index] = FunctionCall(self._say, place, self._stem, own_id, name)
        call.add(_text(function.get("arguments")))

    def _reasoning(self) -> Reasoning:
        if not isinstance(self._open, Reasoning):
            self._end_open()
            self._open = Reasoning(self._say, self._place, f"rs_{self._stem}_{self._place}")
        return self._open

    def _message(self) -> Message:
        if not isinstance(self._open, Message):
            self._end_open()
            self._open = Message(self._say, self._place, f"msg_{self._stem}_{self._place}")
            self._open.add("")
        return self._open

    @property
    def _place(self) -> int:
        return len(self._ended) + len(self._calls) + (self._open is not None)

    def _end_open(self) -> None:
        if self._open is not None:
            self._ended[self._open.place] = self._open.end("completed")
            self._open = None

    def _end_items(self) -> None:
        """The last item is what an answer that was cut is cut in."""
        items = sorted([*self._calls.values(), *([self._open] if self._open else ())], key=lambda item: item.place)
        for item in items:
            cut = item is items[-1] and not is_whole(self._finish)
            self._ended[item.place] = item.end("incomplete" if cut else "completed")
        self._calls, self._open = {}, None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise AttemptFailed("broken", "the backend sent something else where a text belongs")
    return value
