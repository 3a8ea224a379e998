"""The receipt of a partition's first message, from which on the partition is counted."""

from __future__ import annotations

import numpy as np

from connectors.stream import Messages
from flows.intake.holds import CollectorMarks
from flows.model.pixel import POSITION, TS, WATERMARK
from flows.state.arrays import U64


def first_receipt(pixels: U64, messages: Messages, collector_marks: CollectorMarks) -> int:
    """The receipt of the first message with a receipt, in epoch ms; 0 if no message has one.

    The receipt of a pixel is its collector's, bounded by the broker's timestamp; else that timestamp; else
    its caller's clock. The receipt of another message is the broker's timestamp, else its collector's low
    mark.

    Args:
        pixels: of the messages, with unchanged times.
    """
    positions = np.array(messages.positions, np.int64)
    moments = np.maximum(collector_marks.lows, 0)
    if messages.timestamps_ms is not None:
        stamps = np.array(messages.timestamps_ms, np.int64)
        moments = np.where(stamps > 0, stamps, moments)
    received, own = pixels[:, WATERMARK].astype(np.int64), pixels[:, TS].astype(np.int64)
    places = np.searchsorted(positions, pixels[:, POSITION].astype(np.int64))
    moments[places] = np.where(received > 0, received, own)
    timed = np.flatnonzero(moments)
    return int(moments[timed[0]]) if len(timed) else 0
