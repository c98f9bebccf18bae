"""The table of operations as an OpenAPI 3.1 document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from gateway import __version__
from gateway.admin import schemas
from gateway.admin.operations import Operation, Schema

WORDS: Final = {
    200: "done, or as it is",
    201: "made",
    400: "malformed, or out of bounds: `param` names the field",
    401: "no admin key, or a wrong, revoked or expired one",
    403: "beyond the role of this key",
    404: "unknown, or of a tenant that this key does not see",
    409: "contradicts what is there",
    412: "changed meanwhile: `version` is the one in force",
    413: "the body is too large",
    422: "routes.yaml has problems; what was in force stays",
    429: "too many wrong keys or codes",
    503: "the ledger's file cannot be written or read",
}
ALWAYS: Final = (401, 403, 429, 503)
ABOUT: Final = (
    "Send an admin key as Bearer: `server.admin_key` of routes.yaml, or one of `POST admin-keys`."
    " A key of one tenant sees that tenant and those below it: all else is 404."
)
SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    components: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        shown = _operation(one)
        paths.setdefault(f"/{one.path}", {})[one.method.lower()] = _hoisted(shown, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "MoMA gateway: admin API", "version": __version__, "description": ABOUT},
        "servers": [{"url": "/admin/v1"}],
        "security": [{scheme: []} for scheme in SECURITY],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": SECURITY},
    }


def errors_of(one: Operation) -> list[int]:
    found = {*ALWAYS, *one.errors}
    found |= {404} if "{" in one.path or "tenant" in one.query else set()
    found |= {400} if one.query or one.body is not None else set()
    found |= {413} if one.body is not None else set()
    found |= {412} if one.edits else set()
    return sorted(found)


def _operation(one: Operation) -> dict[str, Any]:
    reach = " Only for keys that see all tenants." if one.everything else ""
    shown: dict[str, Any] = {
        "operationId": one.name,
        "tags": [one.name.split(".")[0]],
        "summary": one.about,
        "description": f"Role: {one.role}.{reach}",
        "parameters": _parameters(one),
        "responses": {str(status): _response(status, schema) for status, schema in _answers(one)},
    }
    if one.body is not None:
        shown["requestBody"] = {"required": bool(one.required), "content": _json(_body(one))}
    return shown


def _parameters(one: Operation) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in one.parts if part[0] == "{"]
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": schemas.text(200, 1)} for name in names
    ]
    found += [{"name": name, "in": "query", "schema": schema} for name, schema in one.query.items()]
    if one.edits:
        etag = {
            "type": "string",
            "pattern": '^(\\*|"[!#-~]*")$',
            "description": "an etag; 412 when another is in force",
        }
        found.append({"name": "if-match", "in": "header", "schema": etag})
    return found


def _body(one: Operation) -> Schema:
    assert one.body is not None
    fields = {**one.body, **({"version": schemas.VERSION} if one.edits else {})}
    required = {"required": list(one.required)} if one.required else {}
    return {"type": "object", "properties": fields, "additionalProperties": False, **required}


def _answers(one: Operation) -> Iterable[tuple[int, Schema]]:
    return sorted([*one.answers.items(), *((status, schemas.ERROR) for status in errors_of(one))], key=lambda at: at[0])


def _response(status: int, schema: Schema) -> dict[str, Any]:
    headers = {"x-request-id": {"schema": schemas.TEXT}}
    if "version" in schema.get("properties", {}):
        headers["etag"] = {"schema": schemas.TEXT}
    return {"description": WORDS[status], "headers": headers, "content": _json(schema)}


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _hoisted(value: Any, components: dict[str, Any]) -> Any:
    """Schemas with a title become components, and references where they stood."""
    if isinstance(value, list | tuple):
        return [_hoisted(item, components) for item in value]
    if not isinstance(value, Mapping):
        return value
    shown = {name: _hoisted(item, components) for name, item in value.items()}
    title = value.get("title")
    if not isinstance(title, str):
        return shown
    assert components.setdefault(title, shown) == shown, f"two schemas are called {title}"
    return {"$ref": f"#/components/schemas/{title}"}
