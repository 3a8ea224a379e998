"""A bid optimiser's reader: what a placement needs, or nothing where the numbers are too old to bid by.

pip install redis; python bidder.py REDIS_URL PLACEMENT…
"""

import sys
import time

from redis import Redis

FIELDS = ("delivery.state", "delivery.booked", "delivery.delivered", "delivery.projected")
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
    delivered = int(fields["delivery.delivered"])
    # At the last hour's rate. Unlike `1h.impressions` it is of the flight alone, and knows its pauses.
    coming = float(fields["delivery.projected"] or 0) - delivered
    return (int(fields["delivery.booked"]) - delivered) / coming if coming > 0 else None


if __name__ == "__main__":
    url, *placements = sys.argv[1:]
    for name in placements:
        times = factor(Redis.from_url(url, decode_responses=True), name)
        print(name, "leave the bid as it is" if times is None else f"needs {times:.2f} x its present rate")
