"""`python -m gateway.admin.listing` prints the table of docs/admin.md: each operation, and who may ask it."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.admin.operations import Operation
from gateway.admin.table import OPERATIONS


def lines() -> Iterator[str]:
    yield "| operation | below `/admin/v1` | fields | role | what it does |"
    yield "|---|---|---|---|---|"
    for one in OPERATIONS:
        yield f"| {one.name} | `{one.method} {one.path}` | {_fields(one)} | {_role(one)} | {one.about} |"


def _fields(one: Operation) -> str:
    body = [name if name in one.required else f"{name}?" for name in one.body or ()]
    found = [*body, *(["version?"] if one.edits else []), *(f"?{name}=" for name in one.query)]
    return f"`{', '.join(found)}`" if found else ""


def _role(one: Operation) -> str:
    return f"{one.role}, of all tenants" if one.everything and one.role != "operator" else one.role


if __name__ == "__main__":
    print("\n".join(lines()))
