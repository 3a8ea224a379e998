"""Scenes with plans: their delivery, flights that move, and files with everything wrong that plans can have.

A file is made of lines that are right and of lines that are spoilt on purpose. So each version says by itself
which plans are in it, and which lines and columns the flow has to refuse.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from simulation.delivery import At, PlanFile, planned
from simulation.reading import SCOPES
from simulation.stage import HOUR_MS, MINUTE_MS, PERHAPS, Stage, convert
from simulation.world import T0_MS

Line = dict[str, Any]


def stamp(at_ms: int) -> str:
    """A time as plans have it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


BEGIN_MS, END_MS = T0_MS - HOUR_MS, T0_MS + 20 * HOUR_MS
NEAR_MS: Final = T0_MS - 10 * MINUTE_MS
"""A begin so near to the first message that all of the flight is counted."""
FLIGHT: Final = {"start": stamp(BEGIN_MS), "end": stamp(END_MS)}
PAUSE: Final = f"{stamp(END_MS - HOUR_MS)}/{stamp(END_MS - 1000)}"
_UNLISTED: Final = ("placement", "campaign", "app")
LABELS: Final = {field: f"{scope}s" for scope, field in SCOPES.items() if scope not in _UNLISTED}
"""A pixel's field to the column that lists names of it."""
COLUMNS: Final = (
    *("placement_id", "booked", "start", "end", "timezone", "campaign_id", "advertiser", "cpm", "currency"),
    *("target_completion_rate", "tolerance", "curve", "pauses", "blocked_categories"),
    *LABELS.values(),
    *("delivered_before", "delivered_before_until", "delivered_before_source"),
)
FULL: Final[Line] = FLIGHT | {
    "booked": "9",
    "timezone": "Europe/London",
    "campaign_id": "c1",
    "advertiser": "ours",
    "cpm": "7.25",
    "currency": "EUR",
    "target_completion_rate": "0.8",
    "tolerance": "0.1",
    "curve": ";".join(["1.5", *["1"] * 23]),
    "pauses": PAUSE,
    "blocked_categories": "IAB26;432",
    "platforms": "web",
    "stations": "two; some;two",
    "podcasts": "cast",
    "programs": "morning",
    "creatives": "jingle",
    "delivered_before": "2",
    "delivered_before_until": stamp(T0_MS),
    "delivered_before_source": "theirs",
}
"""A line that says all that a plan may say."""
NEVER: Final = ";".join(str(int(hour == 12)) for hour in range(24))
"""Weight in an hour of day that no flight of `FULL` has."""
WRONG: Final[tuple[tuple[str, Any], ...]] = (
    *(("placement_id", one) for one in ("", "x" * 129, "[PLACEMENT]")),
    *(("booked", one) for one in ("", "0", "-1", "1.5", "x", "9" * 14)),
    *(
        ("start", one)
        for one in ("soon", "2026-09-21", "2026-03-29T01:30", "2026-10-25T01:30", "2199-01-01T00:00Z")
    ),
    *(("end", one) for one in ("", FLIGHT["start"])),
    *(("timezone", one) for one in ("", "Mars", "Europe")),
    *(("campaign_id", "x" * 129), ("advertiser", "[WHO]")),
    *(("cpm", one) for one in ("dear", "1e3", "1.1234567", "9" * 14)),
    *(("currency", one) for one in ("", "pounds", "gbp")),
    *(("target_completion_rate", "1.1"), ("tolerance", "x")),
    *(("curve", one) for one in ("late", "1;2", ";".join("0" * 24), NEVER)),
    *(("pauses", one) for one in ("now/then", "lunch", f"{FLIGHT['end']}/{FLIGHT['start']}")),
    *(
        ("pauses", one)
        for one in ("2026-01-01T00:00Z/2026-01-02T00:00Z", f"{FLIGHT['start']}/{FLIGHT['end']}")
    ),
    ("blocked_categories", "?"),
    *(("stations", one) for one in ("one;;two", "one;", "x" * 129, "one;[STATION]")),
    *((name, "-1") for name in ("platforms", "podcasts", "programs", "creatives")),
    *(("delivered_before", one) for one in ("", "-1", "some")),
    *(("delivered_before_until", one) for one in ("", "soon", stamp(BEGIN_MS), stamp(END_MS + 1000))),
    ("delivered_before_source", "x" * 129),
)
"""Values of a column, of which each spoils a line that is `FULL` else."""
WRONG_JSON: Final[tuple[tuple[str, Any], ...]] = (
    *(("booked", one) for one in (True, 1.5, [1])),
    *(("start", 5), ("timezone", 5), ("campaign_id", 5), ("advertiser", "\ud800"), ("currency", 5)),
    *(("cpm", one) for one in (1e-30, False, -1)),
    *(("curve", one) for one in (5, [1] * 23, ["x"] * 24)),
    *(("pauses", one) for one in (5, [["lunch"]], [[1, 2]])),
    ("blocked_categories", 5),
    *(("creatives", one) for one in (5, [5], {"spot": 1}, ["\ud800"])),
)


