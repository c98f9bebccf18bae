"""Debian's Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
from pathlib import Path
from typing import Any, Self

import aiohttp

START_S = 20.0
ANSWER_S = 20.0


class Browser:
    """One page of one browser. State: the process, the session and the page's id within it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = itertools.count(1)
        self._session = ""

    async def __aenter__(self) -> Self:
        command = [
            "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
            "--remote-debugging-port=0", f"--user-data-dir={self._folder}", "about:blank",
        ]  # fmt: skip
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
        self._http = aiohttp.ClientSession()
        port, path = await self._address()
        self._socket = await self._http.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0)
        target = await self.say("Target.createTarget", url="about:blank")
        attached = await self.say("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        await self.say("Page.enable")
        await self.say("Network.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()
        await self._http.close()
        self._process.terminate()
        await self._process.wait()

    async def _address(self) -> tuple[str, str]:
        told = self._folder / "DevToolsActivePort"
        for _ in range(int(START_S / 0.05)):
            lines = told.read_text().splitlines() if told.exists() else []
            if len(lines) == 2:
                return lines[0], lines[1]
            await asyncio.sleep(0.05)
        raise AssertionError("Chromium did not start")

    async def say(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result; events in between are passed over."""
        number = next(self._ids)
        command: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        await self._socket.send_json(command)
        while True:
            said = await asyncio.wait_for(self._socket.receive_json(), ANSWER_S)
            if said.get("id") == number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result

    async def screen(self, width: int, height: int, scheme: str) -> None:
        """`scheme` is light or dark."""
        await self.say(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        await self.say("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def open(self, url: str) -> None:
        """Returns when the page has been laid out."""
        await self.say("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def until(self, expression: str) -> None:
        for _ in range(int(ANSWER_S / 0.05)):
            if await self.value(expression):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(expression)

    async def value(self, expression: str) -> Any:
        result = (await self.say("Runtime.evaluate", expression=expression, returnByValue=True))["result"]
        assert result.get("subtype") != "error", result
        return result.get("value")

    async def corner(self) -> bytes:
        """A PNG of the upper left of the page."""
        clip = {"x": 0, "y": 0, "width": 16, "height": 16, "scale": 1}
        shot = await self.say("Page.captureScreenshot", format="png", clip=clip)
        return base64.b64decode(shot["data"])
