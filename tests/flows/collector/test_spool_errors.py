"""A spool whose disk fails once: what rests is given out all the same, and the directory is free again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from connectors.spool import Spool

MIB = 1 << 20


class FailingFile:
    """A file whose reads are counted, and fail at one of them."""

    def __init__(self, file: BinaryIO, disk: FailingDisk) -> None:
        self.file, self.disk = file, disk

    def __enter__(self) -> FailingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def readline(self) -> bytes:
        self.disk.count()
        return self.file.readline()


class FailingDisk:
    """A disk that fails once, at its n-th `open` or read of a segment."""

    def __init__(self, patch: pytest.MonkeyPatch, fails_at: int) -> None:
        self.left = fails_at
        really = Path.open

        def opened(path: Path, *args: Any, **options: Any) -> Any:
            if path.suffix != ".ndjson":
                return really(path, *args, **options)
            self.count()
            return FailingFile(really(path, *args, **options), self)  # type: ignore[arg-type]

        patch.setattr(Path, "open", opened)

    def count(self) -> None:
        self.left -= 1
        if not self.left:
            raise OSError(5, "Input/output error")


def filled(directory: Path) -> Spool:
    """A spool with 0 to 11 in several segments: 4 is acknowledged, 2 and 3 were given back."""
    spool = Spool(directory, MIB, segment_bytes=100)
    for n in range(12):
        spool.append([b'{"n":%d}' % n])
    spool.acknowledge([record.number for record in spool.take(2)])
    records = spool.take(3)
    spool.give_back(records[:2])
    spool.acknowledge([records[2].number])
    return spool


@pytest.mark.parametrize("fails_at", range(1, 20))
@pytest.mark.parametrize("most", [3, 500])
def test_one_failed_read_keeps_the_spools_order_and_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, most: int
) -> None:
    spool, found, failed = filled(tmp_path), list[int](), 0
    assert len(list(tmp_path.glob("*.ndjson"))) > 2
    FailingDisk(monkeypatch, fails_at)
    while True:
        try:
            records = spool.take(most)
        except OSError:
            failed += 1
            continue
        if not records:
            break
        found += [json.loads(record.body)["n"] for record in records]
        spool.acknowledge([record.number for record in records])
    assert failed <= 1
    assert found == [2, 3, *range(5, 12)]
    assert (spool.resting, spool.least, spool.torn) == (0, None, 0)


def test_a_failed_read_marks_no_record_as_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, MIB)
    spool.append([b'{"n":%d}' % n for n in range(6)])
    spool.acknowledge([record.number for record in spool.take(3)])
    spool.close()
    again = Spool(tmp_path, MIB)
    with monkeypatch.context() as patch:
        FailingDisk(patch, 3)  # the second of three records that are read over
        with pytest.raises(OSError, match="Input/output"):
            again.take(500)
    assert [json.loads(record.body)["n"] for record in again.take(500)] == [3, 4, 5]
    assert again.torn == 0
