"""The loop of the exports reports a deferred call while it waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest

from connectors.kafka import Record
from flows.exports.handover import Busy, Handover, Parcel, Refused
from flows.exports.instruments import Instruments


@dataclass
class Answered:
    """A parcel to which the target answers so; what the gauge showed at each try."""

    instruments: Instruments
    answers: list[Exception | None]
    records: Sequence[Record] = (Record("t", 0, 0, 0, b"", b""),)
    shown: list[float | None] = field(default_factory=list)

    def hand_over(self) -> None:
        self.shown.append(waiting(self.instruments))
        if (answer := self.answers.pop(0)) is not None:
            raise answer


def waiting(instruments: Instruments) -> float | None:
    return instruments.registry.get_sample_value("audiopixel_export_waiting", {"export": "e"})


@pytest.mark.parametrize(
    ("last", "reasons"), [(None, []), (Refused("status_400"), ["status_400"])], ids=["taken", "refused"]
)
def test_a_deferred_call_waits_until_it_is_accepted_or_refused(
    last: Exception | None, reasons: list[str]
) -> None:
    instruments = Instruments()
    parts = cast(Any, None)
    loop = Handover("e", parts, parts, parts, instruments, timedelta(days=3), first_wait=timedelta(0))
    parcel = Answered(instruments, [Busy("status_429"), Busy("timeout"), last])
    letters = loop._deliver(cast(Parcel, parcel))
    assert [letter.reason for letter in letters] == reasons
    assert parcel.shown == [None, 1, 1]
    assert waiting(instruments) == 0
