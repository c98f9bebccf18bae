"""`make run`: two backends and the gateway in front of them, with a fresh key, until Ctrl-C."""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from gateway.demo import llama
from gateway.demo.processes import HOST, Child, NotReady, free_port, start, stop, wait_ready

READY_S = 30.0
POLL_S = 0.2
STATE = Path(".demo")

GREETING = """
The gateway runs. Base URL, key and admin key of this run:
  http://{host}:{port}/v1
  {key}
  export MOMA_ADMIN_KEY={admin_key}

curl http://{host}:{port}/v1/chat/completions -H 'Authorization: Bearer {key}' \
-H 'Content-Type: application/json' -d '{{"model": "auto", "messages": [{{"role": "user", "content": "Say hello."}}]}}'

from openai import OpenAI
client = OpenAI(base_url="http://{host}:{port}/v1", api_key="{key}")
messages = [{{"role": "user", "content": "Say hello."}}]
for chunk in client.chat.completions.create(model="auto", messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)

Models: {models}, and the route auto. Ctrl-C ends everything.
"""


@dataclass(frozen=True)
class Keys:
    tenant: str
    admin: str


def run(port: int) -> int:
    keys = Keys(f"sk-moma-{secrets.token_urlsafe(24)}", os.environ.get("MOMA_ADMIN_KEY") or secrets.token_urlsafe(24))
    with ExitStack() as ends:
        # Ends in reverse order: the gateway drains while its backends still answer.
        small_port = _start_small(ends)
        large_port = _start_large(ends)
        routes = effective_routes(small_port, large_port, keys.tenant, STATE.resolve())
        path = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="moma-demo-"))) / "routes.yaml"
        path.write_text(yaml.safe_dump(routes, sort_keys=False), encoding="utf-8")
        gateway = _start_gateway(ends, path, port, keys.admin)
        models = ", ".join(routes["models"])
        print(GREETING.format(host=HOST, port=port, key=keys.tenant, admin_key=keys.admin, models=models), flush=True)
        return _watch(gateway)


def effective_routes(small_port: int | None, large_port: int, key: str, state: Path) -> dict[str, Any]:
    """routes.yaml of this package with this run's values; without the small model if its port is None."""
    values = {
        "LEDGER": str(state / "moma.db"),
        "SMALL_PORT": str(small_port),
        "LARGE_PORT": str(large_port),
        "KEY_HASH": hashlib.sha256(key.encode()).hexdigest(),
    }
    text = _fill(Path(__file__).with_name("routes.yaml").read_text(encoding="utf-8"), values)
    routes: dict[str, Any] = yaml.safe_load(text)
    if small_port is None:
        del routes["backends"]["small"], routes["models"]["smollm2-135m"]
        routes["routes"]["auto"] = {"pick": ["large"], "policy": "ordered"}
    return routes


def _fill(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _start_small(ends: ExitStack) -> int | None:
    if not llama.available():
        print("The wheels of the small model are not installed: going on with the backend `large` alone.", flush=True)
        return None
    port = free_port()
    try:
        ends.callback(stop, llama.start(port))
    except NotReady as problem:
        print(f"The small model did not start ({problem}): going on with the backend `large` alone.", flush=True)
        return None
    return port


def _start_large(ends: ExitStack) -> int:
    port = free_port()
    child = start("gateway.demo.backend", str(port))
    ends.callback(stop, child)
    wait_ready(child, port, "/v1/models", READY_S)
    return port


def _start_gateway(ends: ExitStack, routes: Path, port: int, admin_key: str) -> Child:
    STATE.mkdir(mode=0o700, exist_ok=True)
    environment = {**os.environ, "MOMA_ADMIN_KEY": admin_key}
    child = start("gateway", "serve", "-c", str(routes), "--host", HOST, "--port", str(port), env=environment)
    ends.callback(stop, child)
    wait_ready(child, port, "/readyz", READY_S)
    return child


def _watch(gateway: Child) -> int:
    while gateway.poll() is None:
        time.sleep(POLL_S)
    print(f"The gateway ended with exit code {gateway.returncode}.", file=sys.stderr)
    return 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway.demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        return run(arguments.port)
    except KeyboardInterrupt:
        return 0
    except NotReady as problem:
        print(f"The demo did not start: {problem}.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
