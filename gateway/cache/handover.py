"""What a flight leaves behind, and how an answer is handed to who asked for it: as JSON or as a stream."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson

from gateway.adapters.chunks import expected_choices
from gateway.cache.answers import assembled, finished, replayed
from gateway.cache.flight import Flight
from gateway.cache.store import Entry
from gateway.call import JSON, Call
from gateway.dialects.chat import DONE
from gateway.dialects.known import DIALECTS

LONG_STREAM_BYTES: Final = 64 * 1024  # putting more together takes milliseconds: beside the event loop
REPORTED: Final = frozenset({"zero_usage"})  # flags of usage that can be taken at its word


async def whole_answer(flight: Flight, route: str, now: float) -> tuple[Entry | None, bool]:
    """The answer of a flight that ended well, if it can be put together; and whether it may be given again."""
    facts, call = flight.facts(), flight.call
    if facts.usage is None:
        return None, False
    body, answer = await _body(flight, facts.usage_json)
    if answer is None:
        return None, False
    entry = Entry(flight.tenant, route, facts.model, facts.backend, body, facts.usage, now)
    reported = facts.usage.source == "reported" and REPORTED.issuperset(facts.usage.flags)
    return entry, flight.kept and reported and _finished(answer, call)


def _finished(answer: JSON, call: Call) -> bool:
    if call.dialect:
        return DIALECTS[call.dialect].finished(answer)
    return finished(answer, call.endpoint, expected_choices(call))


async def _body(flight: Flight, usage: Any) -> tuple[bytes, Any]:
    if flight.answer is not None:
        return flight.answer.body, orjson.loads(flight.answer.body)
    if not flight.whole:
        return b"", None
    stream, call = flight.raw(), flight.call

    def put_together() -> JSON | None:
        return DIALECTS[call.dialect].whole(stream) if call.dialect else assembled(stream, usage, call.endpoint)

    answer = await asyncio.to_thread(put_together) if len(stream) > LONG_STREAM_BYTES else put_together()
    return (b"" if answer is None else orjson.dumps(answer)), answer


def as_asked(entry: Entry, call: Call) -> bytes | None:
    """The body, or the stream that it stands for; None when it has no shape that is known."""
    if not call.stream:
        return entry.body
    if call.dialect:
        return DIALECTS[call.dialect].replay(orjson.loads(entry.body))
    return replayed(orjson.loads(entry.body), call.endpoint, wants_usage=call.wants_usage)


def stream_end(flight: Flight, call: Call) -> bytes:
    """The end of a stream that is whole, with the usage chunk for whoever asked for it."""
    if not call.wants_usage:
        return flight.last
    return flight.last.removesuffix(DONE) + flight.facts().usage_event + DONE
