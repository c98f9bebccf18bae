"""Rerank end to end: answered, charged, cached, refused."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.call import Request
from gateway.demo.scripted import Reply, refusal
from gateway.errors import InvalidValue
from gateway.parse import parse_call
from tests.conftest import World
from tests.endpoints.conftest import Post
from tests.test_spine import settled

ASKED = {
    "model": "judge",
    "query": "capital of France",
    "documents": ["Berlin is in Germany.", {"text": "Paris, capital of France"}, "the sea"],
}


async def test_the_backend_is_asked_by_its_name_and_the_answer_is_charged_what_it_reported(
    world: World, post: Post
) -> None:
    async with post("rerank", **ASKED, top_n=2, return_documents=True) as answer:
        body = await answer.json()
    assert answer.status == 200
    assert [result["index"] for result in body["results"]] == [1, 0]
    assert body["results"][0]["document"]["text"] == "Paris, capital of France"
    [seen] = [*world.a.requests, *world.b.requests]
    assert seen.path == "/v1/rerank"
    assert seen.body == {**ASKED, "model": "judge-v2", "top_n": 2, "return_documents": True}
    [record] = await world.charges()
    tokens = body["usage"]["total_tokens"]
    assert record["usage"] == {"input": tokens, "calls": 1}
    assert record["endpoint"] == "rerank"
    assert float(record["charged"]) == 2 * tokens
    assert float(answer.headers["x-moma-credits"]) == 2 * tokens


async def test_usage_that_is_not_reported_counts_the_query_with_each_document(world: World, post: Post) -> None:
    for backend in (world.a, world.b):
        backend.script([Reply(body={"results": [{"index": 0, "relevance_score": 0.5}]})])
    async with post("rerank", model="judge", query="one two three", documents=["four five", "six"]) as answer:
        assert answer.status == 200
    [record] = await world.charges()
    assert record["usage"] == {"input": 2 * 3 + 2 + 1 + 1, "calls": 1}  # and the line feed between the documents
    assert record["usage_source"] == "estimated"


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": 0, "total_tokens": 815}, {"prompt_tokens": 815, "completion_tokens": 0}]
)
async def test_usage_in_the_words_of_others(world: World, post: Post, usage: dict[str, int]) -> None:
    for backend in (world.a, world.b):
        backend.script([Reply(body={"results": [], "usage": usage})])
    async with post("rerank", **ASKED) as answer:
        assert answer.status == 200
    [record] = await world.charges()
    assert record["usage"] == {"input": 815, "calls": 1}


async def test_a_lie_about_usage_is_cut(world: World, post: Post) -> None:
    lie = Reply(body={"results": [], "usage": {"total_tokens": 10**9}})
    world.a.script([lie])
    world.b.script([lie])
    async with post("rerank", **ASKED) as answer:
        assert answer.status == 200
    [record] = await world.charges()
    assert record["usage"]["input"] == 3 * 4000 * 1.25
    assert "bad_usage" in record["flags"]


async def test_another_backend_answers_when_the_first_fails(world: World, post: Post) -> None:
    world.a.script(lambda _: refusal(503))
    for _ in range(4):
        async with post("rerank", **ASKED) as answer:
            assert answer.status == 200
            assert answer.headers["x-moma-backend"] == "b"
    await settled(world)


async def test_the_same_call_is_answered_from_the_cache_at_its_share(world: World, post: Post) -> None:
    answers = []
    for _ in range(2):
        async with post("rerank", **{**ASKED, "model": "sure"}) as answer:
            answers.append((answer.headers["x-moma-cache"], await answer.json()))
    assert [result for result, _ in answers] == ["miss", "hit"]
    assert answers[0][1] == answers[1][1]
    first, second = await world.charges()
    assert float(second["charged"]) == float(first["charged"]) / 2
    async with post("rerank", **{**ASKED, "model": "sure", "top_n": 1}) as answer:
        assert answer.headers["x-moma-cache"] == "miss"


async def test_an_idempotency_key_charges_once(world: World, post: Post) -> None:
    for _ in range(2):
        async with post("rerank", headers={"Idempotency-Key": "k"}, **ASKED) as answer:
            assert answer.status == 200
    assert answer.headers["x-moma-replayed"] == "true"
    assert len(await world.charges()) == 1


async def test_a_model_that_does_not_rerank_is_refused(post: Post) -> None:
    async with post("rerank", **{**ASKED, "model": "talker"}) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "model"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"query": ""}, "query"),
    ({"query": ["a"]}, "query"),
    ({"query": "a" * 100_001}, "query"),
    ({"documents": []}, "documents"),
    ({"documents": "a"}, "documents"),
    ({"documents": ["a"] * 2049}, "documents"),
    ({"documents": ["a", 7]}, "documents[1]"),
    ({"documents": [{"title": "a"}]}, "documents[0]"),
    ({"top_n": 0}, "top_n"),
    ({"top_n": True}, "top_n"),
    ({"return_documents": "yes"}, "return_documents"),
]


@pytest.mark.parametrize(("fields", "param"), BAD)
async def test_bad_fields_are_named(post: Post, fields: dict[str, Any], param: str) -> None:
    async with post("rerank", **{**ASKED, **fields}) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "invalid_value", param)


def test_the_bound_counts_the_query_with_each_document() -> None:
    body = b'{"model":"m","query":"12345","documents":["a","bc","\xc3\xa9"]}'
    call = parse_call(Request("r", "rerank", {}, body))
    assert call.input_bound == 3 * 5 + 1 + 2 + 2 + 3 * 32
    assert call.choices == 3
    assert call.work is not None
    assert call.work.longest == 7


def test_a_document_that_is_no_text_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(InvalidValue):
        parse_call(Request("r", "rerank", {}, b'{"model":"m","query":"q","documents":[null]}'))
