"""What a PromQL expression names: metrics with their matchers, and the labels it groups by. No grammar, only words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[a-zA-Z_:][a-zA-Z0-9_:]*|\d[\w.]*|=~|!~|!=|==|\S')
_GROUPING = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = frozenset({"and", "or", "unless", "bool", "offset"})


@dataclass
class Selector:
    """A metric and its matchers: (label, operator, value)."""

    metric: str
    matchers: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class Names:
    selectors: list[Selector] = field(default_factory=list)
    grouped: set[str] = field(default_factory=set)


def names(expr: str) -> Names:
    found = Names()
    tokens = _TOKEN.findall(expr)
    place = 0
    while place < len(tokens):
        token, following = tokens[place], tokens[place + 1] if place + 1 < len(tokens) else ""
        place += 1
        if token == "[":
            place = tokens.index("]", place) + 1
        elif token in _GROUPING and following == "(":
            end = tokens.index(")", place)
            found.grouped |= {label for label in tokens[place + 1 : end] if label != ","}
            place = end + 1
        elif re.match(r"[a-zA-Z_:]", token) and token not in _WORDS and following not in ("(", "by", "without"):
            selector = Selector(token)
            if following == "{":
                end = tokens.index("}", place)
                selector.matchers = list(_matchers(tokens[place + 1 : end]))
                place = end + 1
            found.selectors.append(selector)
    return found


def _matchers(tokens: list[str]) -> Iterator[tuple[str, str, str]]:
    words = [token for token in tokens if token != ","]
    for label, operator, value in zip(words[::3], words[1::3], words[2::3], strict=True):
        yield label, operator, value.strip('"')
