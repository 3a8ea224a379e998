"""Messages between steps: columns, with the names that they index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from flows.model.client_counts import NO_SIDE_INCREMENTS, ClientBatch, ClientCounts, SideIncrements
from flows.model.conversion_columns import RowName
from flows.model.day_parts import NO_PARTS, AlikeDays, Parts
from flows.model.decisions import Decision, DecisionRecord, PendingConversion
from flows.model.dimensions import Dimensions
from flows.model.home_touches import NO_HOMES, HomeTouches
from flows.model.pixel import COLUMNS, ConversionPixel
from flows.model.ticks import Cut, Tick
from flows.state.arrays import I32, I64, U8, U16, U32, U64

ERASED: Final = ("touches", "campaigns", "conversions", "household_touches")
"""The kinds of state that `Erased` counts: a listener's touches, the campaigns whose impressions are counted
for frequency, waiting conversions that name the person, and touches of households.
"""
Erased = tuple[int, str, int]
"""A listener's or household's key, one of `ERASED`, and the number of these that a shard has erased."""
LEDGER_SHARD: Final = -1
CREDITS_SHARD: Final = -2
BOOK: Final = "book"
"""The Bytewax key of the credit book: part of the recovery store."""


class Decided(NamedTuple):
    """The decisions of one listener or household shard at a cut, with its counts of new and of pending
    conversions. The `sender` of a household shard is above those of listener shards. `accepted` counts the
    new conversions by campaign; "" is for those without a campaign.

    `frequency` are (campaign, class of `flows.attribution.frequency`, listeners that it gains, millionths of
    conversions from it). `erased` counts the state of the listeners that are erased at the cut, zeros
    included.
    """

    sender: int
    cut: Cut
    decisions: list[Decision]
    accepted: dict[str, int]
    pending: int
    frequency: list[tuple[str, int, int, int]]
    erased: Sequence[Erased] = ()


class ConversionAccount(NamedTuple):
    """Accepted, valid conversions, or those that a cut adds. accepted = attributed + unattributed + pending.
    `noisy_household` counts conversions whose household has too many listeners to be credited.
    """

    accepted: int
    attributed: int
    unattributed: int
    pending: int
    noisy_household: int = 0

    def plus(self, more: ConversionAccount) -> ConversionAccount:
        """The sum of two accounts."""
        return ConversionAccount(*map(sum, zip(self, more, strict=True)))


class CreditBatch(NamedTuple):
    """Increments by the decisions of a cut, for one row shard: `amounts[i]` to column `columns[i]` of
    `rows[row_places[i]]` in a minute.

    `frequency` are (row, class of `flows.attribution.frequency`, listeners that it gains, millionths of
    conversions from it). `currencies` are those of the rows that get a value. `accounts` are the gains of
    campaigns' accounts. `sides` are the increments of clients' downloads and deliveries.
    """

    to: int
    cut: Cut
    rows: list[tuple[str, str]]
    row_places: U32
    minutes: U32
    columns: U8
    amounts: I64
    frequency: list[tuple[RowName, int, int, int]]
    currencies: list[tuple[RowName, str]]
    accounts: list[tuple[RowName, ConversionAccount]]
    sides: SideIncrements = NO_SIDE_INCREMENTS

    @property
    def sender(self) -> int:
        """The credit book."""
        return CREDITS_SHARD


class Receipt(NamedTuple):
    """The messages that one partition has received since its last tick, with the tick: the source's side of
    the ledger.

    `received` leaves the collectors' `marks` out. `arrivals` are (mean time of receipt in epoch ms, pixels),
    one a batch, of a live partition. `saved` is the partition's state at the tick (`flows.state.saves`), or
    empty without saves. `now_ms` is the time of the tick by the clock of ticks, in epoch ms. `proven` is True
    if a recent proof shows that the partition was read to its end. `byes` are the collectors, as units of the
    feed, that have sent a bye.
    """

    tick: Tick
    received: int
    rejected: dict[str, int]
    skewed: int
    arrivals: list[tuple[float, int]]
    marks: int = 0
    saved: bytes = b""
    now_ms: int = 0
    proven: bool = False
    byes: Sequence[str] = ()


class Output(NamedTuple):
    """The output of one step of a partition: pixels for shards, dead letters as (key, JSON), and a receipt
    when a tick is due.
    """

    pixels: list[Pixels]
    letters: list[tuple[bytes, bytes]]
    receipt: Receipt | None


class PartitionAccount(NamedTuple):
    """The counts of a partition since the log's beginning, at a cut."""

    partition: str
    counts: dict[str, int]
    position: int
    watermark_ms: int


