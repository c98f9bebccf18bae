"""What is known of providers' models: gateway/models/*.yaml, a file for each family, with its date and its sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.config.schema import FAMILY
from gateway.config.sources import Sources
from gateway.config.structure import Structure
from gateway.config.yaml_source import ConfigError, read

FOLDER: Final = Path(__file__).parent.parent / "models"
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """`models` are values like those of routes.yaml: prices in micro-units of `currency` per 1M units.

    A model without `price` is one whose price is not known. `price_up_to`: with more tokens of input it costs more.
    """

    name: str
    date: str
    currency: str
    sources: tuple[str, ...]
    models: Mapping[str, Values]


def families() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def family(name: str) -> Family:
    """One of `families`. Raises ConfigError if somebody has damaged its file."""
    path = FOLDER / f"{name}.yaml"
    source = read(path, Sources(path))
    values = Structure(source).read(source.value, FAMILY)
    if source.problems:
        raise ConfigError(source.problems)
    return Family(name, values["date"], values["currency"], values["source"], values["models"])
