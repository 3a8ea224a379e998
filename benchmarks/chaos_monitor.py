"""A reader of Redis that believes nothing: `python -m benchmarks.chaos_monitor URL NAMESPACE`.

It reads every row again and again, and prints one line of JSON for each thing that no reader may see: a count
of a flight or of a day that fell, a version that shrank, a row that vanished, a row that is not of one piece.
Behind each reading it reads all placements through the bidder's client too: no version falls there, and no
row is usable that the rules refuse, or that Redis has had newer for long.
On standard input it is told `emptied N` (Redis is about to lose its data so often: rows may vanish, and come
back as great as they were) and `forget` (the flow died before it had filled Redis again: nobody knows what it
had shown); the input's end is its own.
"""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final
from zoneinfo import ZoneInfo

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.chaos_bidder import Bidder
from flows.model.counts import BY_FLIGHT
from flows.model.dimensions import SCOPES
from flows.model.fields import COUNTS

MAX_FINDINGS: Final = 200
ZONE: Final = ZoneInfo("Europe/London")
COHORT: Final = ("starts", "first_quartiles", "midpoints", "third_quartiles", "completes")
GROWING: Final = (
    *(f"flight.{name}" for name in (*COUNTS, *BY_FLIGHT, "reach", "conversions")),
    *(f"1d.{name}" for name in (*COUNTS, "reach", "conversions")),
)

Row = Mapping[str, str]


@dataclass
class Seen:
    """The state of a row when it was last present.

    Attributes:
        loss: the latest announced loss of data that it was absent by.
        absences: how often it was, by that one.
        absent: whether it is now.
    """

    row: Row
    version: tuple[int, ...]
    day: str
    counts: dict[str, int]
    loss: int = 0
    absences: int = 0
    absent: bool = False


@dataclass
class Monitor:
    """All rows, and what they were.

    Attributes:
        losses: announced so far.
        times: how often the latest of them empties Redis.
    """

    seen: dict[str, Seen] = field(default_factory=dict)
    losses: int = 0
    times: int = 0

    def emptied(self, times: int) -> None:
        """Redis is about to lose its data so often."""
        self.losses, self.times = self.losses + 1, times

    def check(self, key: str, row: Row) -> Iterator[dict[str, Any]]:
        """The errors in a row as it is read now; `{}` for an absent row."""
        before = self.seen.get(key)
        if not row:
            if before is not None and not before.absent:
                before.absences = before.absences + 1 if before.loss == self.losses else 1
                before.absent, before.loss = True, self.losses
                if before.absences > self.times:
                    yield {"what": "vanished", "row": key}
            return
        if before is not None and row == before.row:  # three readings of four
            before.absent = False
            return
        yield from ({"what": "torn", "row": key, "detail": detail} for detail in torn(row))
        now = Seen(
            row,
            tuple(int(row.get(name, -1)) for name in ("generation", "fence", "rev")),
            day_of(row),
            {name: int(row.get(name, 0)) for name in GROWING},
            *((before.loss, before.absences) if before is not None else ()),
        )
        self.seen[key] = now
        if before is None:
            return
        if now.version < before.version:
            yield {
                "what": "backward",
                "row": key,
                "field": "version",
                "was": before.version,
                "is": now.version,
            }
        for name, was in before.counts.items():
            if now.counts[name] < was and (now.day == before.day or name.startswith("flight.")):
                yield {"what": "backward", "row": key, "field": name, "was": was, "is": now.counts[name]}


def day_of(row: Row) -> str:
    """The calendar day of a row's `1d` numbers."""
    return datetime.fromtimestamp(int(row["as_of_ms"]) / 1000, UTC).astimezone(ZONE).date().isoformat()


def torn(row: Row) -> Iterator[str]:
    """Why a row cannot be one writing."""

    def count(window: str, name: str) -> int:
        return int(row.get(f"{window}.{name}", 0))

    for window in ("5m", "1h", "1d", "flight"):
        cohort = [count(window, name) for name in COHORT]
        if cohort != sorted(cohort, reverse=True):
            yield f"{window}: more completes than starts: {cohort}"
        starts, impressions, completes = cohort[0], count(window, "impressions"), cohort[-1]
        for rate, whole in (("completion_rate", starts), ("completions_per_impression", impressions)):
            told = row.get(f"{window}.{rate}")
            if (told is None) != (whole == 0) or (
                told is not None and abs(float(told) - completes / whole) > 1e-6
            ):
                yield f"{window}.{rate} is {told}, {completes} by {whole} is not"
    for name in ("impressions", "starts", "clicks"):
        if not count("5m", name) <= count("1h", name) <= count("flight", name) >= count("1d", name):
            yield f"{name}: {[count(window, name) for window in ('5m', '1h', '1d', 'flight')]}"
    pixels, coverage = count("flight", "pixels"), row.get("flight.consent_coverage")
    if pixels and abs(float(coverage or 0) - count("flight", "consented") / pixels) > 1e-6:
        yield f"flight.consent_coverage is {coverage}, {count('flight', 'consented')} by {pixels} is not"
    if int(row["final_through_ms"]) > int(row["as_of_ms"]):
        yield f"final through {row['final_through_ms']} as of {row['as_of_ms']}"


def main(url: str, namespace: str) -> None:
    """Watch until standard input ends."""
    client: Any = Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        retry=Retry(NoBackoff(), 0),
    )
    monitor, findings, polls, rows, away = Monitor(), 0, 0, 0, 0
    bidder = Bidder(url, namespace)
    bidder.client.__enter__()
    while True:
        if select.select([sys.stdin], [], [], 0.02)[0]:
            order = sys.stdin.readline().strip()
            if not order:
                break
            if order.startswith("emptied "):
                monitor.emptied(int(order.split()[1]))
            elif order == "forget":
                monitor.seen.clear()
            print(json.dumps({"did": order}), flush=True)
        try:
            keys = set(monitor.seen)
            for scope in SCOPES:
                keys |= {
                    f"{namespace}:{scope}:{{{name}}}"
                    for name in client.zrange(f"{namespace}:index:{scope}", 0, -1)
                }
            ordered = sorted(keys)
            pipeline = client.pipeline(transaction=False)
            for key in ordered:
                pipeline.hgetall(key)
            held = pipeline.execute()
        except RedisError:
            away += 1
            with suppress(RedisError):
                client.connection_pool.disconnect()
            continue
        polls, rows = polls + 1, rows + len(ordered)
        read = dict(zip(ordered, held, strict=True))
        for finding in chain(*(monitor.check(key, row) for key, row in read.items()), bidder.check(read)):
            findings += 1
            if findings <= MAX_FINDINGS:
                print(json.dumps(finding), flush=True)
    bidder.client.__exit__()
    summary = {"polls": polls, "rows": rows, "findings": findings, "unanswered": away}
    summary |= {"client_reads": bidder.reads, "client_usable": bidder.usable}
    print(json.dumps(summary | {"client_behind_s": round(bidder.behind_s, 1)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
