"""The exporter's doors, HTTP and MCP; and hostile names through every outlet that shows any."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

from page_support import desk_rows, planned, put_desk
from prometheus_client.parser import text_string_to_metric_families
from reader_support import signed_in, tag_door
from redis import Redis

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect
from flows.settings import load
from flows.shown import MAX_CELLS, cell, shown
from flows.viewers.adcp_doors import TASKS
from flows.viewers.collectors import Collectors
from flows.viewers.exporter import create_app
from flows.viewers.feed import SCOPES
from flows.viewers.reader import RowsReader
from flows.viewers.series import FIELDS
from fuzz.corpus import T0_MS
from fuzz.mutate import damaged, document, query, raw_of, word
from fuzz.run import Input

_PATHS: Final = (
    "/", "/healthz", "/metrics", "/metrics/placements", "/table", "/row", "/events", "/login", "/docs/",
    "/docs/exports.md", "/page/page.js", "/v1/meta", "/v1/placements", "/v1/placements/good",
    "/v1/placements/good/minutes", "/v1/campaigns/c-7", "/v1/other/placement", "/v1/methodology",
    "/v1/conversions/x", "/v1/openapi.json", "/api/collectors", "/api/platforms", "/api/tag", "/mcp",
    *(f"/adcp/{task}" for task in TASKS), "/adcp/none",
)  # fmt: skip
_NAMES: Final = (
    "id", "campaign", "after", "format", "scope", "name", "since", "q", "sort", "dialect", "placement",
    "events", "base", "target", "vendor", "token", "leave", "row", "state", "columns", "window",
)  # fmt: skip
_HEADERS: Final = (
    "host", "origin", "accept", "authorization", "cookie", "if-none-match", "last-event-id", "content-type",
    "content-length", "x-forwarded-for", "forwarded", "range", "mcp-session-id", "mcp-protocol-version",
    "referer",
)  # fmt: skip
_SAID: Final = (
    "localhost", "127.0.0.1:80", "[::1]", "[", "[::1", "http://[", "http://localhost", "text/csv",
    "text/html", "*", 'W/"1.2.3"', "application/json", "application/json, text/event-stream",
    "audiopixel_session=a.b.c", "Bearer x.y", "2025-06-18",
)  # fmt: skip
_RPC: Final = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
_INITIALIZE: Final = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "x", "version": "1"},
}
_CALLS: Final = (
    _RPC | {"params": {"name": "get_media_buy_delivery", "arguments": {"media_buy_ids": ["c-7"]}}},
    _RPC | {"method": "initialize", "params": _INITIALIZE},
    _RPC | {"method": "tools/list"},
)


_Call = tuple[str, str, list[tuple[bytes, bytes]], bytes]
"""Method, target, headers and body."""
_SCOPE: Final[dict[str, Any]] = {
    "type": "http",
    "client": ("127.0.0.1", 9),
    "server": ("127.0.0.1", 80),
    "scheme": "http",
    "http_version": "1.1",
    "root_path": "",
    "asgi": {"version": "3.0"},
}


class _Served:
    """The exporter's application, over a Redis of the test's own, called as a server calls it."""

    def __init__(self, _: Path) -> None:
        self.valkey = EmbeddedValkey().__enter__()
        self.namespace = f"f{uuid4().hex[:8]}:v1"
        self.client = connect(self.valkey.url, timeout=timedelta(seconds=5))
        self._stack = AsyncExitStack()
        door = self._stack.enter_context(tag_door(collect_signing_keys={"a1": "a secret of 16 bytes"}))
        settings = load(redis_url=self.valkey.url, namespace=self.namespace, **door)
        self.board = RowsReader(self.client, self.namespace, FIELDS, scopes=SCOPES, interval=timedelta(0))
        collectors = Collectors(self.client, self.namespace)
        self.app = create_app(self.board, settings=settings, collectors=collectors)
        self.served = signed_in(self.app)
        self._runner = asyncio.Runner()
        self._runner.run(self._stack.enter_async_context(self.app.router.lifespan_context(self.app)))

    def call(self, calls: Sequence[_Call]) -> list[tuple[int, bytes]]:
        """Status and body of each call, one after the other."""

        async def all_of_them() -> list[tuple[int, bytes]]:
            return [await self._one(*call) for call in calls]

        return self._runner.run(all_of_them())

    async def _one(
        self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> tuple[int, bytes]:
        path, _, asked = target.partition("?")
        given, statuses, parts = False, list[int](), list[bytes]()
        began, told = asyncio.Event(), asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            # A client that left earlier gets nothing; a stream has no end of its own.
            await asyncio.wait_for(told.wait() if path == "/events" else began.wait(), 5)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                began.set()
                for name, value in message["headers"]:
                    assert b"\n" not in name + value, (name, value)
            else:
                parts.append(message.get("body", b""))
                told.set()

        scope = _SCOPE | {"method": method, "path": path, "headers": headers, "state": {}}
        scope |= {"raw_path": quote(path, errors="replace").encode()}
        scope |= {"query_string": asked.encode(errors="replace")}
        await self.served(scope, receive, send)
        return statuses[0] if statuses else 0, b"".join(parts)

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()
        self.client.close()
        self.valkey.__exit__(None, None, None)


class ExporterDoor(_Served):
    """Requests of readers, programs and agents."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        put_desk(self.valkey.url, self.namespace, desk_rows(T0_MS), T0_MS)

    def make(self, rng: Random) -> Input:
        path = raw_of(rng.choice(_PATHS))
        if rng.random() < 0.3:
            path = (
                path + b"/" + raw_of(quote(word(rng), errors="replace"))
                if rng.random() < 0.5
                else damaged(path, rng)
            )
        asked = query([("id", "good")], _NAMES, rng) if rng.random() < 0.6 else b""
        lines = [b"host: localhost"] if rng.random() < 0.9 else []
        for _ in range(rng.choice((0, 1, 2, 5))):
            said = rng.choice(_SAID) if rng.random() < 0.7 else word(rng)
            lines.append(rng.choice(_HEADERS).encode() + b": " + raw_of(said).replace(b"\n", b" "))
        posts = path.startswith((b"/adcp", b"/mcp", b"/login", b"/api/tag"))
        usual = (b"POST",) if posts else (b"GET", b"HEAD", b"POST", b"PUT")
        return (
            rng.choice((*usual, b"GET")),
            b"?".join((path, asked)),
            b"\n".join(lines),
            self._body(path, rng),
        )

    def _body(self, path: bytes, rng: Random) -> bytes:
        if path.startswith(b"/mcp"):
            return document(rng.choice(_CALLS), ("jsonrpc", "id", "method", "params"), rng)
        if path.startswith(b"/login"):
            return query([("token", "x.y")], ("token", "leave"), rng)
        good = {
            "media_buy_ids": ["c-7"],
            "status_filter": "active",
            "account": {"account_id": "a"},
            "view": "summary",
        }
        names = (*good, "adcp_version", "context", "ext", "start_date", *_NAMES)
        return b"" if rng.random() < 0.1 else document(good, names, rng)

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        calls = [self._call_of(one) for one in inputs]
        outcomes = Counter[str]()
        for call, (status, body) in zip(calls, self.call(calls), strict=True):
            assert 200 <= status < 500, f"{status}: {call[:2]}"
            if body[:1] in (b"{", b"[") and call[0] != "HEAD":
                json.loads(body)
            outcomes[str(status)] += 1
        return outcomes

    def _call_of(self, one: Input) -> _Call:
        method, target, lines, body = (*one, b"", b"", b"", b"")[:4]
        headers = [line.partition(b":")[::2] for line in lines.split(b"\n")]
        told = [(name.strip().lower(), value.strip()) for name, value in headers if name.strip()]
        if method == b"POST" and b"mcp" in target:  # what its clients send, where nothing else is said
            told += [
                (b"content-type", b"application/json"),
                (b"accept", b"application/json, text/event-stream"),
            ]
        # A server hands on a path's percent-encoding undone, and what is no UTF-8 replaced.
        return method.decode(errors="replace"), target.decode(errors="replace"), told, body


