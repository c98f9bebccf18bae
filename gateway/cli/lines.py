"""Lines for standard output and standard error that nobody has to read: a thread of its own writes them.

A pipe whose reader has stopped blocks whoever writes to it. On the event loop that would be every call.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import Final

MAX_LINES: Final = 10_000  # some 4 MB of calls
BATCH_BYTES: Final = 2048  # with one more line it is what a pipe takes in one piece: lines of two writers stay whole
FLUSH_S: Final = 2.0  # at the end; a reader that has stopped must not hold up the shutdown


class LineWriter:
    """`put` never blocks: when the queue is full the line is dropped, and `notice` words how many were.

    The notice goes out before the next line that can be written. `put` is for one thread at a time.
    State: the queue; lines asked for, dropped, written, lost by a failed write, and told to be missing; whether the
    last write ended within a line.
    """

    def __init__(self, descriptor: int, notice: Callable[[int], bytes], most: int = MAX_LINES) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._most = most
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._asked = self._dropped = 0  # only `put` writes these, the others only the thread
        self._written = self._lost = self._told = 0
        self._cut = False
        # A daemon: one that is blocked in a write must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=f"lines-{descriptor}", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        self._asked += 1
        if self._queue.qsize() < self._most:
            self._queue.put(line)
        else:
            self._dropped += 1

    def close(self, within_s: float = FLUSH_S) -> int:
        """Write what is queued, but not for longer than this; returns how many lines are missing without a notice."""
        self._queue.put(None)
        self._thread.join(within_s)
        return self._asked - self._written - self._told

    def _run(self) -> None:
        ended = False
        while not ended:
            lines: list[bytes] = []
            ended = self._take(lines)
            if lines:
                self._write(lines)

    def _take(self, lines: list[bytes]) -> bool:
        """Waits for a line and adds what else is there, up to a batch; true at the end."""
        size = 0
        while (line := self._queue.get()) is not None:
            lines.append(line)
            size += len(line)
            if size > BATCH_BYTES or self._queue.empty():
                return False
        return True

    def _write(self, lines: list[bytes]) -> None:
        missing = self._dropped + self._lost
        head = self._notice(missing - self._told) if missing > self._told else b""
        body = b"".join(lines)
        data = (b"\n" if self._cut else b"") + head + body
        left = self._unwritten(data)
        if left < len(data):
            self._cut = not data.endswith(b"\n", 0, len(data) - left)
        if left <= len(body):
            self._told = missing
        lost = min(len(lines), data.count(b"\n", len(data) - left))
        self._lost += lost
        self._written += len(lines) - lost

    def _unwritten(self, data: bytes) -> int:
        """How much of the end could not be written, because the reader has gone or the disk is full."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # whoever gave us the pipe has set it so
                select.select([], [self._descriptor], [])
            except OSError:  # it may be possible again later
                break
        return len(left)


class LineHandler(logging.Handler):
    """The log through a LineWriter."""

    def __init__(self, lines: LineWriter) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a record that cannot be formatted must not fail a call
            self._lines.put(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
