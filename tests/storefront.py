"""A gateway that sells the catalogue of docs/packages.md, by its public side; its calendar can be turned."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import aiohttp
import openai
import pytest

from gateway.app import App
from gateway.charging.audit import audit
from gateway.cli import main
from gateway.clock import LoopClock
from gateway.config.load import load
from gateway.demo.scripted import Reply, ScriptedBackend, Seen

ZONE = ZoneInfo("Asia/Shanghai")
ADMIN_KEY = "admin-key-of-the-storefront"
(CATALOGUE,) = re.findall(r"```yaml\n(.*?)```", (Path(__file__).parent.parent / "docs/packages.md").read_text(), re.S)
# A window as large as a pack, so that few calls use it up.
ROUTES = """
version: 1
server: {{admin_key: env:MOMA_TEST_ADMIN_KEY}}
storage: {{ledger: "sqlite:{path}/moma.db"}}
backends:
  north: {{kind: openai, base_url: "{url}", region: cn-north}}
models:
  small: {{via: [north], context: 900M, max_output: 800M, price: {{input: 2, input_cached: 0.5, output: 4}},
    rates: {{input: 1, input_cached: 0.25, output: 2}}, tags: [basic]}}
  large: {{via: [north], context: 900M, max_output: 800M, price: {{input: 6, output: 24}},
    rates: {{input: 3, output: 12}}}}
plans:
  open: {{}}
  basic: {{allow: [basic]}}
