"""Each value of a full body gives way to something hostile, for each kind of backend, whole and as a stream."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Iterator

import pytest

from tests.conftest import World
from tests.fuzzed.bodies import BODIES, JSON, ONLY_PLAIN, VALUES, places, replaced
from tests.fuzzed.books import balanced
from tests.fuzzed.conftest import KINDS
from tests.fuzzing import SEED, SHORT_AND_LONG

SHARE = (0.07, 1.0)  # of the requests; the second for test-long
AT_ONCE = 8
MOST_S = 3.0  # of which most is the wait for those beside it
HERE = "@here@"
DONE = rb"data: \[DONE\]\n\n\Z"
ENDS = {  # of a stream that is whole
    "chat/completions": DONE, "completions": DONE, "messages": rb'"type":"message_stop"}\n\n\Z',
    "responses": rb"event: response\.(completed|incomplete)\ndata: [^\n]+\n\n\Z",
    "images/generations": rb'"type": "image_generation.completed"', "audio/speech": rb'"type": "speech.audio.done"',
}  # fmt: skip
TRANSLATED = ("chat/completions", "messages", "responses")


def full(path: str, kind: str) -> JSON:
    own = ONLY_PLAIN.get(path, {}) if kind in ("plain", "azure") else {}
    return {"model": kind, **BODIES[path], **own}


def requests(share: float) -> Iterator[tuple[str, bytes]]:
    rng = random.Random(SEED)
    for path in BODIES:
        for kind in KINDS if path in TRANSLATED else KINDS[:1]:
            body = full(path, kind) | ({"stream": rng.random() < 0.5} if path != "embeddings" else {})
            yield path, json.dumps(body).encode()
            for other in BODIES.values():  # fields of another endpoint count for nothing, and cost nothing
                yield path, json.dumps({**other, **body}).encode()
            for place in places(body):
                for value in VALUES:
                    if rng.random() < share:
                        yield path, json.dumps(replaced(body, place, HERE)).replace(f'"{HERE}"', value).encode()


async def answered(world: World, path: str, body: bytes) -> tuple[int, str]:
    """The status, and what is wrong with the answer."""
    started = time.perf_counter()
    headers = {"content-type": "application/json"}
    async with world.http.post(f"{world.url}/v1/{path}", data=body, headers=headers) as answer:
        data = await answer.read()
    took_s = time.perf_counter() - started
    wrong = f"took {took_s:.1f} s" if took_s > MOST_S else ""
    if answer.status >= 500:
        wrong = data.decode()
    elif answer.status >= 400:
        error = json.loads(data)["error"]
        if not {"message", "type", "param", "code"} <= error.keys():
            wrong = data.decode()
    elif answer.content_type == "text/event-stream" and not re.search(ENDS[path], data):
        wrong = data.decode()
    return answer.status, wrong


async def test_full_bodies_are_taken_by_every_kind_of_backend(world: World) -> None:
    """Else what follows would test refusals."""
    for path in BODIES:
        for kind in KINDS if path in TRANSLATED else KINDS[:1]:
            assert await answered(world, path, json.dumps(full(path, kind)).encode()) == (200, "")


@pytest.mark.parametrize("long", SHORT_AND_LONG)
async def test_nothing_in_any_place_breaks_a_call(world: World, long: bool, caplog: pytest.LogCaptureFixture) -> None:
    waiting, found, statuses = requests(SHARE[long]), [], []

    async def work() -> None:
        for path, body in waiting:
            status, wrong = await answered(world, path, body)
            statuses.append((path, status))
            if wrong:
                found.append((path, status, wrong[:300], body[:3000]))

    await asyncio.gather(*[work() for _ in range(AT_ONCE)])
    counts = {one: statuses.count(one) for one in sorted(set(statuses))}
    print(counts)  # `pytest -rP` shows it
    assert not found, found[:20]
    assert {path for path, status in counts if status == 200} == set(BODIES), "there is something in each that is good"
    assert not caplog.records
    settled = [record for record in await balanced(world) if record["status"] == "settled"]
    assert len(settled) == sum(status == 200 for _, status in statuses), "each answer is charged, and nothing else"
    free = [record for record in settled if record["charged"] == "0"]
    assert all("zero_usage" in record["flags"] for record in free), "an empty text has no tokens"
