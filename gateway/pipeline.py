"""A call's whole life, from its bytes to its charge: read this first.

parse -> admit -> (cache) -> route -> reserve -> dispatch -> settle -> the last byte; then, whatever happened, close
and release.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from gateway import errors
from gateway.admission import Admission
from gateway.cache.flight import Flight
from gateway.cached import Asked, CachedCalls, Site
from gateway.call import Answer, Call, Request, Sink, Usage
from gateway.charging.in_force import Cards
from gateway.charging.ledger import Ledger
from gateway.charging.rating import Quote, credits_text
from gateway.charging.records import Hold, Receipt
from gateway.clock import Clock
from gateway.config.model import Config
from gateway.deadline import Deadline, Deadlines
from gateway.dialects.known import id_headers
from gateway.dispatch import Delivery, Dispatcher, Job
from gateway.failing import error_answer, error_event
from gateway.goingon import GoingOn
from gateway.life import Life
from gateway.limits import Gates
from gateway.long_streams import cut_short, progress_of, sliced
from gateway.parse import parse_call, parse_count
from gateway.quote import quoted
from gateway.recorder import Finished, Recorder
from gateway.routing.estimate import estimated_input, needed_context
from gateway.routing.router import Decision, Router
from gateway.tenants import Caller, Tenants
from gateway.tokens import Tokenizer
from gateway.unreported import Unreported
from gateway.waiting import Waiting

_log = logging.getLogger("gateway.pipeline")


class Pipeline:
    """Collaborators only; nothing here changes between calls."""

    def __init__(
        self,
        *,
        config: Config,
        cards: Cards,
        tenants: Tenants,
        gates: Gates,
        waiting: Waiting,
        router: Router,
        dispatcher: Dispatcher,
        ledger: Ledger,
        tokenizer: Tokenizer,
        recorder: Recorder,
        clock: Clock,
        deadlines: Deadlines,
        next_charge_id: Callable[[], str],
        cached: CachedCalls,
    ) -> None:
        self._cached = cached
        self._sites = cached.sites
        self._config = config
        self._cards = cards
        self._tenants = tenants
        self._admission = Admission(gates, waiting, clock)
        self._going_on = GoingOn(ledger, router, dispatcher, self._admission, tokenizer, clock)
        self._router = router
        self.served = router.served  # endpoints
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._tokenizer = tokenizer
        self._unreported = Unreported(tokenizer)
        self._recorder = recorder
        self._clock = clock
        self._deadlines = deadlines
        self._next_charge_id = next_charge_id

    async def handle(self, caller: Caller, request: Request, sink: Sink) -> None:
        """One call, answered through `sink`: its answer, its error, or nothing when the client has gone."""
        record = Finished(request.request_id, tenant=caller.tenant, started=self._clock.now())
        life = Life(record, request.endpoint)
        call: Call | None = None
        try:
            call = parse_call(request)
            life.record.stream = call.stream
            deadline = self._deadline(call)
            life.entry = self._admission.entry(caller)
            life.delivery.waited_s = await self._admission.admit(life.entry, caller, estimated_input(call), deadline)
            site = self._sites.get(call.model)
            if site is None and not call.cache_control and not self._router.drains(call.model):
                await self._serve(life, caller, call, deadline, sink)
            else:
                await self._from_cache(life, caller, call, deadline, site, sink)
        except errors.GatewayError as error:
            await self._fail(life, call, error, sink)
        except ConnectionError:  # the client has left
            raise
        except Exception:  # ours, not the client's leaving: it is told by the edge, and pays for what was passed on
            life.record.outcome, life.record.status = "failed", errors.GatewayError.status
            raise
        finally:
            if life.flight is None:
                self._end(life, call)

    async def _serve(self, life: Life, caller: Caller, call: Call, deadline: Deadline, sink: Sink) -> None:
        """From the route to the last byte, by a backend."""
        needed = needed_context(call)
        if self._router.near_limit(call.model, needed):
            needed = await self._tokenizer.counted(call, needed)
        now = self._clock.now()
        decision = life.decision = self._router.route(call, caller.plan, needed, tenant=caller.tenant, now=now)
        self._dispatcher.shed(call, decision, caller.share)
        life.charge_id = self._next_charge_id()
        decision, hold = await self._reserve(life, caller, call, decision)
        job = self._job(life, caller, call, decision, hold, deadline)
        await self._dispatcher.run(job, sink, life.delivery)
        usage = life.delivery.usage or await self._unreported.counted(call, life.delivery)
        if life.delivery.cut:
            cut_short(life.delivery, usage)
            life.record.refusal = "quota"
        receipt = self._settle(life, usage)
        life.receipt = await receipt  # answered means charged: only now the last byte may go
        await self._finish(life, job, sink)
        life.record.outcome, life.record.status = "completed", 200

    def _deadline(self, call: Call) -> Deadline:
        return self._deadlines.start(min(self._config.timeout.total_s, call.deadline_s or 1e9))

    async def _from_cache(
        self, life: Life, caller: Caller, call: Call, deadline: Deadline, site: Site | None, sink: Sink
    ) -> None:
        """By a stored answer, by that of the same call under way, or as the call that others may follow."""
        self._router.check(call.model, caller.plan)

        def serve() -> Awaitable[None]:
            if self._router.drains(call.model):
                return self._cached.apart(asked, sink)
            return self._serve(life, caller, call, deadline, sink)

        def lead(call: Call, flight: Flight) -> Coroutine[Any, Any, None]:
            life.flight = flight
            return self._lead(life, caller, call, flight)

        asked = Asked(caller, call, deadline, life.limits, life.record, life.delivery, serve, lead)
        await self._cached.answer(site, asked, sink)

    async def _lead(self, life: Life, caller: Caller, call: Call, flight: Flight) -> None:
        """A call's life in a task of its own, which ends when nobody reads any more, as if the client had left."""
        try:
            flight.start()
            await self._serve(life, caller, call, self._deadline(call), flight)
        except errors.GatewayError as error:
            flight.error = error
            await self._fail(life, call, error, flight)
        except Exception:
            _log.exception("a call failed unexpectedly (%s)", call.request_id)
            flight.error = errors.GatewayError(errors.UNFORESEEN)
            await self._fail(life, call, flight.error, flight)
        finally:
            self._end(life, call)

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        return self._tenants.authenticate(headers, self._clock.wall_ms())

    def models(self, caller: Caller) -> list[dict[str, Any]]:
        return [_listed(name) for name in self._router.names(caller.plan)]

    def model(self, caller: Caller, name: str) -> dict[str, Any]:
        if name not in self._router.names(caller.plan):
            raise errors.ModelNotFound("This model does not exist or is not in your plan.", param="model")
        return _listed(name)

    def usage(self, caller: Caller) -> dict[str, Any]:
        return self._ledger.usage(caller.tenant)

    async def count_tokens(self, caller: Caller, request: Request) -> dict[str, Any]:
        """What the input comes to, by the one vocabulary there is. A call for the limits, and for nothing charged."""
        call = parse_count(request)
        entry = self._admission.entry(caller)
        try:
            await self._admission.admit(entry, caller, 0, self._deadline(call))
            self._router.check(call.model, caller.plan)
            images = call.media_parts * self._router.image_tokens(call)
            return {"input_tokens": images + await self._tokenizer.input_tokens(call)}
        finally:
            entry.release(0)

    async def _reserve(self, life: Life, caller: Caller, call: Call, decision: Decision) -> tuple[Decision, Hold]:
        """Holds the ceiling of the dearest target; counts exactly, then lowers max_tokens, then does what the package
        says of its end, before it refuses."""
        quote = self._quoted(life, caller, call, decision, call.input_bound)
        try:
            hold = await self._ledger.reserve(life.charge_id, quote, clamp=False)
        except errors.QuotaExhausted:
            bound = await self._tokenizer.bound(call)
            quote = self._quoted(life, caller, call, decision, bound)
            try:
                hold = await self._ledger.reserve(life.charge_id, quote, clamp=True)
            except errors.QuotaExhausted as refusal:
                assert life.entry is not None
                assert life.rates is not None
                asked = caller, call, bound, decision, quote, life.rates
                hold, way = await self._going_on.reserve(life.charge_id, life.entry, *asked, refusal)
                decision, quote, life.flags = way.decision, way.quote, way.flags
                life.decision = decision
        decision.keep(hold.covered)
        life.record.reserved_uc = hold.reserved_uc
        if call.max_tokens is not None and hold.max_tokens is not None and hold.max_tokens < call.max_tokens:
            life.lowered_to = hold.max_tokens
        life.delivery.ceiling_uc = quote.ceiling(hold.max_tokens)
        cut = life.lowered_to is not None or hold.max_tokens != quote.max_tokens
        if life.flight is not None and (cut or life.flags or quote.throttled):
            life.flight.alone()  # cut short, of another route, or for nothing: it is for nobody else
        elif life.flight is not None and hold.held_tokens is not None:
            life.flight.alone(kept=True)  # it may be cut short in mid-stream, before the eyes of others
        return decision, hold

    def _quoted(self, life: Life, caller: Caller, call: Call, decision: Decision, bound: int) -> Quote:
        """At the rates of this moment, which price the call."""
        now_ms = self._clock.wall_ms()
        rates = life.rates = self._cards.at(now_ms)
        ends_ms = now_ms + int(self._config.timeout.total_s * 1000)
        return quoted(caller, call, decision, bound, rates=rates, deadline_ms=ends_ms)

    def _job(
        self,
        life: Life,
        caller: Caller,
        call: Call,
        decision: Decision,
        hold: Hold,
        deadline: Deadline,
    ) -> Job:
        def sending() -> None:
            target = life.delivery.target
            assert target is not None
            life.dispatched, life.delivery.failed = True, False
            self._ledger.dispatched(life.charge_id, target.backend.name, target.model.name)

        def headers(delivery: Delivery) -> dict[str, str]:
            assert delivery.target is not None
            out = {
                "x-request-id": call.request_id,
                "x-moma-model": delivery.target.model.name,
                "x-moma-backend": delivery.target.backend.name,
                "x-moma-route": decision.route,
                "x-moma-reason": decision.reason,
                "x-moma-attempts": str(delivery.attempts),
                "x-moma-cache": "miss" if life.flight is not None and life.flight.cache else "bypass",
                **life.limits(),
            }
            if delivery.kind:
                out["content-type"] = delivery.kind
            if call.dialect:
                out |= id_headers(call.request_id, call.dialect)
            if life.lowered_to is not None:
                out["x-moma-max-tokens"] = str(life.lowered_to)
            return out

        def grown() -> None:
            life.record.reserved_uc = hold.reserved_uc

        if call.stream:
            assert life.rates is not None
            hold.progress = progress_of(life.delivery, life.rates.standard)
        slices = sliced(self._ledger, hold, self._tokenizer, grown)
        return Job(call, decision, hold.max_tokens, deadline, sending, headers, caller.share, slices)

    def _settle(self, life: Life, usage: Usage) -> asyncio.Future[Receipt]:
        target, rates = life.delivery.target, life.rates
        assert target is not None
        assert rates is not None, "a call is settled after its reserve"
        life.record.usage = usage
        return self._ledger.settle(
            life.charge_id,
            usage,
            model_served=target.model.name,
            backend=target.backend.name,
            rates=rates.standard[target.model.name],
            price=target.model.price,
            status_flags=life.flags,
        )

    async def _finish(self, life: Life, job: Job, sink: Sink) -> None:
        delivery, receipt = life.delivery, life.receipt
        assert receipt is not None
        if delivery.answer is None:
            if not sink.begun:
                await sink.begin(200, job.headers(delivery))
            await sink.finish(delivery.tail)
            return
        overhead_s = self._clock.now() - life.record.started - delivery.waited_s
        headers = job.headers(delivery)
        headers |= delivery.answer.headers
        headers["x-moma-credits"] = credits_text(receipt.charged_uc)
        headers["x-moma-overhead-ms"] = f"{overhead_s * 1000:.2f}" if overhead_s > 0 else "0.00"
        await delivery.hand(Answer(200, headers, delivery.answer.body), sink, self._clock)

    async def _fail(self, life: Life, call: Call | None, error: errors.GatewayError, sink: Sink) -> None:
        """Before the first byte an error is a status; after it, an event in the stream and no [DONE]."""
        record = life.record
        record.outcome = self._outcome(life, call, error)
        record.status = error.status
        if isinstance(error, errors.BackendRefusal):
            record.usage = life.delivery.usage  # a filter may have used something all the same
        record.refusal = error.refusal
        if sink.begun:
            await sink.finish(error_event(error, record.request_id, life.endpoint), whole=False)
        else:
            await sink.send(error_answer(error, record.request_id, life.limits(), life.endpoint))

    def _outcome(self, life: Life, call: Call | None, error: errors.GatewayError) -> str:
        """No failure of ours is a call whose client gave it too little time, or took most of that to read."""
        if isinstance(error, errors.CallRejected):
            return "refused"
        if not isinstance(error, errors.DeadlineExceeded):
            return "failed"
        took_s = self._clock.now() - life.record.started
        given_s = None if call is None else call.deadline_s
        over = given_s is not None and took_s >= given_s
        return "aborted" if over or life.delivery.reader_s > took_s / 2 else "failed"

    def _end(self, life: Life, call: Call | None) -> None:
        """No await may stand here: a cancelled call must end exactly like a finished one."""
        record, delivery = life.record, life.delivery
        late = None
        try:
            late = self._close(life, call) if life.charge_id else None
        finally:
            if life.entry is not None:
                usage = record.usage
                life.entry.release(usage.rated_tokens if usage is not None else 0)
        record.ended = self._clock.now()
        if life.decision is not None:
            record.route = life.decision.route
        if delivery.target is not None:
            record.model, record.backend = delivery.target.model.name, delivery.target.backend.name
        record.attempts, record.waited_s = delivery.attempts, delivery.waited_s
        record.first_token_s = delivery.first_token_s
        if life.receipt is not None:
            _charged(record, life.receipt)
        if late is None:
            self._recorder.record(record)
        else:  # what it is charged is known with the commit
            late.add_done_callback(lambda receipt: self._recorder.record(_charged_late(record, receipt)))

    def _close(self, life: Life, call: Call | None) -> asyncio.Future[Receipt] | None:
        """Settles what was passed on before the end came (section 4 of the charging design); else voids."""
        delivery, record = life.delivery, life.record
        try:
            if record.usage is not None and life.receipt is None:  # cut off while it awaited the commit, or refused
                return self._settle(life, record.usage)
            if life.dispatched and record.usage is None and call is not None and self._owes(life):
                return self._settle(life, self._unreported.counted_so_far(call, delivery))
            return None
        finally:
            self._ledger.close(life.charge_id, record.outcome)

    def _owes(self, life: Life) -> bool:
        """A client that left pays by the backend's on_disconnect; a broken stream pays for what was passed on."""
        delivery = life.delivery
        assert delivery.target is not None
        started = delivery.reader is not None and delivery.reader.started
        left = not life.record.status  # without an answer, not even an error
        if left and not delivery.failed:
            return delivery.target.backend.on_disconnect != "free"
        return started


def _charged(record: Finished, receipt: Receipt) -> None:
    record.charged_uc, record.overage_uc, record.cost = receipt.charged_uc, receipt.overage_uc, receipt.cost


def _charged_late(record: Finished, receipt: asyncio.Future[Receipt]) -> Finished:
    """A receipt that failed is the ledger's to report."""
    if not receipt.cancelled() and receipt.exception() is None:
        _charged(record, receipt.result())
    return record


def _listed(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "moma"}
