"""A call on a route with a cache: a stored answer, the answer of the same call under way, or a call for others to join.

look it up -- hit: charged its share, answered
    | miss: the same call under way? -- follow it: its answer as it comes, charged its share at the end
    |            no, or it failed before its first byte
    lead: the rest of the pipeline in a task of its own, read by the client that asked and by all who join
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.backends.failures import public
from gateway.cache.caches import Caches
from gateway.cache.control import Control, parse_control
from gateway.cache.flight import Budget, Facts, Flight, Reader
from gateway.cache.handover import as_asked, stream_end, whole_answer
from gateway.cache.key import key_of, repeatable, route_version
from gateway.cache.store import Entry
from gateway.call import Answer, Call, Sink, Usage
from gateway.charging.affording import active
from gateway.charging.beyond import hold_share
from gateway.charging.in_force import Cards, InForce
from gateway.charging.ledger import Ledger
from gateway.charging.offers import STANDARD
from gateway.charging.rating import PPM, Quote, cost_uc, credits_text, hit_flags, provider_cost, shared_uc
from gateway.clock import Clock
from gateway.config.model import Cache, Config
from gateway.deadline import Deadline
from gateway.dialects.known import id_headers
from gateway.dispatch import Delivery
from gateway.draining import Drains
from gateway.errors import AttemptFailed, BackendRefusal, NotCached, ServiceError
from gateway.recorder import Finished
from gateway.tenants import Caller

GIVE_UP_AFTER: Final = 2  # calls of others that backends failed or refused: the next would most likely end so, too


@dataclass(frozen=True)
class Site:
    """A route with a cache. `version` is what it stands for."""

    route: str
    cache: Cache
    version: bytes


@dataclass(slots=True)
class Asked:
    """A call, who made it, and how the pipeline goes on with it: as on any route, or into a flight."""

    caller: Caller
    call: Call
    deadline: Deadline
    limits: Callable[[], Mapping[str, str]]  # x-ratelimit-*
    record: Finished
    delivery: Delivery
    serve: Callable[[], Awaitable[None]]
    lead: Callable[[Call, Flight], Coroutine[Any, Any, None]]

    def facts(self) -> Facts:
        """What readers of its flight are told of it."""
        target, reader = self.delivery.target, self.delivery.reader
        assert target is not None, "a flight that has begun has a target"
        said = (None, b"") if reader is None else reader.said_usage
        return Facts(target.model.name, target.backend.name, self.delivery.ceiling_uc, self.record.usage, *said)


def sites_of(config: Config) -> Mapping[str, Site]:
    """Routes with a cache by every name a client may call them by."""
    sites = {
        name: Site(name, config.caches[route.cache], route_version(config, route))
        for name, route in config.routes.items()
        if route.cache is not None and route.cache in config.caches
    }
    return sites | {alias: sites[name] for alias, name in config.aliases.items() if name in sites}


def verdict(site: Site, caches: Caches | None, caller: Caller, call: Call) -> tuple[str, str]:
    """What `x-moma-cache` of the call would be, and why. Leaves no trace. `caches` is None where nothing runs.

    Raises InvalidValue for a Cache-Control that cannot be read.
    """
    control, name = parse_control(call.cache_control), site.cache.name
    key = _key(site, caller, call)
    if key is None:
        return "bypass", "only answers to temperature 0 or a seed are kept; `sampled: true` keeps others too"
    entry = None if caches is None or control.fresh else caches.peek(name, key, control.max_age_s)
    if entry is not None and caches is not None:
        return "hit", f"its answer was stored {caches.age_s(entry)} s ago"
    if control.stored:
        return "miss", "nothing is stored, and only-if-cached asks for nothing else: 504 not_cached"
    if control.unstored:
        return "bypass", "no-store asks for it"
    if caches is not None and not control.fresh and caches.under_way(name, key) is not None:
        return "coalesced", "the same call is under way"
    return "miss", f"its answer will be kept for about {site.cache.ttl_s:g} s"


def _key(site: Site, caller: Caller, call: Call) -> bytes | None:
    """None for a call whose answer is not given again."""
    if not repeatable(call, sampled=site.cache.sampled):
        return None
    scope = site.cache.scope
    whose = caller.tenant if scope == "tenant" or not caller.account_path else caller.account_path[0]
    return key_of(call, scope=f"{scope}:{whose}", version=site.version, max_output=caller.plan.max_output)


class CachedCalls:
    """Collaborators only, of one generation of the configuration; what lasts is in `caches`."""

    def __init__(
        self,
        *,
        config: Config,
        cards: Cards,
        caches: Caches,
        ledger: Ledger,
        clock: Clock,
        next_charge_id: Callable[[], str],
        drains: Drains,
    ) -> None:
        self._drains = drains
        self.sites = sites_of(config)
        self._config = config
        self._cards = cards
        self._caches = caches
        self._ledger = ledger
        self._clock = clock
        self._next_charge_id = next_charge_id

    async def answer(self, site: Site | None, asked: Asked, sink: Sink) -> None:
        """Answers the call in one of the four ways of `x-moma-cache`. Raises what the client shall hear."""
        call = asked.call
        control = parse_control(call.cache_control)
        key = None if site is None else _key(site, asked.caller, call)
        if site is not None and key is not None and not control.fresh:
            entry = self._caches.find(site.cache.name, key, control.max_age_s)
            if entry is not None and (body := as_asked(entry, call)) is not None:
                self._caches.looked_up(site.cache.name, "hit")
                await self._give(site, asked, entry, body, sink, "hit")
                return
        if control.stored:
            raise NotCached("Nothing is stored that answers this call, and Cache-Control asks for nothing else.")
        if site is None or key is None or control.unstored:
            if site is not None:
                self._caches.looked_up(site.cache.name, "bypass")
            await asked.serve()
        else:
            await self._join_or_lead(site, key, asked, control, sink)

    # -- the same call under way ----------------------------------------------------------------------------------

    async def _join_or_lead(self, site: Site, key: bytes, asked: Asked, control: Control, sink: Sink) -> None:
        """One call at a time for all who ask the same; when it fails before its first byte, one of them is the next."""
        name, call = site.cache.name, asked.call
        deadline, failures = asked.deadline, 0
        while not control.fresh and (flight := self._caches.under_way(name, key)) is not None:
            if await self._followed(site, asked, flight, deadline, sink):
                return
            failures += isinstance(flight.error, ServiceError | BackendRefusal)
            if failures >= GIVE_UP_AFTER and flight.error is not None:
                raise flight.error.with_traceback(None)
            if flight is self._caches.under_way(name, key):  # it goes on, but not for this call
                self._caches.looked_up(name, "bypass")
                await asked.serve()
                return
            entry = self._caches.find(name, key)
            if entry is not None and (body := as_asked(entry, call)) is not None:
                self._caches.looked_up(name, "hit")
                await self._give(site, asked, entry, body, sink, "hit")
                return
        self._caches.looked_up(name, "miss")
        await self._lead(site, key, asked, None if call.deadline_s is None else deadline, sink)

    async def _lead(self, site: Site, key: bytes, asked: Asked, deadline: Deadline | None, sink: Sink) -> None:
        """The client's own patience ends its reading; the call ends with its last reader, or with the time all have.

        A stream in the flight has no usage chunk: each reader gets it who asked for it.
        """
        limit, budget = self._caches.budget(site.cache.name)
        flight = Flight(
            asked.call,
            cache=site.cache.name,
            tenant=asked.caller.tenant,
            limit=limit,
            budget=budget,
            facts=asked.facts,
        )
        flight.drains = lambda: self._drains.take(flight, asked.delivery)
        work = asked.lead(replace(asked.call, wants_usage=False, deadline_s=None), flight)
        reader = flight.join()
        self._caches.fly(key, flight, self._flown(site, key, flight, work))
        await self._read(reader, flight, deadline, sink, lambda: stream_end(flight, asked.call))

    async def apart(self, asked: Asked, sink: Sink) -> None:
        """A call that no cache keeps and nobody joins, and that may go on when its client leaves."""
        call, facts = asked.call, asked.facts
        flight = Flight(call, cache="", tenant=asked.caller.tenant, limit=0, budget=Budget(0), facts=facts)
        flight.alone()
        flight.drains = lambda: self._drains.take(flight, asked.delivery)
        work = asked.lead(replace(call, deadline_s=None), flight)
        reader = flight.join()
        self._caches.fly_alone(flight, _landed(flight, work))
        deadline = None if call.deadline_s is None else asked.deadline
        await self._read(reader, flight, deadline, sink, lambda: flight.last)

    async def _read(
        self, reader: Reader, flight: Flight, deadline: Deadline | None, sink: Sink, end: Callable[[], bytes]
    ) -> None:
        """For the client whose call it is; a stream that ended well ends with `end`."""
        try:
            await _in_time(reader.answered(), deadline)
            if flight.answer is not None:
                await sink.send(flight.answer)
                return
            if not flight.begun:
                assert flight.error is not None
                raise flight.error
            await sink.begin(200, flight.headers)
            await self._relay(reader, deadline, sink)
            await sink.finish(end() if flight.error is None else flight.last, whole=flight.error is None)
        finally:
            flight.leave(reader)

    async def _flown(self, site: Site, key: bytes, flight: Flight, work: Awaitable[None]) -> None:
        """The task of a flight: the whole life of its call, then what is kept of it."""
        try:
            await work
            if flight.error is None:
                flight.entry, again = await whole_answer(flight, site.route, self._clock.now())
                if flight.entry is not None and again:
                    self._caches.keep(site.cache.name, key, flight.entry)
        finally:
            flight.close()

    async def _followed(self, site: Site, asked: Asked, flight: Flight, deadline: Deadline, sink: Sink) -> bool:
        """Whether the flight's answer was given; False when it has none for this call. Raises once it has begun."""
        call = asked.call
        reader, began_at = flight.join(), self._clock.now()
        try:
            if not await self._came(reader.begun(), call, flight, deadline) or flight.private or not flight.begun:
                return False
            if call.stream and flight.answer is None:
                await self._follow(site, asked, flight, reader, deadline, sink)
                return True
            if not await self._came(reader.closed(), call, flight, deadline):
                return False
            entry = flight.entry
            if flight.error is not None or entry is None or (body := as_asked(entry, call)) is None:
                return False
        finally:
            asked.delivery.waited_s += self._clock.now() - began_at
            flight.leave(reader)
        self._caches.looked_up(site.cache.name, "coalesced")
        await self._give(site, asked, entry, body, sink, "coalesced")
        return True

    async def _came(self, wait: Awaitable[None], call: Call, flight: Flight, deadline: Deadline) -> bool:
        """Waits no longer than for a backend. Raises when the call's own time is over."""
        patience_s = self._config.timeout.first_token_s
        if not flight.call.stream or not call.stream:  # a whole answer is not heard of before its end
            patience_s = max(patience_s, deadline.left_s / 2)
        try:
            with deadline:
                deadline.expect(patience_s)
                await wait
        except AttemptFailed as failure:
            if failure.kind == "timeout":
                return False
            raise public(failure) from failure
        return True

    async def _follow(
        self, site: Site, asked: Asked, flight: Flight, reader: Reader, deadline: Deadline, sink: Sink
    ) -> None:
        """The stream as it comes, and its end once this reader's share is charged, too."""
        facts, ppm, rates = flight.facts(), site.cache.charge_ppm, self._cards.at(self._clock.wall_ms())
        charge_id = self._next_charge_id()
        try:
            quote = self._quote(asked, rates, -(-facts.ceiling_uc * ppm // PPM))
            if ppm:
                asked.record.reserved_uc = (await hold_share(self._ledger, charge_id, quote)).reserved_uc
            else:
                self._ledger.look(active, quote)
            self._caches.looked_up(site.cache.name, "coalesced")
            await sink.begin(200, self._headers(site, asked, facts.model, facts.backend, "coalesced"))
            await self._relay(reader, deadline, sink)
            if flight.error is not None:
                raise flight.error.with_traceback(None)
            usage = flight.facts().usage
            assert usage is not None, "a flight that ended well knows its usage"
            await self._charge(site, asked, rates, charge_id, facts.model, usage)
            await sink.finish(stream_end(flight, asked.call))
            _done(asked.record)
        finally:
            self._ledger.close(charge_id, "aborted")

    async def _relay(self, reader: Reader, deadline: Deadline | None, sink: Sink) -> None:
        while data := await _in_time(reader.read(), deadline):
            await sink.write(data)

    # -- a whole answer -------------------------------------------------------------------------------------------

    async def _give(self, site: Site, asked: Asked, entry: Entry, body: bytes, sink: Sink, result: str) -> None:
        """An answer that is there. Its share is charged first; what is free waits for no commit."""
        charge_id, record, rates = self._next_charge_id(), asked.record, self._cards.at(self._clock.wall_ms())
        try:
            if site.cache.charge_ppm:
                cost = cost_uc(entry.usage.quantities, rates.standard[entry.model])
                quote = self._quote(asked, rates, shared_uc(cost, hit_flags(site.cache.charge_ppm)))
                record.reserved_uc = (await hold_share(self._ledger, charge_id, quote)).reserved_uc
            await self._charge(site, asked, rates, charge_id, entry.model, entry.usage)
            headers = self._headers(site, asked, entry.model, entry.backend, result)
            if result == "hit":
                headers["age"] = str(self._caches.age_s(entry))
            if asked.call.stream:
                await sink.begin(200, headers)
                await sink.finish(body)
            else:
                overhead_s = self._clock.now() - record.started - asked.delivery.waited_s
                headers["content-type"] = "application/json"
                headers["x-moma-credits"] = credits_text(record.charged_uc)
                headers["x-moma-overhead-ms"] = f"{max(0.0, overhead_s) * 1000:.2f}"
                await asked.delivery.hand(Answer(200, headers, body), sink, self._clock)
            _done(record)
        finally:
            self._ledger.close(charge_id, "aborted")

    async def _charge(self, site: Site, asked: Asked, rates: InForce, charge_id: str, name: str, usage: Usage) -> None:
        """Settles the share, and waits until it is durable unless it is nothing."""
        model, ppm, record = self._config.models[name], site.cache.charge_ppm, asked.record
        if not ppm:
            self._ledger.hold_nothing(charge_id, self._quote(asked, rates, 0))
        flags = hit_flags(ppm)
        receipt = self._ledger.settle(
            charge_id, usage, model_served=name, backend="", rates=rates.standard[name], price={}, status_flags=flags
        )
        record.route, record.model, record.usage, record.hit = site.route, name, usage, True
        record.saved = provider_cost(usage.quantities, model.price)
        record.charged_uc = shared_uc(cost_uc(usage.quantities, rates.standard[name]), flags)
        if ppm:
            end = await receipt
            record.charged_uc, record.overage_uc = end.charged_uc, end.overage_uc

    def _quote(self, asked: Asked, rates: InForce, uc: int) -> Quote:
        caller, call = asked.caller, asked.call
        return Quote(
            tenant=caller.tenant,
            account_path=caller.account_path,
            request_id=call.request_id,
            endpoint=call.endpoint,
            model_requested=call.model,
            card=STANDARD,
            card_version=rates.version,
            input_uc=uc,
            output_uc_per_token=0,
            max_tokens=None,
            deadline_ms=self._clock.wall_ms() + int(self._config.timeout.total_s * 1000),
            key_id=caller.key_id,
            once=call.once if uc else "",
        )

    def _headers(self, site: Site, asked: Asked, model: str, backend: str, result: str) -> dict[str, str]:
        return {
            **id_headers(asked.call.request_id, asked.call.dialect),
            "x-moma-model": model,
            "x-moma-backend": backend,
            "x-moma-route": site.route,
            "x-moma-reason": "cache",
            "x-moma-attempts": "0",
            "x-moma-cache": result,
            **asked.limits(),
        }


def _done(record: Finished) -> None:
    record.outcome, record.status = "cache_hit", 200


async def _landed(flight: Flight, work: Awaitable[None]) -> None:
    try:
        await work
    finally:
        flight.close()


async def _in_time(wait: Awaitable[Any], deadline: Deadline | None) -> Any:
    """Raises when the client's own time is over; nothing else is to be watched, as the flight watches its backend."""
    if deadline is None:
        return await wait
    try:
        with deadline:
            deadline.expect(None)
            return await wait
    except AttemptFailed as failure:
        raise public(failure) from failure
