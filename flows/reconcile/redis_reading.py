"""Reading of Redis. A key of another type than a flow writes is reported as a difference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from redis.exceptions import ResponseError

from flows.errors import AudiopixelError
from flows.reconcile.values import moment_of, text_of, texts_of

WRONG_TYPE: Final[dict[str, str]] = {"(type)": "no hash"}
"""The fields that stand for a key that is no hash. No row, ledger or account has such a field."""


def hash_of(client: Any, key: str) -> dict[str, str]:
    """The fields of a hash; `WRONG_TYPE` for a key of another type.

    Raises:
        AudiopixelError: a field or value is no UTF-8.
    """
    try:
        with _text(key):
            return texts_of(client.hgetall(key))
    except ResponseError as error:
        return _wrong(error)


def hashes_of(client: Any, keys: Sequence[str]) -> list[dict[str, str]]:
    """The fields of several hashes, in their order, in one round trip; see `hash_of`."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hgetall(key)
    with _text(f"{keys[0]}, or another row,"):
        answers = pipeline.execute(raise_on_error=False)
        return [_wrong(each) if isinstance(each, Exception) else texts_of(each) for each in answers]


def index_of(client: Any, key: str) -> set[str]:
    """The ids of an index; empty for a key that is no sorted set.

    Raises:
        AudiopixelError: an id is no UTF-8.
    """
    try:
        with _text(key):
            return {*map(text_of, client.zrange(key, 0, -1))}
    except ResponseError as error:
        _wrong(error)
        return set()


def positions_of(client: Any, namespace: str) -> tuple[list[str], bool]:
    """The published source partitions, sorted, and whether they could be read."""
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
    """`WRONG_TYPE` for an error about the type of a key; any other error is raised."""
    if "WRONGTYPE" not in str(error):
        raise error
    return WRONG_TYPE


@contextmanager
def _text(where: str) -> Iterator[None]:
    """Raise AudiopixelError for bytes that are no UTF-8; `where` names the key."""
    try:
        yield
    except UnicodeDecodeError:
        raise AudiopixelError(
            f"{where} in Redis has bytes that are no UTF-8, so another program than a flow wrote it"
        ) from None