class _Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.texts = set[str](), list[str]()
        self.links = list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name, value)
            if name in ("href", "src", "action"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class ShownDoor(_Served):
    """Names that the flow would take, as rows: in Prometheus, HTML, JSON, CSV, and a terminal."""

    def make(self, rng: Random) -> Input:
        return tuple(raw_of(word(rng)) for _ in range(5))

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        names = {raw.decode(errors="replace")[:128] or "empty": one for one in inputs for raw in one[:1]}
        rows = {
            name: planned("on_track", 1.0, 100, T0_MS, **self._labels(one)) for name, one in names.items()
        }
        with Redis.from_url(self.valkey.url) as redis:
            redis.flushdb()
        put_desk(self.valkey.url, self.namespace, rows, T0_MS)
        host = [(b"host", b"localhost")]
        asked = ["/metrics/placements", "/table", "/v1/placements", "/v1/placements?format=csv"]
        asked += [f"/row?id={quote(name)}" for name in [*rows][:5]]
        answers = self.call([("GET", target, host, b"") for target in asked])
        assert {status for status, _ in answers} <= {200, 404}, answers
        self._judge(rows, *(body for _, body in answers[:4]))
        for name in rows:
            assert shown(name).isprintable()
            assert cell(name).cell_len <= MAX_CELLS
        return Counter(shown=len(inputs))

    def _labels(self, one: Input) -> dict[str, Any]:
        said = [raw.decode(errors="replace")[:128] or "-" for raw in (*one[1:5], b"", b"", b"", b"")]
        return dict(zip(("campaign_id", "platform", "station", "podcast"), said, strict=False))

    def _judge(
        self, rows: dict[str, dict[str, Any]], metrics: bytes, page: bytes, told: bytes, sheet: bytes
    ) -> None:
        families = {family.name: family for family in text_string_to_metric_families(metrics.decode())}
        info = families["audiopixel_placement_info"]
        found = {sample.labels["placement"]: sample.labels for sample in info.samples}
        assert set(found) - {"other"} == set(rows) - {"other"}
        for name, row in rows.items():
            assert name == "other" or found[name]["platform"] == row["platform"], (name, found[name])
        assert {one["id"] for one in json.loads(told)["placements"]} == set(rows)
        for line in [*csv.reader(io.StringIO(sheet.decode(), newline=""))][1:]:
            assert not line[0].startswith(("=", "+", "-", "@", "\t", "\r")), f"a formula: {line[0]!r}"
            assert line[0].removeprefix("'") in rows or line[0] in rows, line[0]
        parsed = _Page()
        parsed.feed(page.decode())
        assert not parsed.tags & {"img", "iframe", "object", "svg", "base"}, parsed.tags
        assert all(link.startswith(("/", "?", "#")) for link in parsed.links if link), parsed.links
