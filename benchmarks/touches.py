"""Cost of conversions: throughput with and without them, and with households. Also the bytes that millions of
listeners take, two and a half in a household.
"""

from __future__ import annotations

import logging
import re
import statistics
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import structlog

from benchmarks.measure import Meter
from benchmarks.plain_log import write_log
from connectors.embedded import EmbeddedValkey
from flows.attribution.credit_models import Rules
from flows.attribution.households import HouseholdShard
from flows.attribution.listener_shard import ListenerShard
from flows.model.dimensions import Dimensions
from flows.model.home_touches import HomeTouches
from flows.model.messages import IMPRESSION_TOUCH, TouchBatch
from flows.model.ticks import Cut
from flows.replay import replay
from flows.settings.loading import load
from flows.state.home_tags import tags_of

KEY: Final = b"sixteen secret b"
SHARDS: Final = 16
TOUCHES_A_LISTENER: Final = 3
DAYS: Final = 14
CUTS: Final = 300
CONVERSION_EVERY: Final = 1000
RUNS: Final = 9
LISTENERS_A_HOME: Final = 2.5
T0_MS: Final = 1_764_000_000_000


class Held(NamedTuple):
    """Bytes in arrays: of a touch, and of a touch's entry at its household."""

    touch_bytes: float
    home_bytes: float


def held(listeners: int, directory: Path) -> Held:
    """Listener and household shards with three listens a listener over 14 days, fed as a flow would."""
    shards = [_shard(index, directory) for index in range(SHARDS)]
    homes = [_home_shard(index, directory) for index in range(SHARDS)]
    rng = np.random.default_rng(1)
    for number in range(CUTS):
        last = T0_MS + (number + 1) * DAYS * 86_400_000 // CUTS
        many = listeners * TOUCHES_A_LISTENER // CUTS
        _feed(shards, homes, rng, Cut(number, last, False, ()), many, listeners)
    for shard in (*shards, *homes):
        shard.snapshot()
    touches = sum(len(shard.store) for shard in shards)
    arrays = sum(shard.store.old_runs.nbytes + shard.store.new_runs.nbytes for shard in shards)
    at_home = sum(shard.homes.old_runs.nbytes for shard in homes)
    packed = sum(len(shard.homes.old_runs) for shard in homes)
    return Held(arrays / touches, at_home / max(1, packed))


def _shard(index: int, directory: Path) -> ListenerShard:
    return ListenerShard(index, SHARDS, 600_000, Rules(), directory)


def _home_shard(index: int, directory: Path) -> HouseholdShard:
    return HouseholdShard(index, SHARDS, 600_000, Rules(), directory)


def _feed(
    shards: Sequence[ListenerShard],
    homes: Sequence[HouseholdShard],
    rng: np.random.Generator,
    cut: Cut,
    count: int,
    listeners: int,
) -> None:
    numbers = rng.integers(1, listeners + 1, count)
    who = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    home = (numbers / LISTENERS_A_HOME).astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    home ^= home >> np.uint64(33)
    ts = cut.watermark_ms - rng.integers(0, 60_000, count)
    names: list[Dimensions] = [
        (f"pl-{i}", f"c-{i % 20}", "acast", f"st-{i % 60}", None, None, None) for i in range(1000)
    ]
    combos = rng.integers(0, len(names), count).astype(np.uint32)
    plays = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    tags, heard = tags_of(who, plays), np.full(count, IMPRESSION_TOUCH, np.uint8)
    for shard in shards:
        these = who % np.uint64(SHARDS) == shard.index
        columns = (who[these], ts[these], heard[these], combos[these], plays[these])
        there = home % np.uint64(SHARDS) == shard.index
        at_home = HomeTouches(names, home[there], ts[there], heard[there], combos[there], tags[there])
        nobody = np.zeros(0, np.uint64)
        shard.apply(cut, [TouchBatch(0, shard.index, cut, names, *columns, [], nobody, at_home)])
    for place, home_shard in enumerate(homes):
        home_shard.apply(cut, [shard.unjoined[place] for shard in shards])


class Shares(NamedTuple):
    """Events per CPU-second of runs in turns: with conversions, without, and with households in addition."""

    conversions: list[float]
    off: list[float]
    households: list[float]

    @property
    def of_off(self) -> float:
        """The throughput with conversions by that without, in the middle of the turns."""
        return _paired(self.conversions, self.off)

    @property
    def of_conversions(self) -> float:
        """The throughput with households by that without, in the middle of the turns."""
        return _paired(self.households, self.conversions)


def _paired(some: Sequence[float], others: Sequence[float]) -> float:
    """The median ratio of paired runs: on a shared machine, the runs of one turn have more in common than
    those of two.
    """
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


def share(events: int, directory: Path) -> Shares:
    """Replay one log with a conversion every 1,000 pixels (0.6 % of its plays), in turns. Each run saves only
    at its end: by the clock one run would save twice, and another three times.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    plain, log, housed = (directory / f"{name}.ndjson" for name in ("plain", "log", "housed"))
    write_log(plain, events)
    with plain.open() as lines, log.open("w") as out:
        out.writelines(_with_conversions(lines))
    with log.open() as lines, housed.open("w") as out:
        out.writelines(map(_at_home, lines))
    rates: dict[tuple[str, Path], list[float]] = {
        ("last_touch", log): [],
        ("off", log): [],
        ("last_touch", housed): [],
    }
    with EmbeddedValkey() as valkey:
        for run in range(RUNS + 1):  # the first of each is start-up
            for (model, path), found in rates.items():
                settings = load(
                    redis_url=valkey.url,
                    namespace=f"bench:{model}:{path.stem}:{run}",
                    attribution=model,
                    save_interval=timedelta(hours=1),
                    metrics_port=0,
                )
                with Meter() as meter:
                    recovery = directory / f"{model}-{path.stem}-{run}"
                    replay([str(path)], settings, KEY, recovery_dir=recovery)
                if run:
                    found.append(events / meter.cpu_s)
    return Shares(*rates.values())


def _at_home(line: str) -> str:
    """The line of a listener who lives with one or two others; a conversion is a browser's, which knows the
    household alone.
    """
    found = re.search(r'"listener_id":"L(\d+)"', line)
    assert found is not None
    home = f'"household_id":"H{int(found[1]) * 2 // 5}"'
    kept = "" if '"conversion"' in line else f"{found[0]},"
    return line.replace(found[0], f"{kept}{home}")


def _with_conversions(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield line
        if number % CONVERSION_EVERY == 0:
            pixel = msgspec.json.decode(line)
            kept = {
                name: pixel[name] for name in ("ts", "received_at", "listener_id", "campaign_id", "consent")
            }
            bought = {"type": "purchase", "order_id": f"o{number}", "value": "19.99", "currency": "GBP"}
            event = {"event_id": f"c{number}", "event": "conversion", **kept, "conversion": bought}
            yield msgspec.json.encode(event).decode() + "\n"


def figures(shares: Shares, states: Sequence[Held]) -> dict[str, float]:
    """The figures of the bars."""
    return {
        "conversions": shares.of_off,
        "households": shares.of_conversions,
        "bytes_a_touch": max(one.touch_bytes for one in states),
        "bytes_at_home": max(one.touch_bytes + one.home_bytes for one in states),
    }
