"""Line ends of a block in one compiled pass. Numpy takes three passes, and two and a half times as long."""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.intake.text_masks import WIDTH, line_feeds
from flows.state.arrays import I64, U8, Int
from flows.state.bits import lowest
from flows.state.kernel import lean

_USUAL_LINE: Final = 128
"""The usual number of bytes of a line; a block of shorter lines gets more room."""


@lean
def _ends(block: U8, place: Int, out: I64, used: Int) -> tuple[Int, Int]:
    """Write the places of LF from `place` on after the first `used` ones. Returns the next place to search,
    and the number of places written. The next place is the end, unless there may be no room for `WIDTH` more
    places.
    """
    while place < len(block) and used + WIDTH <= len(out):
        if place + WIDTH <= len(block):
            feeds = line_feeds(block, place)
            while feeds != np.uint64(0):
                out[used] = place + lowest(feeds)
                used += 1
                feeds &= feeds - np.uint64(1)
            place += WIDTH
        else:
            if block[place] == ord("\n"):
                out[used] = place
                used += 1
            place += 1
    return place, used


def line_ends(block: bytes) -> I64:
    """The place of every LF."""
    places, place, used = np.empty(len(block) // _USUAL_LINE + 2 * WIDTH, np.int64), 0, 0
    text = np.frombuffer(block, np.uint8)
    while True:
        place, used = _ends(text, place, places, used)
        if place == len(block):
            return places[:used]
        places = np.concatenate([places, np.empty_like(places)])
