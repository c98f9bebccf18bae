"""Changes to accounts, keys and grants in the image, with their rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.charging.admins import AdminKey, By
from gateway.charging.grants import Grant
from gateway.charging.image import Image
from gateway.charging.offers import Scope
from gateway.charging.records import Account, Key
from gateway.config.model import Caps, Limits, Plan
from gateway.errors import Conflict, InvalidValue, NotFound

MAX_DEPTH: Final = 6
CLOSED: Final = "closed"
STATUSES: Final = ("active", "suspended", CLOSED)
KEEP: Final = ""  # as a parent: no tenant has this id, and None is a root


@dataclass(slots=True)
class Edit:
    """What is to be changed of a tenant. Its own `caps` come all at once, beside those of its plan."""

    plan: str | None = None
    parent: str | None = KEEP
    status: str | None = None  # suspended accounts come back, closed ones do not
    caps: Caps | None = None


MAX_GRANT_UC: Final = 10**18  # sums of a few still fit SQLite's 64 bits


def account(image: Image, name: str) -> Account:
    found = image.accounts.get(name)
    if found is None:
        raise NotFound(f"no tenant {name[:64]!r}")
    return found


def add_account(image: Image, name: str, plan: str, parent: str | None, tags: tuple[str, ...], now_ms: int) -> Account:
    """Raises Conflict when it exists, NotFound for the parent, InvalidValue for the plan or the depth."""
    if name in image.accounts:
        raise Conflict(f"tenant {name!r} exists")
    if plan not in image.plans:
        raise InvalidValue(f"no plan {plan!r}", param="plan")
    above = account(image, parent).path if parent is not None else ()
    if len(above) >= MAX_DEPTH:
        raise InvalidValue(f"the tree is at most {MAX_DEPTH} deep", param="parent")
    return _new_account(image, name, plan, parent, (*above, name), tags, now_ms)


def apply_plan(image: Image, name: str, plan: Plan, now_ms: int) -> Account:
    node = image.accounts.get(name)
    if node is None:
        return _new_account(image, name, plan.name, None, (name,), (), now_ms)
    changed, node.plan = node.plan != plan.name, plan.name
    image.refresh(node, now_ms)
    image.fit(node, now_ms)
    if changed:
        image.changes.accounts[name] = node
        image.upgrade(node, now_ms)
    return node


def follow(
    image: Image, plans: dict[str, Plan], new: Mapping[str, Plan], tenants: Mapping[str, str], now_ms: int
) -> None:
    """`plans`, which the image reads at each renewal, become the new ones, and static tenants get theirs."""
    edited = {name for name in {*new, *plans} if new.get(name) != plans.get(name)}
    plans.clear()
    plans.update(new)
    counting = image.counting() if edited else {}
    for account in image.accounts.values() if edited else ():
        if account.plan in edited:
            image.fit(account, now_ms, counting)
    for name, plan in tenants.items():
        known = image.accounts.get(name)
        if known is None or known.plan != plan:
            apply_plan(image, name, new[plan], now_ms)


def edit(image: Image, name: str, asked: Edit, now_ms: int) -> Account:
    """All of it, or nothing where one of it raises: NotFound, Conflict, InvalidValue."""
    node = account(image, name)
    below = [one for one in image.accounts.values() if name in one.path]
    if asked.plan is not None and asked.plan not in image.plans:
        raise InvalidValue(f"no plan {asked.plan!r}", param="plan")
    if asked.status is not None:
        _check_status(image, node, asked.status, below)
    if asked.parent != KEEP:
        _check_place(image, node, asked.parent, below)
        _move(image, node, asked.parent, below)
    if asked.status is not None:
        node.status = asked.status
    if asked.caps is not None:
        node.caps = asked.caps
    if asked.plan is not None and asked.plan != node.plan:
        apply_plan(image, name, image.plans[asked.plan], now_ms)
    image.changes.accounts[name] = node
    image.fit(node, now_ms)
    return node


def _check_status(image: Image, node: Account, status: str, below: list[Account]) -> None:
    if node.status == CLOSED != status:
        raise Conflict(f"{node.id} is closed, which is for ever")
    if status == CLOSED:
        names = {one.id for one in below}
        if any(hold.quote.tenant in names for hold in image.holds.values()):
            raise Conflict(f"{node.id} has calls in flight: suspend it first, and close it when they have ended")


def _check_place(image: Image, node: Account, parent: str | None, below: list[Account]) -> None:
    above = account(image, parent).path if parent is not None else ()
    if node.id in above:
        raise Conflict(f"{parent} is {node.id} itself or below it: the tree would have a ring")
    if len(above) + max(len(one.path) for one in below) - len(node.path) + 1 > MAX_DEPTH:
        raise InvalidValue(f"the tree is at most {MAX_DEPTH} deep", param="parent")


def _move(image: Image, node: Account, parent: str | None, below: list[Account]) -> None:
    """With all below it. Calls in flight end where they began."""
    above = image.accounts[parent].path if parent is not None else ()
    cut = len(node.path) - 1
    node.parent = parent
    for one in below:
        one.path = (*above, *one.path[cut:])
        image.changes.accounts[one.id] = one


def _new_account(
    image: Image, name: str, plan: str, parent: str | None, path: tuple[str, ...], tags: tuple[str, ...], now_ms: int
) -> Account:
    node = image.accounts[name] = Account(name, plan, parent, path, tags, now_ms)
    image.changes.accounts[name] = node
    image.refresh(node, now_ms)
    image.fit(node, now_ms)
    return node


def add_key(
    image: Image, tenant: str, key_hash: str, name: str, expires_ms: int | None, limits: Limits | None, now_ms: int
) -> Key:
    """Raises Conflict when the hash is known."""
    account(image, tenant)
    if key_hash in image.keys_by_hash:
        raise Conflict("this key exists")
    key = Key(f"key_{len(image.keys) + 1:06d}", tenant, key_hash, name, now_ms, expires_ms, limits=limits)
    image.keys[key.id] = image.keys_by_hash[key_hash] = image.changes.keys[key.id] = key
    return key


def revoke_key(image: Image, tenant: str, key_id: str, now_ms: int) -> Key:
    key = image.keys.get(key_id)
    if key is None or key.tenant != tenant:
        raise NotFound(f"no key {key_id[:64]!r}")
    if key.revoked_ms is None:
        key.revoked_ms = now_ms
        image.changes.keys[key.id] = key
    return key


def add_admin_key(
    image: Image, key_hash: str, name: str, role: str, tenant: str | None, expires_ms: int | None, by: By, now_ms: int
) -> AdminKey:
    if tenant is not None:
        account(image, tenant)
    key = AdminKey(f"adm_{len(image.admins.keys) + 1:06d}", name, role, tenant, key_hash, by.name, now_ms, expires_ms)
    image.admins.keep(key)
    image.changes.admin_keys[key.id] = key
    return key


def revoke_admin_key(image: Image, key_id: str, now_ms: int) -> AdminKey:
    """Revoking twice keeps the first time."""
    key = image.admins.keys[key_id]
    if key.revoked_ms is None:
        key.revoked_ms = now_ms
        image.changes.admin_keys[key.id] = key
    return key


def grant_of(image: Image, tenant: str, source_ref: str, now_ms: int) -> Grant | None:
    """The grant that was added by hand with this reference."""
    return image.grant_refs.get((tenant, "ref", source_ref))


def add_grant(
    image: Image, tenant: str, credits_uc: int, expires_ms: int | None, priority: int, source_ref: str | None,
    starts_ms: int | None, card: str, scope: Scope | None, now_ms: int,
) -> Grant:  # fmt: skip
    """The same `source_ref` of a tenant returns its first grant. Repays debt first."""
    node = account(image, tenant)
    if source_ref is not None and (first := image.grant_refs.get((tenant, "ref", source_ref))) is not None:
        return first
    if not 0 < credits_uc <= MAX_GRANT_UC:
        raise InvalidValue("credits must be positive and at most 10^12", param="credits")
    if starts_ms is None:
        starts_ms = now_ms
    grant = image.add_grant(
        node, credits_uc, now_ms, starts_ms=starts_ms, expires_ms=expires_ms, priority=priority, source_ref=source_ref,
        card=card, scope=scope,
    )  # fmt: skip
    if node.debt_uc:
        image.repay(node, now_ms)
    return grant
