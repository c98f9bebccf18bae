"""routes.yaml read again while calls go on: loaded, checked, built aside, then swapped; or refused, and all stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from gateway.changes.compare import RESTART, Change, changes, turned
from gateway.charging import rate_cards
from gateway.charging.admins import FILE, By
from gateway.charging.audited import note
from gateway.charging.tariffs import Tariffs
from gateway.config.load import ConfigError, Problem, load
from gateway.config.model import Config
from gateway.config.secrets import Secrets, secrets_of
from gateway.config.sources import Sources, Stamp, stamp_of
from gateway.errors import ConfigRefused, GatewayError, ShuttingDown, StoreUnavailable
from gateway.generation import Generation, Parts, left_over, made, taken_over

LOOK_S: Final = 1.0  # a change of a file is taken when two looks in a row have found it the same
SETTLE_S: Final = 0.1  # what was read must still be the same then: a file may be half-written
MAX_READS: Final = 20
GIVE_WAY_S: Final = 0.0005
LOGGED: Final = 100  # lines in the log for one reload
REPORTED: Final = 1000  # problems or changes in the answer of the admin API
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_log = logging.getLogger("gateway.reload")


@dataclass(frozen=True)
class Loaded:
    """A configuration that can be served, what it changes, and what has waited for a restart since the start."""

    config: Config
    secrets: Secrets
    changes: Sequence[Change]
    pending: Sequence[Change]
    cards: Tariffs


@dataclass(frozen=True)
class Refusal:
    """What is wrong with routes.yaml: the first `REPORTED` problems, and how many there are."""

    problems: Sequence[Problem]
    count: int


@dataclass(frozen=True)
class Outcome:
    """`error` is None when what routes.yaml says is in force: applied, or unchanged."""

    result: str  # applied | unchanged | refused (by routes.yaml) | failed (for another reason; it is tried again)
    generation: int
    changes: Sequence[Change] = ()
    pending: Sequence[Change] = ()
    warnings: Sequence[str] = ()
    problems: Sequence[Problem] = ()  # the first of them
    error: GatewayError | None = None

    def value(self) -> dict[str, Any]:
        """For the admin API. Raises the error."""
        if self.error is not None:
            raise self.error
        return {
            "result": self.result,
            "generation": self.generation,
            "changes": [asdict(change) for change in self.changes[:REPORTED]],
            "after_restart": [change.text for change in self.pending[:REPORTED]],
            "warnings": list(self.warnings[:REPORTED]),
        }


class Reloader:
    """One reload at a time; who asks while one runs shares the next, which sees all that was written before.

    State: the `generation` in force; the reload that has yet to begin (`_turn`) and all tasks; the last outcome; the
    files as they were last read (`_sources`), and what a look has found different in them (`_seen`).
    """

    def __init__(self, first: Generation, parts: Parts, swap: Callable[[Generation], None]) -> None:
        assert first.config.sources is not None, "it was not loaded from a file"
        self._started_with = first.config
        self.generation = first
        self._parts = parts
        self._swap = swap
        self._sources = first.config.sources
        self._seen: Mapping[str, Stamp] | None = None
        self._last = Outcome("unchanged", first.number)
        self._one_at_a_time = asyncio.Lock()
        self._turn: asyncio.Task[Outcome] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, "reload")
        parts.metrics.generation.set(first.number)
        parts.metrics.reloaded.set(1)

    @property
    def status(self) -> dict[str, Any]:
        """What /readyz shows to everybody: no names, and no lines of the file."""
        shown: dict[str, Any] = {
            "generation": self.generation.number,
            "last_reload_successful": self._last.error is None,
        }
        if self._last.error is not None:
            shown["message"] = "The configuration before it is in force. The log, and POST /admin/v1/reload, say why."
        return shown

    async def reload(self, by: By = FILE, request_id: str = "") -> Outcome:
        """Fails by its outcome only; who asked and leaves does not end it. `by`: who is in the audit log for it."""
        if self._turn is None:
            self._turn = self._spawn(self._take_turn(by, request_id))
        return await asyncio.shield(self._turn)

    def soon(self) -> None:
        """For a signal: the log says what came of it."""
        if not self._closing:
            self._spawn(self.reload())

    def look(self) -> None:
        """Asked for every LOOK_S: reloads when files have changed, and when a reload has failed."""
        if not self._tasks and not self._closing:
            self._spawn(self._look())

    async def aclose(self) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _aside(self, work: Callable[[Unpack[Ts]], T], *given: *Ts) -> T:
        """In the one thread of all reloads: each further one would keep the memory of a large load for itself."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *given)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("routes.yaml could not be looked at", exc_info=error)

    async def _look(self) -> None:
        now = await self._aside(self._sources.now)
        same, settled = now == self._sources.stamps, now == self._seen
        self._seen = None if same or settled else now
        if settled or (same and self._last.result == "failed"):
            await self.reload()

    async def _take_turn(self, by: By, request_id: str) -> Outcome:
        async with self._one_at_a_time:
            self._turn = None  # who asks from here on may know of a change that this one does not see
            outcome = await self._outcome(by, request_id)
            _tell(outcome, self._last, self._sources.path)
            self._last = outcome
            self._parts.metrics.reloads.inc((outcome.result,))
            self._parts.metrics.reloaded.set(float(outcome.error is None))
            return outcome

    async def _outcome(self, by: By, request_id: str) -> Outcome:
        number = self.generation.number
        try:
            loaded = await self._read()
            if isinstance(loaded, Refusal):
                return _refused(loaded, self._sources.path, number)
            if not loaded.changes:
                return Outcome("unchanged", number, pending=loaded.pending, warnings=loaded.config.warnings)
            await self._apply(loaded, by, request_id)
        except (StoreUnavailable, ShuttingDown) as error:
            return Outcome("failed", number, error=error)
        except Exception:
            if self._last.result != "failed":  # it is tried again each second
                _log.exception("a reload failed unexpectedly")
            return Outcome("failed", number, error=GatewayError("The reload failed; the log says why."))
        warnings = [*loaded.config.warnings, *left_over(loaded.config, self._parts.ledger)]
        return Outcome("applied", self.generation.number, loaded.changes, loaded.pending, warnings)

    async def _read(self) -> Loaded | Refusal:
        """Once it has been the same for a moment."""
        clock, path = self._parts.clock, self._sources.path
        for _ in range(MAX_READS):
            began = clock.now()
            loaded, sources = await self._aside(_load, path, self._started_with, self.generation)
            self._sources = sources
            await clock.sleep(max(0.0, began + SETTLE_S - clock.now()))
            if not await self._aside(sources.changed):
                return loaded
        return Refusal([Problem(str(path), 1, "", "changes all the time", "rename a finished file over it")], 1)

    async def _apply(self, loaded: Loaded, by: By, request_id: str) -> None:
        """Raises StoreUnavailable or ShuttingDown before anything has changed."""
        config, parts, old = loaded.config, self._parts, self.generation
        cards = await rate_cards.put(parts.ledger, loaded.cards)
        new = await self._aside(made, old.number + 1, config, loaded.secrets, cards, parts, old)
        if self._closing:
            raise ShuttingDown("The gateway is shutting down.")
        # No await from here on: what is in force changes in one step of the loop.
        parts.ledger.follow(config.plans, {tenant.name: tenant.plan for tenant in config.tenants.values()})
        said = {"generation": new.number, "changes": [change.text for change in loaded.changes[:LOGGED]]}
        parts.ledger.change(
            note, by, "configuration.reload", request_id, "configuration", self._sources.path.name, None,
            {"generation": old.number}, said,
        )  # fmt: skip
        taken_over(parts, old, new)
        self.generation = new
        self._swap(new)
        parts.metrics.generation.set(new.number)


