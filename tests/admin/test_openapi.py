"""The OpenAPI document, and the table of the docs: made of the table of operations, and complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.admin.listing import lines
from gateway.admin.openapi import document
from gateway.admin.operations import Operation
from gateway.admin.table import OPERATIONS
from gateway.charging.admins import VIEWER
from tests.admin.desk import Office

DOCS = Path(__file__).parent.parent.parent / "docs/admin.md"
WHOLE = document(OPERATIONS)


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(references, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if "$ref" in value else set()
    return own.union(*map(references, value.values())) if value else own


def schemas(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [schema for item in value for schema in schemas(item)]
    if not isinstance(value, dict):
        return []
    return [found for name, item in value.items() for found in ([item] if name == "schema" else schemas(item))]


def test_the_docs_list_all_operations() -> None:
    _, _, table = DOCS.read_text().partition("<!-- by `python -m gateway.admin.listing` -->\n")
    assert table.strip().splitlines() == list(lines())


def test_every_operation_is_in_the_document_with_its_errors() -> None:
    shown = {one["operationId"]: one for path in WHOLE["paths"].values() for one in path.values()}
    assert list(shown) == [one.name for one in OPERATIONS]
    for one in OPERATIONS:
        assert {"401", "403", "429", "503"} <= shown[one.name]["responses"].keys()
        assert set(map(str, one.answers)) <= shown[one.name]["responses"].keys()


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    components = WHOLE["components"]["schemas"]
    assert references(WHOLE) == {f"#/components/schemas/{name}" for name in components}
    for schema in [*components.values(), *schemas(WHOLE["paths"])]:
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_what_is_required_is_a_field_and_names_are_once(operation: Operation) -> None:
    assert set(operation.required) <= set(operation.body or ())
    assert not set(operation.body or ()) & {"version"}
    assert [one.name for one in OPERATIONS].count(operation.name) == 1
    assert operation.method == "GET" or operation.body is not None or operation.method == "DELETE"


async def test_any_admin_key_gets_it(office: Office) -> None:
    by = await office.key(VIEWER, "ann")
    status, shown = await office.ask("GET", "openapi.json", None, by)
    assert (status, shown["openapi"]) == (200, "3.1.0")
    assert shown["paths"].keys() == WHOLE["paths"].keys()
