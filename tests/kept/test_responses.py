"""Responses that are kept: found at once, by their tenant, as conversations; and no answer waits for any of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from gateway.call import JSON
from gateway.config.model import Responses
from gateway.dialects import responses
from gateway.errors import InvalidValue, NotFound, PreviousNotFound, RequestTooLarge, StoreUnavailable
from gateway.kept.responses import MAX_WAITING_BYTES, KeptResponses
from tests.charging.fakes import FakeClock

MANY = 20_000_000
DAY_MS = 86_400_000
ITEMS: TypeAdapter[ResponseItem] = TypeAdapter(ResponseItem)


class Shelf:
    """What the server does around the store."""

    def __init__(self, path: Path, settings: Responses) -> None:
        self.clock = FakeClock()
        self.counted: Counter[str] = Counter()
        self.path = path
        self.kept = KeptResponses(str(path), settings, self.clock, lambda outcome: self.counted.update([outcome]))
        self.made = 0

    async def say(self, said: Any, tenant: str = "one", **fields: Any) -> JSON:
        """A call: `chat` beside its response is what the backend was asked."""
        original = {"model": "m", "input": said, **fields}
        whole, own = await self.kept.resolve(tenant, original, MANY)
        self.chat, beyond = responses.body(whole)
        assert beyond == ()
        self.made += 1
        message = {"role": "assistant", "content": f"answer {self.made}"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        response = responses.answer({"id": f"chatcmpl-x-{self.made}", "created": 1, "choices": choices}, original)
        self.kept.keep(tenant, original, own, response)
        return response

    async def written(self) -> None:
        while self.kept._writing is not None:
            await asyncio.sleep(0.001)

    @property
    def talk(self) -> list[tuple[str, str]]:
        return [(message["role"], message["content"]) for message in self.chat["messages"]]


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    made = Shelf(tmp_path / "kept", Responses())
    yield made
    await made.kept.aclose()


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_conversation_goes_on(shelf: Shelf, at_once: bool) -> None:
    first = await shelf.say("one?", instructions="be kind")
    if not at_once:
        await shelf.written()
    second = await shelf.say([{"role": "user", "content": "two?"}], previous_response_id=first["id"])
    if not at_once:
        await shelf.written()
    third = await shelf.say("three?", previous_response_id=second["id"], instructions="be brief")
    assert shelf.talk == [
        ("system", "be brief"),
        ("user", "one?"),
        ("assistant", "answer 1"),
        ("user", "two?"),
        ("assistant", "answer 2"),
        ("user", "three?"),
    ]
    assert third["previous_response_id"] == second["id"]
    assert await shelf.kept.find("one", third["id"]) == third


async def test_a_conversation_goes_on_after_a_restart(tmp_path: Path) -> None:
    before = Shelf(tmp_path / "kept", Responses())
    first = await before.say("one?")
    await before.kept.aclose()
    assert before.counted == {"kept": 1}
    after = Shelf(tmp_path / "kept", Responses())
    await after.say("two?", previous_response_id=first["id"])
    assert after.talk == [("user", "one?"), ("assistant", "answer 1"), ("user", "two?")]
    await after.kept.aclose()


@pytest.mark.parametrize("at_once", [True, False])
async def test_another_tenant_finds_nothing(shelf: Shelf, at_once: bool) -> None:
    first = await shelf.say("a secret")
    if not at_once:
        await shelf.written()
    with pytest.raises(PreviousNotFound) as refused:
        await shelf.say("go on", tenant="two", previous_response_id=first["id"])
    error = refused.value.body()["error"]
    assert (refused.value.status, error["code"], error["param"]) == (
        400,
        "previous_response_not_found",
        "previous_response_id",
    )
    item = first["output"][0]["id"]
    with pytest.raises(InvalidValue, match="not found"):
        await shelf.say([{"type": "item_reference", "id": item}], tenant="two")
    for ask in (shelf.kept.find, shelf.kept.forget):
        with pytest.raises(NotFound, match="not found"):
            await ask("two", first["id"])
    with pytest.raises(NotFound):
        await shelf.kept.input_items("two", first["id"], {}, MANY)
    assert await shelf.kept.find("one", first["id"]) == first


async def test_store_false_keeps_nothing(shelf: Shelf) -> None:
    first = await shelf.say("one?", store=False)
    await shelf.written()
    with pytest.raises(NotFound):
        await shelf.kept.find("one", first["id"])
    with pytest.raises(PreviousNotFound):
        await shelf.say("two?", previous_response_id=first["id"])
    assert not shelf.counted
    assert not shelf.path.exists() or shelf.kept.on_disk == 0


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_response_is_deleted(shelf: Shelf, at_once: bool) -> None:
    first = await shelf.say("one?")
    second = await shelf.say("two?", previous_response_id=first["id"])
    if not at_once:
        await shelf.written()
    assert await shelf.kept.forget("one", first["id"]) == {"id": first["id"], "object": "response", "deleted": True}
    await shelf.written()
    with pytest.raises(NotFound):
        await shelf.kept.find("one", first["id"])
    with pytest.raises(NotFound):
        await shelf.kept.forget("one", first["id"])
    with pytest.raises(PreviousNotFound):  # a conversation with a hole is none
        await shelf.say("three?", previous_response_id=second["id"])


async def test_references_stand_for_items(shelf: Shelf) -> None:
    first = await shelf.say([{"role": "user", "content": "one?"}])
    await shelf.written()
    listed = await shelf.kept.input_items("one", first["id"], {}, MANY)
    asked, answered = listed["data"][0]["id"], first["output"][0]["id"]
    reference = {"type": "item_reference", "id": asked}
    second = await shelf.say([reference, {"id": answered}, {"role": "user", "content": "so?"}])
    assert shelf.talk == [("user", "one?"), ("assistant", "answer 1"), ("user", "so?")]
    await shelf.kept.forget("one", first["id"])
    await shelf.say("more?", previous_response_id=second["id"])  # what was meant is kept, not that it was meant
    assert shelf.talk[:3] == [("user", "one?"), ("assistant", "answer 1"), ("user", "so?")]
    for nothing in ("msg_x-99_0", "nonsense", ""):
        with pytest.raises(InvalidValue) as refused:
            await shelf.say([{"type": "item_reference", "id": nothing}])
        assert refused.value.param == "input[0].id"


async def test_input_items_are_listed_in_pages(shelf: Shelf) -> None:
    image = {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"}
    first = await shelf.say("one?")
    content = [{"type": "input_text", "text": "two?"}, image]
    second = await shelf.say([{"role": "user", "content": content}], previous_response_id=first["id"])
    items = shelf.kept.input_items
    whole = await items("one", second["id"], {"order": "asc"}, MANY)
    assert [item["content"][0]["text"] for item in whole["data"]] == ["one?", "answer 1", "two?"]
    assert (whole["object"], whole["has_more"]) == ("list", False)
    assert (whole["first_id"], whole["last_id"]) == (whole["data"][0]["id"], whole["data"][-1]["id"])
    for item in whole["data"]:
        ITEMS.validate_python(item)
    newest = await items("one", second["id"], {"limit": "2"}, MANY)
    assert newest["data"] == whole["data"][:0:-1]
    assert newest["has_more"]
    rest = await items("one", second["id"], {"limit": "2", "after": newest["last_id"]}, MANY)
    assert (rest["data"], rest["has_more"]) == (whole["data"][:1], False)
    for query in ({"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"order": "up"}, {"after": "msg_9"}):
        with pytest.raises(InvalidValue) as refused:
            await items("one", second["id"], query, MANY)
        assert refused.value.param in query


async def test_tools_go_on_by_id(shelf: Shelf) -> None:
    original = {"model": "m", "input": "weather?"}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    thought = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
    message = {"role": "assistant", "content": None, "tool_calls": [call], "thinking_blocks": thought}
    value = {"id": "chatcmpl-t", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    _, own = await shelf.kept.resolve("one", original, MANY)
    shelf.kept.keep("one", original, own, responses.answer(value, original))
    output = {"type": "function_call_output", "call_id": "c1", "output": "sun"}
    await shelf.say([output], previous_response_id="resp_t")
    assert shelf.chat["messages"] == [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "thinking_blocks": thought,
            "tool_calls": [call],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
    ]


async def test_a_conversation_beyond_the_largest_body_is_refused(shelf: Shelf) -> None:
    first = await shelf.say("x" * 1_000)
    for _ in range(2):
        with pytest.raises(RequestTooLarge):
            await shelf.kept.resolve("one", {"input": "hi", "previous_response_id": first["id"]}, 1_500)
        reference = [{"type": "item_reference", "id": first["output"][0]["id"]}]
        with pytest.raises(RequestTooLarge):
            await shelf.kept.resolve("one", {"input": reference}, 1_500)
        await shelf.written()


@pytest.mark.parametrize("bad", [7, ["resp_1"], {}])
async def test_an_id_is_a_text(shelf: Shelf, bad: Any) -> None:
    with pytest.raises(InvalidValue) as refused:
        await shelf.say("hi", previous_response_id=bad)
    assert refused.value.param == "previous_response_id"


async def test_items_with_odd_ids_are_kept_under_ours(shelf: Shelf) -> None:
    ids: list[Any] = [[], {}, 7, ""]
    odd = [{"role": "user", "content": "hi", "id": given} for given in ids]
    first = await shelf.say(odd)
    listed = await shelf.kept.input_items("one", first["id"], {"order": "asc"}, MANY)
    assert [item["id"] for item in listed["data"]] == [f"msg_x-1_i{place}" for place in range(4)]


async def test_time_and_closing_let_responses_go(shelf: Shelf) -> None:
    old = await shelf.say("old?")
    used = await shelf.say("used?")
    gone = await shelf.say("gone?", tenant="two")
    shelf.clock.advance(20 * DAY_MS)
    latest = await shelf.say("used again?", previous_response_id=used["id"])
    await shelf.written()
    shelf.clock.advance(11 * DAY_MS)
    await shelf.kept.sweep(lambda tenant: tenant == "two")
    for tenant, response in (("one", old), ("two", gone)):
        with pytest.raises(NotFound):
            await shelf.kept.find(tenant, response["id"])
    await shelf.say("still?", previous_response_id=latest["id"])
    assert [text for _, text in shelf.talk[:2]] == ["used?", "answer 2"]


async def test_a_closed_tenant_is_forgotten_before_its_time(shelf: Shelf) -> None:
    kept, gone = await shelf.say("a"), await shelf.say("b", tenant="two")
    await shelf.written()
    await shelf.kept.sweep(lambda tenant: tenant == "two")
    assert await shelf.kept.find("one", kept["id"]) == kept
    with pytest.raises(NotFound):
        await shelf.kept.find("two", gone["id"])


async def test_a_disk_that_takes_nothing_is_no_error_of_a_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf(tmp_path / "no folder" / "kept", Responses())
    first = await shelf.say("one?")
    await shelf.written()
    await shelf.say("again?")
    await shelf.written()
    assert shelf.counted == {"failed": 2}
    assert len(caplog.records) == 1
    with pytest.raises(StoreUnavailable):  # nobody can tell whether it is there
        await shelf.kept.find("one", first["id"])
    await shelf.kept.sweep(lambda tenant: False)  # turns nothing red
    (tmp_path / "no folder").mkdir()
    second = await shelf.say("two?")
    await shelf.written()
    assert shelf.counted == {"failed": 2, "kept": 1}
    assert await shelf.kept.find("one", second["id"]) == second
    await shelf.kept.aclose()


async def test_a_response_of_no_known_shape_fails_nothing(shelf: Shelf) -> None:
    shelf.kept.keep("one", {}, [], {"no": "id"})
    shelf.kept.keep("one", {}, [{"role": "user"}], {"id": "resp_1"})
    assert shelf.counted == {"failed": 2}


async def test_what_waits_is_bounded(shelf: Shelf) -> None:
    third = "x" * (MAX_WAITING_BYTES // 3)
    for _ in range(3):
        await shelf.say(third)
    assert shelf.counted["busy"] == 1
    await shelf.written()
    assert shelf.counted == {"busy": 1, "kept": 2}
    await shelf.say(third)
    await shelf.written()
    assert shelf.counted == {"busy": 1, "kept": 3}


async def test_a_response_is_kept_once(shelf: Shelf) -> None:
    """A cache gives the same answer again."""
    first = await shelf.say("one?")
    shelf.kept.keep("one", {"input": "one?"}, [{"role": "user", "content": "one?"}], first)
    await shelf.written()
    shelf.kept.keep("one", {"input": "one?"}, [{"role": "user", "content": "one?"}], first)
    await shelf.written()
    assert shelf.counted == {"kept": 1, "known": 2}


async def test_a_request_that_refers_to_nothing_is_left_as_it_is(shelf: Shelf) -> None:
    original = {"model": "m", "input": [{"role": "user", "content": "hi"}]}
    whole, own = await shelf.kept.resolve("one", original, MANY)
    assert whole is original
    assert own is original["input"]
    wrong = {"model": "m", "input": 7, "previous_response_id": "resp_1"}
    whole, _ = await shelf.kept.resolve("one", wrong, MANY)
    with pytest.raises(InvalidValue) as refused:
        responses.body(whole)
    assert refused.value.param == "input"
