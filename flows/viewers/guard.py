"""The guard of the exporter: it gives every request its reader's sight before a route is matched.

A reader shows `Authorization: Bearer NAME.SECRET`, or the session that a browser gets by the form at
`/login`. A reader who sees a part of the rows gets 404 outside the addresses of `SHARED`, as at an unknown
address. A token without the right that an address needs gets 403.
"""

from __future__ import annotations

from contextlib import suppress
from html import escape
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.settings import ReadRight
from flows.viewers.access import NOBODY, Access, Sight
from flows.viewers.adcp import CAPABILITIES, Refused

COOKIE: Final = "audiopixel_session"
MAX_FORM_BYTES: Final = 4 << 10
"""The most bytes of a form's body."""
OPEN: Final = (
    "/healthz",
    "/login",
    "/page/login.js",
    "/page/page.css",
    "/page/document.css",
    "/page/search.js",
    "/page/icon.svg",
)
OPEN_BELOW: Final = "/docs/"
"""The beginning of more public addresses. They hold no numbers, and the reader of an alert that links to a
document may have no token.
"""
SHARED: Final = ("/", "/events", "/report", "/row", "/table", "/mcp")
"""Addresses that show each reader the rows of its own sight."""
SHARED_BELOW: Final = ("/page/", "/v1/", "/adcp/")
PUBLIC: Final = ("/mcp", f"/adcp/{CAPABILITIES}")
"""Addresses of AdCP, whose capabilities are public; the other tasks refuse `NOBODY` themselves."""
_NOBODYS: Final[frozenset[ReadRight]] = frozenset(("read",))
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # without a referrer a browser sends its form's origin as null
    "cache-control": "no-store",
}


def sight_of(request: HTTPConnection) -> Sight:
    """The sight of a request's reader, which the guard has attached."""
    sight: Sight = request.state.sight
    return sight


def lasts(request: HTTPConnection) -> bool:
    """False once a request's session has ended; a token's request lasts."""
    return bool(request.state.lasts())


