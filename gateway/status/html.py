"""HTML that cannot be written unescaped: whatever is not `Html` already is text."""

from __future__ import annotations

from html import escape
from typing import Final

_VOID: Final = frozenset({"meta", "link", "input"})


class Html(str):
    """Markup. Made by `el` and `join`, and of nothing that came from outside."""

    __slots__ = ()


Child = str | int | Html


def el(tag: str, *children: Child, **attributes: str | int) -> Html:
    """`class_` is `class`, `data_label` is `data-label`; an attribute of "" is left out."""
    sets = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value != ""
    )
    return Html(f"<{tag}{sets}>" if tag in _VOID else f"<{tag}{sets}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children))
