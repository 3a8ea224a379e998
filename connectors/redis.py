"""Redis or Valkey, single node or cluster: hashes written whole, fenced, and never backwards.

A row is one hash. One server-side script a row compares (`generation`, `fence`, `rev`) with what the hash
holds and writes all fields or none, so that a reader sees one version and a stale writer cannot overwrite.
Everything here is idempotent: after any error the caller repeats the whole call. Unit of parallelism: one
`RowStore` a process; a script touches only its row's key, so any number of writers share a store.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from hashlib import sha1
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from redis import RedisCluster
from redis.exceptions import NoScriptError

from connectors.redis_client import (
    REASONS,
    Client,
    Command,
    RedisUnavailable,
    checked,
    connect,
    failures,
    replies,
)
from connectors.redis_marks import Marks, mark_keys, newest_run

__all__ = [
    "REASONS",
    "Client",
    "Emptied",
    "FencedHash",
    "Outcome",
    "RedisUnavailable",
    "Row",
    "RowStore",
    "Superseded",
    "append",
    "connect",
    "count_fields",
    "entries_after",
    "eviction_policies",
    "put_fields",
    "read_rows",
    "scan_index",
    "trim_index",
]

CHUNK: Final = 500
"""Rows a pipeline: one round trip, about 0.3 MB of requests at 100 fields a row."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.:+-]+")
_MOST_FIELDS: Final = 3_000  # Lua's unpack() passes at most 8,000 values
_RESERVED: Final = ("generation", "fence", "rev", "updated_ms")

_WRITE: Final = """#!lua
local held = redis.call('HMGET', KEYS[1], 'generation', 'fence', 'rev')
local newer = false
for i = 1, 3 do
  local ours, theirs = tonumber(ARGV[i]), tonumber(held[i]) or -math.huge
  if ours < theirs then return i == 3 and 'stale' or 'superseded' end
  if ours > theirs then newer = true break end
end
if not newer then return 'same' end
local names = {%s}
local values = cmsgpack.unpack(ARGV[5])
local row = {'generation', ARGV[1], 'fence', ARGV[2], 'rev', ARGV[3], 'updated_ms', ARGV[4]}
local n = #row
for i = 1, #names do
  local value = values[i]
  if value ~= nil then
    -- As a number: the server writes integers to 2^53 exactly; tostring() would round to 14 digits.
    row[n + 1], row[n + 2] = names[i], value
    n = n + 2
  end
end
redis.call('HSET', KEYS[1], unpack(row))
if redis.call('HLEN', KEYS[1]) * 2 > n then
  local kept = {}
  for i = 1, n, 2 do kept[row[i]] = true end
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if not kept[name] then redis.call('HDEL', KEYS[1], name) end
  end
end
if ARGV[6] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[6]) end
return 'landed'
"""

_DROP: Final = """#!lua
local held = redis.call('HMGET', KEYS[1], 'generation', 'fence')
for i = 1, 2 do
  local ours, theirs = tonumber(ARGV[i]), tonumber(held[i]) or -math.huge
  if ours < theirs then return 0 end
  if ours > theirs then break end
end
return redis.call('DEL', KEYS[1])
"""

_CLAIM: Final = """#!lua
local held = redis.call('HMGET', KEYS[1], 'generation', 'fence')
local newer = false
for i = 1, 2 do
  local ours, theirs = tonumber(ARGV[i]), tonumber(held[i]) or -math.huge
  if ours < theirs then return false end
  if ours > theirs then
    newer = true
    if i == 1 then redis.call('DEL', KEYS[1]) end
    break
  end
end
if newer then redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'fence', ARGV[2], 'rev', -1) end
return redis.call('HGETALL', KEYS[1])
"""

_TAKE: Final = """#!lua
local taken = redis.call('INCR', KEYS[1])
if taken <= tonumber(ARGV[1]) then
  taken = tonumber(ARGV[1]) + 1
  redis.call('SET', KEYS[1], taken)
end
return taken
"""

_RAISE: Final = """#!lua
local held = tonumber(redis.call('GET', KEYS[1])) or 0
if held < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""


class Superseded(Exception):
    """A newer generation or fence owns `key`: another execution took over, so this one must stop."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is owned by a newer execution: stop this one")
        self.key = key


class Emptied(Exception):
    """The store has lost data since it was last written to: all that it must hold is to be written again."""


class Outcome(StrEnum):
    """What became of a row.

    `LANDED`: written. `SAME`: exactly this version was there already. `STALE`: a newer `rev` of the same
    (`generation`, `fence`) is there. `SUPERSEDED`: a newer (`generation`, `fence`) is.
    """

    LANDED = "landed"
    SAME = "same"
    STALE = "stale"
    SUPERSEDED = "superseded"


