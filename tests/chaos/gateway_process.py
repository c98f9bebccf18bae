"""`python -m gateway serve` as a process of its own, to be killed and started again on the same ledger."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from tests.conftest import ADMIN_KEY, KEY, ROUTES

READY_S = 10.0  # the specification says 2; tests allow five times
PORTS = range(20_000, 32_000)  # below those the kernel gives to clients: a dead port must stay free for us


class GatewayProcess:
    """State: the process, how the next one is started, and how long each start took until /readyz said yes."""

    def __init__(self, folder: Path, a: str, b: str, files: int | None = None) -> None:
        self._files = files
        self.entry: tuple[str, ...] = ("gateway",)
        self.under: tuple[str, ...] = ()  # a command that becomes the gateway
        self.ledger = f"{folder}/moma.db"
        self.port = _free_port()
        self.starts_s: list[float] = []
        self.routes = folder / "routes.yaml"
        self._log = folder / "gateway.log"
        key_hash = hashlib.sha256(KEY.encode()).hexdigest()
        text = ROUTES.format(ledger=self.ledger, a=a, b=b, key_hash=key_hash).replace("credits: 1M", "credits: 900000M")
        self.routes.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        started = time.perf_counter()
        process = self._process = self._spawn()
        async with aiohttp.ClientSession() as http:
            while not await self._ready(http):
                assert process.poll() is None, self._log.read_text()[-4000:]
                assert time.perf_counter() - started < READY_S, "not ready in time"
                await asyncio.sleep(0.005)
        self.starts_s.append(time.perf_counter() - started)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *self.entry, "serve", "-c", str(self.routes), "--port", str(self.port)]
        if self._files is not None:
            command = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(self._files), *command]
        command = [*self.under, *command]
        environment = {**os.environ, "MOMA_TEST_ADMIN_KEY": ADMIN_KEY, "MOMA_TEST_BACKEND_KEY": "backend-secret"}
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    async def _ready(self, http: aiohttp.ClientSession) -> bool:
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async with http.get(f"{self.url}/readyz") as answer:
                return answer.status == 200
        return False

    async def usage(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http,
            http.get(f"{self.url}/v1/usage") as answer,
        ):
            shown: dict[str, Any] = await answer.json()
            return shown

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def killed(self) -> bool:
        """By itself."""
        return self._process is not None and self._process.poll() == -signal.SIGKILL

    async def starts(self) -> bool:
        """False when it is killed meanwhile."""
        process = self._process = self._spawn()
        async with aiohttp.ClientSession() as http:
            while process.poll() is None:
                if await self._ready(http):
                    return True
                await asyncio.sleep(0.005)
        return False

    def kill(self) -> None:
        """SIGKILL, of this process alone; returns when it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


def _free_port() -> int:
    for port in PORTS[os.getpid() % 5000 :]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")
