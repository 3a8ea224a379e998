"""A bid optimiser's reader: what a placement needs, or nothing where the numbers are too old to bid by.

pip install redis; python bidder.py REDIS_URL PLACEMENT…
"""

import sys
import time

from redis import Redis

FIELDS = ("delivery.state", "delivery.required_rate", "delivery.start_ms", "1h.impressions")
VERSION = ("generation", "fence", "rev")
STEERABLE = ("on_track", "under", "at_risk", "over")
seen: dict[str, tuple[int, ...]] = {}


def factor(redis: Redis, placement: str) -> float | None:
    """Times the present rate that the placement needs until its end; None: leave the bid as it is."""
    pipe = redis.pipeline(transaction=False)
    pipe.hmget("audiopixel:v1:meta", "judged", "flushed_ms", "watermark_ms")
    pipe.hmget(f"audiopixel:v1:placement:{{{placement}}}", *FIELDS, *VERSION)
    (judged, flushed_ms, watermark_ms), values = pipe.execute()
    now_ms = time.time() * 1000
    if judged != "1" or now_ms - int(flushed_ms) > 30_000 or now_ms - int(watermark_ms) > 300_000:
        return None  # nobody judges delivery, nobody writes, or the numbers are of another time
    fields = dict(zip((*FIELDS, *VERSION), values, strict=True))
    version = tuple(int(fields[name] or 0) for name in VERSION)
    if fields["delivery.state"] not in STEERABLE or version < seen.get(placement, version):
        return None  # nothing to steer by, or an older row than the last one read
    seen[placement] = version
    flown_hours = (int(watermark_ms) - int(fields["delivery.start_ms"])) / 3_600_000
    an_hour = int(fields["1h.impressions"]) / min(1.0, max(flown_hours, 1 / 60))  # a young flight has less
    return float(fields["delivery.required_rate"] or 0) / an_hour if an_hour else None


if __name__ == "__main__":
    url, *placements = sys.argv[1:]
    for name in placements:
        times = factor(Redis.from_url(url, decode_responses=True), name)
        print(name, "leave the bid as it is" if times is None else f"needs {times:.2f} x its present rate")
