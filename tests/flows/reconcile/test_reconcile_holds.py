"""Low marks: the flow and the oracle, which share no code, let a file's time wait alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from holds_support import BOUND, HOLD, HOUR, KEY, LOGS, QUIET, SECOND, T0, Message
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.redis.client import Client
from connectors.stream import Messages
from flows.cli.reconcile_settings import rules
from flows.intake.decoder import Decoder
from flows.intake.watermark import PartitionClock
from flows.model.pixel import WATERMARK
from flows.reconcile import Rules, recompute
from flows.reconcile.comparison import differences
from flows.reconcile.decode import Reader
from flows.reconcile.holds import NO_TIME
from flows.reconcile.rules import PODCAST_APPS
from flows.replay import replay
from flows.settings.fields import Settings


def lines_of(log: list[Message], received: bool, logged: bool = False) -> list[bytes]:
    lines = []
    for number, one in enumerate(log):
        document = json.loads(one.raw(number, logged))
        if received and one.ts is not None:
            document["received_at"] = one.stamp
        lines.append(json.dumps(document).encode())
    return lines


ALIKE = [Message(T0, None, collector, T0 - HOUR) for collector in "cab"]
ALIKE += [Message(T0, None, "c", T0, bye=True), *[Message(T0, T0)] * 2, Message(T0, None, "b", T0)]
"""Two collectors have one low mark when more pixels have come than a hold may see."""


@example([*ALIKE, Message(T0, T0)], True, False, 1, 1, HOUR)
@given(
    LOGS,
    st.booleans(),
    st.booleans(),
    st.integers(1, 40),
    st.sampled_from([1, 3, 50_000_000]),
    st.sampled_from([HOLD, HOUR]),
)
def test_flow_and_oracle_share_the_watermarks_of_a_file(
    log: list[Message], received: bool, logged: bool, size: int, most: int, hold: int
) -> None:
    lines = lines_of(log, received, logged)
    decoder, ours = Decoder(KEY), list[int]()
    clock = PartitionClock(BOUND, QUIET, max_hold_ms=hold, max_state=most)
    for first in range(0, len(lines), size):
        some = lines[first : first + size]
        messages = Messages(some, range(first, first + len(some)), first + len(some))
        batch = decoder.decode(messages)
        clock.follow(batch.pixels, messages, batch.collector_marks)
        ours += batch.pixels[:, WATERMARK].tolist()
    with TemporaryDirectory() as directory:
        file = Path(directory) / "log.ndjson"
        file.write_bytes(b"".join(line + b"\n" for line in lines))
        reader = Reader(False, PODCAST_APPS, waits=(BOUND, QUIET, hold, most))
        theirs = [of for batch in reader.read(0, file) for of in batch.pixels["greatest"].tolist()]
    assert [0 if of == NO_TIME else of - BOUND for of in theirs] == ours
    if reader.clocks[0].holds.has_collectors:
        assert clock.watermark_ms == reader.clocks[0].watermark_ms


def test_the_oracle_counts_pixels_spooled_for_an_hour(tmp_path: Path) -> None:
    log = [Message(T0 - HOUR, T0 - HOUR, "late", T0 - HOUR), Message(T0, T0, "fresh", T0)]
    log += [Message(T0 + n, T0 - HOUR + n * SECOND, "late", T0 - HOUR + n * SECOND) for n in range(1, 60)]
    for name, low in (("held", True), ("free", False)):
        some = log if low else [Message(one.stamp, one.ts) for one in log]
        (tmp_path / name).write_bytes(b"".join(line + b"\n" for line in lines_of(some, True)))
    held, free = recompute([tmp_path / "held"]), recompute([tmp_path / "free"])
    assert (held.totals["accepted"], held.totals.get("rejected.too_late", 0)) == (61, 0)
    assert free.totals["rejected.too_late"] > 50
    impatient = recompute([tmp_path / "held"], Rules(max_hold=timedelta(milliseconds=10 * SECOND)))
    assert impatient.totals["rejected.too_late"] > 50


def test_a_log_file_with_mark_times_is_judged_like_its_topic(tmp_path: Path) -> None:
    log = [Message(T0 - SECOND, T0 - SECOND, "slow", T0 - HOUR)]
    for n in range(60):
        at = T0 + n * 10 * SECOND
        log += [Message(at, at, "right", at), Message(at, None, "slow", at - HOUR, now=at - HOUR)]
    late = T0 + 60 * 10 * SECOND
    log += [Message(late + n, T0 - HOUR // 2, "slow", late) for n in range(5)]
    stamps = [one.stamp for one in log]
    live = PartitionClock(BOUND, QUIET)
    raws = [one.raw(number) for number, one in enumerate(log)]
    messages = Messages(raws, range(len(raws)), len(raws), stamps)
    batch = Decoder(KEY).decode(messages)
    live.follow(batch.pixels, messages, batch.collector_marks)
    assert batch.pixels[-1, WATERMARK] > T0 - HOUR // 2 + 11 * 60 * SECOND  # the clock held for five minutes
    (tmp_path / "log").write_bytes(b"".join(line + b"\n" for line in lines_of(log, True, logged=True)))
    found = recompute([tmp_path / "log"])
    assert found.totals["rejected.too_late"] == 5
    assert found.watermarks[str(tmp_path / "log")] == live.watermark_ms


@pytest.mark.parametrize(
    ("pixel", "low_ms", "watermark_ms"),
    [
        ("", 4_000_000_000_000, 3_999_999_940_000),
        ('"event_id":"e","event":"start","ts":1,"placement_id":"p",', 10**17, 4_102_444_740_000),
    ],
    ids=["mark", "pixel"],
)
def test_a_low_mark_ahead_of_all_time_is_no_difference(
    pixel: str,
    low_ms: int,
    watermark_ms: int,
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    client: Client,
) -> None:
    log, settings = tmp_path / "log.ndjson", settings_of()
    log.write_text(f'{{{pixel}"collector":"c","low_ms":{low_ms}}}\n')
    replay([str(log)], settings, KEY)
    assert client.hget(f"{settings.namespace}:meta", "watermark_ms") == str(watermark_ms)
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


def test_a_collector_named_twice_in_a_line_ends_no_flow(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    log, settings = tmp_path / "log.ndjson", settings_of()
    lines = [line.decode() for line in lines_of([Message(T0 + n, T0 + n) for n in range(3)], True)]
    lines[1] = lines[1][:-1] + f',"collector":null,"collector":"c1","low_ms":{T0}}}'
    log.write_text("".join(f"{line}\n" for line in lines))
    replay([str(log)], settings, KEY)
    assert client.hget(f"{settings.namespace}:placement:{{p}}", "flight.impressions") == "3"
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


@pytest.mark.parametrize("last", [[], ['{"collector":"A","low_ms":1764001200000,"bye":true}']])
@pytest.mark.parametrize("batch", [1, 5_000])
def test_a_log_ending_with_marks_ends_equally_for_any_batches(
    batch: int, last: list[str], tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    log, settings = tmp_path / "log.ndjson", settings_of(batch_messages=batch)
    pixel = {"event": "impression", "placement_id": "z", "collector": "A"}
    told = [
        json.dumps({"event_id": str(ts), "ts": ts, "received_at": ts, "low_ms": ts, **pixel})
        for ts in (1_763_996_400_000, 1_764_000_000_000)
    ]
    lines = [*told, '{"collector":"A","low_ms":1764000600000}', *last]
    log.write_text("".join(f"{line}\n" for line in lines))
    replay([str(log)], settings, KEY)
    assert client.hget(f"{settings.namespace}:meta", "watermark_ms") == "1764000540000"
    assert client.hget(f"{settings.namespace}:placement:{{z}}", "5m.impressions") == "0"
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []


@pytest.mark.parametrize("apart", [False, True])
def test_an_uncounted_pixel_keeps_a_row_for_its_time(
    apart: bool, tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    def line(ts: int, placement: str, **more: str) -> str:
        return json.dumps(
            {"event_id": str(ts), "event": "impression", "ts": ts, "placement_id": placement, **more}
        )

    week = 6 * 24 * 3_600_000
    monday = [line(T0, "z"), *(line(T0 + minute * 60_000, "q") for minute in range(1, 5))]
    sunday = [
        line(T0 + week, "q"),
        line(T0 + week + 60_000, "z", invalid_traffic="data_centre"),
        line(T0 + week + 120_000, "q"),
    ]
    files = []
    for number, lines in enumerate([monday, sunday] if apart else [monday + sunday]):
        files.append(tmp_path / f"{number}.ndjson")
        files[-1].write_text("".join(f"{one}\n" for one in lines))
    settings = settings_of()
    replay(list(map(str, files)), settings, KEY)
    row = client.hgetall(f"{settings.namespace}:placement:{{z}}")
    assert (row["flight.impressions"], row["flight.invalid_traffic"]) == ("1", "1")
    assert differences(recompute(files, rules(settings)), client, settings.namespace) == []
