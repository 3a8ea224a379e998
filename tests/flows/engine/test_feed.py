"""The feed, from a partition's messages to the units of the ledger's watch."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from connectors.stream import Messages
from flows.engine.ledger_step import LedgerLogic
from flows.intake.decoder import Decoder
from flows.intake.partition import Intake
from flows.intake.watermark import PartitionClock
from flows.model.messages import Flush, Impressions, Receipt, Settled, SilentUnit
from flows.model.ticks import Cut
from flows.plays.play_shard import PlayShard
from flows.settings import Settings

T0 = 1_790_000_000_000
LATENESS_MS, HORIZON_MS = 600_000, 1_800_000
KEY = b"sixteen bytes !!"


class Topic:
    """A partition that is read to its end, if it `proves` so."""

    caught_up, errors, skipped, lag, log_id = True, 0, 0, 0, ""
    in_history = False

    def __init__(self) -> None:
        self.position, self.proves, self.now_ms, self._left = 0, True, T0, list[bytes]()

    def put(self, *lines: dict[str, Any]) -> None:
        self._left += [json.dumps(line).encode() for line in lines]

    def read(self, limit: int) -> Messages | None:
        some, self._left = self._left[:limit], self._left[limit:]
        if not some:
            return None
        positions = range(self.position, self.position + len(some))
        self.position += len(some)
        return Messages(some, positions, self.position, [self.now_ms] * len(some))

    def proven(self) -> bool:
        return self.proves

    def commit(self, position: int) -> None:
        pass

    def close(self) -> None:
        pass


class Line:
    """A partition with one placement shard and the ledger; a tick takes half a second."""

    def __init__(self, live: bool = True, **settings: Any) -> None:
        values = {"shards": 1, **settings}
        self.topic = Topic()
        clock = PartitionClock(10_000, 60_000)
        self.intake = Intake("t/0", ("t/0",), self.topic, Decoder(KEY), clock, 1, 500, live, ahead=False)
        self.plays = PlayShard(0, 1, LATENESS_MS, HORIZON_MS, 60 * 86_400_000, secret=KEY)
        self.ledger = LedgerLogic(Settings(**values), None)
        self.now_ms, self.number = T0, 0
        self.units: Counter[str] = Counter()
        self.impressions: Impressions | None = None
        self.receipt: Receipt | None = None

    def tick(self, *lines: dict[str, Any], after_ms: int = 500, held_by: str = "") -> list[SilentUnit]:
        """Read messages, and what the cut says of silent units."""
        self.topic.put(*lines)
        self.now_ms = self.topic.now_ms = self.now_ms + after_ms
        self.number += 1
        output = self.intake.step(self.number, self.now_ms)
        for pixels in output.pixels:
            self.plays.apply(pixels)
        self.receipt = output.receipt
        assert self.receipt is not None
        position = (("t/0", self.receipt.tick.position),)
        cut = Cut(
            self.number, self.receipt.tick.watermark_ms, False, position, self.number == 1, held_by=held_by
        )
        units, impressions = self.plays.feed(self.number % 20 == 0)
        *_, outcomes = self.plays.cut(cut)
        self.units = Counter(dict(units))
        self.impressions = impressions or self.impressions
        settled = Settled(0, cut, outcomes, units, impressions)
        out = [*self.ledger.on_batch([self.receipt])[0], *self.ledger.on_batch([settled])[0]]
        (flush,) = (one for one in out if isinstance(one, Flush))
        assert flush.silent is not None
        return [*flush.silent]


@pytest.fixture(name="line")
def _line() -> Line:
    return Line()


_numbers = iter(range(10**9))


def pixel(**more: Any) -> dict[str, Any]:
    number = next(_numbers)
    return {
        "event_id": f"e{number}",
        "event": "impression",
        "ts": T0,
        "placement_id": "p",
        "play_id": f"play-{number}",
        "platform": "acast",
        **more,
    }


def by(collector: str, **more: Any) -> dict[str, Any]:
    return pixel(**{"collector": collector, "low_ms": T0} | more)


def test_pixels_count_for_their_partition_platform_and_collector(line: Line) -> None:
    line.tick(by("c-1"), by("c-2", platform="other"), by("c-1", event="start"), pixel(platform=None))
    assert line.units == {"sender:c-1": 2, "sender:c-2": 1, "platform:acast": 2, "platform:other": 1}
    gaps = line.ledger._watch.gaps
    assert {*gaps.names} == {*line.units, "partition:t/0"}
    assert gaps.table[gaps.number("partition:t/0"), 3] == 4
    line.tick(by("c-3"))
    assert line.units == {"sender:c-3": 1, "platform:acast": 1}, "each once"


def test_repeated_invalid_and_late_pixels_keep_no_feed_alive(line: Line) -> None:
    once = by("c-1")
    line.tick(once, pixel(ts=T0 + 3_600_000, platform="other", collector="c-2", low_ms=T0))
    line.tick(once, by("c-1", user_agent="a crawler"), by("c-1", event="nonsense"))
    assert line.units == {}
    assert line.ledger._ledger.counts["t/0"]["repeated"] == 1
    assert line.ledger._ledger.counts["t/0"]["invalid_traffic"] == 1


def named(found: Impressions) -> Counter[tuple[Any, ...]]:
    """Impressions by placement, platform, partition and collector."""
    counts: Counter[tuple[Any, ...]] = Counter()
    for (place, platform, source), count in zip(
        found.places.tolist(), found.impressions.tolist(), strict=True
    ):
        counts[found.placements[place], found.platforms[platform], *found.sources[source]] += count
    return counts


def test_impressions_come_once_in_a_while_by_placement_platform_and_source(line: Line) -> None:
    for _ in range(3):
        line.tick(by("c-1"), by("c-2"), pixel(placement_id="q", platform=None), by("c-1", event="start"))
    assert line.impressions is None
    while line.impressions is None:
        line.tick()
    found = line.impressions
    named = {
        (found.placements[place], found.platforms[platform], *found.sources[source]): count
        for (place, platform, source), count in zip(
            found.places.tolist(), found.impressions.tolist(), strict=True
        )
    }
    assert named == {
        ("p", "acast", "t/0", "c-1"): 3,
        ("p", "acast", "t/0", "c-2"): 3,
        ("q", None, "t/0", ""): 3,
    }
    line.impressions = None
    while line.impressions is None:
        line.tick()
    assert not len(line.impressions.impressions), "each once"


def test_many_names_and_collectors_are_counted_whole(line: Line) -> None:
    rng, sent = np.random.default_rng(1), Counter[tuple[Any, ...]]()
    for turn in range(40):
        numbers = rng.integers(0, (200, 9, 40), (400 if turn < 30 else 0, 3)).tolist()
        some = [(f"p{place}", f"s{platform}", f"c-{collector}") for place, platform, collector in numbers]
        sent.update((place, platform, "t/0", collector) for place, platform, collector in some)
        line.impressions = None
        line.tick(*(by(who, placement_id=place, platform=platform) for place, platform, who in some))
        if line.impressions is not None:
            sent.subtract(named(line.impressions))
    assert len(sent) > 5_000
    assert not any(sent.values())


def fresh(line: Line, *collectors: str) -> list[dict[str, Any]]:
    """Some pixels of each."""
    now = {"ts": line.now_ms, "low_ms": line.now_ms}
    return [by(name, **now) for name in collectors for _ in range(30)]


def feeding(line: Line, seconds: int, *collectors: str) -> None:
    for _ in range(seconds // 5):
        line.tick(*fresh(line, *collectors), after_ms=5_000)


def test_a_stopped_feed_is_silent_in_a_fully_read_partition(line: Line) -> None:
    feeding(line, 610, "c-1", "c-2")
    line.topic.proves = False
    for _ in range(60):
        assert line.tick(after_ms=5_000) == []
    line.topic.proves = True
    for _ in range(10):
        assert line.tick(after_ms=5_000) == []
    found = [line.tick(after_ms=5_000) for _ in range(6)][-1]
    assert {one.unit for one in found} == {"partition:t/0", "platform:acast", "sender:c-1", "sender:c-2"}


def test_a_departed_or_holding_collector_is_not_silent(line: Line) -> None:
    feeding(line, 610, "c-1", "c-2")
    line.tick({"collector": "c-1", "low_ms": 0, "bye": True})
    for _ in range(30):
        found = line.tick(*fresh(line, "c-2"), after_ms=5_000)
    assert found == []
    for _ in range(30):
        assert line.tick(after_ms=5_000, held_by="c-2") == []


def test_a_mark_naming_a_unit_ends_it(line: Line) -> None:
    feeding(line, 610, "c-1")
    for _ in range(20):
        found = line.tick(after_ms=5_000)
    assert "platform:acast" in {one.unit for one in found}
    found = line.tick({"collector": "platform:acast", "low_ms": 0, "bye": True})
    assert "platform:acast" not in {one.unit for one in found}
    assert "partition:t/0" in {one.unit for one in found}


def test_an_ended_log_has_no_silence() -> None:
    line = Line(live=False)
    feeding(line, 610, "c-1")
    for _ in range(30):
        assert line.tick(after_ms=5_000) == []
    assert line.receipt is not None
    assert not line.receipt.proven
