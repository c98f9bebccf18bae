"""Ways to break the charging, one at a time: the simulation must notice each.

Each is a change of one line of the code, as a patch. `docs/charging.md` says by which run each was found.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final
from unittest import mock

from gateway.adapters import openai
from gateway.admission import Entry
from gateway.charging import affording, loading, orders, schema, splitting
from gateway.charging.image import Image
from gateway.charging.ledger import Ledger
from gateway.charging.records import Key, Receipt
from gateway.errors import StoreUnavailable
from gateway.pipeline import Pipeline

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


def _take_missing_for_nothing(counted: Any, *args: Any) -> Any:
    usage = counted(*args)
    usage.quantities.clear()
    return usage


def _go_on_with_the_old_image(open_: Any, store: Any, *args: Any) -> Any:
    image = getattr(store, "_mutant_image", None)
    if image is None:
        image = store._mutant_image = open_(store, *args)
        return image
    open_(store, *args)
    return image


def _drop_grants_of_a_batch(rows_of: Any, changes: Any) -> Any:
    return [(sql, () if "INTO grants" in sql and len(values) > 1 else values) for sql, values in rows_of(changes)]


def _sell_again(known: Any, *args: Any, **kwargs: Any) -> Any:
    return None


def _no_cap(room: Any, *args: Any) -> int:
    return affording.UNBOUNDED


def _no_order_of_grants(in_order: Any, burn: Any, need_uc: int) -> Any:
    return in_order(list(reversed(burn)), need_uc)


def _forget_once(close: Any, image: Any, hold: Any, receipt: Any, now_ms: int, *, numbered: bool) -> None:
    hold.quote.once = ""
    close(image, hold, receipt, now_ms, numbered=numbered)


def _refund_what_is_held(revoke: Any, image: Any, grant: Any, uc: int, now_ms: int) -> None:
    revoke(image, grant, uc, now_ms)
    grant.available, grant.reserved = grant.available - 1, grant.reserved + 1


def _renew_twice(begin: Any, image: Any, account: Any, subscription: Any, number: int, *times: int) -> None:
    begin(image, account, subscription, number, *times)
    if number:
        grant = account.owned[-1]
        image.add_grant(account, grant.granted, times[-1], starts_ms=grant.starts_ms, expires_ms=grant.expires_ms,
                        priority=grant.priority, source_ref=grant.source_ref, period=f"{subscription.id}:9{number}")  # fmt: skip


MUTANTS: Final[dict[str, Mutant]] = {
    "one settle in five is skipped": _method(Pipeline, "_settle", _skip_one_settle_in_five),
    "the last byte does not wait for the commit": _method(Ledger, "_receipt_future", _answer_before_the_commit),
    "a part is booked twice": _method(Image, "pay", _double_a_part),
    "a void gives nothing back": _method(Ledger, "_void", _forget_to_give_back),
    "a client that leaves leaves its hold": _method(Ledger, "close", _leave_the_hold_open),
    "a permit is kept": _method(Entry, "release", _keep_the_permit),
    "cached tokens are counted twice": _method(openai, "_split", _count_cached_twice),
    "missing usage counts as nothing": _method(Pipeline, "_mutant", _take_missing_for_nothing) if False else None,
}