class Pixels(NamedTuple):
    """The pixels of a batch of one source partition for the placement shard `to`.

    `COMBO` indexes `combos`, whose numbers at the sender are `numbers`. Within one `numbering` a number
    always means the same dimensions. `converted` are the columns of `conversions`. `collectors` are those
    that the pixels name. `by` has for each pixel 1 + the index of its collector, or 0 without one. `by` is
    empty if no pixel names a collector.
    """

    sender: str
    to: int
    pixels: U64
    combos: list[Dimensions]
    conversions: list[ConversionPixel]
    converted: U64 = np.zeros((0, COLUMNS), np.uint64)
    collectors: Sequence[str] = ()
    by: U16 = np.zeros(0, np.uint16)
    numbers: I32 = np.zeros(0, np.int32)
    numbering: int = 0


class PixelOutcomes(NamedTuple):
    """The outcomes of a shard's pixels of one source partition since the last tick. `invalid` counts the
    accepted pixels that are invalid traffic, by reason.
    """

    sender: str
    accepted: int
    repeated: int
    too_late: int
    invalid: tuple[int, ...]

    @property
    def invalid_traffic(self) -> int:
        """The number of invalid pixels of all reasons."""
        return sum(self.invalid)


class Late(NamedTuple):
    """A pixel whose minute is final, with its position and names, for its dead letter.

    `key` identifies the pixel or its play.
    """

    sender: str
    position: int
    event: str
    ts_ms: int
    key: int
    combo: Dimensions


class RowBatch(NamedTuple):
    """Increments of one placement shard for one row shard at a tick.

    `rows` are (scope, id); the arrays index it. `latest` and `first` are the greatest and the least event
    time of a row's accepted, valid pixels, `newest` the greatest of all its pixels, each 0 without one.
    `labels` are (row, greatest event time, names) of the placements among `rows`. `sides` are minutes,
    columns of `flows.model.basis` and amounts of `side_rows`, which few pixels have. `touch_listeners` are
    listeners, 0 if unknown. `homes` are their households, or empty if no touch has one. `refused` are
    (placement, minute, count) of rejected impressions, which make no row. `delays` are (platform, counts by
    class of `flows.model.delays`).
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
    touch_listeners: U64
    labels: list[tuple[int, int, Dimensions]]
    first: I64
    newest: I64
    side_rows: U32 = np.zeros(0, np.uint32)
    sides: I64 = np.zeros((0, 3), np.int64)
    parts: Parts = NO_PARTS
    refused: Sequence[tuple[str, int, int]] = ()
    delays: Sequence[tuple[str, Sequence[int]]] = ()
    homes: U64 = np.zeros(0, np.uint64)


class TouchBatch(NamedTuple):
    """Touches and conversions of one placement shard for one listener shard at a tick. `combos` index
    `names`. The listeners and households in `forgotten` are erased after the batch. `homes` are for the
    household shard of the same number.
    """

    sender: int
    to: int
    cut: Cut
    names: list[Dimensions]
    listener_hashes: U64
    ts: I64
    kinds: U8
    combos: U32
    plays: U32
    conversions: list[PendingConversion]
    forgotten: U64
    homes: HomeTouches = NO_HOMES


class Unjoined(NamedTuple):
    """A conversion of which no touch of its own listener is eligible, and whether a cap may be the reason."""

    conversion: PendingConversion
    capped: bool


class UnjoinedBatch(NamedTuple):
    """A listener shard's part of a cut for the household shard `to`.

    Attributes:
        conversions: the conversions that the household shard decides.
        decided_ms: the time, epoch ms, before which conversions are decided.
        homes: household touches that came by way of the listener shard of the same number.
        forgotten: listeners and households that are erased after these touches.
    """

    sender: int
    to: int
    cut: Cut
    conversions: list[Unjoined]
    decided_ms: int
    homes: list[HomeTouches]
    forgotten: U64


class Delivered(NamedTuple):
    """The impressions that a planned placement has delivered in its plan's flight.

    Attributes:
        start, end: minutes since the epoch; the end is not in the flight.
        impressions: None if the plan came too late to know them.
        parted: the minute of an opening balance, 0 without one.
        since: impressions from the minute `parted` on; None if unknown, or without a balance.
    """

    start: int
    end: int
    impressions: int | None
    parted: int = 0
    since: int | None = None


class SilentShare(NamedTuple):
    """The part of a planned placement's impressions that a silent unit had.

    Attributes:
        impressions: the placement's impressions of about the last day by this unit.
        whole: the same by all units.
        before: its impressions a minute by all units in the hour before the silence, or since its first one.
        since: its impressions a minute by all units since the silence began; infinite while unknown.
    """

    placement: str
    impressions: float
    whole: float
    before: float
    since: float


class SilentUnit(NamedTuple):
    """A unit of the feed that is silent: `partition:NAME`, `platform:NAME` or `sender:ID`.

    Attributes:
        since_ms: the time of its last pixel before the silence, epoch ms.
        gap_ms: the time since then, in ms.
        bound_ms: the gap above which it is silent, in ms.
        impressions: its impressions of about the last day.
        placements: the planned placements of which it is one of the four largest units of its kind.
    """

    unit: str
    since_ms: int
    gap_ms: int
    bound_ms: int
    impressions: float
    placements: Sequence[SilentShare]


class EndedMinutes(NamedTuple):
    """Impressions of planned placements in minutes that became final at a cut.

    Attributes:
        placement_places: (n,) places in `placements`.
        minutes: (n,) minutes since the epoch.
        impressions: (n,) the impressions of each.
    """

    placements: Sequence[str]
    placement_places: I64
    minutes: I64
    impressions: I64


class Flush(NamedTuple):
    """The part of one row shard, the ledger or the credit book in a flush.

    `rows_as_of_ms` is the watermark of the oldest row that a row shard has sent, or None without rows.
    `erased` is the state that all shards had of the listeners that are erased at the cut.
    """

    shard: int
    cut: Cut
    rows: Sequence[PackedRow] = ()
    accounts: Sequence[PartitionAccount] = ()
    arrivals: Sequence[tuple[float, int]] = ()
    conversions: ConversionAccount | None = None
    decisions: Sequence[DecisionRecord] = ()
    sketches: Sequence[tuple[str, str]] = ()
    ended: Sequence[tuple[str, str]] = ()
    beyond: int = 0
    days: Sequence[AlikeDays] = ()
    rows_as_of_ms: int | None = None
    silent: Sequence[SilentUnit] | None = None
    erased: Sequence[Erased] = ()
    minutes: EndedMinutes | None = None


class PackedRow(msgspec.Struct, frozen=True, gc=False):
    """A row before it is published.

    `packed` is a MessagePack array of the values of `FIELDS`. `flows.delivery.pacer` fills the values of
    `DELIVERY` from `delivered`, which is None without a plan. A row that is `turned` has changed by time
    alone.
    """

    scope: str
    name: str
    latest_ms: int
    packed: bytes
    delivered: Delivered | None = None
    turned: bool = False


class ShardTick(NamedTuple):
    """A partition's tick for one placement shard. `to` is the shard, since Bytewax does not pass the key to a
    step's logic.
    """

    to: int
    tick: Tick


class Impressions(NamedTuple):
    """Accepted, valid impressions of one placement shard since its last such message, by placement, platform
    and source.

    Attributes:
        platforms: the platforms, None for impressions without one.
        sources: (source partition, collector); empty for an unnamed collector.
        places: (n, 3) places in `placements`, in `platforms` and in `sources`.
        impressions: (n,) the impressions of each.
    """

    placements: Sequence[str]
    platforms: Sequence[str | None]
    sources: Sequence[tuple[str, str]]
    places: I64
    impressions: I64


class Settled(NamedTuple):
    """A placement shard's outcomes at a cut.

    `units` are the accepted, valid pixels since the last cut by unit of the feed (`SilentUnit`), without
    partitions, which are in `outcomes`. `impressions` is None at most cuts.
    """

    sender: int
    cut: Cut
    outcomes: Sequence[PixelOutcomes]
    units: Sequence[tuple[str, int]] = ()
    impressions: Impressions | None = None


class Lines(NamedTuple):
    """Messages for one output of lines: dead letters, minutes or decisions.

    `sender` is a source partition or a shard; `mark` is the tick or cut that follows these messages.
    """

    messages: Sequence[tuple[bytes, bytes]]
    sender: str | int
    mark: Tick | Cut | None = None


class Durable(NamedTuple):
    """The place of one shard's state at a cut in a file of the save, durable on its member's disk."""

    cut: Cut
    step: str
    key: str
    file: str
    offset: int
    size: int
    checksum: str
    member: int = 0


class PartitionStates(NamedTuple):
    """The packed states of all source partitions at a cut that is a save, for one member's part of it."""

    cut: Cut
    states: dict[str, bytes]
    member: int


