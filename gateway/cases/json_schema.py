"""`python -m gateway.cases.json_schema` prints docs/routes.test.schema.json, for editors."""

from __future__ import annotations

from gateway.cases.schema import SCHEMA
from gateway.config.json_schema import document

if __name__ == "__main__":
    print(document(SCHEMA, "routes.test.yaml"), end="")
