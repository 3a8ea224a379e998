"""Reads and small writes that need no fence: rows, indexes, streams, plain hashes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias, cast

from redis import RedisCluster
from redis.exceptions import InvalidResponse

from connectors.redis.client import CHUNK, Client, Command, checked, chunks, failures, replies
from connectors.redis.marks import mark_keys
from connectors.redis.scripts import PUT

AT_ONCE: Final = 4 * CHUNK
"""The number of members of one scan, which takes the server less than a millisecond."""
SharedField: TypeAlias = tuple[Sequence[str], str | bytes, str | bytes]
"""Keys of hashes, and the name and value of a field that each hash gets."""


def read_rows(
    client: Client, keys: Sequence[str], fields: Sequence[str] | None = None
) -> list[dict[str, str]]:
    """A dict for each key, each a consistent snapshot: all fields, or the present ones of `fields`.

    The dict of an absent key is empty. Raises as `RowStore` does.
    """
    if fields is None:
        return [*_answers(client, keys, None)]
    return [
        {name: value for name, value in zip(fields, answer, strict=True) if value is not None}
        for answer in _answers(client, keys, fields)
    ]


def read_fields(client: Client, keys: Sequence[str], fields: Sequence[str]) -> Iterator[list[str | None]]:
    """The values of `fields`, a list for each key, with None for absent fields; read lazily.

    Raises as `RowStore` does, while they are read.
    """
    return _answers(client, keys, fields)


def _answers(client: Client, keys: Sequence[str], fields: Sequence[str] | None) -> Iterator[Any]:
    for chunk in chunks(keys):
        commands: list[Command] = [
            (key, ("HGETALL", key) if fields is None else ("HMGET", key, *fields)) for key in chunk
        ]
        with failures(client):
            answers = checked(replies(client, commands, alike=True))
            whole = {*map(type, answers)} == {dict if fields is None else list}
            if not whole or (fields is not None and {*map(len, answers)} != {len(fields)}):
                raise InvalidResponse("no answer to a hash's fields")
        yield from answers


def scan_index(client: Client, index_key: str) -> list[str]:
    """All members of a sorted set, in no order, without blocking the server. Raises as `RowStore` does."""
    with failures(client, index_key):
        # A scan may return a member twice.
        return list(dict.fromkeys(member for member, _ in client.zscan_iter(index_key, count=AT_ONCE)))


def latest_members(client: Client, index_key: str, most: int) -> list[str]:
    """The `most` members of a sorted set with the greatest scores, the greatest first. Raises as `RowStore`
    does.
    """
    with failures(client, index_key):
        members: Any = client.zrange(index_key, 0, most - 1, desc=True)
    return list(members)


def trim_index(
    client: Client, index_key: str, before: int, key_of: Callable[[str], str], staying: Collection[str] = ()
) -> int:
    """Remove the members of a sorted set whose score is below `before` and whose row has expired.

    On a cluster the set and the rows are on different nodes, so no script can do this atomically. If another
    writer restores a row in between, its entry is restored, too.

    Args:
        key_of: returns the key of a member's row.
        staying: members that stay in any case.

    Returns:
        The number of removed members.

    Raises as `RowStore` does.
    """
    removed = passed = 0
    while True:
        with failures(client, index_key):
            pairs: Any = client.zrange(
                index_key,
                "-inf",
                f"({before}",
                byscore=True,
                offset=passed,
                num=CHUNK,
                withscores=True,
            )
            if not pairs:
                return removed
            gone = _without_row(client, [pair for pair in pairs if pair[0] not in staying], key_of)
            if gone:
                checked(replies(client, [(index_key, ("ZREM", index_key, *(member for member, _ in gone)))]))
            here = {member for member, _ in _without_row(client, gone, key_of)}
            back = [(member, score) for member, score in gone if member not in here]
            if back:
                scores = [part for member, score in back for part in (int(score), member)]
                checked(replies(client, [(index_key, ("ZADD", index_key, "GT", *scores))]))
        removed += len(gone) - len(back)
        passed += len(pairs) - len(gone) + len(back)


def _without_row(
    client: Client, members: Sequence[tuple[str, float]], key_of: Callable[[str], str]
) -> list[tuple[str, float]]:
    keys = [key_of(member) for member, _ in members]
    there = checked(replies(client, [(key, ("EXISTS", key)) for key in keys]))
    return [pair for pair, exists in zip(members, there, strict=True) if not exists]


def append(client: Client, key: str, entries: Sequence[Mapping[str, str]], newest: int) -> None:
    """Append entries to a stream that is trimmed to about `newest` entries. Raises as `RowStore` does."""
    commands: list[Command] = []
    for fields in entries:
        entry = [part for field in fields.items() for part in field]
        commands.append((key, ("XADD", key, "MAXLEN", "~", newest, "*", *entry)))
    with failures(client):
        checked(replies(client, commands))


def entries_after(client: Client, key: str, last: str = "") -> list[tuple[str, dict[str, str]]]:
    """Ids and fields of a stream's entries after the id `last`. Raises as `RowStore` does."""
    with failures(client):
        answers = checked(replies(client, [(key, ("XRANGE", key, f"({last}" if last else "-", "+"))]))
    return [(entry, dict(fields)) for entry, fields in answers[0]]


