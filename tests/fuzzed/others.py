"""What is served and is not in OpenAI's document, in the form of such a document."""

from __future__ import annotations

from typing import Any, Final

JSON = dict[str, Any]

TEXT: Final = {"type": "string"}


def _object(*required: str, **properties: Any) -> JSON:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: JSON, least: int = 0) -> JSON:
    return {"type": "array", "items": items, "minItems": least}


def _block(kind: str, **fields: Any) -> JSON:
    return _object("type", *fields, type={"const": kind}, **fields)


_WHOLE: Final = {"type": "integer", "minimum": 1, "maximum": 1000}
_YES_OR_NO: Final = {"type": "boolean"}
_SOURCE: Final = _object("type", "media_type", "data", type={"enum": ["base64", "text"]}, media_type=TEXT, data=TEXT)
_SAID: Final = {
    "anyOf": [
        TEXT,
        _list({
            "anyOf": [
                _block("text", text=TEXT), _block("thinking", thinking=TEXT, signature=TEXT),
                _block("image", source=_SOURCE), _block("document", source=_SOURCE),
                _block("tool_use", id=TEXT, name=TEXT, input={"type": "object"}),
                _block("tool_result", tool_use_id=TEXT, content=TEXT),
            ]
        }),
    ]
}  # fmt: skip
_MESSAGES: Final = _object(
    "model", "max_tokens", "messages",
    model=TEXT, max_tokens=_WHOLE, stream=_YES_OR_NO, system=_SAID, stop_sequences=_list(TEXT),
    messages=_list(_object("role", "content", role={"enum": ["user", "assistant"]}, content=_SAID), 1),
    temperature={"type": "number", "minimum": 0, "maximum": 1},
    thinking=_object(type={"enum": ["enabled", "disabled", "adaptive"]}, budget_tokens=_WHOLE),
    metadata=_object(user_id=TEXT),
    tools=_list(_object("name", "input_schema", name=TEXT, description=TEXT, input_schema={"type": "object"})),
    tool_choice=_object("type", type={"enum": ["auto", "any", "none", "tool"]}, name=TEXT),
)  # fmt: skip
_RERANK: Final = _object(
    "model", "query", "documents",
    model=TEXT, query=TEXT, documents=_list(TEXT, 1), top_n=_WHOLE, return_documents=_YES_OR_NO,
)  # fmt: skip
_ID: Final = {"in": "path", "name": "response_id", "required": True, "schema": TEXT}
_PAGE: Final = [
    {"in": "query", "name": "limit", "schema": {"type": "integer"}},
    {"in": "query", "name": "order", "schema": {"enum": ["asc", "desc"]}},
    {"in": "query", "name": "after", "schema": TEXT},
]


def _operation(name: str, parameters: list[Any], body: JSON | None = None) -> JSON:
    content: JSON = {"application/json": {"schema": {"type": "object"}}}
    asked: JSON = {"required": True, "content": {"application/json": {"schema": body}}}
    answers: JSON = {"200": {"description": "good", "content": content}}
    it: JSON = {"operationId": name, "parameters": parameters, "responses": answers}
    return it if body is None else {**it, "requestBody": asked}


DELETE_RESPONSE: Final = _operation("deleteResponse", [_ID])
OTHERS: Final[JSON] = {
    "/responses/{response_id}/input_items": {"get": _operation("listInputItems", [_ID, *_PAGE])},
    "/rerank": {"post": _operation("rerank", [], _RERANK)},
    "/messages": {"post": _operation("createMessage", [], _MESSAGES)},
    "/messages/count_tokens": {"post": _operation("countTokens", [], _MESSAGES)},
    "/usage": {"get": _operation("usage", [])},
}
