"""`/admin/v1`: whose key it is, what its role reaches, and the operation that is asked. Guesses at keys are limited."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.admin.desk import Cards, Desk, Explain, Packages, Plans, Reload, Why, Wish
from gateway.admin.fields import object_of
from gateway.admin.kinds import NAMED, TENANT
from gateway.admin.operations import Answer, Operation, found
from gateway.admin.sales import redeem
from gateway.admin.table import offered
from gateway.cache.caches import Caches
from gateway.charging.admins import CLI, ROOT, By, by_key, by_tenant
from gateway.charging.cutting import Statements
from gateway.charging.image import Image
from gateway.charging.ledger import Ledger
from gateway.clock import Clock
from gateway.errors import GatewayError, InvalidKey, InvalidValue, NotAllowed, StoreUnavailable
from gateway.guesses import Guesses
from gateway.tenants import MAX_KEY_CHARS, credential, key_hash

VERSION: Final = "version"
_PREFIX: Final = "/admin/v1/"
_ETAGS: Final = re.compile(r'\s*(?:\*|"[!#-~]*")(?:\s*,\s*"[!#-~]*")*\s*')


class Admin:
    """Collaborators only."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        plans: Plans,
        clock: Clock,
        packages: Packages = dict,
        cards: Cards = tuple,
        reload: Reload | None = None,
        explain: Explain | None = None,
        why: Why | None = None,
        caches: Caches | None = None,
        statements: Statements | None = None,
    ) -> None:
        self._ledger = ledger
        self._desk = Desk(ledger, plans, packages, cards, clock, reload, explain, why, caches, statements)
        self._operations = offered(self._desk)
        self._guesses = Guesses(clock)

    def authorise(self, headers: Mapping[str, str], remote: str, key: str | None) -> By:
        """As `verify`."""
        try:
            sent = credential(headers)
        except InvalidKey:
            sent = ""
        return self.verify(sent, remote, key)

    def verify(self, sent: str, remote: str, key: str | None) -> By:
        """Whose key it is; `key` is that of routes.yaml, which needs no ledger.

        Raises InvalidKey, or RateLimited after ten wrong keys in a minute from one address; StoreUnavailable.
        """
        if key and hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), key.encode()):
            return ROOT
        wrong: GatewayError = InvalidKey("The admin key is missing or not valid.")
        try:
            by = self._ledger.look(_holder, key_hash(sent)) if 0 < len(sent) <= MAX_KEY_CHARS else None
        except StoreUnavailable as error:  # nobody can tell; but the key of routes.yaml it was not
            by, wrong = None, error
        if by is not None:
            return by
        self._guesses.failed(remote)
        raise wrong

    async def handle(
        self, method: str, path: str, query: Mapping[str, str], body: bytes, by: By = CLI, request_id: str = "",
        if_match: str | None = None,
    ) -> Answer:  # fmt: skip
        """Status and JSON value of one request; `path` begins with /admin/v1/. Without `by` it is this process."""
        operation, names = found(self._operations, method, path.removeprefix(_PREFIX))
        if not operation.open_to(by):
            raise NotAllowed(f"{operation.name} is not for a {by.role}{' of one tenant' if by.tenant else ''}.")
        wish = Wish(operation.name, by, names, query, {}, request_id)
        self._expect_seen(wish)
        wish.body = _fields(operation, body)
        wish.versions = _versions(operation, wish.body, if_match)
        return await operation.run(self._desk, wish)

    async def redeem(self, tenant: str, body: bytes, request_id: str) -> Answer:
        """A tenant redeems a code with its own key."""
        return await redeem(
            self._desk,
            Wish("code.redeem", by_tenant(tenant), {"tenant": tenant}, {}, object_of(body, "code"), request_id),
        )

    def _expect_seen(self, wish: Wish) -> None:
        """A key of one tenant is told that what others have is not there."""
        of_one = wish.by.tenant is not None
        for name, value in wish.path.items():
            if name == "tenant" or (of_one and name in NAMED):
                self._desk.expect(wish, NAMED[name], value)
        if of_one and (tenant := wish.query.get("tenant")) is not None:
            self._desk.expect(wish, TENANT, tenant)


def _holder(image: Image, hashed: str, now_ms: int) -> By | None:
    key = image.admins.by_hash.get(hashed)
    return by_key(key) if key is not None and key.valid(now_ms) else None


def _fields(operation: Operation, body: bytes) -> dict[str, Any]:
    if operation.body is None:
        return {}
    return object_of(body, *operation.body, *((VERSION,) if operation.edits else ()))


def _versions(operation: Operation, asked: dict[str, Any], if_match: str | None) -> frozenset[str]:
    """Those that what is edited may have: of `If-Match`, and of the field `version`, which is taken out."""
    sent: set[frozenset[str]] = set()
    if operation.edits and VERSION in asked:
        value = asked.pop(VERSION)
        if not isinstance(value, str) or not value:
            raise InvalidValue("version is that of an answer: a string.", param=VERSION)
        sent.add(frozenset((value,)))
    if operation.edits and if_match is not None:
        if not _ETAGS.fullmatch(if_match):
            raise InvalidValue('If-Match is the etag of an answer, such as "0123456789abcdef", or *.')
        sent.add(frozenset(tag.strip().strip('"') for tag in if_match.split(",")))
    if len(sent) > 1:
        raise InvalidValue("If-Match and version differ: send one of them.", param=VERSION)
    return sent.pop() if sent else frozenset()
