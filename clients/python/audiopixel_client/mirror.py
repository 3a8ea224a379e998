"""The mirror of Redis in one client: the newest version of each row and of `meta`, never an older one.

The mirror does no input or output. The client reads `meta` before the rows, and passes both to the mirror.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from audiopixel_client.rows import (
    RULE_FIELDS,
    SCHEMA,
    STALE_S,
    VERSION,
    WATERMARK_S,
    Horizon,
    Record,
    Row,
    Version,
    absent_record,
    integer,
    record_of,
)

META = (*VERSION, "flush", "judged", "unjudged_reason", "flushed_ms", "watermark_ms", "schema")
Rows = Mapping[str, Sequence[Optional[str]]]
"""The texts of rows by placement, in the order of `Mirror.fields`; None for an absent field, and no texts at
all for a key that holds no hash.
"""
MAX_ENDED = 100_000
"""The greatest number of ended rows whose versions are remembered."""


class OlderStateError(Exception):
    """Redis has an older state than the mirror, or none. The rows in memory stay, and become stale."""


class Reading(NamedTuple):
    """One reading of `meta`: its version, its flush (generation, fence, number), and its horizon."""

    version: Version
    flush: Version
    horizon: Horizon


class Mirror:
    """Rows by placement.

    Args:
        fields: fields to read besides `RULE_FIELDS`.
        campaign: the only campaign whose placements are shown; None for any.
        stale_s: as for `Client`; above `STALE_S` it counts as `STALE_S`.
        least, most: bounds of the factor.
        reviewed: by placement, impressions in blocked content that a person has reviewed.

    Attributes:
        fields: the fields to read of a row, in this order.
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
        names = dict.fromkeys((*RULE_FIELDS, *fields, *(() if campaign is None else ("campaign_id",))))
        self.fields = tuple(names)
        self.flush: Version = ()
        self._places = {name: place for place, name in enumerate(names)}
        self._campaign, self._reviewed = campaign, reviewed
        self._stale_s, self._bounds = min(stale_s, STALE_S), (least, most)
        self._meta: Version = ()
        self._ended: dict[str, Version] = {}
        self._state: tuple[dict[str, Record], Horizon] = ({}, Horizon("stale", 0.0, reviewed))
        self._absent = absent_record((), self._places)

    def row(self, name: str) -> Row:
        """The row of a placement, `gone` if there is none; callable from any thread."""
        records, horizon = self._state
        return Row(name, records.get(name, self._absent), horizon)

    def names(self) -> list[str]:
        """The placements that have a row."""
        return list(self._state[0])

    def read(self, meta: Sequence[str | None], now_s: float, asked_s: float) -> Reading:
        """Interpret `meta`; pass the result to `show` with the rows that were read after it.

        Args:
            meta: the texts of `META`.
            now_s: Redis's clock, epoch s, read just before `meta`.
            asked_s: `clock_s` before the request for Redis's clock.

        Raises:
            OlderStateError: `meta` is absent, or older than at an earlier reading.
            ValueError: a number of `meta` is none.
        """
        generation, fence, rev, flush, judged, reason, flushed_ms, watermark_ms, schema = meta
        if generation is None or fence is None or rev is None or flush is None:
            raise OlderStateError("no flow has written to this namespace yet, or Redis has lost its data")
        version = (integer(generation), integer(fence), integer(rev))
        if version < self._meta:
            raise OlderStateError(f"meta is of version {version}, and was of {self._meta}")
        left_s = (
            self._stale_s - max(0.0, now_s - integer(flushed_ms or "0") / 1000),
            WATERMARK_S - max(0.0, now_s - integer(watermark_ms or "0") / 1000),
        )
        unjudged = None if judged == "1" else reason or "unjudged"
        if schema != SCHEMA:
            unjudged = "unknown_schema"
        horizon = Horizon(unjudged, asked_s + min(left_s), self._reviewed, version[0])
        return Reading(version, (version[0], version[1], integer(flush)), horizon)

    def show(self, rows: Rows, reading: Reading, flush: Version, whole: bool = False) -> None:
        """Show rows, and with them the horizon of a reading.

        Args:
            flush: the flush up to which all rows have been read; `reading` may be of a later one.
            whole: whether there are no other rows.
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
            self._end(name, shown[name])
        if reading.version > self._meta:  # the same version again does not show that the flow still writes
            self._meta, horizon = reading.version, reading.horizon
        self._state, self.flush = (records, horizon), flush

    def _newest(self, name: str, texts: Sequence[str | None], shown: Record | None) -> Record | None:
        """The record to show; None if the row is absent, or another campaign's."""
        before = self._absent if shown is None else shown
        if not texts:
            return before._replace(refused="incomplete")
        campaign = texts[self._places.get("campaign_id", 0)]
        if all(text is None for text in texts) or self._campaign not in (None, campaign):
            if shown is not None:
                self._end(name, shown)
            return None
        record = record_of(self._places, list(texts), before, *self._bounds)
        if record.version >= (self._ended.get(name, ()) if shown is None else shown.version):
            self._ended.pop(name, None)
            return record
        return None if shown is None else shown._replace(refused="stale")

    def _end(self, name: str, record: Record) -> None:
        """Remember the version of a row that has ended, so that no older version comes back."""
        self._ended[name] = record.version
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def follows(self, message: str, flush: Version) -> tuple[Version, list[str]] | None:
        """The number of a message of `updates`, and the placements whose rows are to be read.

        Args:
            flush: the number of the message before, or of the flush up to which all rows have been read.

        Returns:
            None if a message was lost in between: then all rows are to be read.
        """
        try:
            update = json.loads(message)
            number, previous = (update["generation"], update["fence"], update["flush"]), update["previous"]
            if number < flush:  # sent before all rows were read
                return flush, []
            names = [str(name) for name in update["placements"]]
            return (number, names) if number == flush or previous == list(flush) else None
        except (ValueError, TypeError, KeyError):
            return None
