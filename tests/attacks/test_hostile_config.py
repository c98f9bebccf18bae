"""A routes.yaml that is made to cost time or memory: `python -m gateway check` as a process of its own, measured.

`pytest -s` prints the figures of docs/reliability.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

MAX_CPU_S = 5.0  # one second, and five times as much in tests
MAX_GROWTH_MIB = 100.0
HUGE_BYTES = 100_000_000
BACKENDS = 'backends: {a: {kind: openai, base_url: "http://127.0.0.1:9/v1"}}\n'
MODEL = "  m{}: {{via: [a], context: 1k, max_output: 1k, price: {{input: 1, output: 1}}, tags: [t]}}\n"
MODELS = "models:\n" + "".join(map(MODEL.format, range(490)))

# A process that is started by a large one begins with the peak of its parent: a small one has to stand between.
MEASURE = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
figures = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
json.dump(figures, open(sys.argv[1], "w"))
"""


@dataclass(frozen=True)
class Checked:
    code: int
    cpu_s: float
    peak_mib: float
    said: str


def check(routes: Path, folder: Path) -> Checked:
    figures = folder / "figures.json"
    command = [sys.executable, "-m", "gateway", "check", "-c", str(routes)]
    measured = [sys.executable, "-I", "-S", "-c", MEASURE, str(figures), *command]
    done = subprocess.run(measured, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    code, cpu_s, peak_mib = json.loads(figures.read_text())
    return Checked(code, cpu_s, peak_mib, done.stdout)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE_BYTES)


def alias_bomb(levels: int = 12) -> str:
    more = (f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, levels))
    return "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(more)


ATTACKS: dict[str, tuple[str | Callable[[Path], None], str]] = {
    "alias bomb": (alias_bomb(), "anchors and aliases are not accepted"),
    "python tag": ("version: !!python/object/apply:os.system ['touch {folder}/ran']\n", "tags are not accepted"),
    "file of 100 MB": (huge, "larger than 1000000 bytes"),
    "endless file": (lambda path: path.symlink_to("/dev/zero"), "larger than 1000000 bytes"),
    "duplicate key": ("version: 1\nversion: 1\n", "stands here twice, first in line 1"),
    "49,000 duplicate keys": ("version: 1\n" * 49_000, "stands here twice, first in line 1"),
    "flow nested 900,000 deep": ("a: " + "[" * 900_000, "nested too deeply"),
    "block nested 490,000 deep": ("- " * 490_000, "nested too deeply"),
    "320,000 empty lists": ("a: [" + "[]," * 320_000 + "]", "more than 100,000 values"),
    "49,000 unknown keys": ("".join(f"backend{number}: 1\n" for number in range(49_000)), "is not a known key"),
    "50,000 names near to 490": (
        f"version: 1\n{BACKENDS}{MODELS}plans: {{p: {{allow: [{', '.join(f'n{n}' for n in range(50_000))}]}}}}\n",
        "did you mean m",
    ),
    "selector bomb": (
        f"version: 1\n{BACKENDS}{MODELS}routes:\n"
        + "".join(f"  r{number}: {{pick: {{tags: [t]}}}}\n" for number in range(10_000)),
        "pick more than 100,000 models",
    ),
    "selector bomb by fallbacks": (
        f"version: 1\n{BACKENDS}{MODELS}routes:\n  r: {{pick: {{tags: [t]}}}}\n"
        + "".join(f"  r{number}: {{pick: [m0], fallback: {{error: [r]}}}}\n" for number in range(4_000)),
        "pick more than 100,000 models",
    ),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    folder = tmp_path_factory.mktemp("tiny")
    routes = folder / "routes.yaml"
    routes.write_text("version: 1\n")
    checked = check(routes, folder)
    assert checked.code == 0
    print(f"\n{'a file of one line':<30}{checked.cpu_s:>6.2f} s  {checked.peak_mib:>6.1f} MiB")
    return checked


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_file_is_refused_in_little_time_and_memory(tmp_path: Path, tiny: Checked, name: str) -> None:
    made, says = ATTACKS[name]
    routes = tmp_path / "routes.yaml"
    if isinstance(made, str):
        routes.write_text(made.replace("{folder}", str(tmp_path)))
    else:
        made(routes)
    checked = check(routes, tmp_path)
    growth_mib = checked.peak_mib - tiny.peak_mib
    print(f"{name:<30}{checked.cpu_s:>6.2f} s  {growth_mib:>+6.1f} MiB")
    assert checked.code == 1
    assert says in checked.said
    assert f"{routes}:" in checked.said
    assert not (tmp_path / "ran").exists()
    assert checked.cpu_s < MAX_CPU_S
    assert growth_mib < MAX_GROWTH_MIB
