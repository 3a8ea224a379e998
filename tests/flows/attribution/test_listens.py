"""A play is one listen to attribution exactly if `plays` counts it as one, at any distance between its start
and its impression.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.reconcile.replay_files import minute_differences
from flows.replay import replay
from flows.settings.fields import Settings

KEY = b"a key of sixteen bytes or more"
MINUTE, DAY = 60, 86_400
T0 = 1_764_000_000 // DAY * DAY
HORIZON = 30 * MINUTE
LATE, HOLD, LET_GO = "somebody else's", "a low mark", "its end"
"""A pixel that moves the watermark on, and marks of a collector that holds it back."""

Pixel = tuple[str, int]
"""An event of the play, or one of these, and its time in seconds."""

STORIES: dict[str, tuple[int, list[Pixel]]] = {
    "a second within the horizon": (1, [("impression", 0), ("start", HORIZON - 1)]),
    "behind the horizon, and the watermark within it": (1, [("impression", 0), ("start", HORIZON + 9)]),
    "the watermark behind it, too": (2, [("impression", 0), ("start", HORIZON + 11)]),
    "others keep the play": (
        1,
        [("impression", 0), ("pause", 25 * MINUTE), ("resume", 50 * MINUTE), ("start", 75 * MINUTE)],
    ),
    "within the horizon, and the watermark behind it": (
        2,
        [("impression", 0), (LATE, 31 * MINUTE), ("start", 25 * MINUTE)],
    ),
    "the watermark is held": (
        1,
        [(HOLD, 0), ("impression", 0), (LATE, 300 * MINUTE), ("start", 299 * MINUTE), (LET_GO, 300 * MINUTE)],
    ),
    "start first": (1, [("start", 0), ("impression", HORIZON + 9)]),
    "start first, and the watermark behind it": (
        2,
        [("start", 0), (LATE, 31 * MINUTE), ("impression", 25 * MINUTE)],
    ),
    "both again, of which each is near the others": (
        2,
        [
            ("impression", 0),
            ("start", 5),
            (LATE, 31 * MINUTE),
            ("start", 24 * MINUTE),
            ("impression", 22 * MINUTE),
        ],
    ),
    "a start alone between": (
        3,
        [
            ("impression", 0),
            (LATE, 31 * MINUTE),
            ("start", 25 * MINUTE),
            (LATE, 56 * MINUTE),
            ("impression", 50 * MINUTE),
        ],
    ),
}


def log(by: str) -> list[dict[str, Any]]:
    """Stories, each on its own day, with its own listener and placement `a…`, in the order of arrival, and a
    conversion after each. The listener also has a touch of `b…`, so that the share of `a…` shows its number
    of listens.
    """
    lines: list[dict[str, Any]] = []

    def line(event: str, at: int, **fields: Any) -> None:
        number = len(lines)
        lines.append({"event_id": f"e{number}", "event": event, "ts": (T0 + at) * 1000, **fields})

    for day, (_, pixels) in enumerate(STORIES.values()):
        begin, home = day * DAY, {"household_id": f"H{day}", "consent": True}
        who = {"listener_id": f"L{day}"} | home
        line("impression", begin - 1, placement_id=f"b{day}", **who)
        for event, at in pixels:
            if event in (HOLD, LET_GO):
                mark = {"collector": f"c{day}", "low_ms": (T0 + begin + at) * 1000}
                lines.append(mark | {"bye": True} if event == LET_GO else mark)
            elif event == LATE:
                line("error", begin + at, placement_id="late")
            else:
                line(event, begin + at, placement_id=f"a{day}", play_id="p", **who)
        bought = {"type": "purchase", "order_id": f"o{day}"}
        line("conversion", begin + DAY // 2, conversion=bought, **who if by == "listener" else home)
    return lines


@pytest.mark.parametrize("by", ["listener", "household"])
@pytest.mark.parametrize("batch", [1, 1000])
def test_a_play_is_one_listen_within_the_play_horizon(
    batch: int, by: str, tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    path = tmp_path / "log.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in log(by)))
    settings = settings_of(
        attribution="linear",
        batch_messages=batch,
        flush_interval=timedelta(milliseconds=20),
        row_ttl=timedelta(days=62),  # no row ends
    )
    replay([str(path)], settings, KEY, out=tmp_path / "out")
    decided = map(json.loads, (tmp_path / "out" / "credits.ndjson").read_text().splitlines())
    found = {one["order_id"]: one for one in decided}
    assert {one["joined_by"] for one in found.values()} == {by}
    assert {
        story: sum(credit["placement_id"] == f"a{day}" for credit in found[f"o{day}"]["credits"])
        for day, story in enumerate(STORIES)
    } == {story: listens for story, (listens, _) in STORIES.items()}
    truth = recompute([path], rules(settings))
    assert differences(truth, client, settings.namespace) == []
    assert minute_differences(truth, tmp_path / "out" / "minutes.ndjson") == []


def some_log(seed: int) -> list[dict[str, Any]]:
    """Few plays of few listeners over a day, of which the same ids come again and again, up to the allowed
    lateness behind; and conversions of listeners and of their households.
    """
    rng = random.Random(seed)
    lines: list[dict[str, Any]] = []
    now = T0
    for number in range(700):
        now += rng.choice([0, 1, 5, 20, 60, 120, 300, rng.randrange(900)])
        at = now - rng.choice([0, 0, 1, 9, 30, 120, 400, 600])
        line: dict[str, Any] = {"event_id": f"e{number}", "ts": at * 1000, "consent": rng.random() < 0.95}
        who = rng.randrange(3)
        if rng.random() < 0.15:
            bought = {"type": "purchase", "order_id": f"o{number}", "value": "1.00", "currency": "GBP"}
            line |= {"event": "conversion", "conversion": bought, "household_id": f"H{who // 2}"}
            line |= {"listener_id": f"L{who}"} if rng.random() < 0.5 else {}
        else:
            place = rng.randrange(4)
            event = rng.choice(["impression", "impression", "start", "start", "start", "pause", "complete"])
            who = place % 3 if rng.random() < 0.8 else who
            home = {"household_id": f"H{who // 2}"} if rng.random() < 0.9 else {}
            line |= {"event": event, "placement_id": f"p{place}", "play_id": f"y{rng.randrange(3)}", **home}
            line |= {"listener_id": f"L{who}"} if rng.random() < 0.9 else {}
        lines.append(line | {"campaign_id": rng.choice(["red", "blue"])})
    return lines


@pytest.mark.parametrize("seed", range(4))
def test_listens_match_the_oracle_for_repeated_plays(
    seed: int, tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    path = tmp_path / "log.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in some_log(seed)))
    settings = settings_of(
        attribution="linear",
        horizon=timedelta(minutes=(11, 12, 30)[seed % 3]),
        listen_window=timedelta(days=1),
        click_window=timedelta(days=1),
        touch_listens=10_000,
        flush_interval=timedelta(milliseconds=20),
        batch_messages=23,
        row_ttl=timedelta(days=62),
    )
    replay([str(path)], settings, KEY, out=tmp_path / "out")
    truth = recompute([path], rules(settings))
    assert truth.totals["conversions"] > 80
    assert differences(truth, client, settings.namespace) == []
    assert minute_differences(truth, tmp_path / "out" / "minutes.ndjson") == []
