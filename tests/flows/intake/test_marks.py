"""Marks of collectors: no pixels, and in no count but their own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scanner_support import LINE, Both

from connectors.stream import Messages
from flows.intake.watermark import PartitionClock

MARK: dict[str, Any] = {"collector": "0123456789abcdef", "low_ms": 1_764_000_000_000}


def raw(**change: Any) -> bytes:
    return json.dumps(MARK | change, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "mark",
    [
        raw(),
        raw(bye=True),
        raw(bye=None, event=None),
        raw(low_ms=0),
        raw(more={"of": [1.5]}, ts="never"),
        raw(collector="é\n" * 64),
        b" " + raw().replace(b":", b" : ") + b"\n",
    ],
)
def test_a_mark_is_no_pixel_and_not_rejected(mark: bytes) -> None:
    batch = Both().decode([LINE, mark, LINE, mark])
    assert (batch.marks, batch.received, len(batch.pixels), batch.rejected) == (2, 2, 2, [])


@pytest.mark.parametrize(
    "other",
    [
        raw(event="start"),
        raw(event=""),
        raw(collector=7),
        raw(collector=""),
        raw(collector="[COLLECTOR]"),
        raw(collector="x" * 129),
        raw(low_ms=-1),
        raw(low_ms="0"),
        raw(low_ms=4_102_444_800_000),
        raw(low_ms=None),
        raw(bye="yes"),
        raw(more="x" * (64 << 10)),
        raw()[:-1] + b',"more":"\xff"}',
        raw()[:-1],
        b'{"collector":"x"}',
        b"[]",
    ],
)
def test_a_message_only_similar_to_a_mark_is_rejected(other: bytes) -> None:
    batch = Both().decode([LINE, other])
    assert (batch.marks, batch.received, len(batch.rejected)) == (0, 2, 1)


def test_a_batch_of_nothing_but_marks_has_received_nothing() -> None:
    batch = Both().decode([raw(low_ms=number) for number in range(100)])
    assert (batch.marks, batch.received, len(batch.pixels)) == (100, 0, 0)


NAMED_TWICE = (LINE[:-1] + b',"collector":null,"collector":"c1","low_ms":1764000000000}').replace(
    b"e-1", b"e-2"
)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (NAMED_TWICE, "c1"),
        (LINE[:-1] + b',"collector":"\\u0063\\ud83d\\ude00","low_ms":1764000000000}', "c\U0001f600"),
        (raw(), "0123456789abcdef"),
        (raw(collector=None)[:-1] + b',"collector":"c1"}', ""),
    ],
    ids=["twice", "escaped", "mark", "mark twice"],
)
def test_a_collector_is_named_for_people_however_its_word_is_written(told: bytes, name: str) -> None:
    raws = [LINE, told, LINE]
    batch, clock = Both().decode(raws), PartitionClock(0, 0)
    clock.follow(batch.pixels, Messages(raws, range(3), 3, [1_764_000_100_000] * 3), batch.collector_marks)
    assert clock.holds.hold_of[0] == name
    assert len(batch.rejected) == (not name)
