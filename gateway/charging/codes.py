"""Codes that stand for a package: made in batches, known by their hash, redeemed once. Steps on the image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gateway.charging.directory import account
from gateway.charging.image import Image
from gateway.charging.orders import sell
from gateway.charging.packages import OWN_IDS, Batch, Code, Order
from gateway.config.model import Package
from gateway.errors import Conflict, NotFound


def code_hash(code: str) -> str:
    """SHA-256 of the code without what people add or change on the way: spaces, dashes, small letters."""
    plain = "".join(code.split()).replace("-", "").upper()
    return hashlib.sha256(plain.encode("utf-8", "surrogateescape")).hexdigest()


def make(image: Image, terms: Package, hashes: Sequence[str], expires_ms: int | None, now_ms: int) -> Batch:
    """A batch of codes for the package with the terms of today."""
    sold = image.sold
    batch = Batch(f"b{len(sold.batches) + 1:06d}", terms, now_ms, expires_ms)
    sold.batches[batch.id] = batch
    image.changes.batches.append(batch)
    for number, hashed in enumerate(hashes, 1):
        sold.codes[hashed] = image.changes.codes[hashed] = Code(hashed, batch, number)
    return batch


def redeem(image: Image, tenant: str, hashed: str, now_ms: int) -> tuple[Order, bool]:
    """The code's order, and whether it is new: who redeems twice gets the first.

    Raises NotFound for a code that is none, and Conflict for one that is expired or another's.
    """
    node = account(image, tenant)
    code = image.sold.codes.get(hashed)
    if code is None:
        raise NotFound("There is no such code.")
    if code.order:
        first = image.sold.orders[code.order]
        if first.account != tenant:
            raise Conflict("This code has been redeemed.")
        return first, False
    batch = code.batch
    if batch.expires_ms is not None and batch.expires_ms <= now_ms:
        raise Conflict("This code has expired.")
    order = sell(image, node, f"{OWN_IDS}code:{batch.id}:{code.number}", "code", batch.terms, 1, now_ms)
    code.order = order.id
    image.changes.codes[hashed] = code
    return order, True
