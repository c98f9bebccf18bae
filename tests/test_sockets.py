"""A listening socket that outlives the process: --fd, and systemd's variables."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import aiohttp
import pytest

from gateway.app import FAREWELL_S, LINGER_S, App
from gateway.cli import main
from gateway.cli.sockets import FIRST_FD, NoListener, inherited
from gateway.config.load import load
from gateway.config.model import Server
from tests.test_app import READY_S, Process, moma, ready, url_of

__all__ = ["moma"]
ROOT = Path(__file__).parent.parent


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_without_one_the_gateway_opens_its_own() -> None:
    assert inherited(None, {}, 1) is None
    assert inherited(None, {"LISTEN_PID": "2", "LISTEN_FDS": "1"}, 1) is None, "meant for another process"


def test_a_listening_socket_is_taken_and_not_passed_on(listener: socket.socket) -> None:
    fd = os.dup(listener.fileno())
    os.set_inheritable(fd, True)
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "HOME": "/"}
    taken = inherited(fd, environ, 1)
    assert taken is not None
    with taken:
        assert taken.getsockname() == listener.getsockname()
        assert not os.get_inheritable(fd)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("kind", ["closed", "file", "udp", "unix", "silent"])
def test_what_cannot_be_listened_on_is_told(kind: str) -> None:
    made = {
        "udp": lambda: socket.socket(type=socket.SOCK_DGRAM).detach(),
        "unix": lambda: socket.socket(socket.AF_UNIX).detach(),
        "silent": lambda: socket.socket().detach(),
        "file": lambda: os.open("/dev/null", os.O_RDONLY),
        "closed": lambda: os.dup(0),
    }
    fd = made[kind]()
    if kind == "closed":
        os.close(fd)
    with pytest.raises(NoListener, match=f"File descriptor {fd} is not "):
        inherited(fd, {}, 1)
    if kind != "closed":
        os.close(fd)  # it is still ours


def test_systemd_hands_over_one() -> None:
    with pytest.raises(NoListener, match="hands over 2 sockets; one is wanted"):
        inherited(None, {"LISTEN_PID": "1", "LISTEN_FDS": "2"}, 1)
    assert FIRST_FD == 3


async def test_wrong_use_is_told(moma: Process, listener: socket.socket) -> None:
    code, said = await moma.fails("--fd", "77")
    assert (code, said.strip()) == (2, "File descriptor 77 is not an open socket: Bad file descriptor.")
    code, said = await moma.fails("--fd", "x")
    assert code == 2
    assert "--fd" in said


MOVED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
if sys.argv[2] == "systemd":
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, "-m", "gateway", "serve", *sys.argv[3:]])
"""


def serve(moma: Process, listener: socket.socket, *args: str, how: str = "fd") -> subprocess.Popen[bytes]:
    """With the socket as file descriptor 3; systemd's variables need the pid, which only the process itself knows."""
    secrets = {"MOMA_TEST_ADMIN_KEY": "admin", "MOMA_TEST_BACKEND_KEY": "secret"}
    fd = listener.fileno()
    return subprocess.Popen(
        [sys.executable, "-c", MOVED, str(fd), how, "-c", str(moma.routes), *args],
        pass_fds=[fd], env={**os.environ, **secrets}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["fd", "systemd"])
async def test_one_process_after_another_serves_behind_one_socket(
    moma: Process, listener: socket.socket, how: str
) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    args = ("--fd", str(FIRST_FD)) if how == "fd" else ()
    async with aiohttp.ClientSession() as http:
        waiting = asyncio.create_task(ready(http, url))
        await asyncio.sleep(0.1)
        assert not waiting.done(), "it is connected, and waits for somebody to accept"
        for _ in range(2):
            process = serve(moma, listener, *args, how=how)
            await asyncio.wait_for(waiting, READY_S)
            process.send_signal(signal.SIGTERM)
            _, err = await asyncio.to_thread(process.communicate, timeout=READY_S)
            assert process.returncode == 0, err.decode()
            assert f"serving on {url}/v1" in err.decode()
            waiting = asyncio.create_task(ready(http, url))
            await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_socket_that_is_handed_in_has_its_own_address(moma: Process, listener: socket.socket) -> None:
    process = serve(moma, listener, "--fd", str(FIRST_FD), "--port", "80")
    _, err = await asyncio.to_thread(process.communicate, timeout=READY_S)
    assert process.returncode == 2
    assert "leave out --host and --port" in err.decode()


async def test_the_end_of_a_gateway_leaves_the_socket_to_others(moma: Process, listener: socket.socket) -> None:
    """Not even shut down: what connects meanwhile is served by the next."""
    app = App(load(moma.routes))
    await app.start(listener=listener.dup())
    async with aiohttp.ClientSession() as http:
        await ready(http, f"http://127.0.0.1:{app.port}")
    await app.aclose()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: g\r\n\r\n")
    answer = asyncio.create_task(reader.readline())
    await asyncio.sleep(0.2)
    assert not answer.done()
    second = App(load(moma.routes))
    await second.start(listener=listener.dup())
    assert await answer == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    await second.aclose()


def test_the_units_start_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    units = {}
    for name in ("moma.socket", "moma.service"):
        units[name] = ConfigParser(interpolation=None, strict=False)
        units[name].optionxform = str  # type: ignore[assignment,method-assign]
        units[name].read_string((ROOT / "docs" / "systemd" / name).read_text())
    service = units["moma.service"]["Service"]
    program, *args = shlex.split(service["ExecStart"])
    assert (Path(program).name, args) == ("moma", ["serve", "-c", "/etc/moma/routes.yaml"])
    assert main([*args[:-1], "/none.yaml"]) == 1
    assert "/none.yaml:1" in capsys.readouterr().err
    assert service["ExecReload"].split()[1:] == ["-HUP", "$MAINPID"]
    assert int(service["TimeoutStopSec"]) > Server().drain_s + FAREWELL_S + LINGER_S
    assert units["moma.service"]["Unit"]["Requires"] == "moma.socket"
    assert units["moma.socket"]["Socket"]["ListenStream"].endswith(":8080")


async def test_sighup_reloads(moma: Process) -> None:
    process = await moma.start("--port", "0")
    url = await url_of(process)
    moma.routes.write_text(moma.routes.read_text().replace("credits: 1M", "credits: 2M"))
    process.send_signal(signal.SIGHUP)
    async with aiohttp.ClientSession() as http, asyncio.timeout(READY_S):
        while True:
            async with http.get(f"{url}/readyz") as answer:
                if (await answer.json())["generation"] == 2:
                    break
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = await asyncio.wait_for(process.communicate(), READY_S)
    assert process.returncode == 0
    assert "generation 2 of" in err.decode()
    assert "plan pro: grants adds 2M credits once" in err.decode()