"""


AT_ONCE = 50
MAX_TOKENS = 1_000_000  # that one choice may have


class Calendar:
    """The wall clock of the gateway: a date, and what has passed since it was set."""

    def __init__(self, date: str) -> None:
        self._base_ms = 0
        self.to(date)

    def to(self, date: str) -> None:
        self._base_ms = int(datetime.fromisoformat(date).replace(tzinfo=ZONE).timestamp() * 1000)

    def wall_ms(self) -> int:
        return self._base_ms

    def clock(self, loop: asyncio.AbstractEventLoop) -> LoopClock:
        clock = LoopClock(loop)
        clock.wall_ms = self.wall_ms  # type: ignore[method-assign]
        return clock


class Storefront:
    """State: the keys of its tenants, how many tokens the next answers use, and the id of the last call."""

    def __init__(self, app: App, http: aiohttp.ClientSession, calendar: Calendar, path: Path) -> None:
        self.calendar = calendar
        self.request_id = ""
        self.headers: Mapping[str, str] = {}
        self._app = app
        self._http = http
        self._path = path
        self._keys: dict[str, str] = {}
        self._sdks: dict[str, openai.AsyncOpenAI] = {}
        self._uses = (0, 0, 0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._app.port}"

    async def aclose(self) -> None:
        for sdk in self._sdks.values():
            await sdk.close()

    # -- the operator -----------------------------------------------------------------------------------------------

    async def admin(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        where = f"{self.url}/admin/v1/{path}"
        async with self._http.request(method, where, json=body, headers=headers, params=query) as answer:
            return answer.status, await answer.json()

    async def tenant(self, name: str, parent: str | None = None, plan: str = "open", **more: Any) -> None:
        """With a key, which it is known by here."""
        status, said = await self.admin("POST", "tenants", {"id": name, "plan": plan, "parent": parent})
        assert status == 201, said
        if more:
            status, said = await self.admin("PATCH", f"tenants/{name}", more)
            assert status == 200, said
        _, key = await self.admin("POST", f"tenants/{name}/keys", {})
        self._keys[name] = key["key"]
        self._sdks[name] = openai.AsyncOpenAI(api_key=key["key"], base_url=f"{self.url}/v1", max_retries=0)

    async def order(self, order_id: str, tenant: str, package: str, quantity: int = 1) -> tuple[int, Any]:
        body = {"order_id": order_id, "tenant": tenant, "package": package, "quantity": quantity}
        return await self.admin("POST", "orders", body)

    async def statement(self, tenant: str, from_: str, to: str) -> dict[str, str]:
        """Of the admin API, and what `moma statement` prints is the same; its sum is right."""
        _, said = await self.admin("GET", f"tenants/{tenant}/statement", **{"from": from_, "to": to})
        printed = await asyncio.to_thread(self._moma, "statement", tenant, "--from", from_, "--to", to)
        assert printed == said
        opening, granted, spent, expired, revoked, closing = (
            float(said[name]) for name in ("opening", "granted", "spent", "expired", "revoked", "closing")
        )
        assert opening + granted - spent - expired - revoked == closing
        return {name: said[name] for name in ("granted", "spent", "expired", "closing")}

    def _moma(self, *command: str) -> Any:
        out = io.StringIO()
        routes = str(self._path / "routes.yaml")
        with contextlib.redirect_stdout(out):
            assert main([*command, "-c", routes, "--url", self.url, "--json"]) == 0
        return json.loads(out.getvalue())

    # -- tenants ----------------------------------------------------------------------------------------------------

    async def call(self, tenant: str, output: int, *, prompt: int = 0, cached: int = 0, model: str = "small") -> int:
        """By the SDK: writes `output` tokens, or as many as the gateway lets it; returns how many were used in all.

        Of more than a million there are several choices.
        """
        self._uses = prompt, cached, output
        choices = -(-output // MAX_TOKENS)
        raw = await self._sdks[tenant].chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=output // choices, n=choices
        )
        self.headers, self.request_id = raw.headers, raw.headers["x-request-id"]
        answer = raw.parse()
        assert answer.usage is not None
        return answer.usage.total_tokens

    async def many(self, tenant: str, output: int, times: int) -> None:
        """Without the SDK, which takes ten times as long."""
        self._uses = 0, 0, output
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": output, "n": 1}
        headers = {"authorization": f"Bearer {self._keys[tenant]}"}

        async def one() -> None:
            async with self._http.post(f"{self.url}/v1/chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()

        for _ in range(0, times, AT_ONCE):
            await asyncio.gather(*(one() for _ in range(min(AT_ONCE, times))))

    async def refused(self, tenant: str, output: int = 1000, model: str = "small") -> dict[str, Any]:
        """The error of a call that is over the package."""
        with pytest.raises(openai.RateLimitError) as caught:
            await self.call(tenant, output, model=model)
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert isinstance(caught.value.body, dict)
        return caught.value.body

    async def usage(self, tenant: str) -> dict[str, Any]:
        """GET /v1/usage with the tenant's own key."""
        headers = {"authorization": f"Bearer {self._keys[tenant]}"}
        async with self._http.get(f"{self.url}/v1/usage", headers=headers) as answer:
            assert answer.status == 200
            shown: dict[str, Any] = await answer.json()
            return shown

    async def available(self, tenant: str) -> str:
        return str((await self.usage(tenant))["available"])

    async def redeem(self, tenant: str, code: str) -> int:
        headers = {"authorization": f"Bearer {self._keys[tenant]}"}
        async with self._http.post(f"{self.url}/v1/redeem", json={"code": code}, headers=headers) as answer:
            return answer.status

    def reply(self, seen: Seen) -> Reply:
        """A backend that honours max_tokens."""
        prompt, cached, output = self._uses
        choices = seen.body["n"]
        output = min(output, seen.body["max_tokens"] * choices)
        usage: dict[str, Any] = {
            "prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached},
        }  # fmt: skip
        message = {"role": "assistant", "content": "ok"}
        said = [{"index": number, "message": message, "finish_reason": "stop"} for number in range(choices)]
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
        return Reply(body={**head, "choices": said, "usage": usage})


@asynccontextmanager
async def open_storefront(
    path: Path, date: str = "2026-01-01T00:00", packages: str = CATALOGUE
) -> AsyncIterator[Storefront]:
    """The books are right when it closes."""
    calendar = Calendar(date)
    async with ScriptedBackend() as backend:
        (path / "routes.yaml").write_text(f"{packages}\n{ROUTES.format(path=path, url=backend.base_url)}")
        with mock.patch("gateway.app.LoopClock", calendar.clock):
            app = App(load(path / "routes.yaml"))
            await app.start("127.0.0.1", 0)
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
                shop = Storefront(app, http, calendar, path)
                backend.script(shop.reply)
                yield shop
                await shop.aclose()
                app.ledger.check_invariants()
        finally:
            app.hurry()
            await app.aclose()
    assert audit(f"{path}/moma.db") == []
