"""The same events in each format give equal rows; `python -m benchmarks.formats` does it with more."""

from __future__ import annotations

from pathlib import Path

from benchmarks.formats import FORMATS, events, run


def test_all_formats_and_a_recomputation_produce_equal_rows(tmp_path: Path) -> None:
    said: list[str] = []
    assert run(5_000, tmp_path, said.append) == []
    assert [line.split()[0] for line in said] == list(FORMATS)
    assert len({line.rpartition(" log ")[2] for line in said}) == 1, "the logs are the same to the byte"
    assert all("rows 66," in line for line in said)


def test_the_events_have_repeats_and_nested_plays() -> None:
    made = list(events(2_000))
    ids = [one["event_id"] for one in made]
    assert len(made) == 2_000
    assert len(ids) - len(set(ids)) >= 15
    plays = [one["play_id"] for one in made]
    assert plays != sorted(plays)
    assert [one["received_at"] for one in made] == sorted({one["received_at"] for one in made})
