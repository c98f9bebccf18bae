"""The values behind `env:NAME` and `file:/path`: read when a configuration is taken, and never printed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.model import Backend, Config, Secret
from gateway.config.sources import Sources, stamp_of
from gateway.config.yaml_source import Problem


@dataclass(frozen=True)
class Secrets:
    """All that a configuration names, as they were at one moment: by reference, None where nothing is set."""

    values: Mapping[str, str | None] = field(repr=False)

    def of(self, secret: Secret | None) -> str | None:
        return None if secret is None else self.values[secret.reference]

    def keys_of(self, backend: Backend) -> tuple[str, ...]:
        return tuple(value for secret in backend.keys if (value := self.of(secret)))

    @property
    def unset(self) -> list[str]:
        return sorted(reference for reference, value in self.values.items() if value is None)

    def problems(self, sources: Sources) -> list[Problem]:
        """One for each that is not set: whoever serves needs them all."""
        return [
            Problem(*sources.secrets.get(reference, (str(sources.path), 1)), "", f"secret is not set: {reference}")
            for reference in self.unset
        ]


def secrets_of(config: Config) -> Secrets:
    """Reads the environment and files; the files are among the sources of the configuration from then on."""
    secrets = [secret for backend in config.backends.values() for secret in backend.keys]
    secrets += [s for s in (config.server.admin_key, config.server.metrics_key) if s is not None]
    return Secrets({secret.reference: secret_value(secret, config.sources) for secret in secrets})


def secret_value(secret: Secret, sources: Sources | None = None) -> str | None:
    """None where nothing is set."""
    scheme, _, name = secret.reference.partition(":")
    if scheme == "env":
        return os.environ.get(name) or None
    if sources is not None:
        sources.stamps[name] = stamp_of(name)
    try:
        return Path(name).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
