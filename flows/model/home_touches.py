"""Touches of households: the message from plays to household shards."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from flows.model.dimensions import Dimensions
from flows.state.arrays import I64, U8, U32, U64


class HomeTouches(NamedTuple):
    """Touches of households, by column. `combos` index `names`; `flows.state.home_tags.tags_of` makes
    `tags`.
    """

    names: list[Dimensions]
    listener_hashes: U64
    ts: I64
    kinds: U8
    combos: U32
    tags: U64


NO_HOMES: Final = HomeTouches(
    [],
    np.zeros(0, np.uint64),
    np.zeros(0, np.int64),
    np.zeros(0, np.uint8),
    np.zeros(0, np.uint32),
    np.zeros(0, np.uint64),
)
