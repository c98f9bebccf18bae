"""A process that writes to a ledger, killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def killed_after(child_module: str, path: Path | str, start: int, seconds: float) -> set[str]:
    """The ids that a child acknowledged before it was killed."""
    command = [sys.executable, "-m", f"tests.charging.{child_module}", str(path), str(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(seconds)
        child.kill()
        lines = [first, *child.stdout.read().splitlines(keepends=True)]
    return {line.decode().strip() for line in lines if line.endswith(b"\n")}
