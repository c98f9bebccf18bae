"""A backend with the abilities that a test gives it: what it cannot do it refuses, or answers without."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from gateway.demo.backend import DONE, event
from gateway.demo.scripted import Reply, Seen, refusal

MODELS = ("acme-large", "acme-small")


@dataclass
class Able:
    """`refused` are fields, or field=value, that it answers with 400; `ignored` are without effect on its answer."""

    refused: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    usage: bool = True
    stream_usage: bool = True
    listed: Any = field(default_factory=lambda: {"object": "list", "data": [{"id": name} for name in MODELS]})
    too_long: str | None = None  # what it says of a limit beyond 10,000
    least: int = 0  # a lower limit is refused, as by a model that thinks first
    key: str | None = None

    def __call__(self, seen: Seen) -> Reply:
        if self.key is not None and seen.headers.get("authorization") != f"Bearer {self.key}":
            return refusal(401, f"Incorrect key: {seen.headers.get('authorization')}", "invalid_api_key")
        if seen.path.endswith("/models"):
            return Reply(body=self.listed) if self.listed is not None else refusal(404, "no list")
        return self._refusal(seen.body) or self._answer(seen.body)

    def _refusal(self, body: dict[str, Any]) -> Reply | None:
        asked = {
            *body,
            *(f"tool_choice={body['tool_choice']}" for _ in [0] if isinstance(body.get("tool_choice"), str)),
        }
        asked |= {str(body.get("response_format", {}).get("type"))}
        asked |= {"image_url"} if isinstance(body["messages"][0]["content"], list) else set()
        for name in self.refused:
            if name in asked:
                return refusal(400, f"Unsupported parameter: '{name}'", "unsupported_parameter")
        limit = body.get("max_tokens", body.get("max_completion_tokens", 0))
        if limit < self.least:
            return refusal(400, "Could not finish the message because max_tokens or model output limit was reached.")
        return refusal(400, self.too_long) if self.too_long and limit > 10_000 else None

    def _answer(self, body: dict[str, Any]) -> Reply:
        asked = body.get("max_tokens", body.get("max_completion_tokens", 20))
        tokens = 20 if "max_tokens" in self.ignored else min(20, asked)
        message, finish = self._message(body), "length" if tokens < 20 else "stop"
        usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
        if body.get("stream"):
            return Reply(stream=list(self._events(body, usage, finish)))
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": self._logprobs(body)}
        return Reply(
            body={"object": "chat.completion", "choices": [choice], **({"usage": usage} if self.usage else {})}
        )

    def _events(self, body: dict[str, Any], usage: dict[str, int], finish: str) -> list[bytes]:
        parts = [("one", None), (" two", finish)]
        choices = [{"index": 0, "delta": {"content": text}, "finish_reason": end} for text, end in parts]
        said = "stream_options" in body and self.stream_usage
        last = [event({"choices": [], "usage": usage})] if said else []
        return [*(event({"choices": [choice]}) for choice in choices), *last, DONE]

    def _message(self, body: dict[str, Any]) -> dict[str, Any]:
        content = body["messages"][0]["content"]
        if body.get("tools") and "tools" not in self.ignored:
            call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
            return {"role": "assistant", "content": None, "tool_calls": [call]}
        wanted = body.get("response_format", {}).get("type")
        if wanted and wanted not in self.ignored:
            return {"role": "assistant", "content": json.dumps({"colour": "red"})}
        if isinstance(content, list):
            return {"role": "assistant", "content": "It is grey." if "image_url" in self.ignored else "Red."}
        return {"role": "assistant", "content": "one two three"}

    def _logprobs(self, body: dict[str, Any]) -> Any:
        shown = body.get("logprobs") and "logprobs" not in self.ignored
        return {"content": [{"token": "one", "logprob": -0.1, "top_logprobs": []}]} if shown else None