class Row(NamedTuple):
    """One version of one hash.

    `layout` names a `FencedHash` of the store; `packed` comes from its `pack`. (`generation`, `fence`,
    `rev`) are integers from 0 to 2**53, compared in this order. `ttl_ms` None keeps the key for ever. With an
    `index_key`, `member` goes into that sorted set; its score never falls.
    """

    key: str
    layout: str
    packed: bytes
    generation: int
    fence: int
    rev: int
    ttl_ms: int | None = None
    index_key: str | None = None
    member: str = ""
    score: int = 0


class FencedHash:
    """The layout of a hash that is written whole: its field names, and the script that writes them.

    Beside `fields` (at most 3,000) each hash holds `generation`, `fence`, `rev` and `updated_ms`. No other
    field outlives a write.

    Raises:
        ValueError: a name repeated, reserved, or not of letters, digits and `_ . : + -`.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        bad = [name for name in fields if not _NAME.fullmatch(name) or name in _RESERVED]
        if bad or len(set(fields)) < len(fields) or len(fields) > _MOST_FIELDS:
            raise ValueError(f"not a layout: {len(fields)} fields, {bad or 'some repeated or too many'}")
        self.fields: Final = tuple(fields)
        self.script: Final = _WRITE % ", ".join(f"'{name}'" for name in fields)
        self.sha: Final = sha1(self.script.encode(), usedforsecurity=False).hexdigest()
        self._encode = msgspec.msgpack.Encoder().encode

    def pack(self, values: Sequence[int | str | None]) -> bytes:
        """One value a field, in the layout's order.

        An integer within ±2**53, or text (decimals come as text: a float would be written with 17 digits),
        or None for an absent field.
        """
        assert len(values) == len(self.fields), "values do not fit the layout"
        return self._encode(values)


class RowStore:
    """Writes rows, their index, and what must come before and after them.

    Every method raises `RedisUnavailable` for what passes, and `ConnectError` for what does not: a key of
    another type, a right that is missing.

    Args:
        client: from `connect`.
        layouts: by the name that `Row.layout` gives.
        clock_ms: wall clock for `updated_ms`.
    """

    def __init__(
        self,
        client: Client,
        layouts: Mapping[str, FencedHash],
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._client = client
        self._layouts = layouts
        self._clock_ms = clock_ms
        self._marks: Marks | None = None
        self._whole = True

    def take_fence(self, key: str, above: int = 0) -> int:
        """A new fence: the greater of `INCR` and one more than `above`, greater than all before it."""
        with failures(self._client):
            taken: Any = self._client.eval(_TAKE, 1, key, str(above))
        return int(taken)

    def newest_run(self, key: str) -> int:
        """The greatest fence that has watched the store by marks at `key`, on whatever node; 0: none has."""
        return newest_run(self._client, key)

    def watch(self, key: str, fence: int) -> None:
        """From now on `write` tells when the store has lost data, by marks at `key`, which this writer shares
        with nobody but those that it superseded.

        Called again after `Emptied`, before all is written again.
        """
        if self._marks is None:
            self._marks = Marks(self._client, key, fence)
        self._marks.begin()
        self._whole = True

    def raise_fence(self, key: str, fence: int) -> None:
        """Let every later `take_fence` give more than `fence`.

        For a store that lost its data: else the next execution would be older than the rows that this one
        restored.
        """
        with failures(self._client):
            self._client.eval(_RAISE, 1, key, str(fence))

    def claim(self, key: str, generation: int, fence: int) -> dict[str, str]:
        """Take over the hash that `write` gets as `first`, and return its fields.

        From then on no `write` of an older (`generation`, `fence`) with this `first` passes, so the fields
        cover all rows that older executions have written or still will. A claimed hash has `rev` -1 until its
        next write; what an older generation wrote is no longer in it.

        Raises:
            Superseded: a newer generation or fence holds it.
        """
        with failures(self._client):
            held: Any = self._client.eval(_CLAIM, 1, key, str(generation), str(fence))
        if held is None:
            raise Superseded(key)
        return dict(zip(held[::2], held[1::2], strict=True))

    def write(
        self,
        rows: Sequence[Row],
        *,
        first: Row | None = None,
        last: Sequence[Row] = (),
        publish: tuple[str, str | bytes] | None = None,
    ) -> list[Outcome]:
        """Write `first`, then `rows`, then their index, then `last`, then publish (channel, message).

        Each begins when all before it is stored.

        Returns:
            One outcome a row of `rows`.

        Raises:
            Superseded: a newer execution owns `first`; nothing else was written.
            Emptied: `watch` was called, and the store has lost data since the last write, or during this one.
        """
        if first is not None and self._land([first]) == [Outcome.SUPERSEDED]:
            raise Superseded(first.key)
        outcomes = [outcome for chunk in _chunks(rows) if self._whole for outcome in self._land(chunk)]
        if self._whole:
            self._add_to_index(rows, outcomes)
            self._land(last)
        if not self._whole:
            raise Emptied
        if publish is not None:
            with failures(self._client):
                self._client.publish(*publish)
        return outcomes

    def drop(self, rows: Sequence[Row]) -> None:
        """Delete the hashes of `rows`, and what their index has of them; what a newer execution wrote stays.

        Raises as `write` does.
        """
        for chunk in _chunks(rows):
            commands: list[Command] = [
                (row.key, ("EVAL", _DROP, 1, row.key, row.generation, row.fence)) for row in chunk
            ]
            with failures(self._client):
                gone = checked(self._send(commands))
            members: dict[str, list[str]] = {}
            for row, dropped in zip(chunk, gone, strict=True):
                if dropped and row.index_key is not None:
                    members.setdefault(row.index_key, []).append(row.member)
            commands = [(key, ("ZREM", key, *some)) for key, some in members.items()]
            with failures(self._client):
                checked(self._send(commands))

    def _land(self, rows: Sequence[Row]) -> list[Outcome]:
        now_ms = self._clock_ms()
        commands: list[Command] = []
        for row in rows:
            version = (row.generation, row.fence, row.rev)
            ttl_ms = "" if row.ttl_ms is None else row.ttl_ms
            sha = self._layouts[row.layout].sha
            commands.append((row.key, ("EVALSHA", sha, 1, row.key, *version, now_ms, row.packed, ttl_ms)))
        with failures(self._client):
            answers = self._send(commands)
            # After a restart, a failover or SCRIPT FLUSH.
            unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                for layout in self._layouts.values():
                    self._client.script_load(layout.script)
                again = self._send([commands[i] for i in unknown])
                for i, answer in zip(unknown, again, strict=True):
                    answers[i] = answer
            return [Outcome(answer) for answer in checked(answers)]

    def _add_to_index(self, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> None:
        scores: dict[str, dict[str, int]] = {}
        for row, outcome in zip(rows, outcomes, strict=True):
            # `same` too: an earlier attempt may have stored the row and failed before its index.
            if row.index_key is not None and outcome in (Outcome.LANDED, Outcome.SAME):
                scores.setdefault(row.index_key, {})[row.member] = row.score
        commands: list[Command] = [
            # GT: a writer that slept between its row and this must not turn the score back.
            (key, ("ZADD", key, "GT", *(part for member, score in some for part in (score, member))))
            for key, members in scores.items()
            for some in _chunks(list(members.items()))
        ]
        with failures(self._client):
            checked(self._send(commands))

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        """The reply to each command; their pipelines end with the marks' steps."""
        if self._marks is None:
            return replies(self._client, commands)
        steps = self._marks.steps()
        answers = replies(self._client, [*commands, *steps])
        self._whole &= self._marks.settle(steps, checked(answers[len(commands) :]))
        return answers[: len(commands)]


