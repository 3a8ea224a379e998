"""Lines as the flow and as the oracle read them, which share no code."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from connectors.stream import Messages
from flows.intake.decoder import Decoder
from flows.intake.watermark import PartitionClock
from flows.model.dimensions import NAMES
from flows.model.events import EVENTS
from flows.model.pixel import (
    COMBO,
    CONSENTED,
    INFO,
    INVALID_SHIFT,
    LINKED,
    LISTENER,
    POSITION,
    REASON_BITS,
    TS,
)
from flows.reconcile.decode import Reader
from flows.reconcile.fields import EVENT_NAMES
from flows.reconcile.rules import PODCAST_APPS

SENT = ("delivered", "download")
"""Events that have what their client counts once by, where others have a listener."""


WHOSE = ("impression", "start", "click", "conversion")
"""Events whose listener counts somewhere; of others the flow makes no key."""


def by_the_oracle(log: list[bytes]) -> tuple[list[tuple[Any, ...]], dict[str, int]]:
    """The line, event, time and flags of each pixel, if it has a listener or a key; and the reasons."""
    with TemporaryDirectory() as directory:
        file = Path(directory) / "log.ndjson"
        file.write_bytes(b"".join(line + b"\n" for line in log))
        reader = Reader(False, PODCAST_APPS, listed={})
        found, names = [], dict[int, list[str | None]]()
        for batch in reader.read(0, file):
            names |= {number: of for number, *of, _ in batch.combos}
            columns = batch.pixels
            heard = (columns["listener_1"] != 0) | (columns["listener_2"] != 0)
            keyed = np.isin(columns["pos"], [pos for _, pos, *_ in batch.clients])
            for i in range(len(columns["pos"])):
                flags = (bool(columns[name][i]) for name in ("linked", "consent", "bot"))
                linked, consent, bot = flags
                event = EVENT_NAMES[columns["event"][i]]
                known = bool(keyed[i]) if event in SENT else bool(heard[i]) and consent and event in WHOSE
                found.append(
                    (int(columns["pos"][i]), event, int(columns["t"][i]), linked, consent, bot, known,
                     tuple(names[int(columns["combo"][i])]))
                )  # fmt: skip
        return found, {"marks": reader.marks[0]} | {
            reason: count for (_, reason), count in reader.rejected.items()
        }


def by_the_flow(log: list[bytes]) -> tuple[list[tuple[Any, ...]], dict[str, int]]:
    decoder = Decoder(b"a key of sixteen bytes", names=NAMES)
    batch = decoder.decode(Messages(log, range(1, len(log) + 1), len(log), []))
    reasons = {"marks": batch.marks}
    for _, rejection in batch.rejected:
        reasons[rejection.reason] = reasons.get(rejection.reason, 0) + 1
    PartitionClock(10_000, 60_000).judge(batch.pixels)
    found = []
    for pixel in batch.pixels:
        position = int(pixel[POSITION])
        info = int(pixel[INFO])
        event = EVENTS[info & 0xFF]
        conversion = event == "conversion"
        names = batch.conversions[int(pixel[COMBO])].combo if conversion else batch.combos[int(pixel[COMBO])]
        linked, consent = bool(info & LINKED), bool(info & CONSENTED)
        bot = info >> INVALID_SHIFT & REASON_BITS != 0
        found.append(
            (position, event, int(np.int64(pixel[TS])), linked and not conversion, consent, bot,
             bool(pixel[LISTENER]), tuple(names))
        )  # fmt: skip
    return found, reasons