async def body_within(request: Request, most_bytes: int) -> bytes | None:
    """The body of a request; None for a longer body, which is not read to its end."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            return None
    return body


class Guard:
    """Checks each request to an application against its readers' tokens."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as ASGI passes it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            with suppress(ClientDisconnect):  # within a body: no client waits for an answer
                await (self._refused(scope) or self._app)(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        """The refusal of a request; None if it may go on, with its reader's sight."""
        headers, path = Headers(scope=scope), scope["path"]
        if path in OPEN or path.startswith(OPEN_BELOW):
            return None
        sight, until_s, rights = self._reader(headers)
        if sight is None and path in PUBLIC and "authorization" not in headers:
            sight, rights = NOBODY, _NOBODYS
        if sight is None:
            return _sign_in(path, headers)
        if not sight.everything and path not in SHARED and not path.startswith(SHARED_BELOW):
            return PlainTextResponse("Not Found", 404)
        if (right := right_of(path)) not in rights:
            words = f"This token lacks the right {right} (AUDIOPIXEL_READ_TOKENS)."
            return _refusal(path, 403, "PERMISSION_DENIED", words)
        scope.setdefault("state", {}).update(sight=sight, lasts=lambda: self._access.clock_s() < until_s)
        return None

    def _reader(self, headers: Headers) -> tuple[Sight | None, float, frozenset[ReadRight]]:
        """The sight of a request, its end (epoch s; infinite for a token), and its rights. An invalid token
        is refused even beside a valid session.
        """
        authorizations = headers.getlist("authorization")
        if authorizations:
            scheme, _, token = authorizations[0].partition(" ")
            token_sight = self._access.of_token(token.strip()) if scheme.lower() == "bearer" else None
            return (
                (token_sight if len(authorizations) == 1 else None),
                float("inf"),
                self._access.rights(token.strip()),
            )
        cookie = _session(headers)
        sight = self._access.of_session(cookie)
        return sight, float(cookie.split(".")[1]) if sight else 0.0, self._access.rights(cookie)


def right_of(path: str) -> ReadRight:
    """The right that an address needs."""
    if path == "/metrics" or path.startswith("/metrics/"):
        return "metrics"
    return "tag" if path == "/api/tag" else "read"


def _session(headers: Headers) -> str:
    """The session cookie of a request; empty if it has none or several.

    A session has no character that is quoted, so the header is split by hand. Before Python 3.11.10 and
    3.12.6 the standard library takes a time quadratic in a cookie's length to unquote it: 15 s for 60 KB.
    """
    cookies = [pair.partition("=") for line in headers.getlist("cookie") for pair in line.split(";")]
    sessions = [value.strip() for name, _, value in cookies if name.strip() == COOKIE]
    return sessions[0] if len(sessions) == 1 else ""


def _host_of(url: str) -> str:
    """The host of a URL, with its port; empty for an invalid URL."""
    try:
        return urlsplit(url).netloc
    except ValueError:  # an unclosed bracket
        return ""


def _sign_in(path: str, headers: Headers) -> Response:
    """The answer to an unknown reader: the form for a browser, else 401."""
    if path in ("/", "/table") and "text/html" in headers.get("accept", ""):
        return RedirectResponse("/login", 303, _HEADERS)
    code = "AUTH_INVALID" if "authorization" in headers else "AUTH_MISSING"
    words = "Show a read token: Authorization: Bearer NAME.SECRET, or sign in at /login."
    answer = _refusal(path, 401, code, words)
    answer.headers["www-authenticate"] = 'Bearer realm="audiopixel"'
    return answer


def _refusal(path: str, status: int, code: str, words: str) -> Response:
    """A refusal in words, or as JSON for AdCP and for the page's requests."""
    if path.startswith("/api/"):
        return Response(
            msgspec.json.encode({"error": words}), status, {**_HEADERS, "content-type": "application/json"}
        )
    if path != "/mcp" and not path.startswith(("/mcp/", "/adcp/")):
        return _words(status, words)
    body = Refused(code, words, status).body(path.rpartition("/")[2])
    return Response(msgspec.json.encode(body), status, {**_HEADERS, "content-type": "application/json"})


def _words(status: int, words: str) -> Response:
    return PlainTextResponse(f"{words}\n", status, _HEADERS)


# The form


def routes(access: Access) -> list[Route]:
    """The routes of `/login`: the form, and its submission, which signs in with a token or signs out."""

    def form(request: Request) -> Response:
        return _form(access.of_session(_session(request.headers)) is not None)

    async def submit(request: Request) -> Response:
        fields = await _fields(request)
        token = fields.get("token", "").strip()
        if fields.get("leave"):
            answer: Response = RedirectResponse("/login", 303, _HEADERS)
            answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
            return answer
        if not _same_site(request) or access.of_token(token) is None:
            return _form(False, "This token is not known.", 401)
        answer = RedirectResponse("/", 303, _HEADERS)
        answer.set_cookie(
            COOKIE, access.session(token), max_age=int(access.session_s), path="/",
            secure=request.url.scheme == "https", httponly=True, samesite="strict",
        )  # fmt: skip
        return answer

    return [Route("/login", form, methods=["GET"]), Route("/login", submit, methods=["POST"])]


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form; empty for a form that is too long or not UTF-8."""
    body = await body_within(request, MAX_FORM_BYTES)
    try:
        fields = parse_qs((body or b"").decode(), max_num_fields=8)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _same_site(request: Request) -> bool:
    """False for a form of another site, which could sign a reader in as another person."""
    origin: Any = request.headers.get("origin")
    return origin is None or _host_of(origin) == request.headers.get("host")


def _form(signed_in: bool, trouble: str = "", status: int = 200) -> Response:
    alert_html = f'<p role="alert">{escape(trouble)}</p>' if trouble else ""
    leave = '<button name="leave" value="1">Sign out</button>' if signed_in else ""
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in · audiopixel</title> <meta name="viewport"
content="width=device-width, initial-scale=1"> <link rel="icon" href="/page/icon.svg"
type="image/svg+xml"><link rel="stylesheet" href="/page/page.css">
<script src="/page/login.js" type="module"></script></head> <body
class="plain"><main><h1>audiopixel: sign in</h1>{alert_html} <form method="post" action="/login"><p><label>
Read token <input type="password" name="token" autocomplete="current-password" autofocus></label> <button>Sign
in</button> {leave}</p></form></main></body></html>
"""
    return Response(page, status, {**_HEADERS, "content-type": "text/html; charset=utf-8"})
