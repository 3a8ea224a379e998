"""The stream of alerts in Redis, and the optional topic of alerts."""

from __future__ import annotations

from typing import Final

import msgspec

from connectors.redis import Client, append
from flows.publish.lines import LineWriter

ALERTS_KEPT: Final = 10_000
ALERTS_AT_ONCE: Final = 500
"""The number of alerts that are sent together. If Redis or Kafka fails among them, at most so many are sent
again.
"""


def tell(client: Client, namespace: str, alerts: list[dict[str, str]], beside: LineWriter | None) -> None:
    """Send alerts and remove them from the list: at least once, each with its id."""
    while some := alerts[:ALERTS_AT_ONCE]:
        append(client, f"{namespace}:alerts", some, ALERTS_KEPT)
        if beside is not None:
            beside.write([(one["id"].encode(), msgspec.json.encode(one)) for one in some])
            beside.flush()
        del alerts[: len(some)]
