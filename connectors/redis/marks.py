"""Marks in the store, by which its only writer detects every loss of data.

Each primary holds one: a number that every pipeline increases as its last command, by compare-and-set. A
store that was emptied, or restored from an older snapshot or a lagging replica, fails the comparison at the
first pipeline after the loss. This works in the middle of a flush, and after an unnoticed reconnection of the
client. A mark that is set unconditionally at the end of a flush would hide every loss during that flush.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from redis import RedisCluster

from connectors.redis.client import Client, Command, checked, failures, replies

_STEP: Final = """#!lua
local run, n = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+)-(%d+)$')
n = tonumber(n)
if run ~= ARGV[1] or n < tonumber(ARGV[2]) or n >= tonumber(ARGV[3]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. '-' .. ARGV[3])
return 1
"""

_MARK: Final = re.compile("([0-9]{1,18})-[0-9]+")


class Marks:
    """The marks of one writer.

    Args:
        key: of the mark; on a cluster each primary has one, with a hash tag appended.
        run: the writer's number.
    """

    def __init__(self, client: Client, key: str, run: int) -> None:
        self._client = client
        self._key = key
        self._run = run
        self._number = 0
        self._least: dict[str, int] = {}

    def begin(self) -> None:
        """Set the marks, replacing old ones. The caller must write all data again afterwards."""
        with failures(self._client):
            keys, value = mark_keys(self._client, self._key), f"{self._run}-{self._number}"
            checked(replies(self._client, [(key, ("SET", key, value)) for key in keys]))
        self._least = dict.fromkeys(keys, self._number)

    def steps(self) -> list[Command]:
        """The commands that end the next pipeline, one for each primary."""
        self._number += 1
        commands: list[Command] = []
        for key in mark_keys(self._client, self._key):
            # A new primary may have lost data that it had received: its mark never matches.
            least = self._least.get(key, self._number)
            commands.append((key, ("EVAL", _STEP, 1, key, self._run, least, self._number)))
        return commands

    def settle(self, steps: Sequence[Command], answers: Sequence[Any]) -> bool:
        """Take the answers to `steps`; returns True if no data was lost.

        Without answers it is unknown which steps were executed; the next call then accepts any of them.
        """
        for (key, _), stepped in zip(steps, answers, strict=True):
            if stepped:
                self._least[key] = self._number
        return all(answers)


def mark_keys(client: Client, key: str) -> list[str]:
    """A key on every primary: `key` itself on a single node."""
    if not isinstance(client, RedisCluster):
        return [key]
    cluster: Any = client
    nodes = cluster.nodes_manager
    missing = {owners[0].name for owners in nodes.slots_cache.values()}
    keys: list[str] = []
    for number in count():
        if not missing:
            return keys
        candidate = f"{key}:{{{number}}}"
        owner = nodes.slots_cache[cluster.keyslot(candidate)][0].name
        if owner in missing:
            missing.remove(owner)
            keys.append(candidate)
    raise AssertionError("there are more numbers than slots")


def newest_run(client: Client, key: str) -> int:
    """The greatest writer's number in any mark; 0 without marks.

    Raises:
        RedisUnavailable: the marks cannot be read now.
    """
    with failures(client):
        values = checked(replies(client, [(one, ("GET", one)) for one in mark_keys(client, key)]))
    marks = [_MARK.fullmatch(mark) for mark in values if mark]  # another program has written this value
    return max((int(mark[1]) for mark in marks if mark), default=0)
