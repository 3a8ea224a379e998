"""Steps that work by cuts: their state is whole at every snapshot, and names nothing of this code."""

from __future__ import annotations

import json
import pickle
import pickletools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.engine.steps import CreditsLogic, LedgerLogic, PlaysLogic
from flows.engine.tick_clock import TickClock
from flows.model.clients import ClientBatch, ClientCounts
from flows.model.messages import (
    Decided,
    Flush,
    Lines,
    Message,
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
from flows.pixels import STEPS
from flows.replay import replay
from flows.settings.fields import Settings

T0 = 1_764_000_000_000
PARTITIONS, SHARDS = ("a", "b"), 2
KEY = b"sixteen bytes !!"


def tick(sender: str, number: int, position: int = 0) -> Tick:
    return Tick(sender, PARTITIONS, number, T0, True, False, position, T0, first=number == 1)


def ours(pickled: bytes) -> set[str]:
    """The names of this code's modules in a pickle."""
    words = {
        arg.split()[0] for _, arg, _ in pickletools.genops(pickled) if isinstance(arg, str) and arg.split()
    }
    return {word for word in words if word.split(".")[0] in ("flows", "connectors", "dashboards")}


def again(state: Any) -> Any:
    """As the engine does."""
    pickled = pickle.dumps(state)
    assert ours(pickled) == set()
    return pickle.loads(pickled)


def test_a_class_of_ours_in_a_pickle_is_found() -> None:
    assert ours(pickle.dumps([tick("a", 1)])) == {"flows.model.ticks"}
    assert ours(pickle.dumps({"held": Receipt(tick("a", 1), 0, {}, 0, [])}, 0)) >= {"flows.model.messages"}


# The ledger


@st.composite
def receipts(draw: st.DrawFn) -> list[str]:
    """Which partition sends its next receipt: each three, in any order."""
    return draw(st.permutations([sender for sender in PARTITIONS for _ in range(3)]))


def settled(cut: int) -> list[Settled]:
    """What the placement shards say of a cut: together all that both partitions received since the last."""
    at = Cut(cut, T0, False, (), first=cut == 1)
    return [
        Settled(shard, at, [PixelOutcomes(sender, 5, 0, 0, (0,)) for sender in PARTITIONS])
        for shard in range(SHARDS)
    ]


@given(receipts(), st.sets(st.integers(0, 6)))
def test_a_ledger_stopped_between_any_two_receipts_goes_on_with_those_that_no_cut_has_covered(
    order: list[str], stops: set[int]
) -> None:
    settings = Settings(shards=SHARDS)
    ledger = LedgerLogic(settings, None)
    sent, cuts = dict.fromkeys(PARTITIONS, 0), 0
    flushes: list[Message] = []
    for place, sender in enumerate(order):
        if place in stops:
            ledger = LedgerLogic(settings, again(ledger.snapshot()))
        sent[sender] += 1
        number = sent[sender]
        out = [*ledger.on_batch([Receipt(tick(sender, number, 10 * number), 10, {}, 0, [])])[0]]
        if min(sent.values()) > cuts:
            cuts += 1
            out += ledger.on_batch(settled(cuts))[0]
        flushes += out
    assert [flush.cut.number for flush in flushes if isinstance(flush, Flush)] == [1, 2, 3]
    for flush in flushes:
        assert isinstance(flush, Flush)
        for account in flush.accounts:
            assert account.counts["received"] == account.counts["accepted"] == account.position
            assert account.position == 10 * flush.cut.number


# A placement shard


def pixels(sender: str, position: int) -> Pixels:
    """One pixel of each kind that is kept apart: an event's row, and a conversion with its row."""
    row = np.full((1, COLUMNS), position, np.uint64)
    combo = ("p", *(None,) * 6)
    conversion = ConversionPixel(combo, *([None] * (len(ConversionPixel._fields) - 1)))  # type: ignore[arg-type]  # its kind is not read
    return Pixels(sender, 1, row, [combo], [(row[0], conversion)])


def test_pixels_and_ticks_that_a_placement_shard_holds_back_come_out_of_its_snapshot_as_they_were() -> None:
    plays = PlaysLogic(Settings(shards=SHARDS), None, TickClock(1000, lambda: 0))
    plays.on_batch([ShardTick(1, tick("a", 1)), pixels("a", 7), ShardTick(1, tick("a", 2))])
    held = plays._aligner.held["a"]
    resumed = PlaysLogic(Settings(shards=SHARDS), again(plays.snapshot()), TickClock(1000, lambda: 0))
    (batch, none), (mark, number) = resumed._aligner.held["a"]
    assert (none, mark, number) == (None, tick("a", 2), 2)
    assert isinstance(batch, Pixels)
    assert isinstance(held[0][0], Pixels)
    assert repr(batch) == repr(held[0][0])


# Shards


def decided(sender: int, number: int) -> Decided:
    return Decided(sender, Cut(number, T0, False, (), first=number == 1), [], {}, 0, [])


def counted(shard: int, number: int) -> ClientCounts:
    none = np.zeros(0, np.int64)
    cut = Cut(number, T0, False, (), first=number == 1)
    return ClientCounts(shard, cut, [], *[none] * 4)  # type: ignore[arg-type]  # empty columns of any kind


def sent(sender: int, number: int) -> Decided | ClientCounts:
    """What listener and household shards send at a cut, and behind them the client shards."""
    return decided(sender, number) if sender < 2 * SHARDS else counted(sender - 2 * SHARDS, number)


@given(st.lists(st.permutations(range(3 * SHARDS)), min_size=1, max_size=5), st.booleans())
def test_a_cut_goes_on_when_the_last_sender_has_come_to_it_and_not_before(
    cuts: list[list[int]], restarted: bool
) -> None:
    book = CreditsLogic(Settings(shards=SHARDS), None, KEY)
    for number, (*before, last) in enumerate(cuts, 1):
        assert [*book.on_batch([sent(shard, number) for shard in before])[0]] == []
        out = [*book.on_batch([sent(last, number)])[0]]
        assert [one.to for one in out if not isinstance(one, Flush)] == list(range(SHARDS))  # type: ignore[union-attr]  # batches for rows
        assert [one.cut.number for one in out if isinstance(one, Flush)] == [number]
        if restarted:
            book = CreditsLogic(Settings(shards=SHARDS), again(book.snapshot()), KEY)


def test_half_a_cut_of_shards_is_our_bug_and_is_not_stored() -> None:
    book = CreditsLogic(Settings(shards=SHARDS), None, KEY)
    book.on_batch([decided(0, 1)])
    with pytest.raises(AssertionError, match="holds a cut whole"):
        book.snapshot()


def test_every_kind_of_message_has_the_key_of_the_step_that_takes_it() -> None:
    cut = Cut(1, T0, False, ())
    some = np.zeros(0, np.uint32)
    first = [decided(0, 1), decided(1, 1), counted(0, 1)]
    messages: list[Message] = [
        pixels("a", 1),
        ShardTick(1, tick("a", 1)),
        RowBatch(0, 1, cut, [], *[some] * 9, [], some),  # type: ignore[arg-type]  # empty columns of any kind
        *CreditsLogic(Settings(shards=1), None, KEY).on_batch(first)[0],
        TouchBatch(0, 1, cut, [], *[some] * 5, [], some),  # type: ignore[arg-type]  # empty columns of any kind
        UnjoinedBatch(0, 1, cut, [], 0, [], np.zeros(0, np.uint64)),
        ClientBatch(0, 1, cut, [], np.zeros((0, 3), np.uint64)),
        decided(0, 1),
        counted(0, 1),
        Receipt(tick("a", 1), 0, {}, 0, []),
        *settled(1)[:1],
        Lines([]),
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
    }
    assert (keys["CreditBatch"], keys["Decided"], keys["ClientCounts"]) == ("0000", "book", "book")
    assert keys["Receipt"] == keys["Settled"] == "ledger"
    assert keys["Flush"] == keys["Lines"] == "all"


# The store


def stored(directory: Path) -> Iterator[tuple[str, bytes]]:
    """(step, state) of every snapshot in a recovery store."""
    for file in sorted(directory.glob("*.sqlite3")):
        with closing(sqlite3.connect(file)) as store:
            yield from store.execute("SELECT step_id, ser_change FROM snaps WHERE ser_change IS NOT NULL")


def test_no_class_and_no_module_of_ours_is_named_in_any_state_that_is_stored(
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
    settings = settings_of(shards=2, epoch_interval=timedelta(milliseconds=1))
    replay([str(log)], settings, KEY, out=tmp_path / "out", recovery_dir=tmp_path / "store")
    states = list(stored(tmp_path / "store"))
    assert {step.removeprefix("audiopixel.") for step, _ in states} == set(STEPS)
    assert {step: ours(state) for step, state in states if ours(state)} == {}
