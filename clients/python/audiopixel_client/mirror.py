"""What one client has seen: the newest version of each row, and of `meta`, never an older one.

It does no input and output. The client reads Redis, `meta` before the rows, and hands over what it read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from audiopixel_client.rows import (
    OWN,
    STALE_S,
    VERSION,
    WATERMARK_S,
    Horizon,
    Record,
    Row,
    Version,
    gone,
    record_of,
)

META = (*VERSION, "flush", "judged", "unjudged_reason", "flushed_ms", "watermark_ms")
Rows = Mapping[str, Sequence[Optional[str]]]
"""Texts of the fields of rows, by placement."""
MOST_GONE = 100_000
"""Rows that ended, whose versions are remembered."""


class Behind(Exception):
    """Redis has less than was seen, or nothing: what is in memory stays, and becomes stale."""


class Reading(NamedTuple):
    """What `meta` said at one moment: its version, its flush (generation, fence, number), and its horizon."""

    version: Version
    flush: Version
    horizon: Horizon


class Mirror:
    """Rows by placement.

    Args:
        fields: those that rows have beside `OWN`.
        campaign: the only one whose placements are shown; None: any.
        stale_s: at most `STALE_S`.
        least, most: bounds of the factor.
        reviewed: a placement's impressions in blocked content that a person has dealt with.

    Attributes:
        fields: what is read of a row, in this order.
        flush: generation, fence and number of the flush up to which all rows have been read.
    """

    def __init__(
        self,
        fields: Sequence[str],
        campaign: str | None,
        stale_s: float,
        least: float,
        most: float,
        reviewed: Mapping[str, int],
    ) -> None:
        names = dict.fromkeys((*OWN, *fields, *(() if campaign is None else ("campaign_id",))))
        self.fields = tuple(names)
        self.flush: Version = ()
        self._places = {name: place for place, name in enumerate(names)}
        self._campaign, self._reviewed = campaign, reviewed
        self._stale_s, self._bounds = min(stale_s, STALE_S), (least, most)
        self._meta: Version = ()
        self._ended: dict[str, Version] = {}
        self._state: tuple[dict[str, Record], Horizon] = ({}, Horizon("stale", 0.0, reviewed))
        self._nobody = gone((), self._places)

    def row(self, name: str) -> Row:
        """The row of a placement, of any thread; one that is not there is `gone`."""
        records, horizon = self._state
        return Row(name, records.get(name, self._nobody), horizon)

    def names(self) -> list[str]:
        """The placements that have a row."""
        return list(self._state[0])

    def read(self, meta: Sequence[str | None], now_s: float, asked_s: float) -> Reading:
        """What a reading of `meta` says; `show` takes it with the rows that were read behind it.

        Args:
            meta: the texts of `META`.
            now_s: Redis's clock, as it was read before.
            asked_s: `clock_s` before that was asked for.

        Raises:
            Behind: it is not there, or older than the one before.
        """
        generation, fence, rev, flush, judged, why, flushed_ms, watermark_ms = meta
        if generation is None or fence is None or rev is None or flush is None:
            raise Behind("no flow has written here yet, or Redis has lost its data")
        version = (int(generation), int(fence), int(rev))
        if version < self._meta:
            raise Behind(f"meta is of version {version}, and was of {self._meta}")
        left_s = (
            self._stale_s - max(0.0, now_s - int(flushed_ms or 0) / 1000),
            WATERMARK_S - max(0.0, now_s - int(watermark_ms or 0) / 1000),
        )
        unjudged = None if judged == "1" else why or "unjudged"
        horizon = Horizon(unjudged, asked_s + min(left_s), self._reviewed, version[0])
        return Reading(version, (version[0], version[1], int(flush)), horizon)

    def show(self, rows: Rows, reading: Reading, flush: Version, whole: bool = False) -> None:
        """Show rows, and behind them the horizon.

        Args:
            flush: the one up to which all rows have been read; `reading` may be of a later one.
            whole: there are no other rows.
        """
        shown, horizon = self._state
        records = {} if whole else shown
        for name, texts in rows.items():
            record = self._newest(name, texts, shown.get(name))
            if record is None:
                records.pop(name, None)
            else:
                records[name] = record
        for name in shown.keys() - records.keys() if whole else ():
            self._forget(name, shown[name])
        if reading.version > self._meta:  # the same one again is no sign of life
            self._meta, horizon = reading.version, reading.horizon
        self._state, self.flush = (records, horizon), flush

    def _newest(self, name: str, texts: Sequence[str | None], shown: Record | None) -> Record | None:
        """The record to show; None: the row is not there, or another campaign's."""
        seen = shown.version if shown is not None else self._ended.get(name, ())
        there = texts[0] is not None and self._campaign in (None, texts[self._places.get("campaign_id", 0)])
        if not there:
            if shown is not None:
                self._forget(name, shown)
            return None
        record = record_of(self._places, list(texts), *self._bounds)
        if record.version >= seen:
            self._ended.pop(name, None)
            return record
        return None if shown is None else shown._replace(refused="stale")

    def _forget(self, name: str, record: Record) -> None:
        self._ended[name] = record.version
        if len(self._ended) > MOST_GONE:
            del self._ended[next(iter(self._ended))]

    def follows(self, message: str, flush: Version) -> tuple[Version, list[str]] | None:
        """The number of a message of `updates`, and the placements whose rows are to be read.

        Args:
            flush: the number of the message before, or of the flush up to which all rows have been read.

        Returns:
            None: a message was lost in between, so all rows are to be read.
        """
        try:
            told = json.loads(message)
            number, before = (told["generation"], told["fence"], told["flush"]), told["previous"]
            if number < flush:  # of before all rows were read
                return flush, []
            names = [str(name) for name in told["placements"]]
            return (number, names) if number == flush or before == list(flush) else None
        except (ValueError, TypeError, KeyError):
            return None
