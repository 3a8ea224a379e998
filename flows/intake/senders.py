"""Senders of a batch's pixels: the collectors that they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from connectors.stream import Messages
from flows.intake.decoder import Batch
from flows.intake.holds import BYE, MAX_COLLECTORS
from flows.intake.schema import collector_in
from flows.model.pixel import POSITION
from flows.state.arrays import I64, U16, U64
from flows.state.hash_table import find
from flows.state.kernel import lean

_SLOTS: Final = 4 * MAX_COLLECTORS
NO_SENDERS: Final[tuple[Sequence[str], U16]] = ((), np.zeros(0, np.uint16))


@lean
def _number(pixels: U64, positions: I64, collectors: U64, index: U64, first: I64, by: U16) -> int:
    """Write for each pixel the number of its collector plus 1; 0 without one, or beyond `MAX_COLLECTORS`.
    Returns the number of collectors.

    Args:
        pixels: of a part of the messages, in the order of `positions`.
        collectors: (messages,) keyed hashes of ids; 0 if the message names none.
        index: an empty table of two words a row.
        first: (`MAX_COLLECTORS`,) filled with the first message of each collector.
        by: (pixels,) filled.
    """
    pixel = used = 0
    for i in range(len(positions)):
        if pixel == len(pixels):
            break
        if np.int64(pixels[pixel, POSITION]) != positions[i]:
            continue
        number = np.int64(0)
        if collectors[i] != np.uint64(0):
            slot = find(index, collectors[i])
            if index[slot, 0] == np.uint64(0) and used < len(first):
                first[used] = i
                used += 1
                index[slot, 0], index[slot, 1] = collectors[i], np.uint64(used)
            number = np.int64(index[slot, 1])
        by[pixel] = number
        pixel += 1
    return used


class Senders:
    """Names of collectors, by their keyed hashes in batches."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def of(self, batch: Batch, messages: Messages) -> tuple[Sequence[str], U16]:
        """The collectors that pixels name; and for each pixel the number of its collector plus 1, or 0. Both
        are empty if no pixel names a collector.
        """
        collectors = batch.collector_marks.collectors
        if not collectors.any() or not len(batch.pixels):
            return NO_SENDERS
        by, first = np.zeros(len(batch.pixels), np.uint16), np.zeros(MAX_COLLECTORS, np.int64)
        index, positions = np.zeros((_SLOTS, 2), np.uint64), messages.position_array()
        used = _number(batch.pixels, positions, collectors, index, first, by)
        lines = first[:used].tolist()
        return [self._name(int(collectors[line]), messages.values[line]) for line in lines], by

    def byes(self, batch: Batch, messages: Messages) -> list[str]:
        """The collectors, as units of the feed, that have sent a bye."""
        if not batch.marks:
            return []
        bye_lines = np.flatnonzero(
            (batch.collector_marks.lows == BYE) & (batch.collector_marks.collectors != 0)
        ).tolist()
        return [collector_in(messages.values[line]) for line in bye_lines]

    def _name(self, collector: int, value: bytes) -> str:
        if len(self._names) > 2 * MAX_COLLECTORS:
            self._names.clear()
        if collector not in self._names:
            self._names[collector] = collector_in(value)
        return self._names[collector]