def read_rows(
    client: Client, keys: Sequence[str], fields: Sequence[str] | None = None
) -> list[dict[str, str]]:
    """One dict a key, each a consistent snapshot: all fields, or those of `fields` that are present.

    A key that is absent gives an empty dict. Raises as `RowStore` does.
    """
    rows: list[dict[str, str]] = []
    for chunk in _chunks(keys):
        commands: list[Command] = [
            (key, ("HGETALL", key) if fields is None else ("HMGET", key, *fields)) for key in chunk
        ]
        with failures(client):
            answers = checked(replies(client, commands, alike=True))
        if fields is not None:
            answers = [
                {name: value for name, value in zip(fields, answer, strict=True) if value is not None}
                for answer in answers
            ]
        rows.extend(answers)
    return rows


def count_fields(client: Client, key: str) -> int:
    """How many fields a hash has; 0: it is not there. Raises as `RowStore` does."""
    with failures(client):
        return int(checked(replies(client, [(key, ("HLEN", key))]))[0])


def scan_index(client: Client, index_key: str) -> list[str]:
    """All members of a sorted set, in no order, without blocking the server. Raises as `RowStore` does."""
    with failures(client):
        # A scan may give a member twice.
        return list(dict.fromkeys(member for member, _ in client.zscan_iter(index_key, count=CHUNK)))


