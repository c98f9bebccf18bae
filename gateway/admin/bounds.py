"""What a tenant admin may not give away: more than its own tenant has, as the operator would pay for it."""

from __future__ import annotations

from typing import Final

from gateway.admin.desk import Desk, Wish
from gateway.charging.admins import OPERATOR, TENANT_ADMIN, VIEWER, By
from gateway.charging.caps import merged
from gateway.charging.directory import KEEP, Edit, account
from gateway.charging.image import Image
from gateway.charging.packages import caps_sold
from gateway.config.model import Caps, Limits, Plan
from gateway.errors import InvalidValue, NotAllowed, NotFound

_UNLIMITED: Final = 2**63
_BLOCKS: Final = Plan("").exhausted


def check_new(desk: Desk, by: By, plan: Plan, parent: str | None) -> None:
    """Of a tenant that `by` adds. Raises NotAllowed, NotFound."""
    if by.role == OPERATOR:
        return
    _check_parent(desk, by, parent)
    _check_plan(desk, by, plan)


def check_edit(desk: Desk, by: By, tenant: str, asked: Edit) -> None:
    """Raises NotAllowed, NotFound."""
    if by.role == OPERATOR:
        return
    if tenant == by.tenant:
        raise NotAllowed("The tenant of this key is edited by who is above it.")
    if asked.parent != KEEP:
        _check_parent(desk, by, asked.parent)
    now = desk.ledger.tenant(tenant).plan
    wanted = desk.plans().get(asked.plan or now)
    if asked.plan not in (None, now) and wanted is not None:  # what is not there is told by the edit
        _check_plan(desk, by, wanted)
    if asked.caps is not None:
        _check_caps(asked.caps, desk.ledger.look(_caps_given, tenant, wanted))


def check_admin_key(desk: Desk, wish: Wish, role: str, tenant: str | None, expires_ms: int | None) -> int | None:
    """No key is stronger than the one that makes it, or lives longer. Returns when it ends.

    Raises InvalidValue, NotAllowed, NotFound.
    """
    by = wish.by
    if role == OPERATOR and tenant is not None:
        raise InvalidValue("An operator is for all tenants: leave tenant out.", param="tenant")
    if role == TENANT_ADMIN and tenant is None:
        raise InvalidValue("tenant says whose admin it is.", param="tenant")
    if by.role != OPERATOR:
        if role not in (TENANT_ADMIN, VIEWER):
            raise NotAllowed(f"A {by.role} makes no {role}.")
        if tenant is None:
            raise NotAllowed("This key makes keys for its tenant and those below it: say which.")
        if not desk.sees(by, tenant):
            raise NotFound(f"no tenant {tenant[:64]!r}")
    if by.expires_ms is None:
        return expires_ms
    if expires_ms is not None and expires_ms > by.expires_ms:
        raise NotAllowed("A key ends no later than the one that makes it.")
    return expires_ms or by.expires_ms


def _check_parent(desk: Desk, by: By, parent: str | None) -> None:
    if parent is None:
        raise NotAllowed("This key makes no roots: name a parent, its own tenant or one below it.")
    if not desk.sees(by, parent):
        raise NotFound(f"no tenant {parent[:64]!r}")


def _check_plan(desk: Desk, by: By, plan: Plan) -> None:
    assert by.tenant is not None
    own = desk.plans().get(desk.ledger.tenant(by.tenant).plan)
    if more := "is not in force" if own is None else stronger(plan, own):
        raise NotAllowed(f"Only the operator gives plan {plan.name}: it {more}, beyond the plan of {by.tenant}.")


def stronger(plan: Plan, own: Plan) -> str:
    """What a plan has that `own` has not; "" when there is nothing."""
    if plan.grants:
        return "has grants"
    if own.allow is not None and (plan.allow is None or not plan.allow <= own.allow):
        return "allows more models"
    if any(limit > most for limit, most in zip(_limits(plan.limits), _limits(own.limits), strict=True)):
        return "has wider limits"
    if (plan.max_output or _UNLIMITED) > (own.max_output or _UNLIMITED):
        return "has longer answers"
    if plan.priority < own.priority or plan.weight > own.weight:
        return "comes first"
    return "goes on when it is exhausted" if plan.exhausted not in (_BLOCKS, own.exhausted) else ""


def _limits(limits: Limits) -> list[int]:
    return [_UNLIMITED if limit is None else limit for limit in (limits.rpm, limits.tpm, limits.concurrency)]


def _caps_given(image: Image, tenant: str, plan: Plan | None, now_ms: int) -> Caps:
    """By its plan and what was sold to it."""
    return merged(plan.caps if plan else {}, caps_sold(account(image, tenant).subscriptions))


def _check_caps(asked: Caps, given: Caps) -> None:
    for window, limits in asked.items():
        for unit, limit in limits.items():
            most = given.get(window, {}).get(unit)
            if most is not None and limit > most:
                raise NotAllowed(f"The cap of {unit} a {window} is beyond what its plan and packages give.")
