"""Scenes of few histories, after the bursts of a log, each with the settings that it needs.

A scene has its own choices, so that a history without one is the same whatever scenes there are. Time passes
in it as in the bursts; only `outage` has pixels that are not of the last minute, and a low mark holds for
them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from simulation.hostile import LONG_AGO, MESSAGES
from simulation.planning import moves, plans, spoilt
from simulation.stage import HOUR_MS, MINUTE_MS, Stage, convert
from simulation.world import T0_MS

SHARE: Final = 0.3
"""Of the histories, that have a scene at all."""
DENIED: Final = {"listener": "l4", "household": "h4", "client": "k4"}
"""Who is on the deny-list from the beginning, where a history has one."""
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
    # There is one file of plans, and one bound of a hold.
    others = {name for one in (PLANNING, HOLDING) for name in [name for name in found if name in one][1:]}
    return tuple(name for name in found if name not in others)


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
            stage.pass_ms(source.choice((0, 5)))  # at one moment a keyed hash of an event's id decides
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
                convert(stage, **_since_a_new_key(source, home))
        stage.later()


def _since_a_new_key(source: random.Random, home: str | None) -> dict[str, Any]:
    """The identity of a conversion, in some by the edge's new key, which has no touch yet."""
    if source.random() < 0.7:
        return {"household_id": home}
    before = {"listener_id": source.choice((None, "[ID]", f"m{source.randrange(2)}{home}", "m1"))}
    return {
        "household_id": source.choice((None, "new", "h1")),
        "listener_id": source.choice((None, "new", "m2")),
        "previous": source.choice((before, before | {"household_id": home}, {"household_id": home})),
    }


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


def orders(stage: Stage) -> None:
    """Orders from a page's tag and the shop's server, in any order, with one value or two, by listeners and
    others. The server's clock may be slow. In some histories only the server's orders count.
    """
    source = stage.source
    stage.settings["conversions_from"] = source.choice(("browser", "browser", "server"))
    stage.settings["attribution"] = source.choice(("last_touch", "linear"))
    for number in range(6):
        stage.pixel("impression", listener_id=f"m{number % 3}", campaign_id=f"c{number % 2}", play_id=None)
    for _ in stage.some(source.randint(16, 40), source.choice((MINUTE_MS, 20 * MINUTE_MS, 50 * HOUR_MS))):
        number = source.randrange(4)
        if source.random() < 0.2:
            event = source.choice(("impression", "impression", "click"))
            stage.pixel(event, listener_id=f"m{source.randrange(3)}", play_id=None)
        else:
            value = source.choice((f"{number}.5", f"{number}.5", "7", None))
            claimed = True if source.random() < 0.5 else None
            bought = {"type": "purchase", "order_id": f"order-{number}", "value": value, "claimed": claimed}
            bought |= {"currency": source.choice(("GBP", "GBP", "EUR"))}
            stage.pixel(
                "conversion",
                to=stage.partition(f"order-{number}"),
                behind_ms=0 if claimed else source.choice((0, 0, 500, 40_000)),
                placement_id=None if source.random() < 0.9 else "s0",
                campaign_id=("c0", "c1", None)[number % 3],
                listener_id=source.choice(("m0", "m1", "m2", "nobody")),
                conversion={name: one for name, one in bought.items() if one is not None},
                play_id=None,
            )
        stage.later()


INVALID = ("data_centre", "unverified_server", "own_reason", "what?")


