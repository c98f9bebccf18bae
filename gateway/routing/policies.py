"""Policies order targets: one-method objects over the targets that the hard constraints left."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from gateway.config.model import Backend, Model


@dataclass(frozen=True)
class Target:
    """A backend and its name for the model: what policies order."""

    backend: Backend
    model: Model
    as_name: str
    weight: int

    @cached_property
    def key(self) -> tuple[str, str]:
        return self.backend.name, self.model.name


class Policy(Protocol):
    def order(self, targets: Sequence[Target]) -> Sequence[Target]: ...


class Ordered:
    """As written in routes.yaml."""

    def order(self, targets: Sequence[Target]) -> Sequence[Target]:
        return targets


class Weighted:
    """A random order without replacement, each draw in proportion to weight (Efraimidis and Spirakis, 2006)."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def order(self, targets: Sequence[Target]) -> Sequence[Target]:
        if len(targets) < 2:
            return targets
        return sorted(targets, key=lambda t: self._rng.random() ** (1.0 / t.weight), reverse=True)
