"""A bid optimiser's reader: what a placement needs, or nothing where the numbers are too old to bid by.

pip install redis; python bidder.py REDIS_URL PLACEMENT…
"""

import sys
import time

from redis import Redis

FIELDS = ("delivery.state", "delivery.required_rate", "1h.impressions", "generation", "fence", "rev")
STEERABLE = ("on_track", "under", "at_risk", "over")
seen: dict[str, tuple[int, ...]] = {}


def row(redis: Redis, placement: str) -> dict[str, str | None] | None:
    """The fields to bid by; None: leave the bid as it is."""
    pipe = redis.pipeline(transaction=False)
    pipe.hmget("audiopixel:v1:meta", "judged", "flushed_ms", "watermark_ms")
    pipe.hmget(f"audiopixel:v1:placement:{{{placement}}}", *FIELDS)
    (judged, flushed_ms, watermark_ms), values = pipe.execute()
    now_ms = time.time() * 1000
    if judged != "1" or now_ms - int(flushed_ms) > 30_000 or now_ms - int(watermark_ms) > 300_000:
        return None  # nobody judges delivery, nobody writes, or the numbers are of another time
    fields = dict(zip(FIELDS, values, strict=True))
    version = tuple(int(fields[name] or 0) for name in ("generation", "fence", "rev"))
    if fields["delivery.state"] not in STEERABLE or version < seen.get(placement, version):
        return None  # nothing to steer by, or an older row than the last one read
    seen[placement] = version
    return fields


if __name__ == "__main__":
    url, *placements = sys.argv[1:]
    for name in placements:
        found = row(Redis.from_url(url, decode_responses=True), name)
        needed, had = (
            float((found or {}).get(one) or 0) for one in ("delivery.required_rate", "1h.impressions")
        )
        print(name, "leave" if not had else f"{found['delivery.state']}: {needed / had:.2f} x the last hour")
