"""Real clients, each in an environment of its own, against one running gateway.

`make test` runs those that are installed in seconds, `make test-clients` all. With `MOMA_WRITE_TABLE=1` the rows of
docs/clients.md are written; without it they are compared with what was exercised.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import Served
from tests.clients.table import HEAD, PAGE, Group, in_the_table

HERE = Path(__file__).parent
INSTALLED = HERE.parent.parent / ".venv-clients"
LIMIT_S = 300


@dataclass(frozen=True)
class Client:
    """A folder beside this file: its lock file, and the script that exercises it."""

    folder: str
    name: str
    quick: bool = False

    @property
    def stamp(self) -> Path:
        return INSTALLED / self.folder / ".done"

    @property
    def command(self) -> tuple[str, ...] | None:
        """What runs its script; None without its interpreter."""
        script = HERE / self.folder / "exercise"
        if script.with_suffix(".mjs").exists():
            node = shutil.which("node")
            return (node, str(script.with_suffix(".mjs"))) if node else None
        return (str(INSTALLED / self.folder / "bin/python"), str(script.with_suffix(".py")))


CLIENTS = (
    Client("openai_node", "OpenAI Node", quick=True),
    Client("anthropic_python", "Anthropic Python", quick=True),
    Client("anthropic_node", "Anthropic Node"),
    Client("vercel_ai", "Vercel AI SDK"),
    Client("langchain", "LangChain"),
    Client("llama_index", "LlamaIndex"),
    Client("pydantic_ai", "pydantic-ai"),
    Client("instructor", "instructor"),
    Client("openai_agents", "openai-agents"),
    Client("litellm", "LiteLLM (as a client)"),
    Client("llm", "llm"),
    Client("aider", "aider"),
)
PARAMETERS = [
    pytest.param(client, id=client.folder, marks=[] if client.quick else [pytest.mark.clients]) for client in CLIENTS
]


def test_every_folder_is_a_client() -> None:
    assert {path.parent.name for path in HERE.glob("*/exercise.*")} == {client.folder for client in CLIENTS}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.folder)
def test_the_table_names_every_client(client: Client) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert HEAD in page
    assert f"\n| {client.name} |" in page, "MOMA_WRITE_TABLE=1 make test-clients writes its row"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("client", PARAMETERS)
async def test_a_client(
    served: Served, client: Client, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if client.command is None or not client.stamp.exists():
        record_property("client", f"{client.name}: NOT RUN: it is not installed")
        pytest.skip(f"{client.name}: `make {client.stamp.relative_to(HERE.parent.parent)}` installs it")
    groups = await exercised(client, client.command, served, tmp_path)
    for group in groups:
        if group.left_out:
            record_property("client", f"{client.name} {group.version}, {group.group}: NOT RUN: {group.not_run}")
    passed = sum(len(group.passed) for group in groups)
    record_property("client", f"{client.name} {groups[0].version}: {passed} exercised")
    await nothing_is_left(served)
    if "real" not in served.absent:
        in_the_table(groups)
    if not passed:
        pytest.skip(f"{client.name}: {groups[0].not_run}")


async def exercised(client: Client, command: tuple[str, ...], served: Served, where: Path) -> list[Group]:
    """Runs the script in an empty folder, as its home."""
    environment = {**served.environment, "PYTHONPATH": str(HERE), "HOME": str(where)}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=where, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except TimeoutError:
        process.kill()
        output, errors = await process.communicate()
    assert process.returncode == 0, (output + errors).decode()
    said = json.loads(output.splitlines()[-1])
    return [
        Group(client.name, said["version"], name, tuple(group["passed"]), group["left_out"])
        for name, group in said["groups"].items()
    ]


async def nothing_is_left(served: Served) -> None:
    """No hold, no broken invariant, and nothing that surprised the gateway itself."""
    async with asyncio.timeout(10):
        while served.app.ledger.open_holds:
            await asyncio.sleep(0.01)
    served.app.ledger.check_invariants()
    samples = [sample for metric in served.app.metrics.requests.collect() for sample in metric.samples]
    assert [sample.labels for sample in samples if sample.labels.get("status") == "500"] == []
