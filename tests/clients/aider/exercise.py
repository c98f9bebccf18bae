"""aider: edits of a file in a git repository of its own, whole and in a stream."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from checks import BASE_URL, KEY, run

HOME = Path(os.environ["HOME"])
FILE = 'def greeting():\n    return "Hello"\n'
OPTIONS = (
    "--yes-always", "--no-check-update", "--no-show-release-notes", "--no-show-model-warnings", "--analytics-disable",
    "--no-gitignore", "--no-pretty", "--map-tokens", "0", "--model", "openai/large",
)  # fmt: skip


def git(where: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=where, check=True, capture_output=True, text=True).stdout


def repository(name: str) -> Path:
    where = HOME / name
    where.mkdir()
    git(where, "init", "--quiet")
    git(where, "config", "user.name", "Tester")
    git(where, "config", "user.email", "tester@example.com")
    (where / "greet.py").write_text(FILE)
    git(where, "add", "greet.py")
    git(where, "commit", "--quiet", "--message", "A greeting")
    return where


def aider(where: Path, *words: str, key: str = KEY) -> str:
    environment = {**os.environ, "OPENAI_API_BASE": BASE_URL, "OPENAI_API_KEY": key}
    command = [sys.executable, "-m", "aider", *OPTIONS, *words, "greet.py"]
    done = subprocess.run(
        command, cwd=where, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def edit(name: str, *options: str) -> None:
    """What the model proposes is in the file, and committed under the message that the model was asked for."""
    where = repository(name)
    printed = aider(where, "--message", "Change the greeting to a farewell", *options)
    assert "Applied edit to greet.py" in printed
    assert (where / "greet.py").read_text() == FILE.replace("Hello", "Goodbye")
    assert len(git(where, "log", "--oneline").splitlines()) == 2
    assert git(where, "status", "--porcelain", "greet.py") == ""


def wrong_key() -> None:
    printed = aider(repository("stranger"), "--message", "Change the greeting to a farewell", key="sk-moma-wrong")
    assert "AuthenticationError" in printed


# Instead of the prices and model names that it would fetch.
(HOME / ".aider/caches").mkdir(parents=True)
(HOME / ".aider/caches/model_prices_and_context_window.json").write_text('{"none": {}}')
run(
    importlib.metadata.version("aider-chat"),
    chat={
        "an edit in a stream": lambda: edit("streamed", "--edit-format", "diff"),
        "an edit as a whole answer": lambda: edit("whole", "--edit-format", "diff", "--no-stream"),
        "wrong key": wrong_key,
    },
)
