"""The read API: rows, minutes and decisions as JSON or CSV, each reader's own. `flows.viewers.openapi`
describes it.

An id is one segment of the path, percent-encoded: `a%2Fb` is an id, and `a/b` is none. A client that cannot
send `..` in a path sends `?id=`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.stream import ConnectError
from flows.errors import UNREADABLE
from flows.model.dimensions import SCOPES
from flows.viewers.access import Owners, Sight
from flows.viewers.course import course
from flows.viewers.feed import Feed
from flows.viewers.guard import sight_of
from flows.viewers.minutes_topic import MinutesTopic
from flows.viewers.openapi import FORMATS, document
from flows.viewers.reader import RowsReader, Snapshot
from flows.viewers.row_sentence import zone_of
from flows.viewers.rows_json import csv_of, fields_json, row_csv, row_json, value_of, version_of

PREFIX: Final = "/v1/"
LISTED: Final = ("placement", "campaign")
"""The scopes with a list of rows."""
MAX_LISTED: Final = 10_000
"""The most rows of a page of a list."""
_SCOPE: Final = {f"{scope}s": scope for scope in SCOPES}
_LONGEST_ID: Final = 128
_META_OF_ALL: Final = (
    "watermark_ms",
    "flushed_ms",
    "judged",
    "unjudged_since_ms",
    "unjudged_reason",
    "generation",
)
_META_OF_NOBODY: Final = ("listener_key", "forgotten_sum")
"""The fields of `meta` that only `audiopixel forget` needs: readers of numbers do not need a key's
fingerprint.
"""
_META_TEXTS: Final = ("unjudged_reason", "flow_version", "held_by", "held_why", "methodology")
_HEADERS: Final = {
    "cache-control": "private, no-cache",
    "vary": "authorization, cookie",
    "x-content-type-options": "nosniff",
}
ABSENT: Final = {"error": "There is no such row."}


class Api:
    """Answers by the rows in Redis and by the topic of minutes.

    Args:
        minutes: the topic of minutes; None if there is none.
        owners: of the planned placements.
        feed: the source of changes of state and of sentences; None: answers have neither.
    """

    def __init__(
        self, reader: RowsReader, minutes: MinutesTopic | None, owners: Owners, feed: Feed | None = None
    ) -> None:
        self._reader, self._minutes, self._owners = reader, minutes, owners
        self._feed = feed
        self._document = msgspec.json.encode(document())

    def routes(self) -> list[Route]:
        """All below `/v1/`."""
        route = Route(f"{PREFIX}{{rest:path}}", self.answer, methods=["GET"])
        route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)  # an id may be of several lines
        return [route]

    def answer(self, request: Request) -> Response:
        """The answer to one request; reads Redis, and may wait for Kafka."""
        if not {*request.query_params.getlist("format")} <= {*FORMATS}:
            return _json({"error": f"format is {' or '.join(FORMATS)}."}, 400)
        try:
            return self._answer(request, _segments(request), sight_of(request))
        except ConnectError as error:
            message = str(error) if sight_of(request).everything else "The numbers cannot be read now."
            answer = _json({"error": message}, 503)
            answer.headers["retry-after"] = "5"
            return answer

    def _answer(self, request: Request, path: list[str], sight: Sight) -> Response:
        match path:
            case ["openapi.json"]:
                return Response(self._document, headers={**_HEADERS, "content-type": "application/json"})
            case ["meta"]:
                return _json(meta_json(self._reader.refresh(), sight))
            case ["other", scope] if scope in SCOPES:
                row = self._reader.row("other", scope) if sight.everything else {}
                return self._row(request, "other", scope, row)
            case ["methodology"]:
                return self._methodology("")
            case ["methodology", hash_text] if len(hash_text) <= _LONGEST_ID:
                return self._methodology(hash_text)
            case ["conversions", name]:
                return self._decisions(name, sight)
            case ["placements", name, "minutes"]:
                return self._minutes_of(request, name, sight)
            case ["placements", name, "course"]:
                return self._course(name, sight)
            case [scopes] if _SCOPE.get(scopes) in LISTED:
                return self._list(request, _SCOPE[scopes], sight)
            case [scopes, name] if scopes in _SCOPE:
                return self._row(
                    request, _SCOPE[scopes], name, self.row_in_sight(_SCOPE[scopes], name, sight)
                )
            case _:
                return _json(ABSENT, 404)

    def _methodology(self, hash_text: str) -> Response:
        text = self._reader.methodology(hash_text)
        if text is None:
            return _json({"error": "There is no such methodology."}, 404)
        return Response(text, headers={**_HEADERS, "content-type": "application/json"})

    def row_in_sight(self, scope: str, name: str, sight: Sight) -> Mapping[str, str]:
        """A row in sight, read now; empty if there is none."""
        row = self._reader.row(scope, name) if 0 < len(name) <= _LONGEST_ID else {}
        return row if row and sight.row(scope, name, row) else {}

    def _row(self, request: Request, scope: str, name: str, row: Mapping[str, str]) -> Response:
        if not row:
            return _json(ABSENT, 404)
        as_csv = _wants_csv(request)
        tag = f'"{version_of(row)}{"-csv" if as_csv else ""}"'
        if _has_current(request, tag):
            return Response(status_code=304, headers={**_HEADERS, "etag": tag})
        if as_csv:
            answer = _csv(row_csv(scope, name, row))
        else:
            answer = _json(row_json(scope, name, row) | self._sentence(request, scope, name, row))
        answer.headers["etag"] = tag
        return answer

    def _sentence(self, request: Request, scope: str, name: str, row: Mapping[str, str]) -> dict[str, Any]:
        """The row's sentence, if its scope has one."""
        if self._feed is None:
            return {}
        zone = zone_of(request.query_params.get("zone"), self._feed.zone)
        sentence = self._feed.sentence(scope, name, row, sight_of(request), zone)
        return {} if sentence is None else {"sentence": sentence}

    def _list(self, request: Request, scope: str, sight: Sight) -> Response:
        query, snapshot = request.query_params, self._reader.refresh()
        if not snapshot.up:
            raise ConnectError(snapshot.error)
        name, campaign, after = query.get("id"), query.get("campaign"), query.get("after", "")
        if name is not None:
            rows = {name: row} if (row := self.row_in_sight(scope, name, sight)) else {}
        else:
            rows = dict(sight.rows(scope, snapshot.rows.get(scope, {})))
        campaign_of = (
            self._owners.campaign_of if scope == "placement" else lambda _, row: row.get("campaign_id")
        )
        names = sorted(
            row_id
            for row_id, row in rows.items()
            if row_id > after and (campaign is None or campaign == campaign_of(row_id, row))
        )
        if _wants_csv(request):
            columns = sorted({field for row_id in names for field in rows[row_id]})
            lines = ({scope: row_id, **rows[row_id]} for row_id in names)
            return _csv(csv_of((scope, *columns), lines, {scope}))
        page = names[:MAX_LISTED]
        return _json(
            {
                f"{scope}s": [{"id": row_id, "fields": fields_json(rows[row_id])} for row_id in page],
                "after": page[-1] if len(names) > MAX_LISTED else None,
            }
        )

    def _minutes_of(self, request: Request, name: str, sight: Sight) -> Response:
        if self._minutes is None or not self.row_in_sight("placement", name, sight):
            return _json(ABSENT, 404)
        since_ms, minutes = self._minutes.of_placement(name)
        if _wants_csv(request):
            columns = list(dict.fromkeys(field for minute in minutes for field in minute))
            return _csv(csv_of(columns, minutes, {"placement_id", "state"}))
        return _json({"placement": name, "kept_since_ms": since_ms or None, "minutes": minutes})

    def _course(self, name: str, sight: Sight) -> Response:
        row = self.row_in_sight("placement", name, sight)
        if self._minutes is None or not row:
            return _json(ABSENT, 404)
        kept_ms, minutes = self._minutes.of_placement(name)
        from_ms = max(kept_ms, self._minutes.from_ms)
        changes = [] if self._feed is None else self._feed.changes(name, sight)
        return _json(course(name, row, minutes, from_ms, changes))

    def _decisions(self, name: str, sight: Sight) -> Response:
        row = self._reader.row("conversion", name) if 0 < len(name) <= _LONGEST_ID else {}
        decisions = []
        for _, body in sorted(row.items()):
            try:
                decision = msgspec.json.decode(body, type=dict[str, Any])
            except UNREADABLE:
                continue
            if _decision_seen(decision, sight):
                decisions.append(decision)
        return _json({"conversion": name, "decisions": decisions}) if decisions else _json(ABSENT, 404)


