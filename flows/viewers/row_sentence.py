"""The sentence of one row, by the rows around it that its reader sees."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.stream import ConnectError
from flows.sentence import Context, Tag, sentence
from flows.viewers.access import EVERYTHING, Sight
from flows.viewers.collectors import NEVER_FIRED
from flows.viewers.reader import RowsReader, Snapshot

SCOPES: Final = ("placement", "campaign")
"""The scopes whose rows have a sentence."""
SIBLINGS: Final = 200
"""The most placements of a campaign that a sentence considers."""
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}")
Tags = Callable[[str], Tag | None]
"""Returns the tag of a placement if it has a fault, else None."""


def zone_of(name: str | None, otherwise: tzinfo = UTC) -> tzinfo:
    """The zone of an IANA name from a reader; `otherwise` for an invalid one."""
    if name is None or not _ZONE.fullmatch(name):
        return otherwise
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return otherwise


def tags_of(read: Callable[[], Mapping[str, Any]]) -> Tags:
    """A function that finds the fault of a placement's tag, by the collectors' figures."""

    def tag(name: str) -> Tag | None:
        for silent_tag in read()["silent_tags"]:
            if silent_tag["placement"] == name:
                return Tag(
                    0 if silent_tag["why"] == NEVER_FIRED else silent_tag["fires"], silent_tag["unreplaced"]
                )
        return None

    return tag


def sentence_of(
    reader: RowsReader,
    snapshot: Snapshot,
    scope: str,
    name: str,
    row: Mapping[str, str],
    *,
    sight: Sight = EVERYTHING,
    zone: tzinfo = UTC,
    tags: Tags = lambda _: None,
) -> str | None:
    """The sentence of a row; None for a scope without sentences.

    Args:
        snapshot: a reading of at least `flows.viewers.feed.FIELDS`.
    """
    if scope not in SCOPES:
        return None
    now_s = time.time()
    unjudged = snapshot.unjudged_at(now_s)
    context = Context(
        1000 * now_s, zone, unjudged=None if unjudged is None else (unjudged.reason, 1000 * unjudged.since_s)
    )
    if scope == "placement":
        context = context._replace(tag=tags(name), **_around(reader, snapshot, name, row, sight))
    return sentence(row, context)


def _around(
    reader: RowsReader, snapshot: Snapshot, name: str, row: Mapping[str, str], sight: Sight
) -> dict[str, Any]:
    """The rows around a placement: its campaign and the campaign's placements, if in sight. For readers who
    see everything also its station and platform, which have the pixels of all owners.
    """
    rows_around: dict[str, Any] = {}
    campaign = row.get("campaign_id")
    if campaign is not None:
        placements = sight.rows("placement", snapshot.rows.get("placement", {}))
        siblings = [
            (placement, fields)
            for placement, fields in placements.items()
            if fields.get("campaign_id") == campaign and placement != name
        ]
        rows_around["siblings"] = dict(sorted(siblings)[:SIBLINGS])
    try:
        if campaign is not None:
            whole = reader.row("campaign", campaign)
            rows_around["campaign"] = whole if whole and sight.row("campaign", campaign, whole) else {}
        for label in ("station", "platform") if sight.everything else ():
            if (label_name := row.get(label)) is not None:
                rows_around[label] = reader.row(label, label_name)
    except ConnectError:  # between two reads: the last read suffices
        pass
    return rows_around
