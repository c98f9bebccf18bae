"""`python -m gateway.config.json_schema` prints docs/routes.schema.json, for editors."""

from __future__ import annotations

import json

from gateway.config.schema import json_schema


def document() -> str:
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "routes.yaml of MoMA gateway, version 1",
    }
    return json.dumps({**head, **json_schema()}, indent=1) + "\n"


if __name__ == "__main__":
    print(document(), end="")
