"""Housekeeping in Redis: removes index entries of expired rows, and warns of policies that drop rows."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import structlog

from connectors.redis import Client, RowVersion, eviction_policies, trim_index
from connectors.stream import ConnectError
from flows.model.dimensions import SCOPES
from flows.model.redis_keys import row_key


def warn_of_eviction(client: Client) -> None:
    """Warn where Redis may drop rows that readers need."""
    for policy in sorted(eviction_policies(client)):
        if policy.startswith("allkeys-"):
            structlog.get_logger("publish").warning(
                "redis may drop rows that readers need, and nobody notices: set its maxmemory-policy to "
                "noeviction or volatile-ttl",
                maxmemory_policy=policy,
            )


def trim(client: Client, namespace: str, rows: Iterable[RowVersion], before_ms: int) -> None:
    """Remove from the indexes the members whose last event was before `before_ms` and whose row has expired.
    Members of `rows` without a time to live stay.
    """
    removed, log = 0, structlog.get_logger("publish")
    lasting = {(row.index_key, row.member) for row in rows if row.ttl_ms is None}
    try:
        for scope in SCOPES:
            index = f"{namespace}:index:{scope}"
            stay = {member for key, member in lasting if key == index}
            removed += trim_index(client, index, before_ms, partial(row_key, namespace, scope), stay)
    except ConnectError as error:  # the numbers are written; the next call removes the other entries
        log.warning("indexes not trimmed", error=str(error))
    if removed:
        log.info("removed expired rows from the indexes", rows=removed)
