"""Items as they are kept: each in its full form and with an id, so that a client can list them and refer to them."""

from __future__ import annotations

from typing import Any, Final

from gateway.call import JSON
from gateway.dialects.responses_input import kind_of

_PREFIXES: Final = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def listed(items: list[JSON], response_id: str) -> list[JSON]:
    """Items that were accepted; their ids say which response they are in."""
    return [_listed(item, response_id.removeprefix("resp_"), place) for place, item in enumerate(items)]


def references(items: list[Any]) -> list[tuple[int, str]]:
    """(place, id of the item that is meant)."""
    return [
        (place, item["id"])
        for place, item in enumerate(items)
        if isinstance(item, dict) and kind_of(item) == "item_reference" and isinstance(item.get("id"), str)
    ]


def _listed(item: JSON, stem: str, place: int) -> JSON:
    kind = kind_of(item)
    made_id = f"{_PREFIXES.get(kind, 'item')}_{stem}_i{place}"
    given = item.get("id")
    full: JSON = {"status": "completed", **item, "id": given if given and isinstance(given, str) else made_id}
    full["type"] = kind
    if kind == "message" and isinstance(item["content"], str):
        said: JSON = {"type": "input_text", "text": item["content"]}
        if item["role"] == "assistant":
            said = {"type": "output_text", "text": item["content"], "annotations": [], "logprobs": []}
        full["content"] = [said]
    return full
