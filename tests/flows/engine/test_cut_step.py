"""Steps that work by cuts: their state is whole at every snapshot, and names nothing of this code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from save_support import STEPS

from flows.engine.ledger_step import LedgerLogic
from flows.engine.steps import CreditsLogic, PlaysLogic
from flows.engine.tick_clock import TickClock
from flows.model.client_counts import ClientBatch, ClientCounts
from flows.model.messages import (
    Decided,
    Durable,
    Flush,
    Lines,
    Message,
    PartitionStates,
    PixelOutcomes,
    Pixels,
    Receipt,
    RowBatch,
    Settled,
    ShardTick,
    TouchBatch,
    UnjoinedBatch,
    key_of,
)
from flows.model.pixel import COLUMNS, ConversionPixel
from flows.model.ticks import Cut, Tick
from flows.replay import replay
from flows.settings.fields import Settings
from flows.state.chunks import chunks
from flows.state.saves import SaveStore, decode, encode

T0 = 1_764_000_000_000
PARTITIONS, SHARDS = ("a", "b"), 2
KEY = b"sixteen bytes !!"


def tick(sender: str, number: int, position: int = 0) -> Tick:
    return Tick(sender, PARTITIONS, number, T0, True, False, position, T0, first=number == 1)


def again(state: Any) -> Any:
    """As a save does."""
    return decode(encode(state))


def plain(value: Any) -> bool:
    """True if it is made of what msgpack has by itself, as read by a decoder that knows nothing of ours."""
    match value:
        case dict():
            return all(map(plain, value)) and all(map(plain, value.values()))
        case list() | tuple():
            return all(map(plain, value))
        case _:
            return value is None or type(value) in (bool, int, float, str, bytes)


def test_an_object_is_no_state() -> None:
    with pytest.raises(TypeError, match="plain values"):
        encode({"held": object()})
    assert not plain([object()])


# The ledger


@st.composite
def receipts(draw: st.DrawFn) -> list[str]:
    """Which partition sends its next receipt: each three, in any order."""
    return draw(st.permutations([sender for sender in PARTITIONS for _ in range(3)]))


def settled(cut: int) -> list[Settled]:
    """The reports of the placement shards at a cut: together all messages of both partitions since the last
    cut.
    """
    at = Cut(cut, T0, False, (), first=cut == 1, save=True)
    return [
        Settled(shard, at, [PixelOutcomes(sender, 5, 0, 0, (0,)) for sender in PARTITIONS])
        for shard in range(SHARDS)
    ]


@given(receipts(), st.integers(0, 2))
def test_a_ledger_resumes_from_its_cut_with_later_messages(order: list[str], stop: int) -> None:
    settings = Settings(shards=SHARDS)
    ledger, states = LedgerLogic(settings, None), list[tuple[Any, int]]()
    flushes: list[Message] = []
    ledger.at_cut = lambda cut: states.append((again(ledger.snapshot()), cut.number))  # type: ignore[method-assign]  # an attribute, of the class by default

    def feed(step: LedgerLogic, order: list[str], sent: dict[str, int]) -> None:
        cuts = min(sent.values())
        for sender in order:
            sent[sender] += 1
            number = sent[sender]
            receipt = Receipt(tick(sender, number, 10 * number), 10, {}, 0, [], 0, b"%d" % number)
            flushes.extend(step.on_batch([receipt])[0])
            if min(sent.values()) > cuts:
                cuts += 1
                flushes.extend(step.on_batch(settled(cuts))[0])

    feed(ledger, order, dict.fromkeys(PARTITIONS, 0))
    state, cut = states[stop]
    kept = {one.cut.number: one.states for one in flushes if isinstance(one, PartitionStates)}
    assert kept[cut] == dict.fromkeys(PARTITIONS, b"%d" % cut), "the partitions' states are of the cut"
    left = [sender for place, sender in enumerate(order) if order[:place].count(sender) >= cut]
    feed(LedgerLogic(settings, state), left, dict.fromkeys(PARTITIONS, cut))
    numbers = [flush.cut.number for flush in flushes if isinstance(flush, Flush)]
    assert numbers == [1, 2, 3, *range(cut + 1, 4)]
    for flush in (one for one in flushes if isinstance(one, Flush)):
        for account in flush.accounts:
            assert account.counts["received"] == account.counts["accepted"] == account.position
            assert account.position == 10 * flush.cut.number


# A placement shard


def pixels(sender: str, position: int) -> Pixels:
    """A pixel of each kind with its own storage: an event's row, and a conversion with its row."""
    row = np.full((1, COLUMNS), position, np.uint64)
    combo = ("p", *(None,) * 6)
    conversion = ConversionPixel(combo, "purchase", None, "id", None, None, None)
    return Pixels(sender, 1, row, [combo], [conversion], row)


def named(sender: str, placement: str) -> Pixels:
    """No pixel, but dimensions that a shard remembers."""
    return Pixels(sender, 1, np.zeros((0, COLUMNS), np.uint64), [(placement, *(None,) * 6)], [])


