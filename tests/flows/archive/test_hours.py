"""Hours of an archive as Parquet: whole, each pixel once, and made again when somebody has left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas
import pytest
from archive_support import CANARY, HOUR_MS, archived, mixed, pixel, send, topic_settings

from connectors.buckets import objects
from connectors.embedded import EmbeddedBroker
from connectors.objects import Directory
from flows.archive.message_lines import Forgetting
from flows.archive.whole_hours import write_hours
from flows.settings import Settings
from flows.state.people import People

Make = Callable[..., Settings]
NOBODY = Forgetting(b"a key of the archive", ())
HOUR_NOW = int(time.time() * 1000) // HOUR_MS * HOUR_MS


def filled(broker: EmbeddedBroker, make: Make, store: Path, partitions: int = 2) -> Settings:
    """Three hours of everything: two are whole."""
    settings = topic_settings(broker, make, partitions=partitions)
    for hour in range(3):
        at = HOUR_NOW + (hour - 2) * HOUR_MS
        values = [mixed(n) for n in range(700)] + [
            pixel(9_000, ts="2026-01-01T00:00:00+02:00", listener_id="a'b", conversion={"value": 1.5})
        ]
        send(settings, [(n % partitions, value, at + n) for n, value in enumerate(values)])
    archived(settings, store)
    return settings


def test_whole_hours_have_each_pixel_once(broker: EmbeddedBroker, settings_of: Make, tmp_path: Path) -> None:
    filled(broker, settings_of, tmp_path / "archive")
    done = write_hours(Directory(tmp_path / "archive"), Directory(tmp_path / "hours"), NOBODY)
    assert len(done.written) == 2, "the hour that goes on is not whole"
    pixels = 3 * 0 + sum(json.loads(mixed(n)).get("event") is not None for n in range(700) if n % 7 != 6) + 1
    assert done.pixels == 2 * pixels
    files = f"{tmp_path}/hours/**/*.parquet"
    assert duckdb.sql(
        f"select count(*), count(distinct (partition, \"offset\")), min(event) from read_parquet('{files}')"
    ).fetchall() == [(2 * pixels, 2 * pixels, "impression")]
    frame = pandas.concat(map(pandas.read_parquet, sorted((tmp_path / "hours").rglob("*.parquet"))))
    assert len(frame) == 2 * pixels
    assert frame["consent"].all()
    one = frame[frame["listener_id"] == "a'b"].iloc[0]
    assert str(one["ts"]) == "2025-12-31 22:00:00"
    assert json.loads(one["conversion"]) == {"value": 1.5}
    said = json.loads(next((tmp_path / "hours").rglob("_hour.json")).read_text())
    assert said["messages"] == 701 == sum(said[name] for name in ("pixels", "marks", "others", "malformed"))
    assert said["malformed"] > 50
    assert said["marks"] > 10
    again = write_hours(Directory(tmp_path / "archive"), Directory(tmp_path / "hours"), NOBODY)
    assert (again.written, again.unchanged) == ([], 2)


def test_a_bucket_has_the_same_hours(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path, s3: str
) -> None:
    filled(broker, settings_of, tmp_path / "archive")
    here, there = Directory(tmp_path / "hours"), objects(s3)
    for onto in (here, there):
        write_hours(Directory(tmp_path / "archive"), onto, NOBODY)
    assert there.names("pixels") == here.names("pixels") != []
    for name in here.names("pixels"):
        assert there.get(name)[0][:4] == here.get(name)[0][:4]


def test_an_hour_is_rewritten_without_forgotten_people(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path
) -> None:
    settings = filled(broker, settings_of, tmp_path / "archive")
    send(settings, [(0, pixel(n, listener_id=CANARY), HOUR_NOW) for n in range(10)])
    other = topic_settings(broker, settings_of)
    send(other, [(n % 2, pixel(n, listener_id=CANARY), HOUR_NOW - HOUR_MS + n) for n in range(50)])
    send(other, [(n % 2, pixel(n), HOUR_NOW + n) for n in range(2)])
    archived(other, tmp_path / "own")
    hours = tmp_path / "hours"
    write_hours(Directory(tmp_path / "own"), Directory(hours), NOBODY)
    (made,) = hours.rglob("*.parquet")
    assert set(pandas.read_parquet(made)["listener_id"]) == {CANARY}
    key = People(b"a key of the archive").listener(CANARY.encode())
    archived(other, tmp_path / "own", lambda: np.array([key], np.uint64))
    done = write_hours(
        Directory(tmp_path / "own"), Directory(hours), Forgetting(b"a key of the archive", [key])
    )
    assert len(done.written) == 1
    frame = pandas.read_parquet(made)
    assert len(frame) == 50
    assert frame["listener_id"].isna().all()
    assert not frame["consent"].any()
    assert CANARY.encode() not in made.read_bytes()


@pytest.mark.parametrize("behind", [False, True])
def test_a_kill_leaves_whole_hours(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path, behind: bool
) -> None:
    from test_writer import Dying, Killed  # type: ignore[import-not-found]

    filled(broker, settings_of, tmp_path / "archive")
    for at in range(1, 5):
        hours = tmp_path / f"hours-{at}"
        with pytest.raises(Killed):
            write_hours(Directory(tmp_path / "archive"), Dying(Directory(hours), at, behind), NOBODY)
        for path in hours.rglob("*.parquet"):
            assert len(pandas.read_parquet(path)) == 601
        write_hours(Directory(tmp_path / "archive"), Directory(hours), NOBODY)
        assert len([*hours.rglob("*.parquet")]) == 2