def _decision_seen(decision: Mapping[str, Any], sight: Sight) -> bool:
    """True if the reader sees a decision's campaign, and the campaign of each of its credits."""
    named = [credit.get("campaign_id") for credit in decision.get("credits", ())]
    return sight.campaign(decision.get("campaign_id")) and all(
        campaign is None or sight.campaign(campaign) for campaign in named
    )


def meta_json(snapshot: Snapshot, sight: Sight) -> dict[str, Any]:
    """The flow's own state, with the freshness of everything; totals are for readers who see everything.

    Raises:
        ConnectError: Redis cannot be read.
    """
    if not snapshot.up:
        raise ConnectError(snapshot.error)
    names = sorted({*snapshot.meta} - {*_META_OF_NOBODY}) if sight.everything else _META_OF_ALL
    texts = {name: snapshot.meta[name] for name in names if name in snapshot.meta}
    meta = {name: text if name in _META_TEXTS else value_of(name, text) for name, text in texts.items()}
    if "silent" in texts:
        meta["silent"] = msgspec.json.decode(texts["silent"])
    return meta


def _segments(request: Request) -> list[str]:
    """The segments of the path below the prefix, each decoded once; empty if a segment is not UTF-8."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    path = raw.partition(b"?")[0]
    if not path.startswith(PREFIX.encode()):
        return []
    try:
        return [unquote_to_bytes(part).decode() for part in path[len(PREFIX) :].split(b"/")]
    except UnicodeDecodeError:
        return []


def _wants_csv(request: Request) -> bool:
    accepted = request.headers.get("accept", "").split(",")[0].partition(";")[0].strip()
    return request.query_params.get("format") == "csv" or accepted == "text/csv"


def _has_current(request: Request, tag: str) -> bool:
    """True if the reader has this version already."""
    known_tags = [
        known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")
    ]
    return tag in known_tags or "*" in known_tags


def _json(body: Mapping[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, {**_HEADERS, "content-type": "application/json"})


def _csv(text: str) -> Response:
    return Response(text, headers={**_HEADERS, "content-type": "text/csv; charset=utf-8; header=present"})
