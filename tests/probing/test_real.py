"""`moma probe` against a real model: SmolLM2 on llama.cpp, whose abilities are known."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gateway.cli import main
from gateway.demo import llama
from gateway.demo.processes import free_port, stop

pytestmark = pytest.mark.skipif(not llama.available(), reason="the wheels of the small model are not installed")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    child = llama.start(port)
    yield f"http://127.0.0.1:{port}/v1"
    stop(child)


def test_what_the_small_model_can_do_is_seen(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    verdicts = {name: finding["verdict"] for name, finding in found["findings"].items()}
    sure = ("models", "chat", "output limit", "stream", "json_schema", "logprobs")
    assert {name: verdicts[name] for name in sure} == dict.fromkeys(sure, "yes")
    assert verdicts["vision"] == "no"
    assert found["findings"]["stream"]["stream_usage"] is True
    assert found["findings"]["chat"]["usage"] is True
    assert "json" in found["can"]
    assert "vision" not in found["can"]
    assert found["quirks"] == {}
    assert found["context"] == 2048  # two slots share 4096
    assert found["calls"] <= 12


def test_what_the_small_model_lists_can_be_imported(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "import", url, "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert "SmolLM2" in model["model"]
    assert model["context"] == 2048
    assert model["missing"] == ["max_output", "price"]
