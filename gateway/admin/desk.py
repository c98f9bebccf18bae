"""What the operations of the admin API work with, and what each is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.cache.caches import Caches
from gateway.charging.admins import By
from gateway.charging.audited import Deed, Kind, audited
from gateway.charging.cutting import Statements
from gateway.charging.image import Image
from gateway.charging.ledger import Ledger
from gateway.charging.records import Account
from gateway.clock import Clock
from gateway.config.model import Package, Plan
from gateway.errors import NotFound
from gateway.limits import Gates

Plans = Callable[[], Mapping[str, Plan]]  # those that are in force
Packages = Callable[[], Mapping[str, Package]]  # those that are on sale
Cards = Callable[[], Iterable[str]]  # the names of those that routes.yaml has
Reload = Callable[[By, str], Awaitable[dict[str, Any]]]  # raises a GatewayError when the old configuration stays
Why = Callable[[str], dict[str, Any]]  # reads the ledger's file; raises NotFound, StoreUnavailable
Explain = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
T = TypeVar("T")


@dataclass(slots=True)
class Wish:
    """One request: values of the names in the path, the query, and the fields of the body, of which none is unknown."""

    operation: str
    by: By
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: dict[str, Any]
    request_id: str = ""
    versions: frozenset[str] = field(default_factory=frozenset)


class Desk:
    """Without `reload`, `explain`, `why`, `caches` or `statements` there are no such operations.

    State: wrong codes by tenant.
    """

    def __init__(
        self, ledger: Ledger, plans: Plans, packages: Packages, cards: Cards, clock: Clock, reload: Reload | None,
        explain: Explain | None, why: Why | None, caches: Caches | None, statements: Statements | None,
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.plans = plans
        self.packages = packages
        self.cards = cards
        self.clock = clock
        self.reload = reload
        self.explain = explain
        self.why = why
        self.caches = caches
        self.statements = statements
        self.guesses = Gates(clock)

    async def change(
        self, wish: Wish, step: Callable[..., T], *terms: Any,
        edits: tuple[Kind, str] | None = None, makes: Kind | None = None,
    ) -> T:  # fmt: skip
        """A change of the ledger and its entry in the audit log; durable when this returns.

        Decided before it suspends: what was checked just before still holds. Raises what the step raises.
        """
        deed = Deed(wish.by, wish.operation, wish.request_id, edits, makes, wish.versions)
        changed: tuple[T, Any] = self.ledger.change(audited, deed, step, *terms)
        await changed[1]
        return changed[0]

    def sees(self, by: By, tenant: str | None) -> bool:
        """Whether it is in the part of the tree that the key is for."""
        return by.tenant is None or self.ledger.look(_sees, by, tenant)

    def seen(self, by: By) -> list[Account]:
        """The tenants that are in it."""
        return [one for one in self.ledger.tenants() if by.tenant is None or by.tenant in one.path]

    def expect(self, wish: Wish, kind: Kind, name: str) -> None:
        """Raises NotFound for what is not there and, in the same words, for what is not to be seen."""
        found = self.ledger.look(_owner, kind, name)
        if found is None or not self.sees(wish.by, found[0]):
            raise NotFound(f"no {kind.name} {name[:64]!r}")


def _sees(image: Image, by: By, tenant: str | None, now_ms: int) -> bool:
    return sight(image, by)(tenant)


def sight(image: Image, by: By) -> Callable[[str | None], bool]:
    """`Desk.sees` for lists, which may be long."""

    def sees(tenant: str | None) -> bool:
        account = image.accounts.get(tenant or "")
        return by.tenant is None or (account is not None and by.tenant in account.path)

    return sees


def _owner(image: Image, kind: Kind, name: str, now_ms: int) -> tuple[str | None] | None:
    """Whose it is; None: there is none."""
    found = kind.every(image).get(name)
    return None if found is None else (kind.tenant(found),)