def trim_index(
    client: Client, index_key: str, before: int, key_of: Callable[[str], str], kept: Collection[str] = ()
) -> int:
    """Remove the members of a sorted set whose score is below `before` and whose row has expired.

    On a cluster the set and the rows are on different nodes, so no script can do it at once. A row that
    another writer brings back in between has its entry back too.

    Args:
        key_of: the row's key of a member.
        kept: members that stay in any case.

    Returns:
        How many were removed. Raises as `RowStore` does.
    """
    removed = passed = 0
    while True:
        with failures(client):
            found: Any = client.zrange(
                index_key,
                "-inf",
                f"({before}",
                byscore=True,
                offset=passed,
                num=CHUNK,
                withscores=True,
            )
            if not found:
                return removed
            gone = _without_row(client, [pair for pair in found if pair[0] not in kept], key_of)
            if gone:
                checked(replies(client, [(index_key, ("ZREM", index_key, *(member for member, _ in gone)))]))
            here = {member for member, _ in _without_row(client, gone, key_of)}
            back = [(member, score) for member, score in gone if member not in here]
            if back:
                scores = [part for member, score in back for part in (int(score), member)]
                checked(replies(client, [(index_key, ("ZADD", index_key, "GT", *scores))]))
        removed += len(gone) - len(back)
        passed += len(found) - len(gone) + len(back)


def _without_row(
    client: Client, members: Sequence[tuple[str, float]], key_of: Callable[[str], str]
) -> list[tuple[str, float]]:
    keys = [key_of(member) for member, _ in members]
    there = checked(replies(client, [(key, ("EXISTS", key)) for key in keys]))
    return [pair for pair, exists in zip(members, there, strict=True) if not exists]


def eviction_policies(client: Client) -> set[str]:
    """What the primaries do when their memory is full (`maxmemory-policy`), of those that tell this user.

    Raises:
        RedisUnavailable: they cannot be asked now.
    """
    with failures(client):
        commands = [(key, ("CONFIG", "GET", "maxmemory-policy")) for key in mark_keys(client, "policy")]
        told = replies(client, commands)
    lists = [next(iter(one.items())) if isinstance(one, dict) else one for one in told if one]
    return {str(one[1]) for one in lists if not isinstance(one, Exception)}


def append(client: Client, key: str, fields: Mapping[str, str], kept: int) -> None:
    """Append an entry to a stream of about the newest `kept`. Raises as `RowStore` does."""
    entry = [part for field in fields.items() for part in field]
    with failures(client):
        checked(replies(client, [(key, ("XADD", key, "MAXLEN", "~", kept, "*", *entry))]))


def entries_after(client: Client, key: str, last: str = "") -> list[tuple[str, dict[str, str]]]:
    """Ids and fields of a stream's entries behind that of id `last`. Raises as `RowStore` does."""
    with failures(client):
        found = checked(replies(client, [(key, ("XRANGE", key, f"({last}" if last else "-", "+"))]))
    return [(entry, dict(fields)) for entry, fields in found[0]]


_T = TypeVar("_T")


_PUT: Final = """#!lua
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[2 * i], ARGV[2 * i + 1])
  if ARGV[1] ~= '' then redis.call('PEXPIRE', key, ARGV[1]) end
end
return #KEYS
"""


def put_fields(client: Client, hashes: Mapping[str, Mapping[str, str]], ttl: timedelta | None = None) -> None:
    """Add fields to hashes that are nobody's rows, by key; those with other names stay.

    Args:
        ttl: of each whole hash, from now on; None: as it is.

    Raises:
        RedisUnavailable: some may not have been written; repeat the call.
    """
    # By one script of many keys: a command a key costs the client three times as much as the server. On a
    # cluster a script's keys must be of one slot.
    by_slot: dict[int, list[tuple[str, str, str]]] = {}
    for key, fields in hashes.items():
        slot = client.keyslot(key) if isinstance(client, RedisCluster) else 0  # type: ignore[no-untyped-call]
        by_slot.setdefault(slot, []).extend((key, name, value) for name, value in fields.items())
    ttl_ms = "" if ttl is None else ttl // timedelta(milliseconds=1)
    commands: list[Command] = []
    for entries in by_slot.values():
        for some in _chunks(entries):
            keys = [key for key, _, _ in some]
            parts = [part for _, *pair in some for part in pair]
            commands.append((keys[0], ("EVAL", _PUT, len(keys), *keys, ttl_ms, *parts)))
    with failures(client):
        for batch in _chunks(commands):
            checked(replies(client, list(batch)))


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


_CLOCK: Final = """#!lua
local now = redis.call('TIME')
return {now[1], now[2], redis.call('HGET', KEYS[1], ARGV[1])}
"""


def server_clock(client: Client, key: str, field: str) -> tuple[int, str | None]:
    """The server's clock in epoch ms, of a cluster that of the node which has `key`; and a field of the hash
    there. Raises as `RowStore` does.
    """
    with failures(client):
        answer: Any = client.eval(_CLOCK, 1, key, field)
    seconds, micros, *held = answer
    return int(seconds) * 1000 + int(micros) // 1000, held[0] if held else None
