"""A source partition's reads before its tick."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from connectors.files import FileInput, FileReader
from connectors.stream import EndOfInput, Messages
from flows.intake.decoder import Decoder
from flows.intake.partition import BEFORE_A_TICK, BEHIND_MS, MAX_SKIPPED, Intake, position_of
from flows.intake.watermark import PartitionClock
from flows.model.pixel import LISTENER
from flows.settings.fields import UNWATCHED
from flows.state.people import People


@pytest.mark.parametrize(
    ("live", "ahead", "at_a_tick", "later"),
    [(True, False, 40, 40), (True, True, 40, 50), (False, False, 10, 10), (False, True, 10, 10)],
)
def test_a_backlog_is_read_before_a_tick(
    live: bool, ahead: bool, at_a_tick: int, later: int, tmp_path: Path
) -> None:
    log = tmp_path / "log.ndjson"
    log.write_text("{}\n" * 200)
    reader = FileInput([str(log)]).open(str(log), None)
    intake = Intake("log", ("log",), reader, Decoder(b"key"), PartitionClock(0, 0), 1, 10, live, ahead=ahead)
    first = intake.step(5, 5000).receipt
    assert first is not None
    assert first.received == at_a_tick
    assert intake.step(5, 5100).receipt is None
    second = intake.step(6, 6000).receipt
    assert second is not None
    assert second.received == 10 + later
    assert second.tick.position == intake.position


def test_prefetched_messages_are_in_no_snapshot(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("ahead", [False, True])
def test_a_snapshot_follows_a_transactions_end_without_prefetched_messages(
    ahead: bool, tmp_path: Path
) -> None:
    """A transaction's end has an offset and may be all that is left of a log, but counts as no loss."""

    class Transactional(FileReader):
        @property
        def position(self) -> int:
            return super().position + self.caught_up

        def read(self, limit: int) -> Messages | None:  # type: ignore[override]
            try:
                return super().read(limit)
            except EndOfInput:
                self.caught_up = True
                return None

    log = tmp_path / "log.ndjson"
    log.write_text("{}\n" * 25)
    reader, clock = Transactional(str(log), 0, 1 << 10), PartitionClock(0, 0)
    intake = Intake("log", ("log",), reader, Decoder(b"key"), clock, 1, 10, live=True, ahead=ahead)
    shown = []
    for number in range(1, 5):
        receipt = intake.step(number, 1_000 * number).receipt
        assert receipt is not None
        shown.append((receipt.tick.position, position_of(intake.snapshot())))
    intake.close()
    assert shown[-1] == (26, 26)
    assert set(shown) <= {(25, 25), (26, 26)}


def test_prefetched_messages_are_decoded_with_the_newest_deny_list(tmp_path: Path) -> None:
    line: dict[str, object] = {
        "event_id": "e",
        "event": "download",
        "ts": 1,
        "placement_id": "p",
        "client_id": "who",
    }
    line |= {"consent": True, "episode": "one"}
    log = tmp_path / "log.ndjson"
    log.write_text("".join(json.dumps(line | {"event_id": f"e{n}"}) + "\n" for n in range(20)))
    columns = []
    for ahead in (False, True):
        reader = FileInput([str(log)]).open(str(log), None)
        decoder = Decoder(b"key")
        intake = Intake("log", ("log",), reader, decoder, PartitionClock(0, 0), 1, 10, False, ahead=ahead)
        before = intake.step(5, 5000).pixels
        intake.deny(np.array([People(decoder.listener_key).listener(b"who")], np.uint64))
        after = intake.step(5, 5000).pixels
        intake.close()
        assert not np.array_equal(before[0].pixels[:, LISTENER], after[0].pixels[:, LISTENER])
        columns.append(np.concatenate([before[0].pixels, after[0].pixels]))
    assert np.array_equal(*columns)


