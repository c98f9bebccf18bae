"""What the audit log shows of each kind of object, before a change and after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gateway.admin.shown import (
    shown_admin_key,
    shown_batch,
    shown_grant,
    shown_key,
    shown_order,
    shown_subscription,
    tenant_edited,
)
from gateway.charging.audited import Kind
from gateway.charging.image import Image


def _kind(name: str, every: Callable[[Image], Any], show: Callable[[Any], Any], tenant: Callable[[Any], Any]) -> Kind:
    """Of what is shown as it is, whatever the time."""
    return Kind(name, every, lambda one, now_ms: show(one), tenant)


TENANT: Final = _kind("tenant", lambda image: image.accounts, tenant_edited, lambda one: one.id)
KEY: Final = _kind("key", lambda image: image.keys, shown_key, lambda one: one.tenant)
GRANT: Final = _kind("grant", lambda image: image.grants, shown_grant, lambda one: one.account)
ORDER: Final = _kind("order", lambda image: image.sold.orders, shown_order, lambda one: one.account)
SUBSCRIPTION: Final = Kind(
    "subscription", lambda image: image.sold.subscriptions, shown_subscription, lambda one: one.account
)
CODES: Final = _kind("codes", lambda image: image.sold.batches, shown_batch, lambda one: None)
ADMIN_KEY: Final = _kind("admin key", lambda image: image.admins.keys, shown_admin_key, lambda one: one.tenant)
NAMED: Final = {"tenant": TENANT, "order": ORDER, "subscription": SUBSCRIPTION, "admin_key": ADMIN_KEY}  # in paths