def _load(path: Path, started_with: Config, current: Generation) -> tuple[Loaded | Refusal, Sources]:
    """Aside, because a large file takes a while."""
    if os.path.exists(path) and not os.path.isfile(path):
        what = Problem(str(path), 1, "", "is no file that could be read again")
        return Refusal([what], 1), Sources(path, {str(path): stamp_of(str(path))})
    with _giving_way():
        try:
            config = load(path)
        except ConfigError as error:
            return Refusal(error.problems[:REPORTED], len(error.problems)), error.sources or Sources(path)
        secrets, sources = secrets_of(config), config.sources
        assert sources is not None
        if problems := secrets.problems(sources):
            return Refusal(problems[:REPORTED], len(problems)), sources
        found = [*changes(current.config, config), *turned(current.secrets, secrets, config)]
        pending = [change for change in changes(started_with, config) if change.when == RESTART]
        return Loaded(config, secrets, found, pending, rate_cards.tariffs(config)), sources


@contextlib.contextmanager
def _giving_way() -> Iterator[None]:
    """The loop waits for the interpreter's lock at each of its steps, 5 ms by default: too long for streams.

    And nobody gets it from a collection of garbage, of which a load makes none, however many objects it takes.
    """
    usual_s, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(GIVE_WAY_S)
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)
        if collects:
            gc.enable()


def _refused(refusal: Refusal, path: Path, number: int) -> Outcome:
    shown = [asdict(problem) for problem in refusal.problems]
    message = f"{path} has {_count(refusal.count, 'problem')}; generation {number} stays in force."
    return Outcome("refused", number, problems=refusal.problems, error=ConfigRefused(message, problems=shown))


def _tell(outcome: Outcome, last: Outcome, path: Path) -> None:
    """In the log; what fails again for the same reason is not told again."""
    number = outcome.generation
    if outcome.result == "applied":
        _log.info("generation %d of %s is in force: %s", number, path, _count(len(outcome.changes), "change"))
        _lines(logging.INFO, [change.text for change in outcome.changes])
        _lines(logging.WARNING, outcome.warnings)
    elif outcome.result == "unchanged":
        _log.info("%s says what is in force already (generation %d)", path, number)
    elif str(outcome.error) != str(last.error) or outcome.problems != last.problems:
        _log.error("reload %s: %s", outcome.result, outcome.error)
        _lines(logging.ERROR, list(map(str, outcome.problems)))


def _lines(level: int, lines: Sequence[str]) -> None:
    for line in lines[:LOGGED]:
        _log.log(level, "%s", line)
    if len(lines) > LOGGED:
        _log.log(level, "and %d more", len(lines) - LOGGED)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
