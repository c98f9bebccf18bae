"""`python -m gateway.config.json_schema` prints docs/routes.schema.json, for editors."""

from __future__ import annotations

import json

from gateway.config.schema import SCHEMA, Node, json_schema


def document(node: Node = SCHEMA, file: str = "routes.yaml") -> str:
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{file} of MoMA gateway, version 1",
    }
    return json.dumps({**head, **json_schema(node)}, indent=1) + "\n"


if __name__ == "__main__":
    print(document(), end="")
