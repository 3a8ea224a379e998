"""Redis or Valkey, single node or cluster: hashes written whole, fenced, and never backwards.

A row is one hash. One server-side script a row compares (`generation`, `fence`, `rev`) with what the hash
holds and writes all fields or none, so that a reader sees one version and a stale writer cannot overwrite.
Everything here is idempotent: after any error the caller repeats the whole call. Unit of parallelism: one
`RowStore` a process; a script touches only its row's key, so any number of writers share a store.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from hashlib import sha1
from typing import Any, Final, NamedTuple

import msgspec
from redis.exceptions import NoScriptError

from connectors.redis.client import Client, Command, checked, chunks, failures, replies
from connectors.redis.marks import Marks, mark_keys, newest_run

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


class WriteOutcome(StrEnum):
    """The outcome of writing a row.

    `LANDED`: written. `SAME`: exactly this version was there already. `STALE`: a newer `rev` of the same
    (`generation`, `fence`) is there. `SUPERSEDED`: a newer (`generation`, `fence`) is.
    """

    LANDED = "landed"
    SAME = "same"
    STALE = "stale"
    SUPERSEDED = "superseded"


class RowVersion(NamedTuple):
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
        rows: Sequence[RowVersion],
        *,
        first: RowVersion | None = None,
        last: Sequence[RowVersion] = (),
        publish: tuple[str, str | bytes] | None = None,
    ) -> list[WriteOutcome]:
        """Write `first`, then `rows`, then their index, then `last`, then publish (channel, message).

        Each begins when all before it is stored.

        Returns:
            One outcome a row of `rows`.

        Raises:
            Superseded: a newer execution owns `first`; nothing else was written.
            Emptied: `watch` was called, and the store has lost data since the last write, or during this one.
        """
        if first is not None and self._land([first]) == [WriteOutcome.SUPERSEDED]:
            raise Superseded(first.key)
        outcomes = [outcome for chunk in chunks(rows) if self._whole for outcome in self._land(chunk)]
        if self._whole:
            self._add_to_index(rows, outcomes)
            self._land(last)
        if not self._whole:
            raise Emptied
        if publish is not None:
            with failures(self._client):
                self._client.publish(*publish)
        return outcomes

    def drop(self, rows: Sequence[RowVersion]) -> None:
        """Delete the hashes of `rows`, and what their index has of them; what a newer execution wrote stays.

        Raises as `write` does.
        """
        for chunk in chunks(rows):
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

    def _land(self, rows: Sequence[RowVersion]) -> list[WriteOutcome]:
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
            return [WriteOutcome(answer) for answer in checked(answers)]

    def _add_to_index(self, rows: Sequence[RowVersion], outcomes: Sequence[WriteOutcome]) -> None:
        scores: dict[str, dict[str, int]] = {}
        for row, outcome in zip(rows, outcomes, strict=True):
            # `same` too: an earlier attempt may have stored the row and failed before its index.
            if row.index_key is not None and outcome in (WriteOutcome.LANDED, WriteOutcome.SAME):
                scores.setdefault(row.index_key, {})[row.member] = row.score
        commands: list[Command] = [
            # GT: a writer that slept between its row and this must not turn the score back.
            (key, ("ZADD", key, "GT", *(part for member, score in some for part in (score, member))))
            for key, members in scores.items()
            for some in chunks(list(members.items()))
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


def count_fields(client: Client, key: str) -> int:
    """The number of fields of a hash; 0: the hash is not there. Raises as `RowStore` does."""
    with failures(client):
        return int(checked(replies(client, [(key, ("HLEN", key))]))[0])


def eviction_policies(client: Client) -> set[str]:
    """The policies of the primaries for a full memory (`maxmemory-policy`), of those that tell this user.

    Raises:
        RedisUnavailable: they cannot be asked now.
    """
    with failures(client):
        commands = [(key, ("CONFIG", "GET", "maxmemory-policy")) for key in mark_keys(client, "policy")]
        told = replies(client, commands)
    lists = [next(iter(one.items())) if isinstance(one, dict) else one for one in told if one]
    return {str(one[1]) for one in lists if not isinstance(one, Exception)}


_PUT: Final = """#!lua
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[2 * i], ARGV[2 * i + 1])
  if ARGV[1] ~= '' then redis.call('PEXPIRE', key, ARGV[1]) end
end
return #KEYS
"""


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
