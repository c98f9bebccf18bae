"""Ways to break the charging, one at a time: the simulation must notice each.

Each is a change of one line of the code, as a patch. `docs/charging.md` says by which run each was found.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final
from unittest import mock

from gateway import cached, unreported
from gateway.adapters import usage
from gateway.admission import Entry
from gateway.call import Usage
from gateway.charging import affording, audited, figures, in_force, loading, orders, paying, store, writer
from gateway.charging.image import Image
from gateway.charging.ledger import Ledger
from gateway.charging.records import Key, Receipt
from gateway.charging.store import Store
from gateway.pipeline import Pipeline
from gateway.slices import Slices

Mutant = Callable[[], AbstractContextManager[Any]]


def _method(owner: Any, name: str, changed: Callable[..., Any]) -> Mutant:
    """`changed` gets the method as it was, then what it is called with."""
    inner = getattr(owner, name)
    return lambda: mock.patch.object(owner, name, lambda *args, **kwargs: changed(inner, *args, **kwargs))


def _skip_one_settle_in_five(settle: Any, pipeline: Any, life: Any, usage: Any) -> Any:
    if int(life.charge_id.rpartition("-")[2]) % 5:
        return settle(pipeline, life, usage)
    future = pipeline._ledger._loop.create_future()
    future.set_result(Receipt("settled", usage))
    return future


def _answer_before_the_commit(receipt_future: Any, ledger: Any, receipt: Any) -> Any:
    real = receipt_future(ledger, receipt)
    real.add_done_callback(lambda done: done.exception())
    future = ledger._loop.create_future()
    future.set_result(receipt)
    return future


def _double_a_part(pay: Any, image: Any, hold: Any, charged_uc: int, now_ms: int) -> Any:
    parts, left_uc = pay(image, hold, charged_uc, now_ms)
    return {name: uc * 2 if uc % 7 == 0 else uc for name, uc in parts.items()}, left_uc


def _forget_to_give_back(void: Any, ledger: Any, hold: Any, status: str, flags: Any) -> None:
    hold.parts = ()
    void(ledger, hold, status, flags)


def _leave_the_hold_open(close: Any, ledger: Any, charge_id: str, outcome: str, *args: Any, **kwargs: Any) -> None:
    if outcome != "aborted":
        close(ledger, charge_id, outcome, *args, **kwargs)


def _keep_the_permit(release: Any, entry: Any, used: int | None) -> None:
    if entry.permit is not None and used:
        release(entry, used)


def _count_cached_twice(split: Any, total: int, bucket: str, parts: Any) -> Any:
    found, fine = split(total, bucket, parts)
    return ({**found, bucket: total} if found.get("input_cached") else found), fine


def _take_missing_for_nothing(estimated: Any, *args: Any) -> Any:
    found = estimated(*args)
    return Usage({}, "reported") if not found.flags[1:] else found


def _go_on_with_the_old_image(open_: Any, store: Any, *args: Any) -> Any:
    image = open_(store, *args)
    store.first_image = getattr(store, "first_image", image)
    return store.first_image


def _drop_a_grant_of_a_batch(rows_of: Any, changes: Any) -> Any:
    return [(sql, values[1:] if "INTO grants" in sql else values) for sql, values in rows_of(changes)]


def _keep_what_has_ended(expire: Any, image: Any, grant: Any, now_ms: int) -> None:
    """It stays where it is."""


def _forget_once(close: Any, image: Any, hold: Any, receipt: Any, now_ms: int) -> None:
    """Of calls that nobody has left."""


def _take_a_refund_of_more(revoke: Any, image: Any, grant: Any, uc: int, now_ms: int) -> None:
    revoke(image, grant, uc, now_ms)
    grant.revoked += 1
    grant.available -= 1


def _let_everybody_in(active: Any, image: Any, quote: Any, now_ms: int) -> Any:
    return image.standing(quote.account_path, now_ms)


def _leave_out_those_below(read: Any, connection: Any, found: Any, asked: Any, which: str) -> None:
    read(connection, found, asked, f"{which} AND json_array_length(account_path) = 1")


async def _let_it_write_on(cover: Any, slices: Any, reader: Any) -> bool:
    await cover(slices, reader)
    return True


MUTANTS: Final[dict[str, Mutant]] = {
    "one settle in five is left out": _method(Pipeline, "_settle", _skip_one_settle_in_five),
    "the last byte does not wait for the commit": _method(Ledger, "_receipt_future", _answer_before_the_commit),
    "a part is written twice as large": _method(paying, "pay", _double_a_part),
    "a void gives nothing back": _method(Ledger, "_void", _forget_to_give_back),
    "a client that leaves leaves its hold": _method(Ledger, "close", _leave_the_hold_open),
    "a permit is kept": _method(Entry, "release", _keep_the_permit),
    "cached tokens are counted twice": _method(usage, "_split", _count_cached_twice),
    "missing usage counts as nothing": _method(unreported, "_estimated", _take_missing_for_nothing),
    "usage that is impossible is believed": _method(usage, "clamped", lambda _, value, limit: (int(value), True)),
    "a row of a batch is lost": _method(writer, "rows_of", _drop_a_grant_of_a_batch),
    "after a failed commit the old image is used": _method(Store, "open", _go_on_with_the_old_image),
    "what a crash left open stays open": _method(loading, "close_orphans", lambda *_: None),
    "an order that is sent again is a new one": _method(orders, "known", lambda *_, **__: None),
    "what has ended does not expire": _method(Image, "expire", _keep_what_has_ended),
    "a refund takes one too many": _method(Image, "revoke", _take_a_refund_of_more),
    "an Idempotency-Key is not remembered": _method(Image, "_close_once", _forget_once),
    "a revoked key works": _method(Key, "valid", lambda *_: True),
    "caps are not looked at": _method(affording, "_room_uc", lambda *_: affording.UNBOUNDED),
    "a suspended account may call": _method(affording, "active", _let_everybody_in),
    "a statement leaves out those below": _method(figures, "_read_parts", _leave_out_those_below),
    "what waits in the spool is not written": _method(store, "replay", lambda inner, to, _: inner(to, [])),
    "a stream goes on when its package is used up": _method(Slices, "cover", _let_it_write_on),
    "hours of cards are not looked at": _method(in_force, "within", lambda *_: False),
    "a change leaves no entry in the audit log": _method(audited, "_append", lambda *_: None),
    "a hit is charged in full": _method(cached, "hit_flags", lambda inner, ppm: inner(1_000_000)),
}  # fmt: skip
