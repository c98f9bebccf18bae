"""Lines for a reader that may be slow, stuck, gone or back again: `put` returns at once, what is missing is told."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.cli.lines import LineHandler, LineWriter

PIPE_BYTES = 4096


class Pipe:
    """A small pipe that is read when the test says so. State: which of its ends are open."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._open = {self.reader, self.writer}
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def read(self, lines: LineWriter) -> list[bytes]:
        """Closes what writes to it, which must succeed, and reads to the end."""
        with ThreadPoolExecutor(1) as pool, os.fdopen(self.reader, "rb", closefd=False) as file:
            data = pool.submit(file.read)
            until(lines._queue.empty)
            lines.put(b"end\n")
            assert lines.close(10.0) == 0
            self.close(self.writer)
            return [line.strip() for line in data.result(10.0).splitlines()]

    def close(self, *ends: int) -> None:
        """Those that are open still: a number that was closed may be another's file by now."""
        for end in self._open.intersection(ends):
            self._open.remove(end)
            os.close(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close(pipe.reader, pipe.writer)


def notice(missing: int) -> bytes:
    return b"missing %d\n" % missing


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_lines_come_in_order_and_are_flushed_at_the_end(pipe: Pipe) -> None:
    lines = LineWriter(pipe.writer, notice)
    for number in range(200):
        lines.put(b"%d\n" % number)
    assert pipe.read(lines) == [*(b"%d" % number for number in range(200)), b"end"]


def test_a_stuck_reader_delays_no_put_and_hears_how_many_lines_are_missing(pipe: Pipe) -> None:
    lines = LineWriter(pipe.writer, notice, most=100)
    started = time.monotonic()
    for number in range(1000):
        lines.put(b"%-99d\n" % number)
    assert time.monotonic() - started < 1.0
    got = pipe.read(lines)
    assert got.pop() == b"end"
    numbers = [int(line) for line in got if not line.startswith(b"missing")]
    told = [int(line.split()[1]) for line in got if line.startswith(b"missing")]
    assert 100 <= len(numbers) < 1000
    assert numbers == sorted(set(numbers))
    assert len(numbers) + sum(told) == 1000


def test_the_end_does_not_wait_for_a_stuck_reader(pipe: Pipe) -> None:
    lines = LineWriter(pipe.writer, notice, most=100)
    for _ in range(300):
        lines.put(b"x" * 99 + b"\n")
    started = time.monotonic()
    missing = lines.close(0.2)
    assert 0.2 <= time.monotonic() - started < 1.0
    got = os.read(pipe.reader, 65536).splitlines()
    told = sum(int(line.split()[1]) for line in got if line.startswith(b"missing"))
    assert missing + told + sum(line.startswith(b"x") for line in got) == 300


def test_a_reader_that_has_gone_is_no_error(pipe: Pipe) -> None:
    lines = LineWriter(pipe.writer, notice)
    pipe.close(pipe.reader)
    for _ in range(3):
        lines.put(b"line\n")
    assert lines.close() == 3


def test_a_pipe_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    lines = LineWriter(pipe.writer, notice)
    for number in range(100):
        lines.put(b"%-99d\n" % number)
    assert pipe.read(lines) == [*(b"%d" % number for number in range(100)), b"end"]


def test_a_line_that_was_cut_is_ended_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full takes a part of a line, then nothing, then lines again."""
    whole = os.write
    replies: list[int | OSError] = [3, OSError("full"), OSError("full")]

    def write(descriptor: int, data: memoryview) -> int:
        if not replies:
            return whole(descriptor, data)
        reply = replies.pop(0)
        if isinstance(reply, OSError):
            raise reply
        return whole(descriptor, data[:reply])

    monkeypatch.setattr("gateway.cli.lines.os.write", write)
    path = tmp_path / "calls"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    lines = LineWriter(descriptor, notice)
    for number, line in enumerate((b"first\n", b"second\n", b"third\n")):
        lines.put(line)
        until(lambda number=number: lines._written + lines._lost == number + 1)  # type: ignore[misc]
    assert lines.close() == 0
    os.close(descriptor)
    assert path.read_bytes() == b"fir\nmissing 2\nthird\n"


def test_the_log_goes_the_same_way(pipe: Pipe) -> None:
    lines = LineWriter(pipe.writer, notice)
    handler = LineHandler(lines)
    handler.handle(logging.makeLogRecord({"msg": "said \ud800 %d", "args": (5,)}))
    handler.handle(logging.makeLogRecord({"msg": "wrong %d", "args": ("five",)}))
    assert pipe.read(lines) == [b"said \\ud800 5", b"end"]
