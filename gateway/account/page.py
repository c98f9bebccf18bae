"""`/account`: what a tenant has and uses, for whoever has one of its keys. No script, nothing from anywhere else.

The key is sent once, in the body of a form; after that a cookie stands for it, which is a random number that scripts
cannot read, that other sites cannot send, and that ends with the key, the session or the process.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import orjson

from gateway.account import sections
from gateway.account.forms import csv_text
from gateway.account.printed import STYLE as PRINTED_STYLE
from gateway.account.printed import printed
from gateway.account.view import Account
from gateway.call import Answer
from gateway.errors import GatewayError, InvalidKey, InvalidValue, MethodNotAllowed, NotFound, RateLimited
from gateway.guesses import Guesses
from gateway.request import HttpRequest
from gateway.status.html import Html, el, join
from gateway.status.page import STYLE as SHARED_STYLE
from gateway.status.sheet import sheet, sheet_headers
from gateway.tenants import MAX_KEY_CHARS, Tenants, key_hash

PATH: Final = sections.PATH
COOKIE: Final = "moma_account"
SESSION_MS: Final = 30 * 60_000
MAX_SESSIONS: Final = 10_000
MAX_FORM_BYTES: Final = 4_096
STYLE: Final = join(SHARED_STYLE, Html(Path(__file__).with_name("account.css").read_text(encoding="utf-8")))
_STATEMENT: Final = re.compile(r"statements/([0-9]{4}-[0-9]{2})\.(html|csv|json)", re.ASCII)
_TYPES: Final = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
_HINT: Final = "The key is sent once and not kept. The session ends after 30 minutes."
_WRONG: Final = "This key is missing or not valid."


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie stands for. The key itself is not kept."""

    key_hash: str
    until_ms: int


