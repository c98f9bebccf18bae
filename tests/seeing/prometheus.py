"""Debian's Prometheus on a loopback port, with our rules, scraping one gateway."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from dashboards import PROMETHEUS

START_S = 20.0
STEP_S = 0.25  # of scrapes and rules: a test does not wait for the half minute of the files


class Prometheus:
    """State: the process and its port."""

    def __init__(self, folder: Path, target: str, key_file: Path | None = None) -> None:
        self._folder = folder
        self._target = target
        self._key_file = key_file

    async def __aenter__(self) -> Self:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._write()
        self._http = aiohttp.ClientSession()
        self._log = (self._folder / "prometheus.log").open("wb")
        self._process = await asyncio.create_subprocess_exec(
            "prometheus", f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", stdout=self._log, stderr=self._log,
        )  # fmt: skip
        await self._ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        self._process.kill()
        await self._process.wait()
        self._log.close()

    def _write(self) -> None:
        """The files as they are shipped, but quicker, and with the port of the test."""
        config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        config["global"] = {
            "scrape_interval": f"{STEP_S * 1000:.0f}ms",
            "evaluation_interval": f"{STEP_S * 1000:.0f}ms",
        }
        job = config["scrape_configs"][0]
        job["static_configs"] = [{"targets": [self._target]}]
        if self._key_file is not None:
            job["authorization"] = {"credentials_file": str(self._key_file)}
        for name in config["rule_files"]:
            rules = yaml.safe_load((PROMETHEUS / name).read_text())
            for group in rules["groups"]:
                group["interval"] = f"{STEP_S * 1000:.0f}ms"
            (self._folder / name).write_text(yaml.safe_dump(rules))
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    async def _ready(self) -> None:
        for _ in range(int(START_S / 0.05)):
            with contextlib.suppress(aiohttp.ClientError):
                async with self._http.get(f"{self.url}/-/ready") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)
        raise AssertionError((self._folder / "prometheus.log").read_text())

    async def ask(self, path: str, **query: str) -> Any:
        """The `data` of an API's answer."""
        async with self._http.get(f"{self.url}/api/v1/{path}", params=query) as answer:
            said = await answer.json()
            assert said["status"] == "success", (query, said)
            return said["data"]

    async def series(self, expr: str) -> list[dict[str, Any]]:
        """What an instant query gives."""
        found: list[dict[str, Any]] = (await self.ask("query", query=expr))["result"]
        return found
