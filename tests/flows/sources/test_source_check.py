"""`check` says what messages cannot give, and the flow's rows then lack exactly that."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from collector_support import understanding

from connectors.redis.client import Client
from flows.replay import replay
from flows.settings.fields import Settings
from flows.sources import Pixels
from flows.sources.batch import in_order, pixels_of, write_file
from flows.sources.live import Ledger
from flows.sources.messages import sample_messages
from flows.sources.paths import Message as Read
from flows.sources.report import MAX_EVENTS, Report
from flows.sources.source import Source, parse_source

KEY: Final = b"a key of sixteen bytes or more"
BEGAN_MS: Final = 1_795_600_800_000
LATENESS_MS: Final = 600_000
NAMES: Final = {
    "event": "event",
    "event_id": "id",
    "placement_id": "placement",
    "play_id": "play",
    "ts": "at",
    "received_at": "received",
    "listener_id": "who",
    "consent": "yes",
    "ip": "ip",
    "user_agent": "agent",
}
Message = dict[str, Any]


def messages() -> list[Message]:
    """A hundred plays: impression, start, complete."""
    found = []
    for play in range(100):
        for number, event in enumerate(("impression", "start", "complete")):
            at_ms = BEGAN_MS + play * 60_000 + number * 15_000
            found.append(
                {
                    "id": f"{play}-{event}",
                    "event": event,
                    "placement": "p",
                    "play": f"play-{play}",
                    "at": at_ms,
                    "received": at_ms + 200,
                    "who": f"listener-{play % 40}",
                    "yes": True,
                    "ip": f"81.2.69.{1 + play % 30}",
                    "agent": "VLC/3.0",
                }
            )
    return found


def checked(source: Source, settings: Settings) -> Report:
    report, pixels = Report(source, LATENESS_MS), Pixels(source, understanding())
    for message in sample_messages(source, settings, 10_000):
        report.take(message, pixels.understand(message))
    return report


def without(*names: str) -> Callable[[Message], Message]:
    return lambda message: {name: value for name, value in message.items() if name not in names}


def in_seconds(message: Message) -> Message:
    return message | {"at": message["at"] // 1000}


def late(message: Message) -> Message:
    """Six plays of a hundred come after the flow has closed their minutes."""
    behind_ms = 3_600_000 if int(message["play"].removeprefix("play-")) % 17 == 1 else 0
    return message | {"received": message["received"] + behind_ms}


FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "impressions": ("impressions",),
    "completion rate": ("completion_rate",),
    "reach, frequency": ("reach", "frequency"),
    "reach by household": ("household_reach",),
}
"""Fields of a row, by the metric of `check` that says whether they are there."""
NOTHING: Final = frozenset[str]()
CASES: Final[dict[str, tuple[Callable[[Message], Message], frozenset[str], str]]] = {
    "whole": (without(), NOTHING, "times: numbers by their magnitude"),
    "without consent": (
        without("yes"),
        frozenset(("reach, frequency", "reach by household")),
        "consent is needed, and the call carries no consent string 300",
    ),
    "without play ids": (without("play"), frozenset(("completion rate",)), "pixels: impression 100"),
    "without ids": (
        without("id", "play"),
        frozenset(("completion rate",)),
        "repeats of these events cannot be recognised",
    ),
    "times in seconds": (in_seconds, NOTHING, "of these messages: seconds 300"),
    "late": (late, NOTHING, "allowed are 600 s, which 6.0% exceed"),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_lack_exactly_the_fields_named_by_check(
    case: str, tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    change, absent, words = CASES[case]
    file = tmp_path / "messages.ndjson"
    changed = [change(message) for message in messages()]
    file.write_text("\n".join(map(json.dumps, changed)))
    names = {ours: theirs for ours, theirs in NAMES.items() if theirs in changed[0]}
    mapped = "\n".join(f'{ours} = "{theirs}"' for ours, theirs in names.items())
    source = parse_source(f'files = "{file}"\n[names]\n{mapped}\n', "x", "x")
    settings = settings_of()
    report = checked(source, settings)
    assert report.read == report.pixels == 300, "the last line has no end"
    assert any(words in line for line in report.lines()), list(report.lines())
    said = {one.name for one in report.metrics() if one.name in FIELDS and one.state == "absent"}
    assert said == absent

    lines = pixels_of(source, settings, understanding(), Ledger(), lambda *_: None)
    write_file(in_order(lines, tmp_path), tmp_path / "log.ndjson")
    replay([str(tmp_path / "log.ndjson")], settings, KEY)
    row = client.hgetall(f"{settings.namespace}:placement:{{p}}")
    lacking = {
        metric
        for metric, fields in FIELDS.items()
        if all(row.get(f"flight.{one}", "0") == "0" for one in fields)
    }
    assert lacking == absent
    live = Report(source.model_copy(update={"files": None, "topic": "t"}), LATENESS_MS)
    live.late_ms, live.events = report.late_ms, report.events
    if case == "late":
        (fault,) = live.faults()
        assert fault.startswith("6.0% of these events are too late: 1 % come over")
        assert "over 3,600 s late, and the flow allows 600 s" in fault
        assert row["flight.too_late"] == "18"
    else:
        assert live.faults() == []
        assert row["flight.too_late"] == "0"


def test_messages_sharing_an_id_are_counted() -> None:
    source = parse_source('topic = "t"\nurl = "u"\n', "x", "x")
    report, pixels = Report(source, LATENESS_MS), Pixels(source, understanding())
    for offset in range(100):
        tag = f"https://pixels.example.com/p?e={('start', 'complete')[offset % 2]}&pl=a&cb={offset % 4}"
        message = Read({"u": tag}, offset=offset, timestamp_ms=BEGAN_MS)
        report.take(message, pixels.understand(message, BEGAN_MS))
    assert "repeats: 100 messages share 4 ids, and each id counts once" in list(report.lines())
    by_urls = "repeats of these events are recognised only if the tag's URL has a play or a random number"
    assert any(line.startswith(by_urls) for line in report.lines())
    whole = Report(source, LATENESS_MS)
    whole.take(message, pixels.understand(message, BEGAN_MS))
    assert not any(line.startswith("repeats: ") for line in whole.lines())


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("", 'have no offset: read as UTC (timezone = "Europe/Stockholm" names another zone)'),
        ("Asia/Tokyo", "have no offset: read as Asia/Tokyo"),
    ],
)
def test_times_without_an_offset_are_counted(zone: str, words: str) -> None:
    text = (
        f'files = "x"\ntimezone = "{zone}"\n[names]\nevent = "event"\nplacement_id = "placement"\nts = "at"\n'
    )
    source = parse_source(text, "x", "x")
    report, pixels = Report(source, LATENESS_MS), Pixels(source, understanding())
    for at in ("2026-11-25 10:00:00", "2026-11-25T10:00:00", "2026-11-25T10:00:00Z", "1795600800"):
        message = Read({"event": "start", "placement": "p", "at": at})
        report.take(message, pixels.understand(message))
    assert f"times: 2 {words}" in list(report.lines())


def test_foreign_events_are_named() -> None:
    text = (
        'topic = "t"\nunlisted = "not_ours"\n[names]\nevent = "event"\nplacement_id = "a.slot.id"\n'
        '[values.event]\nad_start = "start"\nad_odd = "bogus"\nad_finish = "complete"\n'
    )
    report = taken(
        text,
        *[{"event": "ad_start", "a": {"slot": {}}}] * 3,
        {"event": "ad_start", "a": {"slot": {"id": "p"}}},
        *[{"event": "song\x1b[2J"}] * 2,
        {"event": "x" * 5_000},
        {"event": "ad_odd", "a": {"slot": {"id": "p"}}},
    )
    lines = list(report.lines())
    assert (
        f"events that are not ours: song\N{REPLACEMENT CHARACTER}[2J 2, {'x' * 63}\N{HORIZONTAL ELLIPSIS} 1"
        in lines
    )
    assert "unknown events: bogus 1" in lines
    assert "placement_id: nothing stands at a.slot.id in 3 messages" in lines
    assert 'values.event: no message has "ad_finish"' in lines


def test_names_of_foreign_events_are_bounded() -> None:
    text = 'topic = "t"\nunlisted = "not_ours"\n[names]\nevent = "event"\n[values.event]\na = "start"\n'
    report = taken(text, *({"event": f"song-{number}"} for number in range(3_000)))
    assert len(report.foreign) == MAX_EVENTS + 1
    (line,) = (one for one in report.lines() if one.startswith("events that are not ours"))
    assert line.startswith("events that are not ours: others 2,000, song-0 1, ")
    assert line.endswith(", 991 more names 991")


def test_a_presets_own_events_may_be_absent() -> None:
    text = 'topic = "t"\npreset = "segment-track"\n[values.event]\n"My Ad" = "start"\n'
    report = taken(text, {"type": "track", "event": "Video Ad Started"})
    assert 'values.event: no message has "My Ad"' in list(report.lines())


def test_an_object_at_consent_is_named() -> None:
    said = {"type": "track", "event": "Video Ad Started", "properties": {"placement_id": "p"}}
    categories = said | {"context": {"consent": {"categoryPreferences": {"Advertising": True}}}}
    report = taken('topic = "t"\npreset = "segment-track"\n', categories, categories, said)
    (line,) = (one for one in report.lines() if "object or a list" in one)
    assert line.startswith("consent: 2 messages have")


def taken(text: str, *documents: Message) -> Report:
    source = parse_source(text, "x", "x")
    report, pixels = Report(source, LATENESS_MS), Pixels(source, understanding())
    for document in documents:
        message = Read(document, timestamp_ms=BEGAN_MS)
        report.take(message, pixels.understand(message, BEGAN_MS))
    return report