def put_fields(client: Client, hashes: Mapping[str, Mapping[str, str]], ttl: timedelta | None = None) -> None:
    """Add fields to hashes that are no rows, by key; other fields stay.

    Args:
        ttl: of each whole hash, from now on; None leaves it unchanged.

    Raises:
        RedisUnavailable: some hashes may not have been written; repeat the call.
    """
    put_shared(client, [((key,), *field) for key, fields in hashes.items() for field in fields.items()], ttl)


def put_shared(client: Client, fields: Sequence[SharedField], ttl: timedelta | None = None) -> None:
    """Add fields as `put_fields` does, for fields that several hashes share: each field is sent once."""
    # A script with many keys: with a command for each key the client would use three times the server's
    # time. On a cluster a script's keys must be in one slot.
    ttl_ms = "" if ttl is None else ttl // timedelta(milliseconds=1)
    # The timeout is for a round trip, which has one chunk, so any number of fields arrives.
    for chunk in chunks(fields):
        commands: list[Command] = []
        for slot_fields in _by_slot(client, chunk):
            every = [key for keys, _, _ in slot_fields for key in keys]
            key_counts = " ".join([str(len(keys)) for keys, _, _ in slot_fields])
            parts = [part for _, name, value in slot_fields for part in (name, value)]
            commands.append((every[0], ("EVAL", PUT, len(every), *every, ttl_ms, key_counts, *parts)))
        with failures(client):
            checked(replies(client, commands))


def _by_slot(client: Client, fields: Sequence[SharedField]) -> Collection[Sequence[SharedField]]:
    """The fields in groups, each for the keys of one script."""
    if not isinstance(client, RedisCluster):
        return [fields]
    fields_by_slot: dict[int, list[SharedField]] = {}
    for keys, name, value in fields:
        for key in keys:
            slot = client.keyslot(key)  # type: ignore[no-untyped-call]
            fields_by_slot.setdefault(slot, []).append(((key,), name, value))
    return fields_by_slot.values()


def drop_fields(client: Client, key: str, names: Collection[str]) -> None:
    """Remove fields of a hash that is no row. Raises as `RowStore` does."""
    with failures(client):
        for chunk in chunks(list(names)):
            checked(replies(client, [(key, ("HDEL", key, *chunk))]))


def count_fields(client: Client, key: str) -> int:
    """The number of fields of a hash; 0 for an absent one. Raises as `RowStore` does."""
    with failures(client):
        return int(checked(replies(client, [(key, ("HLEN", key))]))[0])


def eviction_policies(client: Client) -> set[str]:
    """The policies for a full memory (`maxmemory-policy`) of the primaries that show it to this user.

    Raises:
        RedisUnavailable: they cannot be asked now.
    """
    with failures(client):
        commands = [(key, ("CONFIG", "GET", "maxmemory-policy")) for key in mark_keys(client, "policy")]
        answers = replies(client, commands)
    lists = [next(iter(one.items())) if isinstance(one, dict) else one for one in answers if one]
    return {str(one[1]) for one in lists if not isinstance(one, Exception)}


def server_infos(client: Client) -> list[Mapping[str, Any]]:
    """The `INFO` of the server, or of each primary of a cluster. Raises as `RowStore` does."""
    with failures(client):
        if not isinstance(client, RedisCluster):
            return [cast(Mapping[str, Any], client.info())]
        infos: Mapping[str, Any] = client.info(target_nodes=RedisCluster.PRIMARIES)
        return [infos] if "used_memory" in infos else [*infos.values()]


def server_clock(client: Client, key: str, field: str) -> tuple[int, str | None]:
    """The server's clock in epoch ms, and a field of the hash at `key`. On a cluster the node that has `key`
    answers. Raises as `RowStore` does.
    """
    with failures(client, key):
        value, (seconds, micros) = checked(replies(client, [(key, ("HGET", key, field)), (key, ("TIME",))]))
    return int(seconds) * 1000 + int(micros) // 1000, value
