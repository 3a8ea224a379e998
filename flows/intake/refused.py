"""Rejected impressions that name a placement: they are no pixels, but explain a part of the difference from
another party's count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flows.intake.dead_letters import Rejection
from flows.intake.dimension_numbers import DimensionNumbers
from flows.intake.identity import NO_PLAYHEAD, PLAY, identities
from flows.intake.schema import read_ms
from flows.model.day_parts import FAR_MINUTES
from flows.model.events import EVENTS, IMPRESSION, absent
from flows.model.pixel import LINKED, POSITION, REFUSED, WATERMARK
from flows.model.ticks import MINUTE_MS
from flows.state.arrays import U64


def refused(
    rejection: Rejection, position: int, stamp: int, dimensions: DimensionNumbers
) -> list[tuple[int, ...]]:
    """The columns of a rejected impression that names a placement, and has a readable time at most a day
    after the broker's; None for every other message.

    Args:
        stamp: the broker's timestamp, 0 without one.
    """
    event = rejection.fields.get("event", {})
    placement, play = event.get("placement_id"), event.get("play_id")
    if event.get("event") != EVENTS[IMPRESSION] or rejection.field == "placement_id":
        return []
    moment = next(
        (moment_ms for name in ("ts", "received_at") if (moment_ms := read_ms(event.get(name)))), stamp
    )
    if not isinstance(placement, str) or absent(placement) or not moment:
        return []
    if stamp and moment > stamp + FAR_MINUTES * MINUTE_MS:  # its play would stay until then
        return []
    combo = dimensions.number((placement, *(None,) * (dimensions.width - 1)))
    info, key = IMPRESSION | REFUSED, 1
    if isinstance(play, str) and not absent(play) and rejection.field != "play_id":
        text = play.encode()
        block, ends = np.frombuffer(text + bytes(8), np.uint8), np.array([len(text)])
        numbers = np.array([PLAY], np.int64), np.array([NO_PLAYHEAD], np.uint64)
        info |= LINKED
        key = int(identities(block, ends, dimensions.keys[np.array([combo])], *numbers)[0])
    return [(key, 0, moment, 0, position, info, combo, 0)]


def with_refused(pixels: U64, refused: Sequence[tuple[int, ...]], before_ms: int) -> U64:
    """Timed pixels merged with the refused ones. Each refused one has the watermark of the pixel before it,
    since it moves no time.

    Args:
        before_ms: the watermark before the first pixel.
    """
    if not refused:
        return pixels
    rows = np.array(refused, np.uint64)
    places = np.searchsorted(pixels[:, POSITION], rows[:, POSITION])
    rows[:, WATERMARK] = np.append(np.uint64(before_ms), pixels[:, WATERMARK])[places]
    together: U64 = np.insert(pixels, places, rows, axis=0)
    return together
