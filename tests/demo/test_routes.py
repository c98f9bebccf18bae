"""The configuration that `make run` serves."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gateway.demo.__main__ import GREETING, effective_routes


def test_values_are_filled_in(tmp_path: Path) -> None:
    routes = effective_routes(1111, 2222, "sk-moma-x", tmp_path)
    assert routes["backends"]["small"]["base_url"] == "http://127.0.0.1:1111/v1"
    assert routes["backends"]["large"]["base_url"] == "http://127.0.0.1:2222/v1"
    assert routes["tenants"]["demo"]["keys"] == ["sha256:" + hashlib.sha256(b"sk-moma-x").hexdigest()]
    assert routes["storage"]["ledger"] == f"sqlite:{tmp_path / 'moma.db'}"


def test_without_the_small_model_nothing_names_it() -> None:
    routes = effective_routes(None, 2222, "sk-moma-x", Path("state"))
    assert "small" not in str(routes)
    assert "smollm2" not in str(routes)


def test_greeting_is_a_program() -> None:
    text = GREETING.format(host="127.0.0.1", port=8080, key="k", admin_key="a", models="large")
    lines = text[text.index("from openai") : text.index("\nModels")]
    assert len(lines.strip().splitlines()) == 5
    compile(lines, "greeting", "exec")
