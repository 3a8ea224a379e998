"""The stream of alerts in Redis, and the optional topic of alerts."""

from __future__ import annotations

from typing import Final

import msgspec

from connectors.redis import Client, append
from flows.publish.lines import LineWriter

ALERTS_KEPT: Final = 10_000
ALERTS_AT_ONCE: Final = 500
"""The greatest number of alerts sent together. After a failure of Redis or Kafka at most so many are sent
twice.
"""


def send_alerts(
    client: Client, namespace: str, alerts: list[dict[str, str]], lines: LineWriter | None
) -> None:
    """Send alerts at least once, each with its id, and remove the sent ones from `alerts`."""
    while part := alerts[:ALERTS_AT_ONCE]:
        append(client, f"{namespace}:alerts", part, ALERTS_KEPT)
        if lines is not None:
            lines.write([(alert["id"].encode(), msgspec.json.encode(alert)) for alert in part])
            lines.flush()
        del alerts[: len(part)]
