"""After a run: the books against themselves, against what backends have said, and against what clients were given."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime, time
from fractions import Fraction
from math import ceil
from typing import Any

import orjson

from gateway.charging.audit import audit
from gateway.charging.rating import credits_text
from gateway.charging.reconcile import reconciled
from gateway.config.model import Limits
from gateway.long_streams import QUOTA_EXHAUSTED
from tests.charging.simulated.backends import GOOD, WORD, Heard
from tests.charging.simulated.books import Books, Record
from tests.charging.simulated.process import Process
from tests.charging.simulated.town import TENANTS, ZONE
from tests.charging.simulated.world import Asked, World

SHARES = {"kept": ("25%", "50%"), "gratis": ("0%",)}  # of a hit, by route
LATER = datetime(2024, 2, 20, tzinfo=ZONE)  # the second version of the card evening
EVENING = (time(17, 1), time(23))
EVENING_FACTORS = (Fraction(5, 10), Fraction(3, 10))  # by version
FACTORS = ((Fraction(8, 10), Fraction(7, 10)), (Fraction(9, 10),))  # of versions of routes.yaml
OTHERS = ("beyond", "filtered", "hangs", "stops")  # they report usage, too; the last two may come after it


def judge(world: World, books: Books) -> list[str]:
    """All that is wrong, in words. The process is up and nothing runs."""
    return [
        *audit(world.path),
        *(str(each) for each in reconciled(world.path, world.clock.wall_ms()) if each.check != "I11"),
        *(f"the hold {name} is left in the file" for name in books.holds),
        *given_and_charged(world, books),
        *charged_and_done(world, books),
        *once_each(world, books),
        *gone_on(world, books),
        *by_the_hour(books),
        *refused(world),
        *sold(world, books),
        *noted(world, books),
        *cut(world, books),
        *ended(world, books),
    ]


def happened(world: World) -> Iterator[str]:
    """What backends did, how calls ended, and what became of the process and its file: to show that all of it does."""
    for heard in world.backends.heard:
        yield heard.kind
    for asked in world.calls:
        yield asked.answer.code or str(asked.answer.status)
        yield asked.answer.headers.get("x-moma-cache", "none")
        if asked.answer.headers.get("x-moma-replayed"):
            yield "replayed"
    yield from world.counted
    for line in world.story:
        if "killed" in line:
            yield line[14:]


def leaks(process: Process) -> Iterator[str]:
    """Nothing is held for calls that have ended."""
    if process.ledger.open_holds:
        yield f"{process.ledger.open_holds} holds are left"
    if process.ledger.spooled_bytes or process.ledger._exposure.held or process.ledger._exposure.taken_uc:
        yield "the spool has something, or the exposure, though the file takes commits"
    parts = process.parts
    for name in TENANTS:
        if in_flight := parts.tenant_gates.of(name, Limits()).in_flight:
            yield f"{name} has {in_flight} permits left"
    for name in "abc":
        if in_flight := parts.backend_gates.of(name, Limits()).in_flight:
            yield f"backend {name} has {in_flight} permits left"
    if parts.drains.count or parts.caches._tasks or process.app._once._tasks:
        yield f"tasks are left: {parts.drains.count} drains"
    if parts.tenant_waiting.count or parts.backend_waiting.count:
        yield "somebody waits at a limit"


def given_and_charged(world: World, books: Books) -> Iterator[str]:
    """I12: who has a complete answer has one settled record, of what the backend said; nobody has two of any kind."""
    for asked in world.calls:
        records = books.by_request.get(asked.request, [])
        if len(records) > 1:
            yield f"{asked.request} has {records}"
        good = asked.answer.complete and asked.answer.status == 200
        if not good or asked.answer.headers.get("x-moma-replayed"):
            continue
        free = asked.model == "gratis" and asked.answer.headers.get("x-moma-cache") in ("hit", "coalesced")
        if not free and not any(record.settled for record in records):
            yield f"{asked.request} was answered, and has {records or 'no record'}"


def charged_and_done(world: World, books: Books) -> Iterator[str]:
    """What is charged was sent to a backend, or is a hit of an answer that one has given; and costs what it said."""
    calls = {asked.request: asked for asked in world.calls}
    by_tag: dict[str, list[Heard]] = defaultdict(list)
    for heard in world.backends.heard:
        if heard.reached:
            by_tag[heard.tag].append(heard)
    for record in books.records:
        asked = calls.get(record.request)
        if asked is None:
            yield f"{record} is of no call"
            continue
        seen = by_tag[asked.tag]
        if record.tenant != asked.tenant:
            yield f"{record} is of {record.tenant}, not of {asked.tenant}"
        if not any(record.hit or heard.backend == record.backend for heard in seen):
            yield f"{record}: backend {record.backend} has heard nothing of {asked.tag}"
        yield from long_and_short(record, [one for one in world.calls if one.tag == asked.tag], seen)
        if record.status == "settled" and not said(record, seen):
            yield f"{record} has usage {record.usage}, and no backend has said so: {[h.usage for h in seen]}"
        if record.hit and not {f"charge:{share}" for share in SHARES[asked.model]} & {*record.flags}:
            yield f"{record} is of another share than {SHARES[asked.model]}"
        if record.status != "settled" and record.charged:
            yield f"{record} is charged"


def said(record: Record, seen: list[Heard]) -> bool:
    """Whether a backend has said what is charged: all of it where there is no flag."""
    flags = {flag for flag in record.flags if not flag.startswith("charge:")} - {"cache_hit"}
    if "crash" in flags:  # what a stream had passed on at its last look, which `long_and_short` holds against clients
        return not record.charged if flags == {"crash"} else record.charged <= record.reserved
    if "zero_usage" in flags:
        return not record.charged
    if flags & {"estimated", "partial", "bad_usage"}:
        bad = any(heard.kind not in GOOD for heard in seen)
        return record.charged <= record.reserved and (bad or bool(flags & {"estimated", "partial"}))
    if record.charged > record.reserved and not any(heard.goes_beyond for heard in seen):
        return False
    ours = [h for h in seen if (record.hit or h.backend == record.backend) and h.kind in (*GOOD, *OTHERS)]
    return any(heard.usage is not None and heard.buckets == record.usage for heard in ours)


def long_and_short(record: Record, asked: Sequence[Asked], seen: Sequence[Heard]) -> Iterator[str]:
    """Streams that a crash, or the end of the package, cut short: by what their clients were given."""
    # Who leaves a backend that drains, or has no time for it, or may ask again by an Idempotency-Key, is charged what
    # is read on meanwhile; and so is who has no time for what others may follow.
    left = any(one.left or b'"code":"deadline_exceeded"' in one.answer.body for one in asked)
    followed = any(one.model in ("kept", "gratis") for one in asked)
    again = followed or any(one.once for one in asked)
    given = [one.answer for one in asked if one.request == record.request or followed]
    if "crash" in record.flags and record.charged:
        read_on = (heard.words for heard in seen if left and (again or heard.backend == "b"))
        most = max((*(answer.words for answer in given), *read_on), default=0)
        if record.usage.get("output", 0) > most:
            yield f"{record} counts {record.usage} of a stream of which {most} words were passed on"
    for answer in given:
        cut = b'"x_moma":{"reason":"quota_exhausted"}' in answer.body
        good = answer.complete and answer.status == 200  # who gave too little time is told so, and it is read on
        if cut != (QUOTA_EXHAUSTED in record.flags) and good and not record.hit:
            yield f"{record} and its answer do not agree whether it was cut short"
        if cut and record.charged < record.reserved and record.usage["output"] < answer.body.count(WORD.encode()):
            yield f"{record} is cut short, and what it passed on is charged in part only"


def once_each(world: World, books: Books) -> Iterator[str]:
    """Of all calls with one Idempotency-Key one is charged, as long as the clock was not set meanwhile."""
    paid: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
    for asked in world.calls:
        if asked.once is not None:
            records = books.by_request.get(asked.request, [])
            # Who asks again for what broke off, by its leaving or by a crash, had what was passed on, and pays for it.
            whole = (record for record in records if not {"partial", "crash"} & {*record.flags})
            paid[asked.tenant, asked.once, asked.era] += [record for record in whole if record.charged]
    for (tenant, once, _), settled in paid.items():
        if len(settled) > 1:
            yield f"{tenant} has paid for Idempotency-Key {once} with {settled}"


def gone_on(world: World, books: Books) -> Iterator[str]:
    """What no credits covered went on by what somebody on the path has bought, and for nothing where it was slow."""
    beyond = {heard.tag for heard in world.backends.heard if heard.goes_beyond}
    tags = {asked.request: asked.tag for asked in world.calls}
    for record in books.records:
        bought = {package for account, package in books.bought if account in record.path}
        if "throttled" in record.flags and ("slow" not in bought or record.charged or record.parts):
            yield f"{record} was slow, and is charged, or nobody has bought that"
        if "downgraded" in record.flags and not ("down" in bought or "solo" in record.path):
            yield f"{record} took the cheaper route, and nobody has bought that"
        if "downgraded" in record.flags and record.model not in ("cheap", ""):
            yield f"{record} took the cheaper route, to {record.model}"
        if record.overage and tags.get(record.request) not in beyond:
            yield f"{record} is not covered, though no backend went beyond what it was allowed"


def by_the_hour(books: Books) -> Iterator[str]:
    """The card evening by its words in routes.yaml: a factor of standard at the moment, and less in the evening."""
    for record in books.records:
        for version in (share["version"] for share in record.split if share["card"] == "evening"):
            terms, rates = books.terms.get(("evening", version), {}), books.rates["evening", version]
            at = datetime.fromtimestamp(record.opened_ms / 1000, ZONE)
            later, evening = at >= LATER, EVENING[0] <= at.time() < EVENING[1]
            if (bool(terms.get("effective")), bool(terms.get("hours"))) != (later, evening):
                yield f"{record} of {at} was priced by {terms}"
            hourly = EVENING_FACTORS[later] if evening else 1
            of = books.rates["standard", record.card_version][record.model].items()
            expected = [{bucket: ceil(rate * factor * hourly) for bucket, rate in of} for factor in FACTORS[later]]
            if rates[record.model] not in expected:
                yield f"{record}: {rates[record.model]} is no factor of {dict(of)}"


def refused(world: World) -> Iterator[str]:
    """Who may not call gets nothing; and no call ends as nobody foresaw."""
    for asked in world.calls:
        if asked.barred and asked.answer.status == 200 and not asked.answer.headers.get("x-moma-replayed"):
            yield f"{asked.request} by {asked.tenant} was let in"
        if asked.answer.status == 500:
            yield f"{asked.request} failed as nobody foresaw"


def sold(world: World, books: Books) -> Iterator[str]:
    """Every order that was answered is there; what was revoked and suspended is so after all the crashes."""
    for name in world.facts.orders:
        if name not in books.orders:
            yield f"order {name} was answered, and is gone"
    ledger = world.process.ledger
    for secret in world.facts.revoked:
        key = ledger._image.keys[world.key_ids[secret]]
        if key.revoked_ms is None:
            yield f"the key {key.id} was revoked, and works"
    for tenant in world.facts.suspended:
        if ledger.tenant(tenant).status != "suspended":
            yield f"{tenant} was suspended, and is not"


def noted(world: World, books: Books) -> Iterator[str]:
    """Every change that the operator was told of is in the audit log, once; and nothing that was refused."""
    entries = Counter(entry["request_id"] for entry in books.audit)
    for request, (path, is_new) in world.facts.deeds.items():
        if is_new and request not in entries:
            yield f"{path} ({request}) was answered, and is not in the audit log"
    calls = {asked.request for asked in world.calls}
    for request, times in entries.items():
        if request and (times > 1 or request in calls or request in world.facts.refused):
            yield f"{request} has {times} entries in the audit log"
    made = Counter(entry["object"] for entry in books.audit if entry["operation"] == "order.place")
    for name in world.facts.orders:
        if made[name] != 1:
            yield f"order {name} has {made[name]} entries in the audit log"


def cut(world: World, books: Books) -> Iterator[str]:
    """What was shown of a month that is cut is what it says for ever; and each call is on one statement."""
    for (tenant, month), said in world.facts.months.items():
        body = books.months.get((tenant, month))
        if {**(body or {}), "sha256": said["sha256"]} != said:
            yield f"the statement of {tenant} for {month} was cut, and has changed: {said}, now {body}"
    if not books.cuts:
        return
    first, last = books.cuts[0], books.cuts[-1]
    for tenant in TENANTS:
        late = [
            record
            for record in books.records
            if record.tenant == tenant and record.status == "settled"
            and (record.closed_ms >= first.from_ms or record.seq > first.last)
            and record.seq <= last.last and (record.closed_ms < last.to_ms)
        ]  # fmt: skip
        on = sum(body["calls"] for (of, _), body in books.months.items() if of == tenant)
        if on != len(late):
            yield f"{tenant} has {len(late)} calls in the months that are cut, and {on} on their statements"


def ended(world: World, books: Books) -> Iterator[str]:
    """Nothing is left of what is over; somebody has looked at every tenant."""
    for name, row in books.grants.items():
        left = row["granted"] - row["spent"] - row["expired"] - row["revoked"]
        if left and row["expires_ms"] is not None and row["expires_ms"] <= world.clock.wall_ms():
            yield f"grant {name} has ended, and has {left} uc left"


def owed(grants: Mapping[str, Any], purses: Set[str]) -> dict[str, str]:
    """What is billed for each purse: its price by what was spent of it, rounded up, in millionths of the currency."""
    found = {}
    for name in purses:
        spent, payg = grants[name]["spent"], orjson.loads(grants[name]["ending"])["payg"]
        if spent:
            amount = ceil(Fraction(spent, 10**12) * payg["price"])
            assert amount <= payg["cap"]
            found[name] = credits_text(amount)
    return found


async def statements(world: World, books: Books) -> list[str]:
    """Each statement against the records and grants, summed up here in another way."""
    wrong = []
    for tenant in TENANTS:
        status, said = await world.admin("GET", f"tenants/{tenant}/statement?from=2020-01-01&to=2030-01-01")
        assert status == 200, f"statement of {tenant}: {status} {said}"
        of = {name: row for name, row in books.grants.items() if row["account"] == tenant}
        purses = of.keys() & books.purses
        own = of.keys() - purses
        if (billed := owed(of, purses)) != {one["grant"]: one["amount"] for one in said["payg"]}:
            wrong.append(f"statement of {tenant}: {billed} of purses, not {said['payg']}")
        rows = [books.grants[name] for name in own]
        repaid = sum(e["uc"] for e in books.entries if e["kind"] == "debt_repaid" and e["grant_id"] in own)
        spent = repaid + sum(uc for record in books.records for name, uc in record.parts.items() if name in own)
        mine = [record for record in books.records if record.tenant == tenant and record.status == "settled"]
        expected = {
            "opening": 0, "granted": sum(row["granted"] for row in rows), "spent": spent,
            "expired": sum(row["expired"] for row in rows), "revoked": sum(row["revoked"] for row in rows),
            "overage": sum(record.overage for record in mine),
        }  # fmt: skip
        expected["closing"] = expected["granted"] - spent - expected["expired"] - expected["revoked"]
        wrong += [
            f"statement of {tenant}: {name} {said[name]}, not {credits_text(uc)}"
            for name, uc in expected.items()
            if said[name] != credits_text(uc)
        ]
        by_model: Counter[str] = Counter()
        for record in mine:
            by_model[record.model] += record.charged
        shown = {entry["model"]: entry["credits"] for entry in said["by_model"]}
        if shown != {model: credits_text(uc) for model, uc in by_model.items()} or said["calls"] != len(mine):
            wrong.append(f"statement of {tenant}: by model {shown}, not {dict(by_model)}")
    return wrong
