"""What the admin API shows of tenants, keys and what was sold to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from gateway.admin.fields import is_text, query_int
from gateway.charging import views
from gateway.charging.admins import AdminKey
from gateway.charging.alerts import Alert
from gateway.charging.audited import version
from gateway.charging.grants import Grant
from gateway.charging.image import Image
from gateway.charging.packages import Batch, Order, Subscription, of_order
from gateway.charging.rating import credits_text, percent_text
from gateway.charging.records import Account, Key
from gateway.config.model import Caps, Exhausted, Limits, Package
from gateway.errors import InvalidValue, NotFound

MAX_LISTED: Final = 1000
MAX_CURSOR_CHARS: Final = 256
Listed = TypeVar("Listed", Account, Key, Order, Subscription, Batch, AdminKey, Alert)
Sold = TypeVar("Sold", Order, Subscription, Alert)
Sees = Callable[[str | None], bool]  # whether a tenant's objects are to be seen


def everything(tenant: str | None) -> bool:
    return True


def listed(items: Iterable[Listed], query: Mapping[str, str], show: Callable[[Listed], Any]) -> dict[str, Any]:
    """In the order of their ids; `next` is the `after` of the following page."""
    limit, after = page_asked(query)
    rest = sorted((item for item in items if item.id > after), key=lambda item: item.id)
    return {
        "data": [show(item) for item in rest[:limit]],
        "next": rest[limit - 1].id if len(rest) > limit else None,
    }


def page_asked(query: Mapping[str, str]) -> tuple[int, str]:
    """How many are wanted, and after which; "" for the first page."""
    limit, after = max(1, query_int(query, "limit", MAX_LISTED, MAX_LISTED)), query.get("after", "")
    if not is_text(after, MAX_CURSOR_CHARS):
        raise InvalidValue("after is what `next` of the last page says.", param="after")
    return limit, after


def page_of_months(read: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Of statements, of which one more than `limit` was read."""
    page = [*read[:limit]]
    return {"data": page, "next": page[-1]["month"] if len(read) > limit else None}


def shown(account: Account) -> dict[str, Any]:
    edited = tenant_edited(account)
    return {**{name: value for name, value in edited.items() if name != "caps"}, "version": version(edited)}


def tenant_edited(account: Account) -> dict[str, Any]:
    """All that can be edited; `caps` are its own."""
    return {
        "id": account.id,
        "plan": account.plan,
        "parent": account.parent,
        "tags": list(account.tags),
        "status": account.status,
        "caps": shown_caps(account.caps),
    }


def shown_key(key: Key) -> dict[str, Any]:
    """Without the hash: who has it could look for the secret at leisure."""
    return {
        "id": key.id,
        "name": key.name,
        "created_at": seconds(key.created_ms),
        "expires_at": seconds(key.expires_ms),
        "revoked_at": seconds(key.revoked_ms),
        "limits": shown_limits(key.limits),
    }


def shown_admin_key(key: AdminKey) -> dict[str, Any]:
    """Without the hash."""
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "tenant": key.tenant,
        "made_by": key.made_by,
        "created_at": seconds(key.created_ms),
        "expires_at": seconds(key.expires_ms),
        "revoked_at": seconds(key.revoked_ms),
    }


def shown_grant(grant: Grant) -> dict[str, Any]:
    """As it was made."""
    return {
        "id": grant.id,
        "tenant": grant.account,
        "credits": credits_text(grant.granted),
        "expires_at": seconds(grant.expires_ms),
        "priority": grant.priority,
        "source_ref": grant.source_ref,
        "card": grant.card,
        "scope": grant.scope.value if grant.scope else None,
    }


def shown_limits(limits: Limits | None) -> dict[str, int] | None:
    return None if limits is None else limits.given


def shown_package(package: Package) -> dict[str, Any]:
    """Credits and money as decimal strings, of one of an order's quantity."""
    return {
        "id": package.name,
        "credits": credits_text(package.credits_uc),
        "every": package.every,
        "periods": package.periods,
        "valid_s": package.valid_s,
        "price": credits_text(package.price),
        "rollover": credits_text(package.rollover_uc),
        "priority": package.priority,
        "once": package.once,
        "caps": shown_caps(package.caps),
        "card": package.card,
        "scope": {kind: list(words) for kind, words in package.scope.items()} or None,
        "exhausted": shown_exhausted(package.exhausted),
        "alerts": [percent_text(level) for level in package.alerts],
    }


