"""How long a first byte is waited for: an image, or a transcript of an hour, takes as long as a whole answer."""

from __future__ import annotations

import orjson
import pytest

from gateway.call import ENDPOINTS
from gateway.config.model import Retry, Timeout
from tests.stage import PLAN, Open
from tests.virtual import Said, backend, config, model

WORLD = config(
    [backend("a")], [model("m", "a", endpoints=frozenset(ENDPOINTS))], timeout=Timeout(3, 30, 30, 300),
    retry=Retry(1, 0.2, 5.0), plan=PLAN,
)  # fmt: skip
IMAGE = b"data: " + orjson.dumps({"type": "image_generation.completed", "b64_json": "AA"}) + b"\n\n"
EVENTS = {"content-type": "text/event-stream"}


async def test_an_image_may_take_its_time(opened: Open) -> None:
    stage = opened([Said(200, [IMAGE], EVENTS, before=120.0)], config=WORLD)
    sink = await stage.ask(endpoint="images", prompt="sea", stream=True)
    assert sink.body == IMAGE
    assert stage.clock.at == pytest.approx(120.0)
    [record] = await stage.durable()
    assert record["usage"] == {"images": 1, "calls": 1}


async def test_speech_begins_at_once_or_not(opened: Open) -> None:
    stage = opened([Said(200, [b"sound"], {"content-type": "audio/mpeg"}, before=120.0)], config=WORLD)
    sink = await stage.ask(endpoint="speech", input="hi", voice="v")
    assert sink.status == 504
    assert stage.clock.at == pytest.approx(30.0)
