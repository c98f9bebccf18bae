from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.call import Call, Request
from gateway.errors import InvalidValue
from gateway.parse import parse_call

HI = [{"role": "user", "content": "hi"}]


def parsed(endpoint: str = "chat", headers: dict[str, str] | None = None, **body: Any) -> Call:
    return parse_call(Request("r", endpoint, headers or {}, orjson.dumps({"model": "m", **body})))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a":NaN}', b'"\\ud800"', b"[" * 200_000, b'{"a":' + b"1" * 5000 + b"}",
                                  b'{"model":"m","a":' + b"[" * 70 + b"]" * 70 + b"}"])  # fmt: skip
def test_bad_bytes(body: bytes) -> None:
    with pytest.raises(InvalidValue):
        parse_call(Request("r", "chat", {}, body))


BAD: list[tuple[str, Any]] = [("model", v) for v in (1, "", "a\nb", "x" * 257)] + [
    ("n", v) for v in (0, 129, True, "1", 1.0)
]
BAD += [("max_tokens", v) for v in (0, -1, 2**63, "9", True)] + [("stream", 1), ("messages", []), ("messages", None)]


@pytest.mark.parametrize(("name", "value"), [*BAD, ("stream_options", 1), ("best_of", 21), ("dimensions", 0)])
def test_bad_values_name_the_field(name: str, value: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        parsed(**{"messages": HI, name: value})
    assert caught.value.param == name


def test_a_chat_call() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:" + "A" * 100_000}}
    content = [{"type": "text", "text": "what"}, image]
    found = parsed(headers={"x-stainless-read-timeout": "5"}, messages=[{"role": "user", "content": content}],
                   tools=[{"type": "function"}], n=3, max_tokens=7)  # fmt: skip
    assert (found.media_parts, found.choices, found.max_tokens, found.deadline_s) == (1, 3, 7, 5.0)
    assert found.needs == {"tools", "vision"}
    assert 40 < found.input_bound < 300


def test_what_can_be_of_any_length_is_told_from_images_and_sound() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 16_000, "format": "wav"}}
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 16_000}}
    film = {"type": "video_url", "video_url": {"url": "https://x/y.mp4"}}
    for parts, documents, bound in (([image], 0, 0), ([sound], 0, 1000), ([file], 1, 0), ([film, file, image], 2, 0)):
        found = parsed(messages=[{"role": "user", "content": parts}])
        assert (found.documents, found.media_parts) == (documents, len(parts))
        assert bound <= found.input_bound < bound + 200


@pytest.mark.parametrize(
    ("prompt", "choices", "bound"), [("hé", 1, 35), (["a", "b"], 2, 34), ([1, 2, 3], 1, 35), ([[1], [2, 3]], 2, 35)]
)
def test_prompts(prompt: Any, choices: int, bound: int) -> None:
    for endpoint, name in (("completions", "prompt"), ("embeddings", "input")):
        found = parsed(endpoint, **{name: prompt})
        assert (found.choices, found.input_bound) == (choices, bound)


@pytest.mark.parametrize("prompt", [None, [], [1, "a"], [True], ["a"] * 2049, [[]], [1.5]])
def test_bad_prompts(prompt: Any) -> None:
    with pytest.raises(InvalidValue):
        parsed("embeddings", input=prompt)


@pytest.mark.parametrize("seed", [b"18446744073709551617", b"1.5", b"true", b'"7"'])
def test_a_seed_that_parsers_would_round_is_refused(seed: bytes) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"seed":' + seed + b"}"
    with pytest.raises(InvalidValue) as caught:
        parse_call(Request("r", "chat", {}, body))
    assert caught.value.param == "seed"
