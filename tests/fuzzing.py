"""schemathesis, from its own environment, against a gateway that this process serves."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parent.parent / ".venv/schemathesis/bin/st"
SEED = 20261125
ONLY_LONG = pytest.mark.skipif(os.environ.get("MOMA_LONG") != "1", reason="MOMA_LONG=1 runs it")
SHORT_AND_LONG = [False, pytest.param(True, marks=[pytest.mark.long, ONLY_LONG])]
MOST_S = (300, 3600)  # the second for test-long
REQUEST_S = 20  # an answer that takes longer is a failure


@dataclass(frozen=True)
class Run:
    """A run that found nothing: what it said, and how many operations it has tested."""

    output: str

    @property
    def tested(self) -> int:
        found = re.search(r"Tested: +(\d+)\n", self.output)
        return int(found[1]) if found else 0


async def fuzz(
    document: Any, url: str, key: str, values: Mapping[str, Sequence[str]], *, path: Path, examples: int, long: bool,
    phases: str, excluded: Sequence[str], seed: int = SEED,
) -> Run:  # fmt: skip
    """`values` are taken nine times in ten for a parameter, where the kind of case lets it; `path` is a folder."""
    if not TOOL.exists():
        pytest.skip("make .venv/schemathesis/.done installs it")
    config, asked = path / "schemathesis.toml", path / "openapi.json"
    config.write_text(_configuration(values))
    asked.write_text(json.dumps(document))  # of what it reads itself it does not test the path
    process = await asyncio.create_subprocess_exec(
        str(TOOL), "--no-color", "--config-file", str(config), "run", str(asked), "--url", url,
        "--header", f"Authorization: Bearer {key}", "--seed", str(seed), "--max-examples", str(examples),
        "--phases", phases, "--continue-on-failure", "--warnings", "off", "--request-timeout", str(REQUEST_S),
        "--checks", "all", "--exclude-checks", ",".join(excluded),
        cwd=path, env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(path / "examples")},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output = (await asyncio.wait_for(process.communicate(), MOST_S[long]))[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
    print(output)  # `pytest -rP` shows how many cases there were
    assert process.returncode == 0
    return Run(output)


def _configuration(values: Mapping[str, Sequence[str]]) -> str:
    lists = "".join(f'"{name}" = {{ values = {json.dumps(found)} }}\n' for name, found in values.items())
    taken = "".join(f'"{name}" = {{ dictionary = "{name}", probability = 0.9 }}\n' for name in values)
    return f"[dictionaries]\n{lists}[parameters]\n{taken}"
