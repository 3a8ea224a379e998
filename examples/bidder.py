"""A bid optimiser's reader: of each placement the factor for its rate, "stop", or "leave the bid".

pip install redis; python bidder.py [--least 0.5] [--most 2] REDIS_URL PLACEMENT…
"""

import argparse
import time

from redis import Redis

PACING = ("delivery.booked", "delivery.delivered", "delivery.projected")
JUDGING = ("delivery.state", "delivery.judged", "delivery.unjudged_reason")
COUNTS = ("5m.impressions", "1h.impressions", "flight.blocked_impressions")
VERSION = ("generation", "fence", "rev")
STEERABLE = ("on_track", "under", "at_risk", "over")
reviewed: dict[str, int] = {}  # a placement's impressions in blocked content that a person has dealt with
seen: dict[str, tuple[int, ...]] = {}


def advice(redis: Redis, placement: str, least: float = 0.5, most: float = 2.0) -> tuple[float | None, str]:
    """The factor for the placement's present rate, and why; 0: stop bidding; None: leave the bid as it is."""
    pipe = redis.pipeline(transaction=False)
    pipe.hmget("audiopixel:v1:meta", "judged", "unjudged_reason", "flushed_ms", "watermark_ms", "generation")
    pipe.hmget(f"audiopixel:v1:placement:{{{placement}}}", *PACING, *JUDGING, *COUNTS, *VERSION)
    (judged, reason, flushed_ms, watermark_ms, generation), values = pipe.execute()
    row = dict(zip((*PACING, *JUDGING, *COUNTS, *VERSION), values, strict=True))
    # First of all, and also by old numbers: counts of one log never fall.
    if (blocked := int(row["flight.blocked_impressions"] or 0)) > reviewed.get(placement, 0):
        return 0.0, f"{blocked} impressions in blocked content"
    now_ms = time.time() * 1000
    if judged != "1" or now_ms - int(flushed_ms) > 30_000 or now_ms - int(watermark_ms) > 300_000:
        return None, f"the numbers are not fresh: {reason or 'nothing is written'}"
    if row["generation"] not in (None, generation):
        return None, "the row is of another generation than meta: a switch is under way"
    if row["delivery.judged"] == "0":
        return None, f"the row is not judged: {row['delivery.unjudged_reason']}"
    if row["delivery.state"] not in STEERABLE:  # paused, complete, unknown_before, ended_unknown, …
        return None, f"state {row['delivery.state'] or 'not known'}"
    version = tuple(int(row[name] or 0) for name in VERSION)
    if version < seen.get(placement, version):
        return None, "an older row than the last one read"
    seen[placement] = version
    if row["5m.impressions"] == "0" and row["1h.impressions"] != "0":
        return None, "no impression for five minutes: it stopped, which no bid repairs"
    if None in (pacing := [row[name] for name in PACING]):
        return None, "pacing is not known"
    booked, delivered, projected = map(float, pacing)
    # At the last hour's rate. Unlike `1h.impressions` it is of the flight alone, and knows its pauses.
    if projected <= delivered:
        return None, "no rate is known"
    times = (booked - delivered) / (projected - delivered)
    return min(max(times, least), most), f"needs {times:.2f} x its present rate"


def factor(redis: Redis, placement: str, least: float = 0.5, most: float = 2.0) -> float | None:
    """The factor alone."""
    return advice(redis, placement, least, most)[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--least", type=float, default=0.5)
    parser.add_argument("--most", type=float, default=2.0)
    parser.add_argument("url")
    parser.add_argument("placements", nargs="+")
    given = parser.parse_args()
    redis = Redis.from_url(given.url, decode_responses=True)
    for name in given.placements:
        times, why = advice(redis, name, given.least, given.most)
        do = "leave the bid as it is" if times is None else f"bid {times:.2f} x" if times else "stop"
        print(f"{name} {do} ({why})")