def shown_exhausted(exhausted: Exhausted) -> str | dict[str, Any]:
    """As routes.yaml writes it; money as decimal strings."""
    payg, throttle = exhausted.payg, exhausted.throttle
    shown = {
        "payg": payg and {"price": credits_text(payg.price), "cap": credits_text(payg.cap)},
        "downgrade": exhausted.downgrade,
        "throttle": throttle and throttle.given,
    }
    return {key: value for key, value in shown.items() if value} or "block"


def shown_caps(caps: Caps) -> dict[str, dict[str, str]]:
    return {
        window: {unit: credits_text(limit) if unit == "credits" else str(limit) for unit, limit in limits.items()}
        for window, limits in caps.items()
    }


def shown_order(order: Order) -> dict[str, Any]:
    """`credits` are what it granted (of a subscription in each period), or of a refund what it revoked."""
    return {
        "id": order.id,
        "kind": order.kind,
        "tenant": order.account,
        "package": order.package or None,
        "quantity": order.quantity,
        "price": credits_text(order.price),
        "credits": credits_text(order.credits_uc),
        "of": order.of or None,
        "subscription": order.subscription or None,
        "created_at": seconds(order.created_ms),
    }


def shown_subscription(subscription: Subscription, now_ms: int) -> dict[str, Any]:
    """`ends_at` is null while it goes on until it is cancelled."""
    waits = subscription.started_ms > now_ms
    status = "ended" if subscription.over(now_ms) else "waiting" if waits else "active"
    value = {
        "id": subscription.id,
        "tenant": subscription.account,
        "package": subscription.terms.name,
        "quantity": subscription.quantity,
        "order": subscription.order,
        "started_at": seconds(subscription.started_ms),
        "ends_at": seconds(subscription.ended_ms),
        "status": status,
    }
    return {**value, "version": version(value)}


def orders(image: Image, query: Mapping[str, str], now_ms: int, sees: Sees = everything) -> dict[str, Any]:
    """Of all tenants, or those of `tenant`."""
    found = image.sold.orders.values()
    return listed(_of_tenants(found, query, sees), query, shown_order)


def order(image: Image, order_id: str, now_ms: int) -> dict[str, Any]:
    """With what is left of what it granted. Raises NotFound."""
    found = image.sold.orders.get(order_id)
    if found is None:
        raise NotFound(f"no order {order_id[:64]!r}")
    grants = [] if found.kind == "refund" else of_order(found, image.accounts[found.account].owned)
    left_uc = sum(grant.available for grant in grants if grant.live(now_ms))
    revoked_uc = sum(grant.revoked for grant in grants)
    return {**shown_order(found), "left": credits_text(left_uc), "revoked": credits_text(revoked_uc)}


def alerts(image: Image, query: Mapping[str, str], now_ms: int, sees: Sees = everything) -> dict[str, Any]:
    """Of all tenants, or those of `tenant`."""
    return listed(_of_tenants(image.watch.alerts, query, sees), query, views.shown_alert)


def subscriptions(image: Image, query: Mapping[str, str], now_ms: int, sees: Sees = everything) -> dict[str, Any]:
    """Of all tenants, or those of `tenant`."""
    found = image.sold.subscriptions.values()
    return listed(_of_tenants(found, query, sees), query, lambda one: shown_subscription(one, now_ms))


def _of_tenants(items: Iterable[Sold], query: Mapping[str, str], sees: Sees) -> Iterable[Sold]:
    tenant = query.get("tenant")
    return (one for one in items if tenant in (None, one.account) and sees(one.account))


def subscription(image: Image, subscription_id: str, now_ms: int) -> dict[str, Any]:
    found = image.sold.subscriptions.get(subscription_id)
    if found is None:
        raise NotFound(f"no subscription {subscription_id[:64]!r}")
    return shown_subscription(found, now_ms)


def code_batches(image: Image, query: Mapping[str, str], now_ms: int) -> dict[str, Any]:
    """How many codes were made, and redeemed: never one of them."""
    codes = image.sold.codes.values()
    made = Counter(code.batch.id for code in codes)
    redeemed = Counter(code.batch.id for code in codes if code.order)
    return listed(
        image.sold.batches.values(),
        query,
        lambda batch: {**shown_batch(batch), "codes": made[batch.id], "redeemed": redeemed[batch.id]},
    )


def shown_batch(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "package": batch.terms.name,
        "created_at": seconds(batch.created_ms),
        "expires_at": seconds(batch.expires_ms),
    }


def admin_keys(image: Image, query: Mapping[str, str], now_ms: int, sees: Sees = everything) -> dict[str, Any]:
    return listed((key for key in image.admins.keys.values() if sees(key.tenant)), query, shown_admin_key)


def packages(on_sale: Mapping[str, Package]) -> dict[str, Any]:
    return {"data": [shown_package(package) for package in on_sale.values()], "next": None}


def seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000