def test_a_placement_shard_saves_only_messages_within_the_cut() -> None:
    settings = Settings(shards=SHARDS)
    plays, states = PlaysLogic(settings, None, TickClock(1000, lambda: 0)), list[tuple[Cut, bytes]]()
    plays.at_cut = lambda cut: states.append((cut, encode(plays.snapshot())))  # type: ignore[method-assign]  # an attribute, of the class by default
    early = [ShardTick(1, tick("a", 1)), named("a", "early"), ShardTick(1, tick("a", 2))]
    plays.on_batch([*early, named("b", "b"), ShardTick(1, tick("b", 1))])
    alone = PlaysLogic(settings, None, TickClock(1000, lambda: 0))
    alone.at_cut = lambda cut: states.append((cut, encode(alone.snapshot())))  # type: ignore[method-assign]  # an attribute, of the class by default
    alone.on_batch([early[0], named("b", "b"), ShardTick(1, tick("b", 1))])
    (cut, state), (other, expected) = states
    assert cut == other
    assert cut.save
    ((_, names, *_),) = decode(state)[0][2]["combos"]
    assert [*chunks(names)] == [[["b", *[None] * 6]]]
    assert decode(state)[0] == decode(expected)[0]
    assert decode(state)[1:] == decode(expected)[1:]


def test_a_partition_empty_at_a_save_holds_time_until_its_tick() -> None:
    """The other partition's first tick after the save has a later number and follows all messages read
    meanwhile.
    """
    settings, cuts = Settings(shards=1), list[Cut]()
    plays = PlaysLogic(settings, None, TickClock(1000, lambda: 0))
    a, b = replace(tick("a", 1), watermark_ms=T0 - 9), replace(tick("b", 1), watermark_ms=0, holding=False)
    plays.on_batch([ShardTick(0, a), ShardTick(0, replace(b, number=2, first=True))])
    plays = PlaysLogic(settings, decode(encode(plays.snapshot())), TickClock(1000, lambda: 0))
    plays.at_cut = cuts.append  # type: ignore[method-assign]  # an attribute, of the class by default
    again = replace(tick("b", 3), watermark_ms=T0 - 8, holding=True)
    plays.on_batch([ShardTick(0, one) for one in (replace(tick("a", 4), watermark_ms=T0), again)])
    assert [(cut.number, cut.watermark_ms) for cut in cuts] == [(2, T0 - 9), (3, T0 - 8)]


def test_a_partitions_first_pixel_does_not_set_time_back() -> None:
    settings, cuts = Settings(shards=1), list[Cut]()
    plays = PlaysLogic(settings, None, TickClock(1000, lambda: 0))
    plays.at_cut = cuts.append  # type: ignore[method-assign]  # an attribute, of the class by default
    empty = replace(tick("b", 1), watermark_ms=0, holding=False)
    begun = replace(tick("b", 2), watermark_ms=0, holding=True)
    plays.on_batch([ShardTick(0, one) for one in (tick("a", 1), empty, tick("a", 2), begun)])
    assert [cut.watermark_ms for cut in cuts] == [T0, T0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 6))
def test_saves_and_published_cuts_are_chosen_by_number(gaps: list[int], every: int) -> None:
    """A cut is a save if its number passes a multiple of `every` (at most four); the first cut is one.
    Readers get the first cut, and each one over `every` numbers past the last that they got.
    """
    settings = Settings(
        shards=1, flush_interval=timedelta(seconds=1), save_interval=timedelta(seconds=every + 1)
    )
    pace = timedelta(seconds=every + 1)
    plays, cuts = PlaysLogic(settings, None, TickClock(1000, lambda: 0), pace=pace), list[Cut]()
    plays.at_cut = cuts.append  # type: ignore[method-assign]  # an attribute, of the class by default
    number = 0
    for gap in gaps:
        number += gap
        last = gap == 5
        plays.on_batch([ShardTick(0, replace(tick("a", number), senders=("a",), first=True, last=last))])
    before, got = -1, cuts[0].number - 1
    for cut, gap in zip(cuts, gaps, strict=True):
        since = range(before + 1, cut.number + 1)
        assert cut.save == (gap == 5 or any(one % min(every, 4) == 0 for one in since))
        assert cut.publish == (gap == 5 or cut.number - got > every)
        before, got = cut.number, cut.number if cut.publish else got


def test_readers_get_the_first_cut_after_a_restart() -> None:
    settings, pace = Settings(shards=1, flush_interval=timedelta(seconds=1)), timedelta(seconds=20)

    def begun(state: tuple[Any, ...] | None) -> PlaysLogic:
        plays = PlaysLogic(settings, state, TickClock(1000, lambda: 0), pace=pace)
        plays.at_cut = cuts.append  # type: ignore[method-assign]  # an attribute, of the class by default
        return plays

    cuts = list[Cut]()
    plays = begun(None)
    for number in range(1, 100):
        if number % 18 == 0:
            plays = begun(plays.snapshot())
        plays.on_batch([ShardTick(0, replace(tick("a", number), senders=("a",), first=number == 1))])
    assert [cut.number for cut in cuts if cut.publish] == [18, 36, 54, 72, 90]


# Shards


