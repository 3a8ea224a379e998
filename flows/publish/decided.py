"""Writes decisions to Redis. No script fences the hashes of decisions, so a check for a newer execution comes
before each part.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from connectors.redis import Client, SharedField, Superseded, put_shared, read_rows
from flows.publish.covered import number_of

AT_ONCE: Final = 500
"""The number of decisions between two checks."""


def put_decisions(
    client: Client,
    positions_key: str,
    generation: int,
    fence: int,
    decisions: Sequence[SharedField],
    ttl: timedelta,
) -> None:
    """Write decisions in parts; stop at the first sign of a newer execution.

    Args:
        positions_key: of the hash that executions claim.
        generation, fence: of this one.

    Raises:
        Superseded: a newer execution has claimed `positions_key`.
        RedisUnavailable, ConnectError: as `put_shared` does.
    """
    for begin in range(0, len(decisions), AT_ONCE):
        (claim,) = read_rows(client, [positions_key], ["generation", "fence"])
        if (number_of(claim, "generation"), number_of(claim, "fence")) > (generation, fence):
            raise Superseded(positions_key)
        put_shared(client, decisions[begin : begin + AT_ONCE], ttl)
