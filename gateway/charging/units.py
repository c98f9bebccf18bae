"""Credits are integers of a millionth."""

from __future__ import annotations

from typing import Final

UC_PER_CREDIT: Final = 1_000_000
