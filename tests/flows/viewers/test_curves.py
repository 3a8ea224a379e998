"""The curves that the exporter keeps in memory: their numbers, and their growth by the samples' own times."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from board_support import put_rows

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect
from flows.viewers import feed
from flows.viewers.curves import POINT_S, History
from flows.viewers.feed import UNSEEN_S, Feed
from flows.viewers.reader import RowsReader

NODE = shutil.which("node")
PAGE = Path(feed.__file__).parent / "static"
READS = """
import {{ all, change, desk, lately }} from "file://{page}/data.js";
const events = {events};
for (const event of events) {{
  const [name, data] = event.split("\\n").map((line) => line.slice(line.indexOf(": ") + 2));
  ({{ all, change }})[name](JSON.parse(data));
}}
const row = desk.rows.placement.get("p"), {{ sampled }} = desk, steps = row.spark.length;
console.log(JSON.stringify({{ whole: lately(row), minute: lately(row, 60), sampled, steps }}));
"""


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@dataclass
class Clock:
    """The clock of an exporter and of the flow, whose placement has an impression per second."""

    url: str
    namespace: str
    now_s: float = 0.0

    def read(self, view: Feed, board: RowsReader, watched: bool) -> str:
        """Have the feed tick over a reading of now."""
        put_rows(self.url, self.namespace, {"p": {"flight.impressions": int(self.now_s)}})
        board.refresh()
        view.tick(watched)
        return view.everything.latest[1].decode()


def read_by_the_page(events: list[str]) -> dict[str, Any]:
    """The page's own reading of events, in Node."""
    if NODE is None:
        pytest.skip("needs node: apt-get install nodejs")
    script = READS.format(page=PAGE, events=json.dumps(events))
    done = subprocess.run([NODE, "--input-type=module", "-e", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("opened", [False, True], ids=["as it is opened", "ten minutes later"])
@pytest.mark.parametrize("every_s", [POINT_S, 11.2, 15.0, UNSEEN_S, 3_600.0])
def test_ten_minutes_are_ten_minutes_however_far_apart_the_samples_lie(
    valkey: EmbeddedValkey, every_s: float, opened: bool
) -> None:
    """Without viewers, samples are those of scrapes or 30 s apart; after an outage they are as long apart as
    it was.
    """
    clock = Clock(valkey.url, f"every-{every_s}-{opened}")
    board = RowsReader(
        connect(valkey.url), clock.namespace, feed.FIELDS, interval=timedelta(0), clock_s=lambda: clock.now_s
    )
    view = Feed(board)
    while clock.now_s <= 5_000:
        clock.now_s += every_s
        clock.read(view, board, watched=False)
    events = [view.whole()[1].decode()]
    for _ in range(70 if opened else 0):
        clock.now_s += 10.5
        events.append(clock.read(view, board, watched=True))
    told = read_by_the_page(events)
    assert told["whole"] == pytest.approx(600, abs=1)
    assert told["minute"] == pytest.approx(60, abs=1)
    assert told["steps"] <= len(told["sampled"]) - 1 <= 60


def test_an_open_page_gets_remaining_samples_after_a_clock_setback(
    valkey: EmbeddedValkey,
) -> None:
    clock = Clock(valkey.url, "back")
    board = RowsReader(
        connect(valkey.url), clock.namespace, feed.FIELDS, interval=timedelta(0), clock_s=lambda: clock.now_s
    )
    view = Feed(board)
    for _ in range(100):
        clock.now_s += POINT_S
        clock.read(view, board, watched=False)
    clock.now_s -= 205
    assert clock.read(view, board, watched=True) == "", "no change: the whole is sent"
    events = [view.whole()[1].decode()]
    clock.now_s += 7
    events.append(clock.read(view, board, watched=True))
    told = read_by_the_page(events)
    assert told["sampled"] == [*range(190, 791, 10), 802][1:]
    assert told["whole"] == 600


def test_curve_and_pane_show_the_same_expected_impressions() -> None:
    history = History()
    history.add(0.0, {"p": {"delivery.delivered": "33333335", "delivery.expected": "33333335.25"}})
    assert history.curve("p") == {"at_s": [0.0], "impressions": [33_333_335.0], "expected": [33_333_335.25]}
