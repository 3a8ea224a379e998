"""What happens in few histories: scenes behind the bursts of a log, each with the settings that it needs.

A scene has its own choices, so that a history without one is the same whatever scenes there are. Time passes
in it as in the bursts; only `outage` has pixels that are not of the last minute, and a low mark holds for
them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from simulation.hostile import MESSAGES
from simulation.stage import Stage
from simulation.world import T0_MS

SHARE: Final = 0.4
"""Of the histories, that have a scene at all."""
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DENIED: Final = {"listener": "l4", "household": "h4", "client": "k4"}
"""Who is on the deny-list from the beginning, where a history has one."""
PLANNED: Final = ("planned", "planned-later", "planned-never", "planned-past")
LISTENERS: Final = 1_100
"""Of a row in a crowd: more than are counted exactly."""


def perform(stage: Stage, names: Sequence[str]) -> None:
    """Play these scenes in turn."""
    stage.small = stage.source.random() < 0.3
    for name in names:
        stage.pass_ms(stage.source.choice((200, 3_000, 20_000)))
        SCENES[name](stage)


def chosen(source: random.Random) -> tuple[str, ...]:
    """The scenes of a history: none in most, some one behind another in few."""
    if source.random() >= SHARE:
        return ()
    number = source.choice((1, 1, 2))
    found = dict.fromkeys(
        source.choices(tuple(SCENES), tuple(WEIGHTS[name] for name in SCENES))[0] for _ in range(number)
    )
    return tuple(found)


def clients(stage: Stage) -> None:
    """Downloads and deliveries, over some days: repeated, by several clients, with and without a key."""
    source = stage.source
    stage.settings.setdefault("row_ttl", timedelta(hours=source.choice((3, 48))))
    for turn in stage.some(source.randint(8, 20), source.choice((HOUR_MS, 60 * HOUR_MS))):
        event = source.choice(("download", "delivered"))
        named = {
            "client_id": source.choice(("k0", "k0", "k0", "k1", "k4", None)),
            "episode": source.choice(("e1", "e1", None)),
            "podcast": source.choice(("pod", "cast", None)),
            "creative_id": source.choice(("spot", "spot", None)),
            "consent": source.choice((True, True, True, None)),
            "listener_id": None,
            "play_id": None,
        }
        pixel = stage.pixel(event, to=source.choice(stage.names), **named)
        if turn % 4 == 0:
            stage.pass_ms(5)  # at one moment the hash of an event's id decides, which no model knows
            stage.pixel(to=source.choice(stage.names), **pixel | {"placement_id": "s1"})
        stage.later()


def households(stage: Stage) -> None:
    """Ads heard on one device, and bought on another one of the household; one household is an office."""
    source = stage.source
    stage.settings["household_listeners"] = 3
    if source.random() < 0.4:
        stage.settings |= {"touch_listens": 2, "touch_clicks": 1, "touch_listens_in_all": 4}
    for _ in stage.some(source.randint(10, 25), source.choice((2 * MINUTE_MS, 30 * HOUR_MS))):
        home = source.choice(("h0", "h1", "h2", "h4", None))
        match source.random():
            case low if low < 0.6:
                who = f"m{source.randrange(2)}{home}" if source.random() < 0.8 else None
                event = source.choice(("impression", "impression", "click"))
                stage.pixel(event, listener_id=who, household_id=home, play_id=None)
            case low if low < 0.7:
                stage.pixel("impression", listener_id=f"m{source.randrange(9)}", household_id="h1")
            case _:
                convert(stage, household_id=home)
        stage.later()


def convert(stage: Stage, **more: Any) -> None:
    """Somebody buys something."""
    source, number = stage.source, stage.numbers
    bought: dict[str, Any] = {"type": source.choice(("purchase", "site_visit"))}
    if source.random() < 0.7:
        bought["order_id"] = f"s-{number}"
    if source.random() < 0.6:
        value = source.choice(
            (f"{number}.5", number, "1e2", "none", "[PRICE]", "0.0000001", "1e99999", "9" * 20)
        )
        bought |= {"value": value, "currency": source.choice(("GBP", "EUR"))}
    url = source.choice(
        (
            None,
            None,
            "https://shop.example/?utm_content=promo&x=1",
            "https://shop.example/a?utm_content=%70romo#b",
        )
    )
    stage.pixel(
        "conversion",
        **{
            "placement_id": source.choice((None, None, None, "s0")),
            "campaign_id": source.choice((None, "c0", "c1", "c9")),
            "listener_id": source.choice((None, *(f"m{one}" for one in range(6)))),
            "landing_url": url,
            "conversion": bought,
            "play_id": None,
        }
        | more,
    )


def touches(stage: Stage) -> None:
    """Few listeners with many touches, beyond the caps in some histories; conversions by every model."""
    source = stage.source
    models = ("last_touch", "first_touch", "linear", "time_decay")
    stage.settings |= {"attribution": source.choice(models), "utm_placements": {"promo": "s2"}}
    if source.random() < 0.4:
        stage.settings |= {
            "touch_listens": 3,
            "touch_clicks": 2,
            "touch_listens_in_all": 5,
            "touch_clicks_in_all": 3,
        }
    span_ms = source.choice((MINUTE_MS, 20 * MINUTE_MS, 50 * HOUR_MS))
    if span_ms > HOUR_MS and source.random() < 0.5:
        stage.settings |= {"click_window": timedelta(days=1), "listen_window": timedelta(days=1)}
    for turn in stage.some(source.randint(15, 45), span_ms):
        who = f"m{source.randrange(3)}"
        match source.random():
            case low if low < 0.5:
                play = f"touch-{turn}" if source.random() < 0.5 else None
                pixel = stage.pixel("impression", listener_id=who, play_id=play)
                if play and source.random() < 0.5:
                    stage.pass_ms(200)
                    stage.pixel(**pixel | {"event": "start"})
            case low if low < 0.6:
                stage.pixel("start", listener_id=who, play_id=f"touch-{turn}")
            case low if low < 0.8:
                stage.pixel("click", listener_id=who, play_id=None)
            case _:
                convert(stage, listener_id=who)
        stage.later()


def bases(stage: Stage) -> None:
    """Every kind of event and of impression: bases, creatives, podcasts, confirmed starts, no play ids."""
    source = stage.source
    stage.settings["platform_basis"] = {"app": "streamed_full"}
    stage.settings["invalid_agents"] = {"own_reason": "^Monitor"}
    kinds = ("vast_impression", "audible_2s", "streamed_full", "ad_delivered", "download", "nonsense", None)
    for turn in stage.some(source.randint(8, 20), MINUTE_MS):
        more = {
            "creative_id": source.choice(("spot", "jingle", None)),
            "podcast": source.choice(("pod", None)),
            "program": source.choice(("morning", None)),
            "play_id": f"base-{turn}" if source.random() < 0.6 else None,
            "invalid_traffic": source.choice((None,) * 6 + ("data_centre", "own_reason", "what?")),
            "user_agent": source.choice(("Spotify/8.9", "Monitor 1", "Googlebot/2.1", None)),
        }
        events = [
            "impression",
            "start",
            "mute",
            "unmute",
            "pause",
            "resume",
            "firstQuartile",
            "progress",
            "progress",
        ]
        events += ["midpoint", "thirdQuartile", "complete", "skip", "click", "error"]
        source.shuffle(events) if source.random() < 0.3 else None
        event_at = stage.numbers
        for event in events[: source.randint(1, len(events))]:
            pixel = stage.pixel(
                event,
                basis=source.choice(kinds),
                device_confirmed=source.choice((True, None)),
                playhead_ms=source.choice((None, 5, 10, -1, 2**63)) if event == "progress" else None,
                to=stage.partition(str(event_at)),
                **more,
            )
            if event in ("impression", "start") and source.random() < 0.3:
                changed = {
                    "basis": source.choice(kinds),
                    "device_confirmed": True,
                    "placement_id": pixel["placement_id"],
                }
                stage.pixel(event, to=stage.partition(str(event_at)), **more | changed)
        stage.later()


def days(stage: Stage) -> None:
    """Rows that end and come back, over some days; what they had is whole again."""
    source = stage.source
    stage.settings["row_ttl"] = timedelta(minutes=source.choice((5, 30, 180)))
    for _ in range(source.randint(3, 6)):
        stage.pass_ms(source.choice((20 * MINUTE_MS, 5 * HOUR_MS, 26 * HOUR_MS)))
        for _ in stage.some(source.randint(2, 8), MINUTE_MS):
            event = source.choice(("impression", "impression", "start", "click"))
            stage.pixel(
                event,
                play_id=None,
                podcast=source.choice(("pod", None)),
                household_id=source.choice(("h0", None)),
            )
            if source.random() < 0.2:
                convert(stage)
            stage.later()


def outage(stage: Stage) -> None:
    """Collectors that say how far they are: one is away, and brings later what it had kept."""
    source, (there, *_) = stage.source, stage.names
    quiet_s = source.choice((0, 30))

    def heard(who: str, low_ms: int, **more: Any) -> None:
        stage.pixel("impression", to=there, collector=who, low_ms=T0_MS + low_ms, play_id=None, **more)

    def mark(who: str, low_ms: int, **more: Any) -> None:
        stage.send_raw(there, json.dumps({"collector": who, "low_ms": T0_MS + low_ms, **more}).encode())

    for who in ("one", "two", "[MACRO]"):
        heard(who, stage.now_ms - 500)
    mark("three", stage.now_ms - 200)
    low_ms = stage.now_ms
    mark("one", low_ms)
    comes_back = source.random() < 0.6
    if not comes_back:
        stage.settings |= source.choice(({"max_hold": timedelta(minutes=1)}, {"max_state": 3}))
    for _ in stage.some(source.randint(6, 20), source.choice((4, 12)) * MINUTE_MS):
        stage.later()
        heard("two", stage.now_ms - 100) if source.random() < 0.6 else mark(
            "three", stage.now_ms - 1000 * quiet_s
        )
    if comes_back:
        for turn in range(source.randint(1, 6)):
            stage.numbers += 1
            late = {"event": "impression", "placement_id": "s0", "collector": "one", "low_ms": T0_MS + low_ms}
            stage.send(there, late, low_ms + 100 * turn)
    else:
        for _ in range(14):
            stage.pass_ms(10_000)
            heard("two", stage.now_ms - 100)
    for who in ("one", "two", "three"):
        mark(who, stage.now_ms, bye=True)
    mark("nobody", stage.now_ms, bye=True)


def crowd(stage: Stage) -> None:
    """Rows with more listeners than are counted exactly, in one minute and in the next."""
    stage.settings["batch_messages"] = 512
    stage.settings["row_ttl"] = timedelta(minutes=30)
    for some in range(2):
        for number in range(LISTENERS):
            who = f"crowd-{some * 300 + number}"
            stage.pixel(
                "impression",
                to=stage.names[0],
                listener_id=who,
                play_id=None,
                placement_id="crowd",
                campaign_id="c0",
                platform="web",
            )
            if number % 100 == 0:
                stage.pass_ms(100)
        stage.pass_ms(70_000)
    if stage.source.random() < 0.5:
        stage.pass_ms(2 * HOUR_MS)
        stage.pixel("impression", to=stage.names[0], placement_id="crowd", play_id=None)


def hostile(stage: Stage) -> None:
    """Messages that nobody should send."""
    some = [stage.source.choice(MESSAGES) for _ in range(stage.source.randint(40, 80))]
    for message in some:
        stage.numbers += 1
        stage.send_raw(stage.source.choice(stage.names), message(T0_MS + stage.now_ms, stage.numbers))
        stage.pass_ms(stage.source.randint(1, 400))


def many(stage: Stage) -> None:
    """More names than have a row each."""
    stage.settings["row_cap"] = 8
    for number in stage.some(24, MINUTE_MS):
        stage.pixel(
            "impression", placement_id=f"many-{number % 12}", campaign_id=f"many-{number % 7}", play_id=None
        )
        stage.later()


def names(stage: Stage) -> None:
    """Many pixels of many names, with every table as small as it can be: all of them grow, and forget."""
    stage.small = True
    for number in stage.some(stage.source.choice((30, 90)), 5 * MINUTE_MS):
        more = {
            "placement_id": f"n{number % 70}",
            "play_id": f"name-{number}",
            "creative_id": f"spot-{number}",
        }
        stage.pixel("impression", **more, household_id=f"h{number % 9}", client_id=f"k{number}")
        stage.pixel("start", **more)
        stage.pixel("download", to=stage.names[0], placement_id="s0", client_id=f"k{number}", episode="e1")
        stage.later()


def plans(stage: Stage) -> None:
    """Placements with plans: their delivery, and the alerts about it; plans change, and have wrong lines.

    A file that is wrong as a whole leaves an execution that begins without plans, and promises nothing.
    """
    source, now_ms = stage.source, T0_MS + stage.now_ms
    curve = source.choice(("even", "frontloaded", ";".join(str(1 + hour % 3) for hour in range(24))))

    def text(booked: int, cpm: str = "12.5", later_ms: int = 0) -> bytes:
        begin, end = stamp(T0_MS - HOUR_MS), stamp(T0_MS + 20 * HOUR_MS)
        moved = stamp(T0_MS - HOUR_MS + later_ms)
        pause = f"{stamp(T0_MS + 19 * HOUR_MS)}/{stamp(T0_MS + 20 * HOUR_MS - 1000)}"
        lines = [
            "placement_id,booked,start,end,timezone,campaign_id,cpm,currency,target_completion_rate,curve,"
            "pauses,blocked_categories",
            f"planned,{booked},{begin},{end},UTC,c0,{cpm},GBP,0.9,{curve},{pause},IAB26",
            f"planned-later,5,{stamp(now_ms + 10 * MINUTE_MS)},{end},Europe/London,c1,,,,even,,",
            f"planned-never,{1000 + later_ms // HOUR_MS},{moved},{end},,c0,10,GBP,,even,,432;JLBCU7",
            f"planned-past,50,{stamp(T0_MS - 2 * HOUR_MS)},{begin},,,,,,even,,",
        ]
        return "\n".join(lines).encode()

    stage.plans.append((0, text(4)))
    stage.settings["delivery_grace"] = timedelta(minutes=source.choice((1, 15)))
    for _ in stage.some(source.randint(10, 24), source.choice((2 * MINUTE_MS, 3 * HOUR_MS))):
        placement = source.choice(("planned", "planned", "planned-later", "s0"))
        category = source.choice((None, "IAB26", ["IAB26-3", "IAB1"], "JLBCU7"))
        stage.pixel(
            "impression", placement_id=placement, campaign_id=None, play_id=None, content_category=category
        )
        if source.random() < 0.15:
            convert(stage, placement_id="planned")
        stage.later()
    bad = f"\n{placement},x,y,,Mars,,dear,pounds,2,1;2,now/then,?\n,1,{stamp(now_ms)},{stamp(now_ms)},,,,,,,,"
    changes = [text(9), text(40, "8") + b"\nplanned,1", text(5, "9", HOUR_MS) + bad.encode()]
    for change in source.sample(changes, source.randint(0, 3)):
        stage.plans.append((source.randint(5_000, max(6_000, stage.now_ms)), change))
    stage.plans[1:] = sorted(stage.plans[1:])
    stage.plans.append((stage.now_ms, text(6)))


def stamp(at_ms: int) -> str:
    """A time as plans have it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


SCENES: Final = {
    of.__name__: of
    for of in (clients, households, touches, bases, days, outage, crowd, hostile, many, names, plans)
}
WEIGHTS: Final = dict.fromkeys(SCENES, 1.0) | {"crowd": 0.3, "many": 0.4, "names": 0.5}
