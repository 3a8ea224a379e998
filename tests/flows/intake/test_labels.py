"""Labels that no plan lists: as absent from their pixels by both ways in, where the settings want it so."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scanner_support import EVENT, LISTENER_KEY, Both, named

from connectors.files import FileInput
from flows.delivery import require_label_plans
from flows.delivery.plan_columns import plan_of
from flows.engine import StopSignal
from flows.errors import PlanError, SettingsError
from flows.instruments import instruments
from flows.intake.decoder import Decoder
from flows.intake.labels import unknown_labels
from flows.intake.partition import Intake
from flows.intake.watermark import PartitionClock
from flows.model.dimensions import LABELS, NAMES
from flows.model.events import absent
from flows.model.pixel import INFO, INVALID_SHIFT, REASON_BITS
from flows.model.plan import NAMED, PlanBook
from flows.pixels import live
from flows.replay import replay
from flows.settings.fields import Settings

T0 = 1_764_000_000_000
PLAN = {"booked": 1000, "start": "2025-11-24T00:00Z", "end": "2025-11-26T00:00Z"}
FIELDS = NAMES[2:7]
BOOKS = [
    [{"platforms": "spotify;web", "stations": "one"}, {"podcasts": "pod", "stations": ["a;b"]}],
    [{"stations": "one;two", "programs": "web"}, {"creatives": "spot;one"}],
    [],
]
NAME = st.sampled_from(
    (None, "", "[NAME]", "-1", "spotify", "web", "one", "two", "a;b", "pod", "spot", "One", "one ", "x" * 128)
)


def book(plans: list[dict[str, Any]]) -> PlanBook:
    return PlanBook(plan_of({"placement_id": f"p{n}", **PLAN, **one}) for n, one in enumerate(plans))


def line(number: int, **fields: Any) -> bytes:
    known = {**EVENT, "event": "impression", "event_id": f"e{number}", "play_id": f"play-{number}", "ts": T0}
    return json.dumps({**known, "received_at": T0 + number, **fields}, separators=(",", ":")).encode()


def further_fields(event: str) -> dict[str, Any]:
    """The further fields that an event needs."""
    return {
        "conversion": {"conversion": {"type": "purchase"}, "play_id": None},
        "download": {"client_id": "k", "play_id": None},
        "escaped": {"event": "start", "x": "\t"},  # the scanner leaves it
        "invalid": {"event": "start", "user_agent": "AdsBot/1.0"},
    }.get(event, {})


PIXEL = st.tuples(
    st.sampled_from(("impression", "conversion", "download", "escaped", "invalid")),
    st.fixed_dictionaries(dict.fromkeys(FIELDS, NAME)),
)


@settings(deadline=None)  # the first example compiles
@given(st.lists(PIXEL, min_size=1, max_size=20), st.integers(0, 40), st.integers(0, 2), st.integers(0, 2))
def test_both_decoders_read_an_unlisted_name_as_absent(
    pixels: list[tuple[str, dict[str, Any]]], change_at: int, first: int, second: int
) -> None:
    both, lists = Both(planned=True, names=NAMES), BOOKS[first]
    both.follow(book(lists))
    for number, (event, labels) in enumerate(pixels * 2):  # the scanner knows them the second time
        if number == change_at:
            lists = BOOKS[second]
            both.follow(book(lists))
        batch = both.decode([line(number, **{"event": event, "app": "x", **labels, **further_fields(event)})])
        known = {
            field: {name for plan in lists for name in _listed(plan.get(column, []))}
            for field, column in zip(FIELDS, NAMED, strict=True)
        }
        taken = tuple(labels[field] if labels[field] in known[field] else None for field in FIELDS)
        (combo,) = [one.combo for one in batch.conversions] or named(batch)
        assert combo == ("pl-1", "c-1", *taken, "x")
        unknown = {
            label: 1
            for label, field in zip(LABELS, FIELDS, strict=True)
            if not absent(labels[field]) and labels[field] not in known[field]
        }
        assert dict(unknown_labels(batch.pixels)) == unknown
        assert (int(batch.pixels[0, INFO]) >> INVALID_SHIFT & REASON_BITS != 0) == (event == "invalid")


def _listed(names: str | list[str]) -> list[str]:
    return names.split(";") if isinstance(names, str) else names


def test_any_label_is_taken_by_default_and_none_is_counted() -> None:
    both = Both()
    both.follow(book(BOOKS[0]))
    batch = both.decode([line(0, station="invented", creative_id="spot")])
    assert named(batch) == [("pl-1", "c-1", "spotify", "invented", None, None, "spot")]
    assert dict(unknown_labels(batch.pixels)) == {}


def test_invented_names_make_no_combination_and_are_counted_once_a_pixel(tmp_path: Path) -> None:
    def counted() -> list[float]:
        told = instruments().unknown_labels
        return [told.labels(partition, label)._value.get() for label in LABELS]

    log, partition = tmp_path / "log.ndjson", "a flood"
    invented = [line(n, station=f"x{n}", program=f"y{n % 7}", x="\t" if n % 3 else "") for n in range(3_000)]
    log.write_bytes(b"\n".join([*invented, line(9, station="one"), line(9, station="-1"), b"{"]) + b"\n")
    decoder = Decoder(LISTENER_KEY, planned=True)
    decoder.follow(book(BOOKS[0]))
    reader = FileInput([str(log)]).open(str(log), None)
    intake = Intake(partition, (partition,), reader, decoder, PartitionClock(0, 0), 1, 500, live=False)
    before, pixels = counted(), 0
    while not intake.ended:
        pixels += sum(len(some.pixels) for some in intake.step(intake.last_tick + 1, 1).pixels)
    intake.close()
    assert pixels == 3_002
    assert len(decoder._dimensions.combos) == 2  # without a station, and with the one that is listed
    assert [now - was for now, was in zip(counted(), before, strict=True)] == [0, 3_000, 0, 3_000, 0]


def test_prefetched_messages_are_read_with_the_newest_plans(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    log.write_bytes(b"".join(line(n, station="two") + b"\n" for n in range(20)))
    decoder = Decoder(LISTENER_KEY, planned=True)
    reader = FileInput([str(log)]).open(str(log), None)
    intake = Intake("log", ("log",), reader, decoder, PartitionClock(0, 0), 1, 10, live=False)
    intake.follow(book(BOOKS[0]))
    stations = []
    for number in (1, 2):
        (some,) = intake.step(number, 1).pixels
        stations.append([combo[3] for combo in some.combos])
        while reader.position == 10:  # the other half is ahead
            time.sleep(0.001)
        intake.follow(book(BOOKS[1]))
    intake.close()
    assert stations == [[None], ["two"]]


class Changing(StopSignal):
    """Never stops a flow; changes a file at its fifth look, and gives the flow the time to see so."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.looks, self.changed_s = 0, 0.0
        super().__init__()

    @property
    def requested(self) -> bool:  # type: ignore[override]  # a field, which the flow only reads
        self.looks += 1
        if self.looks == 5:
            self.path.write_text(self.text)
            self.changed_s = time.monotonic()
        if time.monotonic() < self.changed_s + 3.5:
            time.sleep(0.3)
        return False

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def test_a_name_counts_after_a_running_flow_reads_its_plan(
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    rows_of: Callable[[Settings, str], dict[str, dict[str, str]]],
) -> None:
    log, plans, pixels = tmp_path / "log.ndjson", tmp_path / "plans.csv", 3_000
    log.write_bytes(b"".join(line(n, station="two", podcast="pod") + b"\n" for n in range(pixels)))
    lists = [
        f"placement_id,booked,start,end,{columns}\nq,9,2025-11-24T00:00Z,2025-11-26T00:00Z,{names}\n"
        for columns, names in (("stations,podcasts", "one,pod"), ("podcasts,stations", "pod,one;two"))
    ]
    plans.write_text(lists[0])
    settings = settings_of(plans=plans, labels="planned", batch_messages=50)
    replay([str(log)], settings, LISTENER_KEY, stop=Changing(plans, lists[1]))
    (station,) = rows_of(settings, "station").items()
    counts = {
        scope: int(rows_of(settings, scope)[name]["flight.impressions"])
        for scope, name in (("placement", "pl-1"), ("campaign", "c-1"), ("podcast", "pod"))
    }
    assert counts == {"placement": pixels, "campaign": pixels, "podcast": pixels}
    assert station[0] == "two"
    assert pixels // 2 < int(station[1]["flight.impressions"]) < pixels
    assert rows_of(settings, "placement")["pl-1"]["station"] == "two"