def table(lines: Sequence[Line]) -> bytes:
    """Lines as CSV; the first one is line 2."""
    names = list(dict.fromkeys([*COLUMNS, *(name for line in lines for name in line)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()


def objects(lines: Sequence[Line]) -> bytes:
    """Lines as a list of JSON objects, with what JSON has for numbers and lists; the first one is line 2."""
    told = [
        {
            name: NATIVE.get(name, str)(value) if isinstance(value, str) else value
            for name, value in line.items()
        }
        for line in lines
    ]
    return ("[\n" + ",\n".join(map(json.dumps, told)) + "\n]\n").encode()


def _native(value: str, split: str, make: Any) -> Any:
    """A text that lists something as a list; other texts, also those that are wrong, as they are."""
    return [make(one) for one in value.split(split)] if split in value else value


def _number(value: str) -> Any:
    return json.loads(value) if value.replace(".", "", 1).isdigit() and len(value) < 6 else value


NATIVE: Final[Mapping[str, Callable[[str], Any]]] = {
    "booked": _number,
    "cpm": _number,
    "delivered_before": _number,
    "tolerance": _number,
    "curve": lambda value: _native(value, ";", _number),
    "pauses": lambda value: [value.split("/")] if "/" in value else value,
    **dict.fromkeys(("blocked_categories", *LABELS.values()), lambda value: _native(value, ";", str)),
}


def version(
    at_ms: int,
    lines: Sequence[Line],
    wrong: Sequence[Line] = (),
    refused: Sequence[At] = (),
    *,
    form: Any = table,
) -> PlanFile:
    """A version of a readable file: valid lines, then wrong ones."""
    plans = {line["placement_id"]: planned(line) for line in lines}
    told = {name: ";".join(line.get(of, "") for line in lines) for name, of in LABELS.items()}
    listed = {name: frozenset(map(str.strip, of.split(";"))) - {""} for name, of in told.items()}
    return PlanFile(at_ms, form([*lines, *wrong]), plans, frozenset(refused), listed=listed)


def _balances(now_ms: int) -> tuple[Line, ...]:
    """Opening balances: of nothing, up to before the first message, to a minute of now, or within one. A
    flight that has ended has its balance up to its last minute, since a later one is refused.
    """
    minute_ms = min(now_ms, END_MS - MINUTE_MS) // MINUTE_MS * MINUTE_MS
    before: Line = {"delivered_before": "3", "delivered_before_source": "theirs"}
    return (
        {},
        {"delivered_before": "0"},
        before | {"delivered_before_until": stamp(T0_MS)},
        before | {"delivered_before_until": stamp(minute_ms)},
        before | {"delivered_before_until": stamp(minute_ms + 7_000)},
    )


def plans(stage: Stage) -> None:
    """Placements with plans, their delivery, and the alerts about it. Plans change and have wrong lines. In
    some histories labels count only if a plan lists them, and plans of one station change their lists.
    """
    source, now_ms = stage.source, T0_MS + stage.now_ms
    curve = source.choice(("even", "frontloaded", ";".join(str(1 + hour % 3) for hour in range(24))))
    begin_ms = BEGIN_MS if stage.now_ms % 3 == 0 else NEAR_MS
    flight = FLIGHT | {"start": stamp(begin_ms)}
    balance = _balances(now_ms)[stage.now_ms % 5]

    def lines(booked: int, cpm: str = "12.5", later_ms: int = 0) -> list[Line]:
        first = {"placement_id": "planned", "booked": str(booked), "timezone": "UTC", "campaign_id": "c0"}
        first |= {"cpm": cpm, "currency": "GBP", "target_completion_rate": "0.9", "curve": curve} | balance
        later = {"placement_id": "planned-later", "booked": "5", "start": stamp(now_ms + 10 * MINUTE_MS)}
        never = {"placement_id": "planned-never", "booked": str(1000 + later_ms // HOUR_MS)}
        never |= {"start": stamp(begin_ms + later_ms), "campaign_id": "c0", "cpm": "10", "currency": "GBP"}
        past = {"placement_id": "planned-past", "booked": "50", "start": stamp(BEGIN_MS - HOUR_MS)}
        lists = [{"platforms": "web", "podcasts": "pod"}, {"stations": "one", "creatives": "spot;one"}]
        if booked % 2:
            lists[1]["stations"] += f"; {PERHAPS}"
            lists.reverse()
        first, never = first | lists[0], never | lists[1]
        return [
            flight | first | {"pauses": PAUSE, "blocked_categories": "IAB26"},
            FLIGHT
            | later
            | {"end": stamp(max(END_MS, now_ms + HOUR_MS)), "timezone": "Europe/London", "campaign_id": "c1"},
            FLIGHT | never | {"blocked_categories": "432;JLBCU7"},
            past | {"end": FLIGHT["start"]},
        ]

    stage.plans.append(version(0, lines(4)))
    labels = ("any", "planned")[stage.now_ms % 2]
    stage.settings["labels"] = labels
    stations = ("one", PERHAPS if labels == "planned" else "two", None)
    stage.settings["delivery_grace"] = timedelta(minutes=source.choice((1, 15)))
    for _ in stage.some(source.randint(10, 24), source.choice((2 * MINUTE_MS, 3 * HOUR_MS))):
        placement = source.choice(("planned", "planned", "planned-later", "s0"))
        category = source.choice((None, "IAB26", ["IAB26-3", "IAB1"], "JLBCU7"))
        known: Line = {"placement_id": placement, "content_category": category}
        known |= {"campaign_id": None, "play_id": None, "station": stations[stage.numbers % 3]}
        stage.pixel("impression", **known)
        if source.random() < 0.15:
            convert(stage, placement_id="planned")
        if source.random() < 0.15:
            convert(stage, placement_id=None, landing_url="https://shop.example/?utm_content=planned")
        stage.later()
    again = [{"placement_id": "planned"}]
    changes = [
        (lines(9), [], []),
        (lines(40, "8"), again, [(6, "booked"), (6, "start"), (6, "end")]),
        (lines(5, "9", HOUR_MS), [FULL | {"placement_id": "planned"}], [(6, "placement_id")]),
    ]
    for right, wrong, refused in source.sample(changes, source.randint(0, 3)):
        at_ms = source.randint(5_000, max(6_000, stage.now_ms))
        stage.plans.append(version(at_ms, right, wrong, refused))
    stage.plans.append(version(stage.now_ms, lines(6)))


def moves(stage: Stage) -> None:
    """A placement whose plan comes, moves and goes while it runs. Its flight is recounted each time."""
    source, begun_ms = stage.source, stage.now_ms

    def one(at_ms: int, number: int) -> PlanFile:
        now_ms = T0_MS + begun_ms
        begin_ms = now_ms + source.choice((-20, -5, 3, 10)) * MINUTE_MS + source.choice((0, 30_000))
        end_ms = begin_ms + source.choice((4, 12, 30, 900)) * MINUTE_MS
        line = {"placement_id": "moving", "booked": str(100 + number), "campaign_id": "c0"}
        line |= {"start": stamp(begin_ms), "end": stamp(end_ms)}
        gone = 0 < number < 3 and source.random() < 0.2
        return version(at_ms, [] if gone else [line])

    for turn in stage.some(source.randint(15, 40), source.choice((10, 25)) * MINUTE_MS):
        play = f"moving-{turn}" if source.random() < 0.7 else None
        events = ["impression", "start", "firstQuartile", "skip", "mute", "complete", "click"]
        heard: dict[str, str] = {}  # a play has one listener
        for event in events[: source.randint(1, len(events)) if play else 1]:
            pixel = stage.pixel(event, placement_id="moving", play_id=play, device_confirmed=True, **heard)
            heard = {"listener_id": pixel["listener_id"]}
            stage.pass_ms(200)
        if source.random() < 0.2:
            convert(stage, placement_id="moving", campaign_id="c0")  # else it is its plan's, if there is one
        stage.later()
    times = sorted(source.sample(range(begun_ms, stage.now_ms), source.randint(1, 3)))
    if source.random() < 0.5:
        times[0] = 0
    for number, at_ms in enumerate(times):
        stage.plans.append(one(at_ms, number))
    stage.plans.append(one(stage.now_ms, 3))


def spoilt(stage: Stage) -> None:
    """Files of plans, as CSV or as JSON, with wrong values, wrong as a whole, and gone for a while."""
    source = stage.source
    form = source.choice((table, objects))
    some, number = (WRONG, 12) if form is table else (WRONG + WRONG_JSON, 20)
    right = [FULL | {"placement_id": "full"}, FLIGHT | {"placement_id": "short", "booked": "3"}]

    def lines(number: int) -> list[Line]:
        return [right[0] | {"booked": str(200 + number)}, right[1]]

    stage.plans.append(version(0, lines(0), form=form))
    stage.settings["labels"] = ("any", "planned")[stage.now_ms % 2]
    span_ms = stage.now_ms + 4 * MINUTE_MS
    for at, at_ms in enumerate(sorted(source.sample(range(1_000, span_ms), source.randint(2, 5))), 1):
        if source.random() < 0.5:
            stage.plans.append(source.choice(_wholly(form, lines(at)))._replace(at_ms=at_ms))
        else:
            stage.plans.append(_with_wrong(at_ms, lines(at), source.sample(some, number), form))
    while stage.now_ms < span_ms:
        stage.pixel("impression", placement_id=source.choice(("full", "short")), play_id=None)
        stage.pass_ms(source.randint(1_000, 40_000))
    stage.plans.append(_with_wrong(stage.now_ms, lines(9), source.sample(some, number), form))


def _with_wrong(at_ms: int, lines: Sequence[Line], values: Sequence[tuple[str, Any]], form: Any) -> PlanFile:
    """Right lines, one that says what no plan has, and one for each wrong value."""
    found: list[Line] = [
        FULL | {"placement_id": f"wrong-{place}"} | {name: value}
        for place, (name, value) in enumerate(values)
    ]
    at = len(lines) + 2
    refused: list[At] = [(place, name) for place, (name, _) in enumerate(values, at)]
    found.append(FULL | {"placement_id": "full", "colour": "blue"})
    refused += [(at + len(values), "placement_id"), (2 if form is table else at + len(values), "colour")]
    return version(at_ms, lines, found, refused, form=form)


def _wholly(form: Any, lines: Sequence[Line]) -> list[PlanFile]:
    """Files that cannot be read at all, each with the line at which the flow sees so."""
    text = form(lines)
    head = text[: text.index(b"\n") + 1]
    broken: Mapping[bytes | None, int | None] = {None: None, text + b"\xff": text.count(b"\n") + 1}
    if form is table:
        broken = {**broken, b"": None, b"\n \n": None, head.replace(b"booked,", b""): 1}
        broken = {**broken, head.replace(b"curve", b"cpm"): 1, head + b'"a"b\n': 2}
    else:
        broken = {**broken, b"{}": None, b"": None, text + b"5": None, b"[\n{},\n{]": 3, b"[\n{}\n{}]": 2}
        broken = {**broken, b"[\n" + b"[" * 100_000: 2, b'[\n{"cpm": NaN}]': 2}
    return [PlanFile(0, one, {}, frozenset({(line, None)}), whole=False) for one, line in broken.items()]