Message = (
    Pixels
    | ShardTick
    | RowBatch
    | CreditBatch
    | TouchBatch
    | UnjoinedBatch
    | ClientBatch
    | ClientCounts
    | Decided
    | Receipt
    | Settled
    | Flush
    | Lines
    | Durable
    | PartitionStates
)


def shard_key(shard: int) -> str:
    """The Bytewax key of a shard: part of the recovery store."""
    return f"{shard:04d}"


def book_files(shards: int) -> int:
    """The number of the credit book's files: the one after the shards' numbers."""
    return shards


def key_of(message: Message) -> str:
    """The Bytewax key that a message is sent to, which is part of the recovery store.

    A shard has a key, and so has a step that exists once in the flow.
    """
    match message:
        case Decided() | ClientCounts():
            return BOOK
        case Receipt() | Settled():
            return "ledger"
        case Flush() | Lines():
            return "all"
        case Durable() | PartitionStates():
            return shard_key(message.member)
        case _:
            return shard_key(message.to)


REACH_ONLY, IMPRESSION_TOUCH, START_TOUCH, CLICK_TOUCH = range(4)
"""Kinds of a touch, as plays sends them and as they are stored. A start without a play is no touch. Of one
play's touches a conversion is credited to the impression if that is of the conversion's minute or earlier,
else to the start.
"""
KIND_BITS: Final = 2
KIND: Final = 3
"""The mask of a kind."""
