"""The directives of a request's `Cache-Control` (RFC 9111, 5.2.1) that a cache of answers has a use for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.errors import InvalidValue

_SECONDS: Final = re.compile(r'"?([0-9]{1,10})"?')


@dataclass(frozen=True)
class Control:
    """`fresh`: no stored answer will do. `unstored`: nothing of this call may be kept. `stored`: no other will do.

    `max_age_s` is how old a stored answer may be; None: as old as it gets.
    """

    fresh: bool = False
    unstored: bool = False
    stored: bool = False
    max_age_s: int | None = None


ANY: Final = Control()


def parse_control(text: str) -> Control:
    """Unknown directives are ignored, as the RFC asks. Raises InvalidValue."""
    if not text:
        return ANY
    directives: dict[str, str] = {}
    for directive in text.split(","):
        name, _, value = directive.strip().partition("=")
        directives.setdefault(name.strip().lower(), value.strip())
    max_age = directives.get("max-age")
    if max_age is None:
        max_age_s = None
    elif found := _SECONDS.fullmatch(max_age):
        max_age_s = int(found[1])
    else:
        raise InvalidValue("'max-age' of Cache-Control must be a number of seconds.", param="cache-control")
    return Control("no-cache" in directives, "no-store" in directives, "only-if-cached" in directives, max_age_s)