class AccountPage:
    """State: sessions by cookie, the oldest first."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._guesses = Guesses(account.clock)
        self._sessions: dict[str, Session] = {}

    async def answer(self, http: HttpRequest, tenants: Tenants) -> Answer:
        """What goes wrong is shown as a page as well."""
        try:
            return await self._answer(http, tenants)
        except (InvalidKey, RateLimited) as error:
            asked = self._asked(error.message, error.status)
            asked.headers.update(error.headers())
            return asked
        except GatewayError as error:
            return _page(error.status, "Account", _lone(el("p", error.message, class_="bad"), _back()))

    async def _answer(self, http: HttpRequest, tenants: Tenants) -> Answer:
        what = http.path.removeprefix(PATH).strip("/")
        if http.method == "POST":
            _check_origin(http.headers)
            if what == "":
                return await self._log_in(http, tenants)
            if what == "logout":
                self._sessions.pop(_cookie(http.headers), None)
                return _moved("", http.headers)
        elif http.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("This path takes GET and POST.")
        session = self._session(http.headers)
        statement = _STATEMENT.fullmatch(what)
        if what not in ("", "logout") and statement is None:
            raise NotFound("There is nothing at this path.")
        if session is None:
            return self._asked() if what == "" else _moved(None, http.headers)
        return await self._shown(session, tenants, statement)

    async def _shown(self, session: Session, tenants: Tenants, statement: re.Match[str] | None) -> Answer:
        """A key that was revoked meanwhile shows nothing any more."""
        caller = tenants.by_hash(session.key_hash, self._account.now_ms)
        if statement is not None:
            return await self._statement(caller.tenant, *statement.groups())
        view = await self._account.view(caller.tenant)
        name = next((key.name or key.id for key in view.keys if key.key_hash == session.key_hash), "")
        parts = (
            sections.tiles(view), sections.packages(view), sections.purses(view), sections.caps(view),
            sections.usage(view), sections.models(view), sections.members(view), sections.calls(view),
            sections.keys(view), sections.statements(view),
        )  # fmt: skip
        return _page(200, f"Account {view.tenant}", sections.banner(view, name), el("main", *parts))

    async def _statement(self, tenant: str, month: str, form: str) -> Answer:
        """Those that are cut, and no others: to make one reads all calls of a month."""
        found = await self._account.cut_statement(tenant, month)
        if form == "html":
            return Answer(200, dict(sheet_headers(PRINTED_STYLE)), printed(found).encode())
        body = csv_text(found).encode() if form == "csv" else orjson.dumps(found)
        headers = sheet_headers(PRINTED_STYLE) | {
            "content-type": _TYPES[form], "content-disposition": f'attachment; filename="statement-{month}.{form}"',
        }  # fmt: skip
        return Answer(200, headers, body)

    # -- who it is ----------------------------------------------------------------------------------------------------

    async def _log_in(self, http: HttpRequest, tenants: Tenants) -> Answer:
        """Raises InvalidKey, or RateLimited after ten wrong keys in a minute from one address."""
        body = await http.body(MAX_FORM_BYTES)
        try:
            fields = dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=8))
        except ValueError as error:
            raise InvalidValue("This is not the form of this page.") from error
        key = fields.get("key", "").strip()
        hashed, now_ms = key_hash(key), self._account.now_ms
        try:
            if not key or len(key) > MAX_KEY_CHARS:
                raise InvalidKey(_WRONG)
            tenants.by_hash(hashed, now_ms)
        except InvalidKey:
            self._guesses.failed(http.remote)
            raise InvalidKey(_WRONG) from None
        self._forget(now_ms)
        token = secrets.token_urlsafe(32)
        self._sessions[token] = Session(hashed, now_ms + SESSION_MS)
        return _moved(token, http.headers)

    def _session(self, headers: Mapping[str, str]) -> Session | None:
        session = self._sessions.get(_cookie(headers))
        return session if session is not None and self._account.now_ms < session.until_ms else None

    def _forget(self, now_ms: int) -> None:
        """Those that have ended, and the oldest where there are too many."""
        for token, session in list(self._sessions.items()):
            if now_ms < session.until_ms and len(self._sessions) < MAX_SESSIONS:
                break
            del self._sessions[token]

    @staticmethod
    def _asked(wrong: str = "", status: int = 200) -> Answer:
        """The form. Browsers offer to keep a password, which this is."""
        field = el(
            "input", id="key", name="key", type="password", autocomplete="current-password", required="required",
            placeholder="sk-moma-...", autofocus="autofocus", aria_describedby="hint",
        )  # fmt: skip
        form = el(
            "form", el("h1", "Your account"), el("label", "One of your api keys", for_="key"), field,
            el("p", wrong, class_="bad", role="alert") if wrong else Html(""), el("button", "Show my account"),
            el("p", _HINT, id="hint", class_="quiet"),
            method="post", action=PATH,
        )  # fmt: skip
        return _page(status, "Account", _lone(form))


def _page(status: int, title: str, *body: Html) -> Answer:
    return Answer(status, dict(sheet_headers(STYLE, "'self'", "same-origin")), sheet(title, STYLE, *body).encode())


def _lone(*body: Html) -> Html:
    return el("main", *body, class_="lone")


def _back() -> Html:
    return el("p", el("a", "Back to the account", href=PATH))


def _moved(token: str | None, headers: Mapping[str, str]) -> Answer:
    """To the page; "" ends the session's cookie, None leaves it as it is."""
    found = {"location": PATH, "cache-control": "no-store"}
    if token is not None:
        secure = "; Secure" if headers.get("x-forwarded-proto", "").lower() == "https" else ""
        age = SESSION_MS // 1000 if token else 0
        found["set-cookie"] = f"{COOKIE}={token}; Path={PATH}; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"
    return Answer(303, found)


def _cookie(headers: Mapping[str, str]) -> str:
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _check_origin(headers: Mapping[str, str]) -> None:
    """A form of another site must neither log somebody in nor out. Browsers say where it was; others have no cookie.

    Raises InvalidValue.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        good = site in ("same-origin", "none")
    else:
        hosts = {headers.get("host", ""), headers.get("x-forwarded-host", "")}
        good = origin is None or (origin != "null" and urlsplit(origin).netloc in hosts)
    if not good:
        raise InvalidValue("This form was sent from another site. Open the page itself, and log in there.")
