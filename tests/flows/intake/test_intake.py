"""What one source partition reads before it ticks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from connectors.files import FileInput
from flows.intake.decoder import Decoder
from flows.intake.partition import BEFORE_A_TICK, Intake, position_of
from flows.intake.watermark import PartitionClock


@pytest.mark.parametrize(("live", "at_a_tick"), [(True, 10 * BEFORE_A_TICK), (False, 10)])
def test_what_has_piled_up_is_read_before_a_tick(live: bool, at_a_tick: int, tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    log.write_text("{}\n" * 200)
    reader = FileInput([str(log)]).open(str(log), None)
    intake = Intake("log", ("log",), reader, Decoder(b"key"), PartitionClock(0, 0), 1, 10, live)
    first = intake.step(5, 5000).receipt
    assert first is not None
    assert first.received == at_a_tick
    assert intake.step(5, 5100).receipt is None
    second = intake.step(6, 6000).receipt
    assert second is not None
    assert second.received == 10 + at_a_tick
    assert second.tick.position == intake.position


def test_what_is_read_ahead_is_in_no_snapshot(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    log.write_text("{}\n" * 25)

    def opened(position: int | None) -> Intake:
        reader = FileInput([str(log)]).open(str(log), position)
        return Intake("log", ("log",), reader, Decoder(b"key"), PartitionClock(0, 0), 1, 10, live=False)

    intake = opened(None)
    intake.step(5, 5000)
    while intake.reader.position == 10:
        time.sleep(0.001)
    state = intake.snapshot()
    assert position_of(state) == 10
    intake.close()
    again = opened(position_of(state))
    again.restore(state)
    received = 0
    while not again.ended:
        output = again.step(6, 6000)
        received += output.receipt.received if output.receipt else 0
    assert received == 15
    again.close()
