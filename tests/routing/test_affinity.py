"""Whose next turn goes where the last one went."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.config.model import Plan
from gateway.routing.affinity import Affinity, conversation
from gateway.routing.breaker import FAILURES_IN_A_ROW
from gateway.routing.live import Live
from gateway.routing.router import Decision, Router
from tests.virtual import backend, call, config, model, route

SYSTEM = {"role": "system", "content": "You are helpful."}
ASK = {"role": "user", "content": "What is a fox?"}
SAID = {"role": "assistant", "content": "An animal."}
MORE = {"role": "user", "content": "And a dog?"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
FIRST, SECOND = [SYSTEM, ASK], [SYSTEM, ASK, SAID, MORE]


def key(headers: dict[str, str] | None = None, by: str = "prefix", tenant: str = "t", **body: Any) -> tuple[int, bool]:
    return conversation(call(headers, **{"messages": FIRST, **body}), tenant, "r", by)


def test_the_second_turn_is_of_the_conversation_of_the_first() -> None:
    assert key() == (key(messages=SECOND)[0], False)
    assert key(messages=SECOND)[1]
    assert key(messages=[SYSTEM, ASK, SAID, MORE, SAID, MORE]) == key(messages=SECOND)


def test_the_mark_for_a_cache_that_moves_with_the_turns_changes_nothing() -> None:
    marked = {
        "role": "user",
        "content": [{"type": "text", "text": ASK["content"], "cache_control": {"type": "ephemeral"}}],
    }
    assert key(messages=[SYSTEM, marked])[0] == key(messages=SECOND)[0]


@pytest.mark.parametrize(
    "other",
    [
        {"messages": [SYSTEM, MORE]},
        {"messages": [ASK]},
        {"messages": [{"role": "system", "content": "Be brief."}, ASK]},
        {"tools": TOOLS},
        {"messages": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "What is a dog?"}]}]},
    ],
)
def test_another_beginning_is_another_conversation(other: dict[str, Any]) -> None:
    assert key(**other)[0] != key()[0]


def test_of_long_texts_the_beginning_decides() -> None:
    long = {"role": "user", "content": "x" * 5000}
    assert key(messages=[long]) == key(messages=[{"role": "user", "content": "x" * 5000 + "y"}])


def test_the_tenant_is_part_of_it() -> None:
    assert key(tenant="t")[0] != key(tenant="u")[0]
    assert key({"x-session-id": "s"}, tenant="t")[0] != key({"x-session-id": "s"}, tenant="u")[0]


def test_a_session_or_a_user_names_it_from_the_first_turn_on() -> None:
    assert key({"x-session-id": "s"})[1]
    assert key({"x-session-id": "s"}) == key({"x-session-id": "s"}, messages=[MORE], user="v")
    assert key(user="u") == key(user="u", messages=[MORE])
    assert key(user="u") != key(user="v")


@pytest.mark.parametrize("user", [5, None, "", ["u"], {}])
def test_a_user_that_is_no_text_is_none(user: Any) -> None:
    assert key(user=user) == key()


def test_by_session_a_prefix_is_nothing_and_none_is_nothing_at_all() -> None:
    assert key(by="session", messages=SECOND) == (0, False)
    assert key({"x-session-id": "s"}, by="session")[1]
    assert key({"x-session-id": "s"}, by="none", user="u", messages=SECOND) == (0, False)


@pytest.mark.parametrize("messages", [[SAID], [{"role": "user"}], [{"role": "user", "content": None}, SAID, {}]])
def test_odd_messages_break_nothing(messages: Any) -> None:
    key(messages=messages)


def test_texts_and_embeddings_have_no_prefix() -> None:
    for endpoint, body in (("completions", {"prompt": "x", "messages": 5}), ("embeddings", {"input": "x"})):
        assert conversation(call(endpoint=endpoint, **body), "t", "r", "prefix") == (0, False)


def test_it_is_bounded_and_the_one_used_longest_ago_goes_first() -> None:
    affinity = Affinity(places=3)
    for number in (1, 2, 3):
        affinity.keep(number, ("a", "m"), 0.0)
    affinity.keep(1, ("b", "m"), 1.0)
    affinity.keep(4, ("a", "m"), 1.0)
    assert len(affinity) == 3
    assert [affinity.find(number, 1.0) for number in (1, 2, 4)] == [("b", "m"), None, ("a", "m")]


def test_it_forgets_after_a_time() -> None:
    affinity = Affinity(ttl_s=10.0)
    affinity.keep(1, ("a", "m"), 5.0)
    assert affinity.find(1, 14.9)
    assert affinity.find(1, 15.0) is None


# -- in the router ------------------------------------------------------------------------------------------------

WORLD = config(
    [backend(name) for name in "abcd"],
    [model("m", *"abcd"), model("one", "a")],
    [
        route("spread", "m", policy="weighted", affinity="prefix"),
        route("loose", "m", policy="weighted"),
        route("named", "m", policy="weighted", affinity="session"),
    ],
)


class Talk:
    """A router and what dispatch would tell it: who served is kept."""

    def __init__(self) -> None:
        self.live = Live(WORLD.breaker)
        self.router = Router(WORLD, random.Random(1), self.live)

    def ask(self, headers: dict[str, str] | None = None, now: float = 0.0, **body: Any) -> Decision:
        asked = call(headers, **{"model": "m", "messages": FIRST, **body})
        decision = self.router.route(asked, Plan("p"), tenant="t", now=now)
        if decision.conversation:
            self.live.affinity.keep(decision.conversation, decision.targets[0].key, now)
        return decision

    def backends(self, times: int, **asked: Any) -> set[str]:
        return {self.ask(**asked).targets[0].backend.name for _ in range(times)}


@pytest.mark.parametrize("asked", [{"headers": {"x-session-id": "s"}}, {"user": "u"}, {"messages": SECOND}])
@pytest.mark.parametrize("name", ["m", "spread"])
def test_a_conversation_stays_where_it_is(asked: dict[str, Any], name: str) -> None:
    talk = Talk()
    first = talk.ask(**asked, model=name).targets[0].backend.name
    assert talk.backends(50, **asked, model=name) == {first}
    assert talk.ask(**asked, model=name).reason == "weighted;affinity"


def test_the_second_turn_goes_where_the_first_went() -> None:
    for _ in range(20):
        talk = Talk()
        assert talk.ask().targets[0] is talk.ask(messages=SECOND).targets[0]


def test_single_prompts_still_spread() -> None:
    assert Talk().backends(100) == set("abcd")


@pytest.mark.parametrize(
    ("name", "asked"), [("loose", {"user": "u"}), ("loose", {"messages": SECOND}), ("named", {"messages": SECOND})]
)
def test_routes_may_do_without(name: str, asked: dict[str, Any]) -> None:
    assert Talk().backends(100, model=name, **asked) == set("abcd")


def test_it_yields_when_its_target_is_down_and_the_conversation_moves() -> None:
    talk = Talk()
    first = talk.ask(user="u").targets[0]
    for _ in range(FAILURES_IN_A_ROW):
        talk.live.ended(first.key, talk.live.began(first.key, 0.0))
        talk.live.failed(first.key, began=0.0, now=0.0)
    moved = talk.ask(user="u", now=1.0)
    assert moved.targets[0] is not first
    assert moved.targets[-1] is first
    assert moved.reason == "weighted;held=0;down=1"
    assert talk.ask(user="u", now=2.0).targets[0] is moved.targets[0]


def test_a_route_of_one_target_keeps_nothing() -> None:
    talk = Talk()
    assert talk.ask(model="one", user="u").conversation == 0
    assert len(talk.live.affinity) == 0
