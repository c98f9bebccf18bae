from __future__ import annotations

from typing import Any

import pytest

from gateway.adapters.kinds import ADAPTERS, adapter_of, takes_all
from gateway.call import Call
from gateway.config.model import Backend, Quirks

DEEPSEEK = Quirks(like="deepseek")


def backend(kind: str = "openai", **more: Any) -> Backend:
    return Backend("b", kind, "https://r", **more)


def call(endpoint: str = "chat", beyond: tuple[str, ...] = (), **body: Any) -> Call:
    made = Call("r", endpoint, "m", body, False, False, None, 1, 10, 0, frozenset(), None)
    made.beyond = beyond
    return made


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_backends_that_are_spoken_to_alike_have_equal_adapters(kind: str) -> None:
    assert adapter_of(backend(kind)) == adapter_of(backend(kind, region="x"))
    assert len({adapter_of(backend(kind)), adapter_of(backend(kind))}) == 1


def test_others_have_others() -> None:
    made = [
        adapter_of(backend()), adapter_of(backend(quirks=DEEPSEEK)), adapter_of(backend("azure")),
        adapter_of(backend("azure", api_version="preview")), adapter_of(backend("gemini")),
    ]  # fmt: skip
    assert len(set(made)) == len(made)
    assert [takes_all(adapter) for adapter in made] == [True, False, True, True, False]


def test_what_is_beyond_a_provider() -> None:
    asked = call(messages=[], seed=5)
    assert adapter_of(backend()).beyond(asked) is None
    assert adapter_of(backend(quirks=DEEPSEEK)).beyond(asked) == "seed"
    assert adapter_of(backend("azure", quirks=DEEPSEEK)).beyond(asked) == "seed"
    assert adapter_of(backend(quirks=DEEPSEEK)).beyond(call("completions", prompt="x", seed=5)) is None
    assert adapter_of(backend()).beyond(call(beyond=("tools[1]",), messages=[])) == "tools[1]"
