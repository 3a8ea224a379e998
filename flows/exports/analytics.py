"""Plays and conversions for analytics: one loop over the pixels, one over the decisions.

The pixels' loop sends plays, and stores the listeners of conversions. A decision arrives after the pixel of
its conversion. Once the pixels have been read to the end that they had at the decision's arrival, that pixel
is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from connectors.kafka import Places, Record
from flows.exports.denied import ExportDenyList
from flows.exports.facts import (
    ClientId,
    Fact,
    KnownConversion,
    RecentKeys,
    bar_reason,
    conversion_key,
    conversions,
    decision,
    known_conversion,
    play,
    read_pixel,
    without_repeats,
)
from flows.exports.handover import Busy, Handover, Letter, Parcel, Sorted, Stopped, malformed, reachable
from flows.exports.known_conversions import KnownConversions
from flows.model.conversion_columns import CONFIRMED_RULE
from flows.model.decisions import Body

MAX_RECORDS: Final = 500
"""The greatest number of messages that a turn of a loop reads."""
NO_CLIENT, REPEATED, UNATTRIBUTED = "no_client", "repeated", "unattributed"
FORGOTTEN: Final = "forgotten"


@dataclass
class _Remember:
    """Stores the pixels of conversions."""

    known_conversions: KnownConversions
    rows: Sequence[KnownConversion]
    records: Sequence[Record] = ()

    def hand_over(self) -> None:
        try:
            self.known_conversions.add(self.rows)
        except OSError as error:
            raise Busy("state", str(error)) from None


def _deniable(fact: Fact, denied: ExportDenyList, keys: str) -> Fact:
    """The fact, which reads the deny-list at each attempt: its listener may be forgotten while it waits.

    Args:
        keys: the hashes of its listener (`ExportDenyList.keys_of`).
    """

    def forgotten() -> bool:
        denied.look()
        return denied.bars(keys)

    return fact._replace(forgotten=forgotten)


@dataclass
class PixelsTarget:
    """Sends plays and stores conversions."""

    client_id_of: ClientId
    make: Callable[[Sequence[Fact]], list[Parcel]]
    known_conversions: KnownConversions
    denied: ExportDenyList
    connections: int
    most: int = MAX_RECORDS
    waiting: bool = False
    _recent_keys: RecentKeys = field(default_factory=RecentKeys)

    def sort(self, records: Sequence[Record]) -> Sorted:
        """Facts of the pixels that may be sent."""
        if records:
            self.denied.look()
        facts: list[Fact] = []
        rows: list[KnownConversion] = []
        left_out: list[str] = []
        for record in records:
            if (pixel := read_pixel(record)) is None:
                continue
            keys = self.denied.keys_of(pixel)
            why = bar_reason(pixel) or (FORGOTTEN if self.denied.bars(keys) else None)
            client_id = None if why else self.client_id_of(pixel)
            if client_id is None:
                left_out.append(why or NO_CLIENT)
            elif pixel.event == "conversion":
                if (row := known_conversion(record, pixel, client_id, keys)) is not None:
                    rows.append(row)
            elif (fact := play(record, pixel, client_id)) is not None:
                facts.append(_deniable(fact, self.denied, keys))
        new = without_repeats(facts, self._recent_keys)
        left_out += [REPEATED] * (len(facts) - len(new))
        stores: list[Parcel] = [_Remember(self.known_conversions, rows)] if rows else []
        return Sorted([*stores, *self.make(new)], (), left_out)

    def places(self, read: Places) -> Places:
        """All that was read."""
        return read


@dataclass
class DecisionsTarget:
    """Sends attributed conversions whose pixels are known.

    Args:
        pixels: the loop over the pixels, which must have read the pixel of each decision.
    """

    make: Callable[[Sequence[Fact]], list[Parcel]]
    known_conversions: KnownConversions
    denied: ExportDenyList
    pixels: Handover
    connections: int
    most: int = MAX_RECORDS
    waiting: bool = False
    _recent_keys: RecentKeys = field(default_factory=RecentKeys)

    def sort(self, records: Sequence[Record]) -> Sorted:
        """Facts of decisions whose conversion is known."""
        if records:
            self._catch_up()
            self.denied.look()
        facts: list[Fact] = []
        letters: list[Letter] = []
        left_out: list[str] = []
        for record in records:
            try:
                body = decision(record)
                key = conversion_key(body.campaign_id, body.event_id, body.order_id)
                known = self.known_conversions.find(key)
                if known is not None and self.denied.bars(known.keys):
                    left_out.append(FORGOTTEN)
                    continue
                new_facts = [] if known is None else self._facts(record, body, known)
            except (ValueError, ArithmeticError, RecursionError) as error:
                letters.append(malformed(record, error))
                continue
            except OSError as error:
                raise Busy("state", str(error)) from None
            if known is None:
                left_out.append(NO_CLIENT)
            elif not new_facts:
                left_out.append(REPEATED if body.rule == CONFIRMED_RULE else UNATTRIBUTED)
            facts += new_facts
        new = without_repeats(facts, self._recent_keys)
        left_out += [REPEATED] * (len(facts) - len(new))
        return Sorted(self.make(new), letters, left_out)

    def places(self, read: Places) -> Places:
        """All that was read."""
        return read

    def _facts(self, record: Record, body: Body, known: KnownConversion) -> list[Fact]:
        return [_deniable(fact, self.denied, known.keys) for fact in conversions(record, body, known)]

    def _catch_up(self) -> None:
        """Read the pixels to the end that their topic has now."""
        with reachable():
            ends = self.pixels.reader.ends()
        while not self.pixels.reader.passed(ends):
            self.pixels.turn()
            if self.pixels.stop.is_set():
                raise Stopped
