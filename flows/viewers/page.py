"""The live page of the exporter: placements, campaigns, creatives and apps as a trading desk sees them.

`/` is the page, and `/events` its server-sent events (`flows.viewers.feed`). `/row?scope=…&id=…&range=…` is a
whole row; its id is in the query, since a browser resolves an id `..` in a path. `/table` is the placements
without a script. The page inserts every value as text, never as markup.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC
from html import escape
from importlib.resources import files
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from connectors.stream import ConnectError
from flows.model.delivery_fields import shown_state
from flows.viewers.access import EVERYTHING, Sight
from flows.viewers.campaign_report import report
from flows.viewers.disputed import Disputed
from flows.viewers.feed import Feed, urgency
from flows.viewers.guard import lasts, sight_of
from flows.viewers.row_sentence import zone_of
from flows.viewers.silence import sentences, unit_words
from flows.viewers.words import number, reason, state_words, utc_moment

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
STATIC: Final = files("flows.viewers").joinpath("static")
PIECE: Final = 64 << 10
"""Bytes of an event that are sent at a time: the bytes under way are copied for each reader."""
TAKEN_S: Final = 20.0
"""Seconds within which a reader must take the pending bytes of the stream; a slower reader is dropped."""
EVENT_S: Final = 30.0
"""Seconds within which a reader must take most of an event: the slowest reader keeps a version in memory for
as long.
"""
PLAIN_ROWS: Final = 1_000
"""The most placements in the table without a script."""
_PLAIN: Final = (
    ("state", "delivery.state", None),
    ("campaign", "campaign_id", None),
    ("pacing, %", "delivery.indicator", 100),
    ("short by, impressions", "delivery.short_by", 1),
    ("delivered", "delivery.delivered", 1),
    ("booked", "delivery.booked", 1),
    ("needed, impressions/hour", "delivery.required_rate", 1),
    ("in blocked content", "flight.blocked_impressions", 1),
    ("ends", "delivery.end_ms", "ms"),
)
"""Columns of the table without a script: title, field, and a factor of its number."""


def _file(name: str) -> Response:
    content = STATIC.joinpath(*name.split("/")).read_bytes()
    return Response(content, headers={**_HEADERS, "content-type": _TYPES[name.rpartition(".")[2]]})


def _fixed(answer: Response) -> Callable[[Request], Awaitable[Response]]:
    """A handler that always returns `answer`, without waiting for a thread."""

    async def handle(_: Request) -> Response:
        return answer

    return handle


def _file_names() -> list[str]:
    """The names of the page's own files and of the vendored files that they import."""
    names = [file.name for file in STATIC.iterdir()]
    names += [f"vendor/{file.name}" for file in STATIC.joinpath("vendor").iterdir()]
    return sorted(name for name in names if name.rpartition(".")[2] in ("js", "css", "svg"))


def routes(feed: Feed, disputed: Disputed | None = None, course: bool = False) -> list[Route]:
    """The routes of the page, its files, its events and its rows. Reads the files once.

    Args:
        disputed: others' counts, for a row's waterfalls; None: a row has none.
        course: true if `/v1/placements/…/course` has the minutes of a placement.
    """
    page, file_responses = _file("index.html"), {name: _file(name) for name in _file_names()}

    async def events(request: Request) -> Response:
        async def while_signed_in() -> AsyncIterator[bytes]:
            async for event in feed.events(sight_of(request)):
                if not lasts(request):
                    return
                began_s = time.monotonic()
                for start in range(0, len(event), PIECE):
                    if time.monotonic() - began_s > EVENT_S:
                        return  # the browser reconnects, and gets everything
                    yield event[start : start + PIECE]
                    await asyncio.sleep(0)  # other requests are answered between two pieces

        request.state.taken_s = TAKEN_S
        headers = {**_HEADERS, "content-type": "text/event-stream", "cache-control": "no-store"}
        if request.method == "HEAD":
            return Response(headers=headers)  # a body would have no end
        if feed.full(sight_of(request)):
            message = "Too many pages are open, of this token or of all: close some of them.\n"
            return PlainTextResponse(message, 429, {**_HEADERS, "retry-after": "10"})
        return StreamingResponse(while_signed_in(), headers=headers)

    def row(request: Request) -> Response:
        query = request.query_params
        scope, name, length = query.get("scope", "placement"), query.get("id", ""), query.get("range", "1h")
        answer: dict[str, Any] | None
        try:
            zone = zone_of(query.get("zone"), feed.zone)
            answer = feed.row(scope, name, length, sight_of(request), zone)
            status = 200
        except ConnectError as error:  # the error names the address of Redis
            message = str(error) if sight_of(request).everything else "numbers cannot be read"
            answer, status = {"error": message}, 503
        if answer is not None and status == 200 and disputed is not None:
            answer["theirs"] = disputed.waterfalls(scope, name, sight_of(request).everything)
        if answer is not None and status == 200:
            answer["course"] = course and scope == "placement"
        if answer is None:
            answer, status = {"error": "There is no such row."}, 404
        headers = {**_HEADERS, "content-type": "application/json"}
        return Response(msgspec.json.encode(answer), status, headers)

    def table(request: Request) -> Response:
        return Response(
            plain_table(feed, sight_of(request)), headers={**_HEADERS, "content-type": _TYPES["html"]}
        )

    return [
        _report(feed),
        Route("/", _fixed(page)),
        *(Route(f"/page/{name}", _fixed(response)) for name, response in file_responses.items()),
        Route("/events", events),
        Route("/row", row),
        Route("/table", table),
    ]


