"""Redis and Valkey: connecting, fenced rows, indexes, marks, streams."""

from __future__ import annotations

from connectors.redis.address import shown
from connectors.redis.client import REASONS, Client, RedisUnavailable, RedisUnreachable, connect
from connectors.redis.commands import (
    SharedField,
    append,
    count_fields,
    drop_fields,
    entries_after,
    eviction_policies,
    latest_members,
    put_fields,
    put_shared,
    read_fields,
    read_rows,
    scan_index,
    server_clock,
    server_infos,
    trim_index,
)
from connectors.redis.fenced_hash import FencedHash, RowVersion
from connectors.redis.rows import Emptied, RowStore, Superseded, WriteOutcome

__all__ = [
    "REASONS",
    "Client",
    "Emptied",
    "FencedHash",
    "RedisUnavailable",
    "RedisUnreachable",
    "RowStore",
    "RowVersion",
    "SharedField",
    "Superseded",
    "WriteOutcome",
    "append",
    "connect",
    "count_fields",
    "drop_fields",
    "entries_after",
    "eviction_policies",
    "latest_members",
    "put_fields",
    "put_shared",
    "read_fields",
    "read_rows",
    "scan_index",
    "server_clock",
    "server_infos",
    "shown",
    "trim_index",
]