def decided(sender: int, number: int) -> Decided:
    return Decided(sender, Cut(number, T0, False, (), first=number == 1), [], {}, 0, [])


def counted(shard: int, number: int) -> ClientCounts:
    none = np.zeros(0, np.int64)
    cut = Cut(number, T0, False, (), first=number == 1)
    return ClientCounts(shard, cut, [], *[none] * 4)  # type: ignore[arg-type]  # empty columns of any kind


def sent(sender: int, number: int) -> Decided | ClientCounts:
    """The messages of listener and household shards at a cut, and then of the client shards."""
    return decided(sender, number) if sender < 2 * SHARDS else counted(sender - 2 * SHARDS, number)


@given(st.lists(st.permutations(range(3 * SHARDS)), min_size=1, max_size=5), st.booleans())
def test_a_cut_proceeds_only_after_its_last_sender(cuts: list[list[int]], restarted: bool) -> None:
    book = CreditsLogic(Settings(shards=SHARDS), None, KEY)
    for number, (*before, last) in enumerate(cuts, 1):
        assert [*book.on_batch([sent(shard, number) for shard in before])[0]] == []
        out = [*book.on_batch([sent(last, number)])[0]]
        assert [one.to for one in out if not isinstance(one, Flush | Lines)] == list(range(SHARDS))  # type: ignore[union-attr]  # batches for rows
        assert [one.cut.number for one in out if isinstance(one, Flush)] == [number]
        if restarted:
            book = CreditsLogic(Settings(shards=SHARDS), again(book.snapshot()), KEY)


def test_every_kind_of_message_has_its_steps_key() -> None:
    cut = Cut(1, T0, False, ())
    some = np.zeros(0, np.uint32)
    first = [decided(0, 1), decided(1, 1), counted(0, 1)]
    messages: list[Message] = [
        pixels("a", 1),
        ShardTick(1, tick("a", 1)),
        RowBatch(0, 1, cut, [], *[some] * 9, [], some, some),  # type: ignore[arg-type]  # empty columns of any kind
        *CreditsLogic(Settings(shards=1), None, KEY).on_batch(first)[0],
        TouchBatch(0, 1, cut, [], *[some] * 5, [], some),  # type: ignore[arg-type]  # empty columns of any kind
        UnjoinedBatch(0, 1, cut, [], 0, [], np.zeros(0, np.uint64)),
        ClientBatch(0, 1, cut, [], np.zeros((0, 3), np.uint64)),
        decided(0, 1),
        counted(0, 1),
        Receipt(tick("a", 1), 0, {}, 0, []),
        *settled(1)[:1],
        Lines([], 0),
        Durable(cut, "plays", "0001", "", 0, 0, "", 1),
        PartitionStates(cut, {}, 1),
    ]
    assert {type(message) for message in messages} == set(get_args(Message))
    keys = {type(message).__name__: key_of(message) for message in messages}
    assert {name for name, key in keys.items() if key == "0001"} == {
        "Pixels",
        "ShardTick",
        "RowBatch",
        "TouchBatch",
        "UnjoinedBatch",
        "ClientBatch",
        "Durable",
        "PartitionStates",
    }
    assert (keys["CreditBatch"], keys["Decided"], keys["ClientCounts"]) == ("0000", "book", "book")
    assert keys["Receipt"] == keys["Settled"] == "ledger"
    assert keys["Flush"] == keys["Lines"] == "all"


# The store


def test_no_stored_state_names_our_classes_or_modules(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    known = {"placement_id": "a", "campaign_id": "red", "listener_id": "L", "play_id": "1", "consent": True}
    lines: list[dict[str, Any]] = [
        {"event_id": f"{event}{minute}", "event": event, "ts": T0 + 60_000 * minute, **known}
        for minute in range(30)
        for event in ("impression", "start", "complete", "click")
    ]
    bought = {"event_id": "c", "event": "conversion", "conversion": {"type": "purchase", "order_id": "1"}}
    lines.append(
        {**bought, "ts": T0 + 60_000 * 30, "listener_id": "L", "consent": True, "campaign_id": "red"}
    )
    log = tmp_path / "log.ndjson"
    log.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]) + "no pixel\n")
    settings = settings_of(shards=2, save_interval=timedelta(milliseconds=1))
    replay([str(log)], settings, KEY, out=tmp_path / "out", recovery_dir=tmp_path / "store")
    store = SaveStore(tmp_path / "store")
    newest = store.manifest(store.cuts()[0])
    assert {piece.step for piece in newest.pieces} == {*STEPS, "partitions"} - {"intake", "saves"}
    for piece in newest.pieces:
        file = tmp_path / "store" / "saves" / f"{newest.cut:020d}" / piece.file
        body = file.read_bytes()[piece.offset :][: piece.size]
        end = 4 + int.from_bytes(body[:4], "little")
        state = msgspec.msgpack.decode(body[end:])
        assert plain(state), piece
        assert not [word for word in (b"flows.", b"connectors.", b"numpy") if word in body], piece
        if piece.step == "partitions":
            assert all(plain(msgspec.msgpack.decode(partition)) for partition in state.values())
