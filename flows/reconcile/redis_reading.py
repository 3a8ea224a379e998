"""The oracle's reading of Redis. A key of another type than a flow's is reported as such."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from redis.exceptions import ResponseError

from flows.errors import AudiopixelError
from flows.reconcile.values import moment_of, text_of, texts_of

WRONG_TYPE: Final[dict[str, str]] = {"(type)": "no hash"}
"""The fields of a key that is no hash; no row, ledger or account has such a field."""


def hash_of(client: Any, key: str) -> dict[str, str]:
    """The fields of a hash; `WRONG_TYPE` for another type.

    Raises:
        AudiopixelError: it has what is no UTF-8.
    """
    try:
        with _text(key):
            return texts_of(client.hgetall(key))
    except ResponseError as error:
        return _wrong(error)


def hashes_of(client: Any, keys: Sequence[str]) -> list[dict[str, str]]:
    """The fields of several, in their order, in one round trip; see `hash_of`."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hgetall(key)
    with _text(f"{keys[0]}, or another row,"):
        answers = pipeline.execute(raise_on_error=False)
        return [_wrong(one) if isinstance(one, Exception) else texts_of(one) for one in answers]


def index_of(client: Any, key: str) -> set[str]:
    """The ids of an index; empty for another type than a sorted set.

    Raises:
        AudiopixelError: it has what is no UTF-8.
    """
    try:
        with _text(key):
            return {*map(text_of, client.zrange(key, 0, -1))}
    except ResponseError as error:
        _wrong(error)
        return set()


def positions_of(client: Any, namespace: str) -> tuple[list[str], bool]:
    """The source partitions that were published, sorted, and whether they could be read."""
    row = hash_of(client, f"{namespace}:positions")
    try:
        positions = json.loads(row.get("positions") or "{}")
    except (ValueError, RecursionError):
        positions = None
    readable = isinstance(positions, dict) and row != WRONG_TYPE
    return sorted(positions) if readable else [], readable


def watermark_of(meta: Mapping[str, str], end_ms: int) -> int:
    """The watermark of `meta`; the log's end if `meta` has no valid one."""
    watermark_ms = moment_of(meta.get("watermark_ms"))
    return end_ms if watermark_ms is None else watermark_ms


def _wrong(error: Exception) -> dict[str, str]:
    if "WRONGTYPE" not in str(error):
        raise error
    return WRONG_TYPE


@contextmanager
def _text(where: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:
        raise AudiopixelError(f"{where} in Redis has what is no UTF-8, which no flow writes") from None