@pytest.mark.parametrize("text", [None, "nothing that is a table"])
def test_a_flow_with_unreadable_plans_does_not_start(
    text: str | None, tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    log, plans = tmp_path / "log.ndjson", tmp_path / "plans.csv"
    log.write_bytes(line(0) + b"\n")
    if text is not None:
        plans.write_text(text)
    with pytest.raises(PlanError, match=r"plans\.csv"):
        replay([str(log)], settings_of(plans=plans, labels="planned"), LISTENER_KEY)
    replay([str(log)], settings_of(plans=plans), LISTENER_KEY)


def test_no_pixel_is_read_before_plans_missing_at_the_start(
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    rows_of: Callable[[Settings, str], dict[str, dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, plans, away = (tmp_path / name for name in ("log.ndjson", "plans.csv", "away.csv"))
    log.write_bytes(b"".join(line(n, station="one") + b"\n" for n in range(100)))
    columns = "placement_id,booked,start,end,stations"
    plans.write_text(f"{columns}\nq,9,2025-11-24T00:00Z,2025-11-26T00:00Z,one\n")

    def hold(settings: Settings) -> None:
        require_label_plans(settings)
        plans.rename(away)
        threading.Timer(1.0, away.rename, [plans]).start()

    monkeypatch.setattr("flows.replay.require_label_plans", hold)
    settings = settings_of(plans=plans, labels="planned")
    replay([str(log)], settings, LISTENER_KEY)
    assert rows_of(settings, "station")["one"]["flight.impressions"] == "100"


def test_planned_labels_without_plans_are_refused(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    log, words = tmp_path / "log.ndjson", "AUDIOPIXEL_LABELS is planned, and AUDIOPIXEL_PLANS is not set"
    log.write_bytes(line(0) + b"\n")
    with pytest.raises(SettingsError, match=words):
        replay([str(log)], settings_of(labels="planned"), LISTENER_KEY)
    with pytest.raises(SettingsError, match=words):
        live(settings_of(labels="planned", listener_key="0123456789abcdef"))
