"""The exporter's answers in JSON beside the placements: collectors, platforms, and tags."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.stream import ConnectError
from flows.errors import UNREADABLE, AudiopixelError
from flows.settings import Settings
from flows.viewers.collectors import Collectors
from flows.viewers.platforms import Platforms

_HEADERS: Final = {
    "content-type": "application/json",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}
LONGEST_BODY: Final = 64 << 10


def routes(settings: Settings, collectors: Collectors, platforms: Platforms) -> list[Route]:
    """`/api/collectors`, `/api/platforms`, and `/api/tag`: a form's choices, or the answer to its fields.

    Fields come in the query, or as a JSON object of texts in a POST; this one also notes that signed tags
    were built, so that it is told when they stay silent.
    """

    def figures(_: Request) -> Response:
        return _json(collectors.read())

    def consistency(_: Request) -> Response:
        return _json(platforms.read())

    async def tag(request: Request) -> Response:
        asked = dict(request.query_params)
        # A form of another site can send no JSON without asking first: so it can note nothing.
        noting = request.method == "POST" and request.headers.get("content-type") == "application/json"
        if request.method == "POST":
            body = b""
            async for chunk in request.stream():
                body += chunk
                if len(body) > LONGEST_BODY:
                    return _json({"error": f"takes at most {LONGEST_BODY:,} bytes"}, 413)
            try:
                asked |= msgspec.json.decode(body or b"{}", type=dict[str, str])
            except UNREADABLE as error:
                return _json({"error": f"takes a JSON object of texts: {error}"}, 400)
        return await run_in_threadpool(_tag, settings, collectors, asked, noting)

    return [
        Route("/api/collectors", figures),
        Route("/api/platforms", consistency),
        Route("/api/tag", tag, methods=["GET", "POST"]),
    ]


def _tag(settings: Settings, collectors: Collectors, asked: dict[str, str], noting: bool) -> Response:
    # Not at the exporter's start: it reads no dialects, and starts faster without them.
    from flows.collector.tag_answers import answer, note

    try:
        found = answer(settings, asked)
    except AudiopixelError as error:
        return _json({"error": str(error)}, 400)
    if noting and "tags" in found and settings.collect_signing_keys:
        try:
            note(collectors.client, settings.namespace, asked, time.time_ns() // 1_000_000)
        except ConnectError:
            found["warnings"].append(
                "Redis was not told of these tags: nothing will say so if they never fire"
            )
    return _json(found)


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, _HEADERS)
