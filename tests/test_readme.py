"""What README.md shows a newcomer is true: its routes.yaml loads, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.config.load import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = "".join(blocks("sh")).splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.startswith("moma ")]


def test_the_first_routes_yaml_loads_without_a_problem_or_a_warning(tmp_path: Path) -> None:
    [text] = blocks("yaml")
    path = tmp_path / "routes.yaml"
    path.write_text(text, encoding="utf-8")
    config = load(path)
    assert len(config.backends) == 3
    assert set(config.routes) == {"auto", "china"}
    assert config.warnings == ()


def test_check_has_nothing_to_say_of_it_when_the_secrets_are_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [text] = blocks("yaml")
    for name in re.findall(r"env:(\w+)", text):
        assert f"{name}=" in "".join(blocks("sh"))
        monkeypatch.setenv(name, "set")
    path = tmp_path / "routes.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["check", "-c", str(path)]) == 0
    assert "warning" not in capsys.readouterr().out


def test_its_accounts_commands_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the ledger itself: no gateway runs here."""
    [text] = blocks("yaml")
    path = tmp_path / "routes.yaml"
    path.write_text(text.replace("server:", "server: {port: 1}\n#"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOMA_ADMIN_KEY", raising=False)
    ran = [command for command in commands() if command.split()[1] not in ("check", "serve")]
    assert len(ran) == 4
    for command in ran:
        assert main(shlex.split(command)[1:]) == 0, command
    assert "1,500,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_every_page_is_found_from_the_readme() -> None:
    assert [page.name for page in ROOT.glob("docs/*.md") if f"docs/{page.name}" not in README] == []


def test_paths_of_tests_that_pages_name_exist() -> None:
    """`same` and bare names of files beside the one before them are left to the reader."""
    named = {path for page in ROOT.glob("docs/*.md") for path in re.findall(r"`(tests/[\w/.]+)`", page.read_text())}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
