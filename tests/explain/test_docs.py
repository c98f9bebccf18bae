"""What docs/explain.md shows is what the commands say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway.cli import main

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = Path(__file__).parent / "example.yaml"
PAGE = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def block(start: str) -> str:
    [text] = re.findall(rf"^```\w*\n({re.escape(start)}.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(text)


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance decides which of two comes first."""
    monkeypatch.setenv("COLUMNS", "120")
    body = tmp_path / "body.json"
    hello = [{"role": "user", "content": "Hello there"}]
    body.write_text(json.dumps({"model": "auto", "messages": hello, "tools": TOOLS, "max_tokens": 2000}))
    assert main(["explain", str(body), "--tenant", "demo", "--offline", "-c", str(EXAMPLE)]) == 0
    said = {line.rstrip().lstrip("123") for line in capsys.readouterr().out.splitlines()}
    shown = [line.lstrip("123") for line in block("auto  chat").splitlines() if not line.startswith("goes to")]
    assert [line for line in shown if line not in said] == []
    assert any(line.startswith("goes to qwen3-32b at ") for line in said)


def test_the_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = tmp_path / "routes.test.yaml"
    cases.write_text(block("version: 1"))
    (tmp_path / "bodies").mkdir()
    hello = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}], "tools": TOOLS}
    (tmp_path / "bodies" / "hello.json").write_text(json.dumps(hello))
    assert main(["test", str(cases), "-c", str(EXAMPLE)]) == 0, capsys.readouterr().out