def _report(feed: Feed) -> Route:
    """`/report?id=…`: a campaign in sight on one page that prints."""

    def campaign(request: Request) -> Response:
        name, sight = request.query_params.get("id", ""), sight_of(request)
        try:
            report_row = feed.row("campaign", name, "1h", sight)
            rows, status, _, _ = feed.placements(sight)
        except ConnectError:
            return PlainTextResponse("Numbers cannot be read now.\n", 503, _HEADERS)
        if report_row is None:
            return PlainTextResponse("There is no such campaign.\n", 404, _HEADERS)
        campaign_rows = {placement: row for placement, row in rows.items() if row.get("campaign_id") == name}
        as_of = "an unknown moment" if status["watermark_s"] is None else utc_moment(status["watermark_s"])
        return Response(
            report(name, report_row["row"], campaign_rows, as_of, report_row.get("sentence") or ""),
            headers={**_HEADERS, "content-type": _TYPES["html"]},
        )

    return Route("/report", campaign)


def plain_table(feed: Feed, sight: Sight = EVERYTHING) -> str:
    """The placements in sight as a page without a script, the most urgent first, as Redis has them now."""
    rows, status, unjudged, silence = feed.placements(sight)
    first = sorted(rows, key=lambda name: urgency(name, rows[name]))[:PLAIN_ROWS]
    heads = "".join(
        f'<th scope="col">{title}</th>' for title in ("placement", *(title for title, _, _ in _PLAIN))
    )
    body = "\n".join(
        f'<tr><th scope="row" class="left">{escape(name)}</th>{_plain_cells(rows[name])}</tr>'
        for name in first
    )
    as_of = "an unknown moment" if status["watermark_s"] is None else utc_moment(status["watermark_s"])
    written = "never" if status["flushed_s"] is None else utc_moment(status["flushed_s"])
    trouble = "" if status["up"] else f" Redis cannot be read: {escape(status['error'])}."
    if unjudged is not None:
        trouble += f" Delivery is not judged since {utc_moment(unjudged.since_s)}: {reason(unjudged.reason)}."
        trouble += " Do not change bids by these numbers."
    if (silence_sentences := sentences(silence, 1000 * time.time(), UTC)) is not None:
        trouble += f" {escape(' '.join(silence_sentences))}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Placements · audiopixel</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/page/page.css"></head>
<body class="plain"><main><h1>audiopixel: placements</h1>
<p>As of {as_of}; last written {written}.{trouble} Reload for later numbers.
{len(first):,} of {len(rows):,} placements. <a href="/">The live page</a> needs JavaScript.</p>
<table><thead><tr>{heads}</tr></thead><tbody>
{body}
</tbody></table></main></body></html>
"""


def _plain_cells(row: Mapping[str, str]) -> str:
    cells = []
    for _, name, factor in _PLAIN:
        text, value = row.get(name, ""), number(row.get(name))
        if value == value and factor == "ms":
            text = utc_moment(value / 1000)
        elif value == value and isinstance(factor, int):
            text = f"{value * factor:,.0f}"
        if name == "delivery.state":
            text = _state(row)
        cells.append(f"<td>{escape(text)}</td>")
    return "".join(cells)


def _state(row: Mapping[str, str]) -> str:
    words = state_words(shown_state(row), row.get("delivery.unjudged_reason"))
    unit = row.get("delivery.unjudged_by")
    return f"{words}, {unit_words(unit)}" if unit else words


@asynccontextmanager
async def ticking(app: Starlette) -> AsyncIterator[None]:
    """An application's lifespan: runs every entry of `app.state.running`, the feed's ticks among them."""
    tasks = [asyncio.create_task(run()) for run in app.state.running]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