def test_a_partition_reports_its_sleep_before_reading_on(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    log.write_text("{}\n" * 900)
    reader = FileInput([str(log)]).open(str(log), None)
    intake = Intake("log", ("log",), reader, Decoder(b"key"), PartitionClock(0, 0), 1, 10, True, ahead=False)
    assert intake.step(5, 5000).receipt is not None
    intake.step(6 + MAX_SKIPPED - 1, 5500)
    number = intake.last_tick + MAX_SKIPPED + 1
    position, slept = intake.position, intake.step(number, 9000).receipt
    assert slept is not None
    assert (slept.tick.number, slept.tick.position, slept.received) == (number - 1, position, 0)
    assert slept.tick.holding, "what came meanwhile is not known yet"
    assert intake.full
    again = intake.step(number, 9000).receipt
    assert again is not None
    assert again.tick.number == number


def test_a_partition_is_late_while_all_messages_are_old(tmp_path: Path) -> None:
    log, now_ms = tmp_path / "log.ndjson", 1_800_000_000_000
    line = {"event_id": "e", "event": "impression", "ts": now_ms, "placement_id": "p", "received_at": now_ms}
    log.write_text("".join(json.dumps(line | {"event_id": f"e{n}"}) + "\n" for n in range(100)))
    reader = FileInput([str(log)]).open(str(log), None)
    intake = Intake("log", ("log",), reader, Decoder(b"key"), PartitionClock(0, 0), 1, 10, True, ahead=False)
    old_ms = now_ms + BEHIND_MS + 1
    assert not intake.is_behind(old_ms, 0), "it has no message yet"
    assert len(intake.step(5, old_ms).pixels[0].pixels) == BEFORE_A_TICK * 10
    assert intake.is_behind(old_ms, 0)
    assert not intake.is_behind(old_ms, now_ms + 2), "another partition has new messages"
    assert not intake.is_behind(now_ms + BEHIND_MS, 0)
    assert len(intake.step(6, old_ms).pixels[0].pixels) == 10, "no batch is read twice as long for its tick"
    for number in (10, 14, 17):
        receipt = intake.step(number, old_ms, every=UNWATCHED).receipt
        assert receipt is not None
        assert (receipt.tick.number, receipt.received) == (number, 10)
    intake.reader.caught_up = True
    intake.step(18, old_ms)
    assert not intake.is_behind(old_ms, 0), "all is read"


def test_a_collector_without_a_low_mark_holds_the_flow(tmp_path: Path) -> None:
    class Followed(FileReader):
        """The partition has caught up after the file's last line."""

        def read(self, limit: int) -> Messages | None:
            try:
                return super().read(limit)
            except EndOfInput:
                self.caught_up = True
                return None

        def proven(self) -> bool:
            return self.caught_up

    log = tmp_path / "log.ndjson"
    held = []
    for low_ms, more in ((0, ""), (0, ',"bye":true')):
        log.write_text(f'{{"collector":"c","low_ms":{low_ms}{more}}}\n')
        reader, clock = Followed(str(log), 0, 1 << 10), PartitionClock(10, 60)
        intake = Intake("log", ("log",), reader, Decoder(b"key"), clock, 1, 10, True, ahead=False)
        receipts = [intake.step(number, 1_000 * number).receipt for number in range(1, 5)]
        held.append([one.tick.holding for one in receipts if one is not None])
    assert held == [[True] * 4, [True, False, False, False]]


class Answering(FileReader):
    """Gives nothing out yet, and says that it is read to its end."""

    def read(self, limit: int) -> Messages:
        return Messages([], [], 0)

    def proven(self) -> bool:
        return True


def test_an_answer_to_a_question_of_before_a_sleep_proves_nothing(tmp_path: Path) -> None:
    intake = without_a_pixel(tmp_path)
    holding = []
    for number, now_ms in ((1, 1_000), (2, 2_000), (80, 80_000), (80, 80_000), (81, 81_000), (82, 82_000)):
        if receipt := intake.step(number, now_ms).receipt:
            holding.append((receipt.tick.number, receipt.tick.holding))
    assert holding == [(1, False), (2, False), (79, True), (80, True), (81, False), (82, False)]


def test_an_unread_tick_moves_no_time_past_a_pixelless_partition(
    tmp_path: Path,
) -> None:
    """Messages since the last look may be older than those read by others, and would be too late."""
    intake = without_a_pixel(tmp_path)
    first, last = intake.step(1, 1_000).receipt, intake.stop(2).receipt
    assert first is not None
    assert last is not None
    assert (first.tick.holding, last.tick.last, last.tick.holding) == (False, True, True)


def without_a_pixel(folder: Path) -> Intake:
    """A partition of a broker's in which there has been nothing."""
    log = folder / "log.ndjson"
    log.write_text("{}\n")
    reader = Answering(str(log), 0, 1 << 10)
    return Intake("log", ("log",), reader, Decoder(b"key"), PartitionClock(0, 0), 1, 10, True, ahead=False)
