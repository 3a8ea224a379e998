"""A stand-in for a flow, for the tests of programs that bid: it writes rows and messages as a flow does.

fill("redis://127.0.0.1:6379/0")
with Client("redis://127.0.0.1:6379/0") as client:
    assert my_bid(client["usable"]) == 1.25
    assert my_bid(client["blocked"]) is None
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from redis import Redis

from audiopixel_client.rows import SCHEMA

ROW = {
    "delivery.state": "under",
    "delivery.judged": 1,
    "delivery.booked": 24000,
    "delivery.delivered": 10000,
    "delivery.projected": 21200,
    "5m.impressions": 40,
    "1h.impressions": 500,
    "flight.blocked_impressions": 0,
    "flight.impressions": 10000,
    "campaign_id": "autumn-sale",
}
"""A usable row with a factor of 1.25."""
_NO_PLAN = [name for name in ROW if name.startswith("delivery.")]
REASONS: Mapping[str, Mapping[str, Any] | None] = {
    "feed_silent": {"delivery.judged": 0, "delivery.unjudged_reason": "feed_silent"},
    "gone": None,
    "blocked": {"flight.blocked_impressions": 12},
    "no_plan": dict.fromkeys(_NO_PLAN),
    "incomplete": {"1h.impressions": None},
    "unknown_before": {
        "delivery.state": "unknown_before",
        **dict.fromkeys(("delivery.delivered", "delivery.projected")),
    },
}
"""The fields in which a row differs from `ROW`, by the row's reason; None if there is no row."""
NO_FACTOR: Mapping[str, Mapping[str, Any]] = {
    "complete": {"delivery.state": "complete"},
    "stopped": {"5m.impressions": 0},
    "no_rate": {"delivery.projected": None},
}
"""The fields in which a usable row without a factor differs from `ROW`, by the row's name."""


class Flow:
    """A stand-in for a flow, alone in its namespace.

    Args:
        generation, fence: of the rows that it writes. Another execution has a greater fence, `--recompute` a
            greater generation.
    """

    def __init__(
        self, url: str, namespace: str = "audiopixel:v1", generation: int = 1, fence: int = 1
    ) -> None:
        self._redis: Any = Redis.from_url(url, decode_responses=True)
        self._namespace, self._run = namespace, (generation, fence)
        self._previous: list[int] | None = None
        self._flush = 0

    def flush(
        self,
        rows: Mapping[str, Mapping[str, Any] | None] | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        age_ms: int = 0,
        lost: bool = False,
    ) -> None:
        """Write a flush.

        Args:
            rows: by placement, the fields in which a row differs from `ROW`; a field of None is absent, a row
                of None is deleted.
            meta: fields in which `meta` differs from that of a flow that judges.
            age_ms: age of the write, in ms.
            lost: whether the message is lost, and none is sent.
        """
        self._flush += 1
        seconds, micros = self._redis.time()
        now_ms = seconds * 1000 + micros // 1000 - age_ms
        version = {"generation": self._run[0], "fence": self._run[1], "rev": self._flush}
        pipeline = self._redis.pipeline()
        for name, fields in (rows or {}).items():
            key = f"{self._namespace}:placement:{{{name}}}"
            pipeline.delete(key)
            if fields is None:
                pipeline.zrem(f"{self._namespace}:index:placement", name)
                continue
            pipeline.zadd(f"{self._namespace}:index:placement", {name: now_ms})
            pipeline.hset(key, mapping=_present({**ROW, **version, **fields}))
        meta_fields = {
            **version,
            "flush": self._flush,
            "previous": json.dumps(self._previous),
            "schema": SCHEMA,
            "judged": 1,
            "flushed_ms": now_ms,
            "watermark_ms": now_ms - 10_000,
            **(meta or {}),
        }
        pipeline.delete(f"{self._namespace}:meta")
        pipeline.hset(f"{self._namespace}:meta", mapping=_present(meta_fields))
        pipeline.execute()
        number = [*self._run, self._flush]
        message = {
            **dict(zip(("generation", "fence", "flush"), number)),
            "previous": self._previous,
            "as_of_ms": now_ms - 10_000,
            "placements": list(rows or {}),
        }
        if not lost:
            self._redis.publish(f"{self._namespace}:updates", json.dumps(message))
        self._previous = number


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def fill(
    url: str, namespace: str = "audiopixel:v1", unjudged: str | None = None, age_ms: int = 0
) -> dict[str, str | None]:
    """Write the row `usable`, and a row for each name in `REASONS` and `NO_FACTOR`.

    Args:
        unjudged: the reason for which no row is judged, such as `collector`.
        age_ms: age of the write, in ms; above 30,000 all rows are `stale`.

    Returns:
        The reason that a client reads of each row, by the row's name.
    """
    rows = {"usable": {}, **REASONS, **NO_FACTOR}
    meta = {} if unjudged is None else {"judged": 0, "unjudged_reason": unjudged}
    Flow(url, namespace).flush(rows, meta=meta, age_ms=age_ms)
    stale = "stale" if age_ms > 30_000 else None
    reasons = {name: name if name in REASONS else None for name in rows}
    return {
        name: unjudged or (reason if reason == "feed_silent" else stale or reason)
        for name, reason in reasons.items()
    }
