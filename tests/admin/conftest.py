"""The office, and its books at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.charging.audit import audit
from tests.admin.desk import Office
from tests.admin.desk import office as opened


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    it = await opened(tmp_path)
    yield it
    it.ledger.check_invariants()
    await it.ledger.aclose()
    assert audit(it.path) == []
