"""One operation of the admin API: its path, who may ask it, what it is given and answers. The router, the check of
roles, the OpenAPI document and docs/admin.md are made of these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.admin.desk import Desk, Wish
from gateway.charging.admins import ROLES, VIEWER, By
from gateway.errors import MethodNotAllowed, NotFound

Schema = Mapping[str, Any]
Answer = tuple[int, Any]
Run = Callable[[Desk, Wish], Awaitable[Answer]]


@dataclass(frozen=True)
class Operation:
    """`path` is below /admin/v1/, with `{names}`. `role` is the least that may ask.

    `answers`: the JSON Schema of what is answered, by status; `errors` beside those that every operation has.
    `body`: fields by name, None where there is no body; `required` are some of them. A reader of its own checks the
    values: the schemas say what it takes.
    `everything`: only for keys that see all tenants. `edits`: takes `If-Match`, or `version` in the body.
    `needs`: what the desk may be without; then there is no such path.
    """

    name: str
    method: str
    path: str
    about: str
    run: Run
    answers: Mapping[int, Schema]
    role: str = VIEWER
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Mapping[str, Schema] | None = None
    required: Sequence[str] = ()
    errors: Sequence[int] = ()
    everything: bool = False
    edits: bool = False
    needs: str = ""

    @property
    def parts(self) -> list[str]:
        return self.path.split("/")

    def match(self, parts: Sequence[str]) -> dict[str, str] | None:
        """The values of the names in the path; None for another path."""
        mine = self.parts
        if len(mine) != len(parts) or not all(
            own == part or own[0] == "{" for own, part in zip(mine, parts, strict=True)
        ):
            return None
        return {own[1:-1]: part for own, part in zip(mine, parts, strict=True) if own[0] == "{"}

    def open_to(self, by: By) -> bool:
        return by.role in ROLES[: ROLES.index(self.role) + 1] and not (self.everything and by.tenant is not None)


def found(operations: Sequence[Operation], method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """`path` is below /admin/v1/. Raises NotFound, MethodNotAllowed."""
    parts = path.strip("/").split("/")
    at = {one.method: (one, values) for one in operations if (values := one.match(parts)) is not None}
    if not at:
        raise NotFound("There is no such admin path.")
    if method not in at:
        raise MethodNotAllowed(f"This path takes {' and '.join(at)}.", allow=list(at))
    return at[method]
