"""What older models of Anthropic's do not take. Both lists are closed: newer models take it.

Names may have a vendor before them and a date behind them; models of others, whose endpoints speak the same dialect,
take neither. Sources: https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking,
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages
"""

from __future__ import annotations

import re
from typing import Final

_CLAUDE: Final = re.compile(r"claude-(?!instant|v?[123](?!\d))")
_BEFORE_4_6: Final = re.compile(r"claude-(?:opus|sonnet|haiku)-4(?!-[6-9](?!\d))")
_BEFORE_4_8: Final = re.compile(r"claude-(?:opus|sonnet|haiku)-4(?!-[89](?!\d))")


def thinks_by_budget(as_name: str) -> bool:
    """It takes no `adaptive` thinking and no effort, only a budget of tokens."""
    return _CLAUDE.search(as_name) is None or _BEFORE_4_6.search(as_name) is not None


def hears_late_system(as_name: str) -> bool:
    """It takes system messages behind a user's turn; others have them at the beginning only."""
    return _CLAUDE.search(as_name) is not None and _BEFORE_4_8.search(as_name) is None
