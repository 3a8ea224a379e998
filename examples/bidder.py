"""A bid optimiser's reader: of each placement the factor for its rate, "stop", or "leave the bid".

pip install redis; python bidder.py [--least 0.5] [--most 2] REDIS_URL PLACEMENT…
"""

import argparse
import re
import time

from redis import Redis, ResponseError

SCHEMA = "1"  # the only schema of rows that this program knows
INTEGER, DECIMAL, TEXT = r"\d{1,18}", r"\d{1,18}(\.\d{1,18})?", r"\w{1,64}"
EVERY_ROW = {
    **dict.fromkeys(("generation", "fence", "rev"), INTEGER),
    **dict.fromkeys(("5m.impressions", "1h.impressions", "flight.blocked_impressions"), INTEGER),
}
PLANNED = {"delivery.state": TEXT, "delivery.judged": "[01]", "delivery.booked": INTEGER}
OTHERS = {"delivery.delivered": INTEGER, "delivery.projected": DECIMAL, "delivery.unjudged_reason": TEXT}
FORMS = {**EVERY_ROW, **PLANNED, **OTHERS}  # the fields that the rules read, and the form of each
STEERABLE = ("on_track", "under", "at_risk", "over")
reviewed: dict[str, int] = {}  # a placement's impressions in blocked content that a person has dealt with
seen: dict[str, tuple[int, ...]] = {}


def advice(redis: Redis, placement: str, least: float = 0.5, most: float = 2.0) -> tuple[float | None, str]:
    """The factor for the placement's present rate, and why; 0: stop bidding; None: leave the bid as it is."""
    pipe = redis.pipeline(transaction=False)
    meta = ("schema", "judged", "unjudged_reason", "flushed_ms", "watermark_ms", "generation")
    pipe.hmget("audiopixel:v1:meta", *meta)
    pipe.hmget(f"audiopixel:v1:placement:{{{placement}}}", *FORMS)
    (schema, judged, reason, *times, generation), texts = pipe.execute(raise_on_error=False)
    if isinstance(texts, ResponseError):  # the key holds no hash
        return None, "the row is incomplete"
    there = {name: text for name, text in zip(FORMS, texts, strict=True) if text is not None}
    row = {name: text for name, text in there.items() if re.fullmatch(FORMS[name], text, re.ASCII)}
    # First of all, and also by old numbers: counts of one log never fall.
    if (blocked := int(row.get("flight.blocked_impressions", 0))) > reviewed.get(placement, 0):
        return 0.0, f"{blocked} impressions in blocked content"
    if schema != SCHEMA:
        return None, f"the rows are of schema {schema}, and this program knows {SCHEMA}"
    flushed_ms, watermark_ms = (
        int(text) if re.fullmatch(INTEGER, text or "", re.ASCII) else 0 for text in times
    )
    now_ms = time.time() * 1000
    if judged != "1" or now_ms - flushed_ms > 30_000 or now_ms - watermark_ms > 300_000:
        return None, f"the numbers are not fresh: {reason or 'nothing is written'}"
    if not there:
        return None, "there is no such row"
    if row.get("generation", generation) != generation:
        return None, "the row is of another generation than meta: a switch is under way"
    if row.get("delivery.judged") == "0":
        return None, f"the row is not judged: {row.get('delivery.unjudged_reason')}"
    if row != there or not row.keys() >= EVERY_ROW.keys():
        return None, "the row is incomplete"
    if row.keys().isdisjoint(PLANNED):
        return None, "there is no plan"
    if not row.keys() >= PLANNED.keys():
        return None, "the row is incomplete"
    if row["delivery.state"] not in STEERABLE:  # paused, complete, unknown_before, ended_unknown, …
        return None, f"state {row['delivery.state']}"
    version = tuple(int(row[name]) for name in ("generation", "fence", "rev"))
    if version < seen.get(placement, version):
        return None, "an older row than the last one read"
    seen[placement] = version
    if int(row["5m.impressions"]) == 0 and int(row["1h.impressions"]) != 0:
        return None, "no impression for five minutes: it stopped, which no bid repairs"
    if not row.keys() >= {"delivery.delivered", "delivery.projected"}:
        return None, "pacing is not known"
    booked, delivered = int(row["delivery.booked"]), int(row["delivery.delivered"])
    projected = float(row["delivery.projected"])
    # At the last hour's rate. Unlike `1h.impressions` it is of the flight alone, and knows its pauses.
    if projected <= delivered:
        return None, "no rate is known"
    needed = (booked - delivered) / (projected - delivered)
    return min(max(needed, least), most), f"needs {needed:.2f} x its present rate"


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
