"""Both ways in, side by side, and lines for them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.stream import Messages
from flows.intake.decoder import Batch, Decoder
from flows.intake.scanner import AGENTS, NAMES, Desk
from flows.model.dimensions import WITHOUT_APPS, Dimensions
from flows.model.events import CONVERSION
from flows.model.pixel import COLUMNS, COMBO, INFO, POSITION, ConversionPixel
from flows.model.plan import PlanBook

DATA = Path(__file__).parent.parent / "data"
LISTENER_KEY = b"0123456789abcdef"

EVENT = {
    "event_id": "e-1",
    "event": "start",
    "ts": 1_764_000_000_000,
    "received_at": 1_764_000_000_500,
    "placement_id": "pl-1",
    "campaign_id": "c-1",
    "platform": "spotify",
    "play_id": "play-000000001",
    "listener_id": "L1",
    "consent": True,
    "duration_ms": 30_000,
    "user_agent": "Overcast/3.0 (+http://overcast.fm/; iOS podcast app)",
}
LINE = json.dumps(EVENT, separators=(",", ":")).encode()


def named(batch: Batch) -> list[Dimensions | int]:
    """The combinations of the pixels' last column. The scanner may number combinations of names in another
    order.
    """
    kinds, places = batch.pixels[:, INFO] & np.uint64(0xFF), batch.pixels[:, COMBO].tolist()
    return [
        place if kind == CONVERSION else batch.combos[place]
        for kind, place in zip(kinds.tolist(), places, strict=True)
    ]


class Counting(Decoder):
    """Counts the messages that go the plain way, and what the scanner asks for: names, agents."""

    plainly = 0
    asked: tuple[int, ...] = (0, 0)

    def _answer(self, block: bytes, desk: Desk) -> None:
        self.asked = tuple(a + b for a, b in zip(self.asked, desk.filled[NAMES : AGENTS + 1], strict=True))
        super()._answer(block, desk)

    def _pixel(
        self,
        raw: bytes,
        position: int,
        stamp: int,
        conversions: list[ConversionPixel],
        untold: list[tuple[int, int, bytes]],
        said: list[tuple[str, int]],
    ) -> tuple[int, ...]:
        self.plainly += 1
        return super()._pixel(raw, position, stamp, conversions, untold, said)


class Both:
    """Both ways in, side by side; every batch must come out the same."""

    def __init__(
        self, consent_default: bool = False, names: Sequence[str] = WITHOUT_APPS, **more: Any
    ) -> None:
        self.scanning = Counting(LISTENER_KEY, consent_default, names=names, **more)
        self.plain = Decoder(LISTENER_KEY, consent_default, scanning=False, names=names, **more)
        self.received = self.rejected = 0

    def follow(self, plans: PlanBook) -> None:
        self.scanning.follow(plans)
        self.plain.follow(plans)

    @property
    def scanned(self) -> int:
        return self.received - self.scanning.plainly

    def decode(self, values: Sequence[bytes], stamps: list[int] | None = None) -> Batch:
        first = self.received
        self.received += len(values)
        messages = Messages(values, range(first, self.received), self.received, stamps)
        expected, batch = self.plain.decode(messages), self.scanning.decode(messages)
        assert len(batch.pixels) == len(expected.pixels)
        columns = [column for column in range(COLUMNS) if column != COMBO]
        for row in np.flatnonzero((batch.pixels != expected.pixels)[:, columns].any(axis=1))[:1].tolist():
            line = values[int(expected.pixels[row, POSITION]) - first]
            pytest.fail(f"{line!r}: {batch.pixels[row].tolist()}, not {expected.pixels[row].tolist()}")
        assert named(batch) == named(expected)
        assert batch.conversions == expected.conversions
        assert batch.rejected == expected.rejected
        assert batch.collector_marks.collectors.tolist() == expected.collector_marks.collectors.tolist()
        assert batch.collector_marks.lows.tolist() == expected.collector_marks.lows.tolist()
        assert batch.received == expected.received == len(batch.pixels) + len(batch.rejected)
        assert batch.marks == expected.marks == len(values) - batch.received
        self.rejected += len(batch.rejected)
        return batch


def log(name: str) -> list[bytes]:
    with gzip.open(DATA / f"{name}.ndjson.gz") as file:
        return file.read().splitlines()


def parts(lines: list[bytes], size: int) -> Iterator[list[bytes]]:
    for start in range(0, len(lines), size):
        yield lines[start : start + size]
