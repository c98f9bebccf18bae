"""A page of HTML without a script, and what a browser is told of it: nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache

from gateway.status.html import Html, el, join


def sheet(title: str, style: Html, *body: Html, refresh_s: int = 0) -> Html:
    """The whole page; with `refresh_s` it renews itself."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="refresh", content=refresh_s) if refresh_s else Html(""),
        el("meta", name="color-scheme", content="light dark"),
        el("link", rel="icon", href="data:,"),
        el("title", title),
        el("style", style),
    )
    return join(Html("<!doctype html>"), el("html", head, el("body", *body), lang="en"))


@lru_cache(maxsize=8)
def sheet_headers(style: Html, forms: str = "'none'", referrer: str = "no-referrer") -> dict[str, str]:
    """`forms`: where forms may be sent, as in a Content-Security-Policy. Not to be changed: all pages share it."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        f"base-uri 'none'; form-action {forms}; frame-ancestors 'none'",
        "cache-control": "no-store",
        "referrer-policy": referrer,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