def bases(stage: Stage) -> None:
    """Every kind of event and of impression: bases, creatives, podcasts, confirmed starts, no play ids, and
    apps, which have rows in some histories.
    """
    source = stage.source
    stage.settings["app_rows"] = stage.numbers % 2 == 0
    stage.settings["platform_basis"] = {"app": "streamed_full"}
    stage.settings["invalid_agents"] = {"own_reason": "^Monitor"}
    kinds = ("vast_impression", "audible_2s", "streamed_full", "ad_delivered", "download", "nonsense", None)
    for turn in stage.some(source.randint(8, 20), MINUTE_MS):
        more = {
            "creative_id": source.choice(("spot", "jingle", None)),
            "app": ("Overcast", 'an "app":{x}', None, "[APP]")[turn % 4],
            "podcast": source.choice(("pod", None)),
            "program": source.choice(("morning", None)),
            "play_id": f"base-{turn}" if source.random() < 0.6 else None,
            "listener_id": f"m{source.randrange(6)}",
            "invalid_traffic": source.choice((None,) * 6 + INVALID),
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


def clocks(stage: Stage) -> None:
    """Collectors with a wrong clock that is corrected in time or too late, a suspended one, and two processes
    of a copied spool directory, one of them away.
    """
    source, (there, *_) = stage.source, stage.names
    stage.pass_ms(2 * MINUTE_MS)  # nothing of before is ahead of now
    held_ms = stage.now_ms

    def mark(who: str, behind_ms: int = 0, low_ms: int | None = None, **more: Any) -> None:
        told_ms = T0_MS + stage.now_ms - behind_ms
        told = {"collector": who, "low_ms": told_ms if low_ms is None else T0_MS + low_ms, "now_ms": told_ms}
        stage.send_raw(there, json.dumps(told | more).encode())

    def right() -> None:
        """Time passes, in steps that all count; a collector goes on whose clock is right."""
        stage.pass_ms(9_000)
        low_ms = T0_MS + stage.now_ms
        stage.pixel("impression", to=there, collector="right~1", low_ms=low_ms, play_id=None)
        mark("right~1")

    def old(**more: Any) -> None:
        """Send a pixel that counts while time is held, and is late by any lateness five minutes later."""
        stage.numbers += 1
        pixel = {"event": "impression", "placement_id": "s0", "platform": "web"}
        stage.send(there, pixel | more, held_ms - 90_000)

    right()
    who, minutes = source.choice(("wrong", "suspended", "copied")), source.choice((2, 4, 8))
    behind_ms = source.choice((15 * MINUTE_MS, 5 * HOUR_MS, -2 * HOUR_MS))
    match who:
        case "wrong":
            speaks = (
                behind_ms > 0 and source.random() < 0.7
            )  # one that is ahead holds nothing while it speaks
            mark("d~1", behind_ms)
        case "suspended":
            mark("d~1")
            speaks = False
        case "copied":
            mark("d~1")
            mark("d~2")
            speaks = False
    for turn in range(minutes * 60 // 9):
        right()
        if speaks:
            mark("d~1", behind_ms)
        if who == "copied":
            mark("d~2")
        if turn % 6 == 5:
            old(collector="d~1", low_ms=T0_MS + held_ms) if who == "copied" else old()
    if who == "suspended":
        mark("d~1", minutes * MINUTE_MS, held_ms)  # of the clock that stood
    if behind_ms < 0 and who == "wrong":
        mark("d~1", behind_ms, bye=True)  # its clock is right now, and another lane's
    for _ in range(source.randint(1, 50)):
        for name in ("d~2",) if behind_ms < 0 and who == "wrong" else ("d~1", "d~2"):
            mark(name)
        right()
    if stage.now_ms - held_ms > 6 * MINUTE_MS:
        old()
    for name in ("right~1", "d~1", "d~2"):
        mark(name, bye=True)


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
    """Hostile messages; those of one play come to one partition."""
    for _ in range(stage.source.randint(40, 80)):
        stage.numbers += 1
        kind = stage.source.randrange(len(MESSAGES))
        make, to = MESSAGES[kind], stage.names[kind % len(stage.names)]
        if make is LONG_AGO and to not in stage.begun:
            stage.pixel("impression", to=to, play_id=None)
        stage.send_raw(to, make(T0_MS + stage.now_ms, stage.numbers))
        stage.pass_ms(stage.source.randint(1, 400))


CAPS: Final = ("row_cap", "unplanned_rows")
"""Settings by which a name may have no row."""


def many(stage: Stage) -> None:
    """More names than have a row each."""
    stage.settings[stage.source.choice(CAPS)] = 8
    for number in stage.some(24, MINUTE_MS):
        stage.pixel(
            "impression", placement_id=f"many-{number % 12}", campaign_id=f"many-{number % 7}", play_id=None
        )
        stage.later()


def names(stage: Stage) -> None:
    """Many pixels of many names, with every table as small as it can be: all of them grow, and forget."""
    stage.small = True
    for number in stage.some(stage.source.choice((30, 60)), 5 * MINUTE_MS):
        more = {
            "placement_id": f"n{number % 70}",
            "play_id": f"name-{number}",
            "creative_id": f"spot-{number}",
            "listener_id": f"m{number % 6}",
        }
        stage.pixel("impression", **more, household_id=f"h{number % 9}", client_id=f"k{number}")
        stage.pixel("start", **more)
        stage.pixel("download", to=stage.names[0], placement_id="s0", client_id=f"k{number}", episode="e1")
        stage.later()


PLANNING: Final = ("plans", "moves", "spoilt")
HOLDING: Final = ("outage", "clocks")
"""They ask for other bounds of a hold."""
SCENES: Final = {
    of.__name__: of
    for of in (
        *(clients, households, touches, orders, bases, days, outage, clocks, crowd, hostile, many, names),
        plans,
        moves,
        spoilt,
    )
}
WEIGHTS: Final = (
    dict.fromkeys(SCENES, 1.0)
    | dict.fromkeys(("households", "touches", "bases", "hostile"), 1.5)
    | {"orders": 3.0, "crowd": 0.5, "many": 0.4, "names": 0.7, "moves": 0.7, "spoilt": 0.7}
)
