"""The exporter's answers in JSON for everything except rows: collectors, their last calls, platforms, and
tags.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.stream import ConnectError
from flows.errors import UNREADABLE
from flows.settings import Settings
from flows.viewers import tag_door
from flows.viewers.collectors import Collectors
from flows.viewers.compared import MAX_FILE_BYTES, Compared
from flows.viewers.guard import body_within
from flows.viewers.live import LiveCalls
from flows.viewers.platforms import Platforms

_HEADERS: Final = {
    "content-type": "application/json",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}
MAX_BODY_BYTES: Final = 64 << 10
"""The most bytes of a form's fields."""


def routes(
    settings: Settings, collectors: Collectors, platforms: Platforms, calls: LiveCalls, compared: Compared
) -> list[Route]:
    """The routes of `/api/`. `/api/discrepancy` compares a CSV with our counts. `/api/tag` answers with a
    form's choices, or with the result for its fields from the collector's door. The others are
    `/api/collectors`, `/api/calls` and `/api/platforms`.

    Fields come in the query, or as a JSON object of texts in a POST. Only a POST also notes that signed tags
    were built, so that the page can report them if they stay silent.
    """

    def figures(_: Request) -> Response:
        return _json(collectors.read())

    def last_calls(_: Request) -> Response:
        return _json(calls.read())

    def consistency(_: Request) -> Response:
        return _json(platforms.read())

    async def tag(request: Request) -> Response:
        fields = dict(request.query_params)
        # A form of another site cannot send JSON without a CORS preflight, so it can note nothing.
        noting = request.method == "POST" and request.headers.get("content-type") == "application/json"
        if request.method == "POST":
            if (body := await body_within(request, MAX_BODY_BYTES)) is None:
                return _json({"error": f"takes at most {MAX_BODY_BYTES:,} bytes"}, 413)
            try:
                fields |= msgspec.json.decode(body or b"{}", type=dict[str, str])
            except UNREADABLE as error:
                return _json({"error": f"takes a JSON object of texts: {error}"}, 400)
        return await run_in_threadpool(_tag, settings, collectors, fields, noting)

    async def discrepancy(request: Request) -> Response:
        # A form of another site cannot send CSV without a CORS preflight.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "text/csv":
            return _json({"error": "takes a CSV (content-type: text/csv)"}, 415)
        if (body := await body_within(request, MAX_FILE_BYTES)) is None:
            return _json({"error": f"takes at most {MAX_FILE_BYTES:,} bytes"}, 413)
        status, answer = await run_in_threadpool(compared.answer, body)
        return _json(answer, status)

    return [
        Route("/api/discrepancy", discrepancy, methods=["POST"]),
        Route("/api/collectors", figures),
        Route("/api/calls", last_calls),
        Route("/api/platforms", consistency),
        Route("/api/tag", tag, methods=["GET", "POST"]),
    ]


def _tag(settings: Settings, collectors: Collectors, fields: dict[str, str], noting: bool) -> Response:
    status, answer = tag_door.ask(settings, fields)
    if noting and status == 200 and answer.get("signed") is True and "tags" in answer:
        # Imported at the first use: the exporter needs no dialects, and starts faster without them.
        from flows.collector.tag_answers import note

        try:
            note(collectors.client, settings.namespace, fields, time.time_ns() // 1_000_000)
        except ConnectError:
            unnoted = "these tags could not be noted in Redis: nothing will report them if they never fire"
            answer["warnings"] = [*answer.get("warnings", ()), unnoted]
    return _json(answer, status)


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, _HEADERS)
