from __future__ import annotations

import pytest

from gateway.call import Call
from gateway.tokens import Tokenizer, prompt_text


@pytest.fixture(scope="module")
def loaded() -> Tokenizer:
    tokenizer = Tokenizer()
    tokenizer.load()
    return tokenizer


def test_an_estimate_until_loaded() -> None:
    assert (Tokenizer().ready, Tokenizer().count("a" * 35)) == (False, 10)


async def test_counts(loaded: Tokenizer) -> None:
    assert [loaded.count(text) for text in ("", "hello world")] == [0, 2]
    assert loaded.count("<|endoftext|>") > 1
    assert await loaded.count_long("hello world " * 20_000) > 30_000


async def test_prompt_text(loaded: Tokenizer) -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url"}]}]}
    call = Call("r", "chat", "m", body, False, False, None, 1, 500, 1, frozenset(), None)
    assert prompt_text(call) == "user\nhi"
    assert await loaded.bound(call) == 43
