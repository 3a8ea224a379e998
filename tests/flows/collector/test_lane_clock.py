"""A lane's clock: whatever becomes of the wall clock, the machine and the disk, it never goes back, and it
meets the wall clock or says that it will not in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.collector.clock import (
    AHEAD_MS,
    MOST_AHEAD_MS,
    SPAN_S,
    STANDS_AFTER_MS,
    BrokersClock,
    CollectorClock,
)

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
T0 = 1_795_600_000_000


@pytest.fixture(scope="module", autouse=True)
def quick_disk() -> Iterator[None]:
    """No power is cut here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("connectors.spool.os.fdatasync", lambda _: None)
        patch.setattr("connectors.durable.os.fsync", lambda _: None)
        yield


@dataclass
class Machine:
    """A machine whose wall clock may be set, that may be suspended, and whose disk may take nothing."""

    directory: Path
    wall: int = T0
    monotonic: float = 0.0
    read: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = self._boot()

    def _boot(self) -> CollectorClock:
        return CollectorClock(self.directory / "clock", lambda: self.wall, lambda: self.monotonic)

    def go_on(self, ms: int, kept: bool = True) -> None:
        """Time passes; twice a second the clock is kept, if the disk takes it."""
        for left in range(ms, 0, -500):
            self.wall += min(left, 500)
            self.monotonic += min(left, 500) / 1000
            if kept:
                self.clock.keep()
            self.look()

    def look(self) -> None:
        self.read.append(self.clock.now_ms())

    def start_again(self) -> None:
        self.clock.close()
        self.clock = self._boot()
        self.look()

    def take_another_lane(self) -> None:
        self.clock.close()
        (self.directory / "clock").unlink()
        self.clock, self.read = self._boot(), []


SPANS: Final = st.integers(0, 3 * MINUTE)
STEPS: Final = st.one_of(st.integers(-2 * MINUTE, 2 * MINUTE), st.integers(-3 * HOUR, 3 * HOUR))
HISTORIES: Final = st.lists(
    st.one_of(
        st.tuples(st.just("goes on"), SPANS),
        st.tuples(st.just("without its disk"), st.integers(0, 20 * SECOND)),
        st.tuples(st.just("the wall clock is set"), STEPS),
        st.tuples(st.just("suspended"), st.integers(0, 24 * HOUR)),
        st.tuples(st.just("starts again"), st.just(0)),
    ),
    max_size=12,
)


@given(HISTORIES)
def test_a_clock_never_goes_back_and_meets_the_wall_clock(
    history: list[tuple[str, int]],
) -> None:
    with TemporaryDirectory() as directory:
        machine = Machine(Path(directory))
        for what, ms in history:
            match what:
                case "goes on":
                    machine.go_on(ms)
                case "without its disk":
                    machine.go_on(ms, kept=False)
                case "the wall clock is set":
                    machine.wall += ms
                case "suspended":
                    machine.wall += ms
                case "starts again":
                    machine.start_again()
            machine.look()
            assert machine.clock.now_ms() <= int((Path(directory) / "clock").read_bytes())
        assert machine.read == sorted(machine.read)
        if machine.clock.wrong:
            machine.take_another_lane()
        machine.go_on(2 * MOST_AHEAD_MS + 500)
        assert (machine.clock.offset_ms, machine.clock.wrong, machine.clock.stands) == (0, False, False)
        assert machine.read == sorted(machine.read)
        machine.clock.close()


def test_a_clock_slow_at_boot_follows_the_corrected_wall_clock(tmp_path: Path) -> None:
    machine = Machine(tmp_path, T0 - 15 * MINUTE)
    machine.go_on(5 * SECOND)
    machine.wall += 15 * MINUTE
    assert machine.clock.stands  # what is received now has no time yet
    machine.clock.keep()
    assert machine.clock.now_ms() == machine.wall
    assert not machine.clock.stands


def test_a_suspended_machines_clock_steps_forward(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.go_on(10 * SECOND)
    machine.wall += 20 * MINUTE
    machine.go_on(500)
    assert machine.clock.offset_ms == 0


def test_a_clock_ahead_runs_at_half_speed_until_the_wall_clock(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.go_on(SECOND)
    machine.wall -= MOST_AHEAD_MS
    at_ms = machine.clock.now_ms()
    machine.go_on(MINUTE)
    assert (machine.clock.offset_ms, machine.clock.now_ms()) == (MOST_AHEAD_MS // 2, at_ms + MINUTE // 2)
    machine.go_on(MINUTE)
    assert machine.clock.offset_ms == 0
    assert not machine.clock.wrong


def test_a_clock_too_far_ahead_is_wrong_until_the_wall_clock_nears(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.go_on(SECOND)
    machine.wall -= 2 * HOUR
    assert machine.clock.wrong
    machine.go_on(HOUR)
    assert machine.clock.offset_ms == 2 * HOUR  # it keeps its lead: what was received has it, too
    machine.start_again()
    assert machine.clock.wrong
    machine.wall += 2 * HOUR
    assert not machine.clock.wrong


@pytest.mark.parametrize("reads", [1, 1_000])
def test_readings_between_do_not_slow_it_down(tmp_path: Path, reads: int) -> None:
    machine = Machine(tmp_path)
    machine.wall -= 30 * SECOND
    for _ in range(reads):
        machine.wall += 10 * SECOND // reads
        machine.monotonic += 10 / reads
        machine.look()
        machine.clock.keep()
    assert abs(machine.clock.offset_ms - 25 * SECOND) <= 1


def test_a_clock_shows_only_times_stored_on_disk(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.go_on(4 * SECOND, kept=False)
    assert machine.clock.now_ms() == T0 + AHEAD_MS
    assert machine.clock.offset_ms == AHEAD_MS - 4 * SECOND
    assert not machine.clock.stands
    machine.go_on(AHEAD_MS + STANDS_AFTER_MS, kept=False)
    assert machine.clock.stands
    machine.clock.keep()
    assert not machine.clock.stands
    assert machine.clock.now_ms() == machine.wall


def test_the_brokers_offset_is_the_least_of_recent_reports() -> None:
    now_s = [1_000.0]
    brokers = BrokersClock(lambda: now_s[0])
    assert brokers.ahead_ms is None
    for ahead_ms in (400, 90, 5_000):  # an answer takes time
        brokers.take(ahead_ms)
    assert brokers.ahead_ms == 90
    now_s[0] += SPAN_S
    brokers.take(200)
    assert brokers.ahead_ms == 90
    now_s[0] += SPAN_S
    assert brokers.ahead_ms == 200
    now_s[0] += SPAN_S
    assert brokers.ahead_ms is None
