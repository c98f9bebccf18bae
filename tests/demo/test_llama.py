"""The small model, where its wheels are installed."""

from __future__ import annotations

import json
from http.client import HTTPConnection

import pytest

from gateway.demo import llama
from gateway.demo.processes import HOST, NotReady, free_port, start, stop, wait_ready


@pytest.mark.skipif(not llama.available(), reason="the wheels of requirements-demo.lock are not installed")
def test_the_small_model_answers_with_usage() -> None:
    port = free_port()
    child = llama.start(port)
    try:
        connection = HTTPConnection(HOST, port, timeout=30)
        body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        answer = json.load(connection.getresponse())
        connection.close()
        assert 0 < answer["usage"]["completion_tokens"] <= 4
    finally:
        stop(child)
    assert child.returncode is not None


def test_a_child_that_ends_is_not_ready() -> None:
    child = start("gateway.demo.backend", "not-a-port", quiet=True)
    with pytest.raises(NotReady, match="exit code"):
        wait_ready(child, free_port(), "/", 20)
    stop(child)
