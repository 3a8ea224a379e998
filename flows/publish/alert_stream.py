"""The stream of alerts, and the topic beside it."""

from __future__ import annotations

from typing import Final

import msgspec

from connectors.redis import Client, append
from flows.publish.lines import LineWriter

ALERTS_KEPT: Final = 10_000
ALERTS_AT_ONCE: Final = 500
"""Alerts that are told together: so many are told again at most where Redis or Kafka fails among them."""


def tell(client: Client, namespace: str, alerts: list[dict[str, str]], beside: LineWriter | None) -> None:
    """Tell alerts and take them off the list: at least once, each with its id."""
    while some := alerts[:ALERTS_AT_ONCE]:
        append(client, f"{namespace}:alerts", some, ALERTS_KEPT)
        if beside is not None:
            beside.write([(one["id"].encode(), msgspec.json.encode(one)) for one in some])
            beside.flush()
        del alerts[: len(some)]
