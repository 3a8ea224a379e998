"""Splits a batch of one source partition into one item for each placement shard."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from flows.intake.decoder import Batch
from flows.model.dimensions import SCOPES
from flows.model.events import CONVERSION
from flows.model.messages import Pixels
from flows.model.pixel import COLUMNS, COMBO, INFO, KEY, ConversionPixel
from flows.state.arrays import I32, I64, U16, U64
from flows.state.homes import Homes
from flows.state.kernel import lean

NO_ONE: Final = np.zeros(0, np.uint16)
NO_PIXELS: Final = np.zeros((0, COLUMNS), np.uint64)


@lean
def _sort(
    pixels: U64, by: U16, shard_of_combo: I64, local: I32, ends: I64, fill: I64, out: U64, out_by: U16,
    used: I32, used_ends: I64,
) -> None:  # fmt: skip
    """A counting sort by shard. The dimensions of each shard are numbered from 0 in the order of appearance.

    `ends` and `used_ends`, (shards + 1,), give the bounds in `out` and in `used`; `local` is -1 for a
    combination without a number; `fill` is working memory in the form of `ends`.
    """
    shards = len(ends) - 1
    for i in range(len(pixels)):
        if pixels[i, INFO] & np.uint64(0xFF) != np.uint64(CONVERSION):
            combo = pixels[i, COMBO]
            shard = shard_of_combo[combo]
            ends[shard + 1] += 1
            if local[combo] == -1:
                local[combo] = used_ends[shard + 1]
                used_ends[shard + 1] += 1
    for shard in range(shards):
        ends[shard + 1] += ends[shard]
        used_ends[shard + 1] += used_ends[shard]
        fill[shard] = ends[shard]
    for i in range(len(pixels)):
        if pixels[i, INFO] & np.uint64(0xFF) != np.uint64(CONVERSION):
            combo = pixels[i, COMBO]
            shard = shard_of_combo[combo]
            to = fill[shard]
            fill[shard] += 1
            for column in range(COLUMNS):
                out[to, column] = pixels[i, column]
            out[to, COMBO] = np.uint64(local[combo])
            if len(by):
                out_by[to] = by[i]
            used[used_ends[shard] + local[combo]] = combo


class Splitter:
    """Splits the batches of one partition, with cached shards of names.

    Args:
        partition: the source partition of the batches.
        shards: their number.
        secret: see `flows.state.homes`.
    """

    def __init__(self, partition: str, shards: int, secret: bytes = b"") -> None:
        self.partition = partition
        self.shards = shards
        self._homes = Homes(secret, shards)
        self._of_combo = np.zeros(0, np.int64)
        self._combos: list[object] = []

    def split(self, batch: Batch, collectors: Sequence[str] = (), by: U16 = NO_ONE) -> list[Pixels]:
        """The pixels of every shard that has some; a conversion goes to the shard of its key.

        Args:
            collectors, by: see `flows.intake.senders`.
        """
        combos = batch.combos
        if self._combos is not combos:  # the decoder started over
            self._combos, self._of_combo = combos, np.zeros(0, np.int64)  # type: ignore[assignment]  # compared, never read
        known_count = len(self._of_combo)
        if known_count < len(combos):
            more = self._homes.shards_of(SCOPES[0], [combo[0] or "" for combo in combos[known_count:]])
            self._of_combo = np.append(self._of_combo, more)
        local = np.full(len(combos), -1, np.int32)
        used = np.zeros(len(combos), np.int32)
        ends, used_ends = np.zeros(self.shards + 1, np.int64), np.zeros(self.shards + 1, np.int64)
        out, out_by = np.empty((len(batch.pixels), COLUMNS), np.uint64), np.empty(len(by), np.uint16)
        fill = np.empty_like(ends)
        _sort(batch.pixels, by, self._of_combo, local, ends, fill, out, out_by, used, used_ends)
        apart = self._conversions(batch) if batch.conversions else {}
        bounds, used_bounds = ends.tolist(), used_ends.tolist()
        own = [used[start:end] for start, end in pairwise(used_bounds)]
        return [
            Pixels(
                self.partition,
                shard,
                out[bounds[shard] : bounds[shard + 1]],
                [*map(combos.__getitem__, own[shard].tolist())],
                *apart.get(shard, ([], NO_PIXELS)),
                collectors=collectors,
                by=out_by[bounds[shard] : bounds[shard + 1]],
                numbers=own[shard],
                numbering=batch.numbering,
            )
            for shard in range(self.shards)
            if bounds[shard] < bounds[shard + 1] or shard in apart
        ]

    def _conversions(self, batch: Batch) -> dict[int, tuple[list[ConversionPixel], U64]]:
        """Conversions and their columns, by the shard of the key."""
        rows = batch.pixels[batch.pixels[:, INFO] & np.uint64(0xFF) == CONVERSION]
        home = (rows[:, KEY] % np.uint64(self.shards)).astype(np.int64)
        order = np.argsort(home, kind="stable")
        rows, home = rows[order], home[order]
        shards, begins = np.unique(home, return_index=True)
        parts = zip(shards.tolist(), np.split(rows, begins[1:]), strict=True)
        return {
            shard: ([batch.conversions[number] for number in part[:, COMBO].tolist()], part)
            for shard, part in parts
        }
