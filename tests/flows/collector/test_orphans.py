"""Spools of old processes: one that cannot be adopted is reported once, tried again, and stops no other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from connectors.spool import KeptNumber, Spool
from flows.collector import serve
from flows.collector.lane import Lane
from flows.collector.log import Log
from flows.collector.serve import Collector
from flows.errors import StateError
from flows.settings import load

MIB = 1 << 20
LOG = cast(Log, None)
"""Nothing is drained here."""


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    """A collector of one seat, with the spools of two processes of before."""
    for number in (3, 4):
        directory = tmp_path / str(number)
        spool = Spool(directory, MIB, stamp=lambda _: 1)
        spool.append([b'{"received_at":1,"_key":"x"}'])
        spool.close()
        (directory / "id").write_text(f"id{number}")
    return Collector(load(collect_spool=tmp_path, kafka_brokers="127.0.0.1:1"), 0, 1)


def taken_up(collector: Collector) -> list[str]:
    return [lane.directory.name for lane in collector._adopted(LOG)]


def close(lane: Lane) -> None:
    lane.spool.close()
    lane.clock.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def fails_at_a_segment(path: Path, patch: pytest.MonkeyPatch) -> None:
    really = Path.open

    def opened(of: Path, *args: Any, **options: Any) -> Any:
        if of.parent == path and of.suffix == ".ndjson":
            raise OSError(24, "Too many open files")
        return really(of, *args, **options)

    patch.setattr(Path, "open", opened)


def fails_at_the_lock(path: Path, patch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(37, "No locks available")

    patch.setattr("fcntl.flock", flock)


def fails_at_the_clock(path: Path, patch: pytest.MonkeyPatch) -> None:
    def keep(*_: object) -> None:
        raise OSError(5, "Input/output error")

    patch.setattr(KeptNumber, "keep", keep)


def fails_at_the_id(path: Path, patch: pytest.MonkeyPatch) -> None:
    really = Path.read_text

    def read_text(of: Path, *args: Any, **options: Any) -> str:
        if of == path / "id":
            raise OSError(24, "Too many open files")
        return really(of, *args, **options)

    patch.setattr(Path, "read_text", read_text)


def fails_at_the_names(path: Path, patch: pytest.MonkeyPatch) -> None:
    def iterdir(_: Path) -> Any:
        raise OSError(24, "Too many open files")

    patch.setattr(Path, "iterdir", iterdir)


@pytest.mark.parametrize(
    "fails",
    [fails_at_a_segment, fails_at_the_lock, fails_at_the_clock, fails_at_the_id, fails_at_the_names],
)
def test_the_next_scan_adopts_a_spool_that_failed_once(
    collector: Collector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    before = descriptors()
    with monkeypatch.context() as patch:
        fails(tmp_path / "3", patch)
        lanes = collector._adopted(LOG)
    for lane in lanes:
        close(lane)
    assert descriptors() == before
    assert taken_up(collector) == ["3", "4"]


@pytest.mark.parametrize(
    ("file", "body"), [("clock", b""), ("cursor", b"x"), ("id", b"\xff"), ("x.ndjson", b"")]
)
def test_a_damaged_directory_is_reported_once_and_stops_no_other(
    collector: Collector, tmp_path: Path, file: str, body: bytes
) -> None:
    (tmp_path / "3" / file).write_bytes(body)
    before = descriptors()
    with capture_logs() as told:
        (lane,) = collector._adopted(LOG)
        close(lane)
        assert descriptors() == before
        assert taken_up(collector) == ["4"]
        assert taken_up(collector) == []
    assert [(one["log_level"], one["directory"]) for one in told] == [("warning", str(tmp_path / "3"))]


def test_a_spool_drained_by_another_process_is_left_silently(collector: Collector, tmp_path: Path) -> None:
    theirs = Spool(tmp_path / "3", MIB)
    with capture_logs() as told:
        assert taken_up(collector) == ["4"]
    assert told == []
    theirs.close()
    assert taken_up(collector) == ["3"]


def test_the_scan_continues_after_a_directory_it_cannot_adopt(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "ORPHANS_EVERY_S", 0.01)
    monkeypatch.setattr(Lane, "start", lambda lane: None)
    clock = tmp_path / "3" / "clock"
    clock.write_bytes(b"")

    async def look() -> list[str]:
        task = asyncio.create_task(collector._keep_orphans(LOG))
        await asyncio.sleep(0.2)
        clock.write_bytes(b"5")
        await asyncio.sleep(0.2)
        task.cancel()
        return [lane.directory.name for lane in collector._orphans]

    assert asyncio.run(look()) == ["4", "3"]


def test_a_directory_with_an_undeletable_id_is_adopted_again(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    async def end() -> None:
        for lane in collector._adopted(LOG):
            with monkeypatch.context() as patch:
                patch.setattr(Path, "unlink", unlink)
                await lane.close(has_ended=True)

    before = descriptors()
    asyncio.run(end())
    assert descriptors() == before
    assert taken_up(collector) == ["3", "4"]


def test_a_seat_whose_directory_is_damaged_still_ends_the_start(collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "3" / "cursor").write_bytes(b"x")
    with pytest.raises(StateError, match="no cursor of a spool"):
        collector._lane(tmp_path / "3", LOG)
