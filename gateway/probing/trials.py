"""Tiny calls that each find out one thing of a backend that speaks OpenAI's dialect."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final, TypeAlias

from gateway.probing.asker import Answer, Asker

YES, NO, UNCLEAR = "yes", "no", "unclear"
PATH: Final = "/chat/completions"
LIMIT: Final = 5  # tokens that are allowed where the answer would be longer
SHORT: Final = 256  # ... where a whole small answer is wanted, perhaps after some thinking
TOO_LONG: Final = 1_000_000_000  # tokens: no model writes so many, and most say what they write at most
ENOUGH_BYTES: Final = 1  # of the answer to a call that is cut as soon as it is answered
LONG_ANSWER: Final = "Count from 1 to 100 in words."
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_SCHEMA: Final = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
_JSON_QUESTION: Final = 'Choose a colour, red or blue. Answer in JSON as {"colour": ...}.'
# "maximum context length is 32768 tokens" (OpenAI, vLLM, SGLang, OpenRouter), "context size (4096 tokens)" (llama.cpp)
_CONTEXT: Final = re.compile(r"context (?:length|window|size)\D{0,40}?(\d{3,9})\b", re.IGNORECASE)
# "supports at most 16384 completion tokens" (OpenAI), "valid range of max_tokens is [1, 8192]" (DeepSeek),
# "Range of max_tokens should be [1, 8192]" (Bailian), "> 64000, which is the maximum" (Anthropic)
_OUTPUT: Final = re.compile(
    r"at most (\d{2,9})\b|\[\d+, ?(\d{2,9})\]|> (\d{2,9}), which is the maximum|less than or equal to `?(\d{2,9})\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Finding:
    """`facts` are what else it showed: quirks, limits."""

    verdict: str  # yes | no | unclear
    seen: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Talk:
    """What is asked of which model; `limit_field` is how it wants the output limited, `least` a low limit it takes."""

    asker: Asker
    model: str
    limit_field: str = "max_tokens"
    least: int = LIMIT

    async def ask(self, text: Any, limit: int = SHORT, until_bytes: int = 0, **options: Any) -> Answer:
        messages = [{"role": "user", "content": text}]
        body = {"model": self.model, "messages": messages, self.limit_field: limit, **options}
        return await (self.asker.post(PATH, body, until_bytes) if until_bytes else self.asker.post(PATH, body))

    def refused(self, answer: Answer) -> Finding:
        """A call that is wrong for the backend is a no; one that is lost, or fails, says nothing."""
        return Finding(NO if 400 <= answer.status < 500 and answer.status != 429 else UNCLEAR, self.asker.said(answer))


Trial: TypeAlias = Callable[[Talk], Coroutine[Any, Any, Finding]]


async def chat(asker: Asker, model: str) -> tuple[Finding, Talk]:
    """The first call: whether the model answers, how its output is limited, and whether it says its usage."""
    for limit_field, least in product(("max_tokens", "max_completion_tokens"), (LIMIT, SHORT)):
        talk = Talk(asker, model, limit_field, least)
        answer = await talk.ask(LONG_ANSWER, least)
        if not _about_the_limit(answer):
            break
    if not answer.ok:
        return talk.refused(answer), talk
    if _message(answer) is None:
        return Finding(NO, "what answers is no chat completion"), talk
    return Finding(YES, f"answers, {_usage_seen(answer)}", _limit_facts(talk, answer)), talk


def _about_the_limit(answer: Answer) -> bool:
    """The name of its field is refused, or it is too low for a model that thinks before it answers."""
    return answer.status in (400, 422) and b"max_" in answer.body


def _limit_facts(talk: Talk, answer: Answer) -> dict[str, Any]:
    """`limit` is None where the answer does not show whether it was kept."""
    used = _usage(answer).get("completion_tokens")
    kept = used <= talk.least if isinstance(used, int) else True if _finish(answer) == "length" else None
    return {"limit_field": talk.limit_field, "limit": kept, "usage": isinstance(used, int)}


async def stream(talk: Talk) -> Finding:
    answer = await talk.ask(LONG_ANSWER, talk.least, stream=True, stream_options={"include_usage": True})
    if answer.ok:
        return _streamed(answer, asked=True)
    refusal = talk.asker.said(answer)
    plain = await talk.ask(LONG_ANSWER, talk.least, stream=True)
    if not plain.ok:
        return talk.refused(plain)
    found = _streamed(plain, asked=False)
    return Finding(found.verdict, f"{found.seen}; stream_options is refused ({refusal})", found.facts)


def _streamed(answer: Answer, *, asked: bool) -> Finding:
    events = list(answer.events())
    chunks = [event for event in events if isinstance(event, dict) and event.get("choices")]
    if not chunks:
        return Finding(NO, "the answer is no stream of events")
    usage = [event for event in events if isinstance(event, dict) and isinstance(event.get("usage"), dict)]
    ends = "[DONE] at the end" if events[-1] == "[DONE]" else "no [DONE] at the end"
    seen = f"{len(chunks)} chunks, {ends}, {'usage' if usage else 'no usage'} in the stream"
    return Finding(YES, seen, {"stream_usage": bool(usage), "stream_options": asked})


async def tools(talk: Talk) -> Finding:
    """Forced, as a small model may not choose to; the ways to force differ."""
    question = "What is the weather in Paris? Use the tool."
    named = {"type": "function", "function": {"name": "weather"}}
    found = Finding(NO, "")
    for choice in (named, "required", "auto"):
        answer = await talk.ask(question, tools=[_TOOL], tool_choice=choice)
        found = _called(answer) if answer.ok else talk.refused(answer) if found.verdict == NO else found
        if found.verdict == YES:
            break
    return found


def _called(answer: Answer) -> Finding:
    calls = (_message(answer) or {}).get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return Finding(UNCLEAR, "tools are accepted, but the model called none")
    called = calls[0].get("function") if isinstance(calls[0], dict) else None
    arguments = _parsed(called.get("arguments")) if isinstance(called, dict) else None
    if not isinstance(arguments, dict):
        return Finding(UNCLEAR, "a call came, but its arguments are no JSON")
    return Finding(YES, f"a call with {'city' if 'city' in arguments else 'other arguments'}")


async def json_schema(talk: Talk) -> Finding:
    wanted = {"type": "json_schema", "json_schema": {"name": "choice", "strict": True, "schema": _SCHEMA}}
    # The question asks for something else: only who is held to the schema answers by it.
    answer = await talk.ask("Tell me a short story.", response_format=wanted)
    if not answer.ok:
        return talk.refused(answer)
    value = _parsed(_content(answer))
    if isinstance(value, dict) and value.get("colour") in ("red", "blue"):
        return Finding(YES, "the answer is held to the schema")
    if _finish(answer) == "length":
        return Finding(UNCLEAR, f"accepted, but the answer was longer than {SHORT} tokens")
    return Finding(NO, "accepted, but the answer does not keep the schema")


async def json_object(talk: Talk) -> Finding:
    answer = await talk.ask(_JSON_QUESTION, response_format={"type": "json_object"})
    if not answer.ok:
        return talk.refused(answer)
    if isinstance(_parsed(_content(answer)), dict):
        return Finding(YES, "the answer is an object")
    if _finish(answer) == "length":
        return Finding(UNCLEAR, f"accepted, but the answer was longer than {SHORT} tokens")
    return Finding(NO, "accepted, but the answer is no JSON object")


async def logprobs(talk: Talk) -> Finding:
    answer = await talk.ask("Say ok.", talk.least, logprobs=True, top_logprobs=1)
    if not answer.ok:
        return talk.refused(answer)
    said = _choice(answer).get("logprobs")
    if isinstance(said, dict) and said.get("content"):
        return Finding(YES, "each token has one")
    return Finding(NO, "accepted, but there are none")


async def vision(talk: Talk) -> Finding:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_red_png()}"}}
    question = {"type": "text", "text": "Which colour is this picture? Answer with one word."}
    answer = await talk.ask([question, picture])
    if not answer.ok:
        found = talk.refused(answer)
        # Who cannot read pictures often fails with a 5xx (llama.cpp), where all other calls were answered.
        return Finding(NO, found.seen) if answer.status in (500, 501) else found
    if "red" in _content(answer).lower():
        return Finding(YES, "a red picture was called red")
    return Finding(UNCLEAR, "a picture is accepted, but not seen to be red")


async def context(talk: Talk) -> Finding:
    """By what is said of a limit that is far too high. An answer to it is cut with its first byte."""
    answer = await talk.ask("Say ok.", TOO_LONG, ENOUGH_BYTES, stream=True)
    if answer.ok:
        return Finding(UNCLEAR, "any output limit is accepted; nothing is said of the context")
    text = answer.body.decode(errors="replace")
    found = {"context": _number(_CONTEXT, text), "max_output": _number(_OUTPUT, text)}
    facts = {name: number for name, number in found.items() if number}
    if not facts:
        return Finding(UNCLEAR, talk.asker.said(answer))
    return Finding(YES, ", ".join(f"{name} {number}" for name, number in facts.items()), facts)


TRIALS: Final[Mapping[str, Trial]] = {
    "stream": stream, "tools": tools, "json_schema": json_schema, "json_object": json_object, "logprobs": logprobs,
    "vision": vision, "context": context,
}  # fmt: skip


def _red_png(side: int = 64) -> str:
    """A square; some models refuse pictures of a few pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff\0\0" * side) * side)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return next((int(group) for group in found.groups() if group), None) if found else None


def _choice(answer: Answer) -> dict[str, Any]:
    body = answer.json
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _message(answer: Answer) -> dict[str, Any] | None:
    message = _choice(answer).get("message")
    return message if isinstance(message, dict) else None


def _content(answer: Answer) -> str:
    content = (_message(answer) or {}).get("content")
    return content if isinstance(content, str) else ""


def _finish(answer: Answer) -> Any:
    return _choice(answer).get("finish_reason")


def _usage(answer: Answer) -> dict[str, Any]:
    body = answer.json
    usage = body.get("usage") if isinstance(body, dict) else None
    return usage if isinstance(usage, dict) else {}


def _usage_seen(answer: Answer) -> str:
    used = [_usage(answer).get(name) for name in ("prompt_tokens", "completion_tokens")]
    if not all(isinstance(tokens, int) for tokens in used):
        return "but does not say its usage"
    return f"says {used[0]} tokens of input and {used[1]} of output"


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
