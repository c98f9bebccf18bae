"""What a review found that was charged too much, too little or not at all; each failed before its fix."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from gateway.config.model import Limits, Plan, PlanGrant
from gateway.errors import GatewayError
from gateway.tokens import LONG_TEXT_CHARS, Tokenizer
from tests.stage import Open, Stage
from tests.virtual import FOREVER, OK, ROLE, WORD, ListSink, Said, drive, refused, whole


async def leave_after(stage: Stage, seconds: float, **body: Any) -> list[dict[str, Any]]:
    """A client that goes away then; the charge records."""

    async def client() -> None:
        task = asyncio.ensure_future(stage.handle(ListSink(), **body))
        await stage.clock.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await drive(stage.clock, client(), busy=stage.busy)
    return await stage.durable()


ODD: list[dict[str, Any]] = [{"messages": 5}, {"messages": [5]}, {"messages": {"a": 1}}, {"input": {"b": [1]}}]


@pytest.mark.parametrize("odd", ODD)
async def test_a_field_of_another_endpoint_frees_nobody(opened: Open, odd: dict[str, Any]) -> None:
    script = [Said(pieces=[ROLE, WORD, WORD, FOREVER])]
    stage = opened(script, plan=Plan("p", (PlanGrant(1_000_000_000_000),), Limits(concurrency=1)))
    [record] = await leave_after(stage, 5.0, endpoint="completions", prompt="x", stream=True, **odd)
    assert (record["status"], record["flags"]) == ("settled", ["estimated", "partial"])
    assert float(record["charged"]) > 0
    assert stage.ledger.open_holds == 0
    assert stage.gates.of("t", stage.plan.limits).in_flight == 0


async def test_the_permit_comes_back_whatever_fails_at_the_end(opened: Open) -> None:
    class Failing(Tokenizer):
        def count_now(self, text: str) -> int:
            raise RuntimeError("a fault that nobody foresaw")

    stage = opened([Said(pieces=[ROLE, WORD, FOREVER])], tokenizer=Failing())
    [record] = await leave_after(stage, 5.0, stream=True)
    assert record["status"] == "voided"
    assert stage.ledger.open_holds == 0
    assert stage.gates.of("t", stage.plan.limits).in_flight == 0


async def test_who_leaves_after_a_key_was_changed_pays(opened: Open) -> None:
    stage = opened([refused(401), Said(before=FOREVER)], keys=("one", "two"))
    [record] = await leave_after(stage, 5.0)
    assert (record["status"], record["flags"]) == ("settled", ["estimated", "partial"])


async def test_who_leaves_while_the_gateway_connects_pays_nothing(opened: Open) -> None:
    stage = opened([Said(connecting=FOREVER)])
    assert await leave_after(stage, 1.0) == []
    assert stage.ledger.open_holds == 0


async def test_who_leaves_between_two_backends_pays_nothing(opened: Open) -> None:
    stage = opened([refused(503), Said(connecting=FOREVER)])
    [record] = await leave_after(stage, 1.0, model="both")
    assert (record["status"], record["charged"]) == ("voided", "0")


async def test_a_refusal_that_used_something_is_charged(opened: Open) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    body = orjson.dumps({"error": {"message": "filtered", "code": "content_filter"}, "usage": usage})
    stage = opened([Said(400, [body])])
    sink = await stage.ask()
    assert sink.status == 400
    [record] = await stage.durable()
    assert (record["status"], record["usage"]) == ("settled", {"input": 10, "output": 5, "calls": 1})
    assert record["charged"] == "15"


async def test_a_batch_is_held_once_per_prompt(opened: Open) -> None:
    """Not once per pair of prompts: a batch must not be refused for what it cannot cost."""
    plan = Plan("p", (PlanGrant(10_000_000_000),))
    prompts = ["nine words that a person may well have written"] * 100
    answer = orjson.dumps({"choices": [{"text": "x"}], "usage": {"prompt_tokens": 900, "completion_tokens": 100}})
    stage = opened([Said(pieces=[answer])], plan=plan)
    sink = await stage.ask(endpoint="completions", prompt=prompts, max_tokens=5)
    assert sink.status == 200
    [record] = await stage.durable()
    assert float(record["reserved"]) < 100 * (60 + 5) + 100


async def test_an_answer_without_usage_to_a_long_prompt_is_counted_off_the_loop(opened: Open) -> None:
    class Threads(Tokenizer):
        on_loop = 0

        def count(self, text: str) -> int:
            try:
                asyncio.get_running_loop()
                self.on_loop = max(self.on_loop, len(text))
            except RuntimeError:
                pass
            return super().count(text)

    tokenizer = Threads()
    body = orjson.dumps({"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]})
    stage = opened([Said(pieces=[body])], tokenizer=tokenizer)
    tokenizer.load()
    long_text = "a b " * (LONG_TEXT_CHARS // 4 + 1)
    sink = ListSink()
    # The virtual clock waits for nobody: the thread gets its time here.
    await stage.handle(sink, model="huge", messages=[{"role": "user", "content": long_text}])
    assert sink.status == 200
    assert tokenizer.on_loop <= LONG_TEXT_CHARS
    [record] = await stage.durable()
    assert "estimated" in record["flags"]


async def test_a_long_prompt_that_is_left_is_estimated(opened: Open) -> None:
    stage = opened([Said(before=FOREVER)])
    long_text = "a b " * (LONG_TEXT_CHARS // 4 + 1)
    [record] = await leave_after(stage, 1.0, model="huge", messages=[{"role": "user", "content": long_text}])
    assert record["flags"] == ["estimated", "partial"]
    assert record["usage"]["input"] > len(long_text) // 4


async def test_an_image_counts_when_nobody_says_what_it_came_to(opened: Open) -> None:
    body = orjson.dumps({"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    stage = opened([Said(pieces=[body])])
    await stage.ask(messages=[{"role": "user", "content": [image]}])
    [record] = await stage.durable()
    assert record["usage"]["input"] >= 2048


@pytest.mark.parametrize("name", ["max_output_tokens", "max_new_tokens", "n_predict"])
async def test_the_output_limit_has_no_other_name_to_come_past(opened: Open, name: str) -> None:
    stage = opened([OK])
    asked: dict[str, Any] = {name: 200}
    sink = await stage.ask(max_tokens=5, **asked)
    assert sink.status == 200
    assert stage.client.sent[0].body["max_tokens"] == stage.client.sent[0].body[name] == 5
    asked[name] = -1  # without a limit, some backends would say
    assert (await opened([]).ask(**asked)).json["error"]["param"] == name


async def test_more_choices_by_another_name_are_held(opened: Open) -> None:
    stage = opened([OK, OK])
    await stage.ask(max_tokens=100)
    await stage.ask(max_tokens=100, n_cmpl=4)
    one, four = await stage.durable()
    assert float(four["reserved"]) >= float(one["reserved"]) + 300


async def test_a_lowered_limit_is_said_whatever_lowered_it(opened: Open) -> None:
    stage = opened([OK, OK])
    assert (await stage.ask(max_tokens=50_000)).headers["x-moma-max-tokens"] == "1024"
    assert "x-moma-max-tokens" not in (await stage.ask(max_tokens=10)).headers


async def test_each_target_is_asked_for_what_it_has_room_for(opened: Open) -> None:
    stage = opened([refused(503), OK])
    text = "word " * 280  # some 350 tokens of the 500 that `tiny` has
    await stage.ask(model="tiny_or_m", messages=[{"role": "user", "content": text}], max_tokens=1000)
    first, second = (sent.body["max_tokens"] for sent in stage.client.sent)
    assert first < 500 - 280
    assert second == 1000


async def test_a_zero_usage_costs_nothing_even_where_calls_do(opened: Open) -> None:
    answer = orjson.loads(whole()) | {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}
    stage = opened([Said(pieces=[orjson.dumps(answer)])])
    await stage.ask(model="per_call")
    [record] = await stage.durable()
    assert (record["charged"], record["flags"]) == ("0", ["zero_usage"])


async def test_refused_and_failed_calls_give_their_tokens_back(opened: Open) -> None:
    plan = Plan("p", (PlanGrant(1_000_000_000_000),), Limits(tpm=5000))
    stage = opened([refused(400), refused(503), refused(503), refused(503)], plan=plan)
    words = [{"role": "user", "content": "word " * 400}]
    for model in ("m", "m", "nothing_of_that_name"):
        assert (await stage.ask(model=model, messages=words)).status >= 400
    gate = stage.gates.of("t", plan.limits)
    assert gate.tpm is not None
    assert gate.tpm.left > 4900


async def test_a_lie_does_not_use_up_the_rate(opened: Open) -> None:
    plan = Plan("p", (PlanGrant(1_000_000_000_000),), Limits(tpm=5000))
    answer = orjson.loads(whole()) | {"usage": {"prompt_tokens": 2**63, "completion_tokens": 2**63}}
    stage = opened([Said(pieces=[orjson.dumps(answer)])], plan=plan)
    await stage.ask()
    gate = stage.gates.of("t", plan.limits)
    assert gate.tpm is not None
    assert gate.tpm.left > 4900


async def test_what_a_tenant_has_left_is_not_shown_while_the_store_is_away(opened: Open) -> None:
    stage = opened([OK])
    await stage.ask()
    stage.ledger._broken = True
    with pytest.raises(GatewayError) as caught:
        stage.pipeline.usage(stage.caller)
    stage.ledger._broken = False
    assert caught.value.code == "store_unavailable"
