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
from flows.exports.denied import Denied
from flows.exports.facts import (
    ClientId,
    Fact,
    Known,
    Lately,
    barred,
    conversion_key,
    conversions,
    decision,
    fresh,
    known_of_conversion,
    play,
    read_pixel,
)
from flows.exports.handover import Busy, Handover, Letter, Parcel, Sorted, Stopped, malformed, reachable
from flows.exports.known_conversions import KnownConversions
from flows.model.conversion_columns import CONFIRMED_RULE
from flows.model.decisions import Body

MOST: Final = 500
NO_CLIENT, REPEATED, UNATTRIBUTED = "no_client", "repeated", "unattributed"
FORGOTTEN: Final = "forgotten"


@dataclass
class _Remember:
    """Conversions to be stored."""

    known_conversions: KnownConversions
    rows: Sequence[Known]
    records: Sequence[Record] = ()

    def hand_over(self) -> None:
        try:
            self.known_conversions.add(self.rows)
        except OSError as error:
            raise Busy("state", str(error)) from None


def _asking(fact: Fact, denied: Denied, keys: str) -> Fact:
    """The fact of a listener who may be forgotten while it waits for its target."""

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
    denied: Denied
    connections: int
    most: int = MOST
    waiting: bool = False
    _lately: Lately = field(default_factory=Lately)

    def sort(self, records: Sequence[Record]) -> Sorted:
        """Facts of the pixels that may be sent."""
        if records:
            self.denied.look()
        facts: list[Fact] = []
        rows: list[Known] = []
        left_out: list[str] = []
        for record in records:
            if (pixel := read_pixel(record)) is None:
                continue
            keys = self.denied.keys_of(pixel)
            why = barred(pixel) or (FORGOTTEN if self.denied.bars(keys) else None)
            client_id = None if why else self.client_id_of(pixel)
            if client_id is None:
                left_out.append(why or NO_CLIENT)
            elif pixel.event == "conversion":
                rows += (
                    [row] if (row := known_of_conversion(record, pixel, client_id, keys)) is not None else []
                )
            elif (fact := play(record, pixel, client_id)) is not None:
                facts.append(_asking(fact, self.denied, keys))
        new = fresh(facts, self._lately)
        left_out += [REPEATED] * (len(facts) - len(new))
        keeping: list[Parcel] = [_Remember(self.known_conversions, rows)] if rows else []
        return Sorted([*keeping, *self.make(new)], (), left_out)

    def places(self, read: Places) -> Places:
        """All that was read."""
        return read


@dataclass
class DecisionsTarget:
    """Sends attributed conversions of known listeners.

    Args:
        pixels: the loop over the pixels, which has to be as far as the decisions.
    """

    make: Callable[[Sequence[Fact]], list[Parcel]]
    known_conversions: KnownConversions
    denied: Denied
    pixels: Handover
    connections: int
    most: int = MOST
    waiting: bool = False
    _lately: Lately = field(default_factory=Lately)

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
                about = self.known_conversions.find(
                    conversion_key(body.campaign_id, body.event_id, body.order_id)
                )
                if about is not None and self.denied.bars(about.keys):
                    left_out.append(FORGOTTEN)
                    continue
                new_facts = [] if about is None else self._facts(record, body, about)
            except (ValueError, ArithmeticError, RecursionError) as error:
                letters.append(malformed(record, error))
                continue
            except OSError as error:
                raise Busy("state", str(error)) from None
            if about is None:
                left_out.append(NO_CLIENT)
            elif not new_facts:
                confirms = body.rule == CONFIRMED_RULE
                left_out.append(REPEATED if confirms else UNATTRIBUTED)
            facts += new_facts
        new = fresh(facts, self._lately)
        left_out += [REPEATED] * (len(facts) - len(new))
        return Sorted(self.make(new), letters, left_out)

    def places(self, read: Places) -> Places:
        """All that was read."""
        return read

    def _facts(self, record: Record, body: Body, about: Known) -> list[Fact]:
        return [_asking(fact, self.denied, about.keys) for fact in conversions(record, body, about)]

    def _catch_up(self) -> None:
        """Read the pixels to the end that they have now."""
        with reachable():
            ends = self.pixels.reader.ends()
        while not self.pixels.reader.passed(ends):
            self.pixels.turn()
            if self.pixels.stop.is_set():
                raise Stopped
