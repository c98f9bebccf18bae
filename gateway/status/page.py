"""`GET /`: a read-only page for whoever has the admin key. HTTP Basic, no script, nothing from anywhere else."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gateway.call import Answer
from gateway.errors import InvalidKey, NotFound, PasswordNeeded
from gateway.status.html import Html, el
from gateway.status.sections import (
    View,
    backends_table,
    banner,
    caches_table,
    chart,
    facts,
    models_table,
    routes_table,
    tenants_table,
    tiles,
)
from gateway.status.sheet import sheet, sheet_headers

REFRESH_S: Final = 10
MAX_KEY_CHARS: Final = 512
STYLE: Final = Html(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))
_OFF = "The status page is shown to whoever has the admin key, and none is set: see server.admin_key in routes.yaml."
_ASK = "Send the admin key as the password (any user name), or as 'Authorization: Bearer KEY'."


class StatusPage:
    """`verify(key, remote)` raises InvalidKey, or RateLimited when somebody guesses; `shown`: is there an admin key?"""

    def __init__(self, view: Callable[[], View], verify: Callable[[str, str], None], shown: Callable[[], bool]) -> None:
        self._view = view
        self._verify = verify
        self._shown = shown

    def answer(self, headers: Mapping[str, str], remote: str, request_id: str) -> Answer:
        """Raises NotFound, PasswordNeeded or RateLimited."""
        self._authorise(headers.get("authorization", ""), remote)
        return Answer(200, {**sheet_headers(STYLE), "x-request-id": request_id}, document(self._view()).encode())

    def _authorise(self, sent: str, remote: str) -> None:
        if not self._shown():
            raise NotFound(_OFF)
        if not sent:  # how a browser asks first: no guess
            raise PasswordNeeded(_ASK)
        try:
            self._verify(_key(sent), remote)
        except InvalidKey:
            raise PasswordNeeded(_ASK) from None


def _key(authorization: str) -> str:
    """The password of Basic or the token of Bearer; "" where there is none."""
    scheme, _, sent = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return sent.strip()[:MAX_KEY_CHARS]
    if scheme.lower() != "basic":
        return ""
    try:
        text = base64.b64decode(sent.strip()[: 2 * MAX_KEY_CHARS], validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return ""
    return text.partition(":")[2]


def document(view: View) -> Html:
    """The whole page."""
    return sheet(
        "MoMA gateway",
        STYLE,
        banner(view),
        el("main", tiles(view), chart(view), backends_table(view), routes_table(view), models_table(view),
           caches_table(view), tenants_table(view), facts(view)),
        el("footer", f"Rates are of the last {_span(view.recent.seconds)}. Renewed every {REFRESH_S} s."),
        refresh_s=REFRESH_S,
    )  # fmt: skip


def _span(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds < 119 else f"{round(seconds / 60)} min"
