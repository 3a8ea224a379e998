"""Readers of rows while two flows change places: none uses a row of another generation than `meta`'s."""

from __future__ import annotations

import runpy
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from redis import Redis

from connectors.embedded import EmbeddedValkey
from connectors.redis import Client
from flows.viewers.reader import RowsReader

BIDDER = Path(__file__).parents[3] / "examples" / "bidder.py"


def write(redis: Redis, key: str, generation: int, **fields: Any) -> None:
    values = {of.replace("__", "."): value for of, value in fields.items()}
    redis.hset(
        key, mapping={"generation": generation, "fence": 1, "rev": 1, "updated_ms": generation, **values}
    )


def test_the_exporter_s_reader_shows_one_generation(valkey: EmbeddedValkey, client: Client) -> None:
    namespace, redis = f"readers-{uuid.uuid4().hex[:8]}:v1", Redis.from_url(valkey.url, decode_responses=True)
    fields, seconds = ["flight.impressions"], timedelta(0)
    reader = RowsReader(client, namespace, fields, interval=seconds)
    write(redis, f"{namespace}:meta", 1, watermark_ms=1)
    for name in "ab":
        redis.zadd(f"{namespace}:index:placement", {name: 1})
        write(redis, f"{namespace}:placement:{{{name}}}", 1, flight__impressions=10)

    def shown(of: RowsReader) -> dict[str, str]:
        rows = of.refresh().rows["placement"]
        return {name: row["flight.impressions"] for name, row in rows.items()}

    assert shown(reader) == {"a": "10", "b": "10"}
    write(redis, f"{namespace}:placement:{{a}}", 2, flight__impressions=7)
    assert shown(reader) == {"a": "10", "b": "10"}, "as it was read before the other flow took over"
    assert shown(RowsReader(client, namespace, fields, interval=seconds)) == {"b": "10"}
    assert reader.row("placement", "a") == {}
    assert reader.row("placement", "b")["flight.impressions"] == "10"
    write(redis, f"{namespace}:meta", 2, watermark_ms=1)
    assert shown(reader) == {"a": "7"}
    assert reader.rows("placement", ["a", "b"]).keys() == {"a"}


def test_the_bidder_leaves_the_bid_of_a_row_of_another_generation(valkey: EmbeddedValkey) -> None:
    redis, advice = Redis.from_url(valkey.url, decode_responses=True), runpy.run_path(str(BIDDER))["advice"]
    now_ms, name = int(time.time() * 1000), f"p{uuid.uuid4().hex[:8]}"
    key, meta = f"audiopixel:v1:placement:{{{name}}}", "audiopixel:v1:meta"
    try:
        write(redis, meta, 1, schema=1, judged=1, flushed_ms=now_ms, watermark_ms=now_ms)
        pacing = {"delivery__booked": 100, "delivery__delivered": 50, "delivery__projected": 90}
        write(redis, key, 1, fence=1, rev=1, delivery__state="under", delivery__judged=1, **pacing)
        counts = ("5m.impressions", "1h.impressions", "flight.blocked_impressions")
        redis.hset(key, mapping=dict.fromkeys(counts, 0))
        assert advice(redis, name)[0] == 1.25
        redis.hset(key, "generation", 2)
        assert advice(redis, name) == (
            None,
            "the row is of another generation than meta: a switch is under way",
        )
        redis.hset(meta, "generation", 2)
        assert advice(redis, name)[0] == 1.25
    finally:
        redis.delete(key, meta)
