"""What the steps send each other: columns, with the names that they index."""

from __future__ import annotations

from typing import Any, NamedTuple

from flows.batches import Combo, ConversionPixel
from flows.clock import Cut
from flows.kernel import I64, U8, U32, U64


class Pixels(NamedTuple):
    """One shard's pixels of one batch of one source partition; `COMBO` indexes `combos`."""

    sender: str
    pixels: U64
    combos: list[Combo]
    conversions: list[tuple[U64, ConversionPixel]]


class Outcome(NamedTuple):
    """What became of a shard's pixels of one source partition since the last tick; `invalid` are the accepted
    ones that are invalid traffic, by reason.
    """

    sender: str
    accepted: int
    repeated: int
    too_late: int
    invalid: tuple[int, ...]

    @property
    def invalid_traffic(self) -> int:
        """Of all reasons."""
        return sum(self.invalid)


class Late(NamedTuple):
    """A pixel whose minute is final: where it lies and which it is, for its dead letter; `key` is what makes
    it or its play one.
    """

    sender: str
    position: int
    event: str
    ts_ms: int
    key: int
    combo: Combo


class RowBatch(NamedTuple):
    """What one placement shard adds to one row shard at a tick.

    `rows` are (scope, id); the arrays index it. `latest` and `first` are the greatest and the least event
    time of their accepted, valid pixels, 0 where there is none. `labels` are (row, greatest event time,
    names) of the placements among them.
    """

    sender: int
    to: int
    cut: Cut
    rows: list[tuple[str, str]]
    latest: I64
    cell_rows: U32
    cell_minutes: U32
    cell_counts: I64
    total_rows: U32
    total_counts: I64
    touch_rows: U32
    touch_minutes: U32
    touch_who: U64
    labels: list[tuple[int, int, Combo]]
    first: I64


class Pending(NamedTuple):
    """An accepted, valid conversion that waits for its minute to be final; `listener` 0: not known."""

    ts_ms: int
    listener: int
    key: int
    pixel: ConversionPixel


def frozen_pending(one: Pending) -> tuple[Any, ...]:
    """Plain state of a waiting conversion."""
    return (*one[:3], tuple(one.pixel))


def thawed_pending(state: tuple[Any, ...]) -> Pending:
    """`frozen_pending`'s counterpart."""
    *numbers, pixel = state
    ts_ms, listener, key = numbers
    return Pending(ts_ms, listener, key, ConversionPixel(*pixel))


class TouchBatch(NamedTuple):
    """What one placement shard sends to one listener shard at a tick: touches, whose `combos` index `names`,
    conversions, and which listeners are to be forgotten behind them.
    """

    sender: int
    to: int
    cut: Cut
    names: list[Combo]
    who: U64
    ts: I64
    kinds: U8
    combos: U32
    plays: U32
    conversions: list[Pending]
    forgotten: U64
