"""Redis's side: what the commands and scripts of the project do to keys, command by command.

Scripts are known by their text: one that is not known is an error, so a script that changes has to be
understood here anew. `test_fakes` holds all of it to a real Valkey. A key whose time is over goes when an
older copy comes back, and not by itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from hashlib import sha1
from itertools import islice
from typing import Any

import msgspec
from redis.exceptions import NoScriptError, ResponseError

from connectors.redis import marks, scripts

Command = tuple[str, ...]


class Store:
    """The keys of one server, their times to live, its scripts.

    Args:
        now_ms: its clock.
        changed: told of each hash that a command has changed or deleted, behind the command.
    """

    def __init__(self, now_ms: Callable[[], int], changed: Callable[[set[str]], None]) -> None:
        self._now_ms, self._changed = now_ms, changed
        self.keys: dict[str, Any] = {}
        self.until_ms: dict[str, int] = {}
        self.known: set[str] = set()
        self.flushed: Callable[[], None] = lambda: None
        self._touched: set[str] = set()

    def run(self, *command: Any) -> Any:
        """The reply to a command, or its error as a value."""
        name, *args = ["" if part is None else part for part in command]
        name = text(name)
        if name == "SCRIPT":
            self.known.add(sha1(text(args[1]).encode(), usedforsecurity=False).hexdigest())
            return ""
        try:
            packed = [args.pop()] if name == "EVALSHA" else []  # MessagePack
            parts = [part.decode() if type(part) is bytes else text(part) for part in args] + packed
            answer = getattr(self, f"_{name.lower()}")(*parts)
        except ResponseError as error:
            answer = error
        touched, self._touched = self._touched, set()
        if touched:
            self._changed(touched)
        return answer

    def copy(self) -> tuple[Any, ...]:
        """All that it holds, as a replica has it."""
        return copy.deepcopy(self.keys), dict(self.until_ms)

    def become(self, held: tuple[Any, ...]) -> None:
        """Hold that instead, without what has expired since; but what stayed here beyond its time stays."""
        before, stays = set(self.keys), self._expired()
        self.keys, self.until_ms = copy.deepcopy(held[0]), dict(held[1])
        for key in self._expired() - stays:
            del self.keys[key], self.until_ms[key]
        self._changed(before | set(self.keys))

    def _expired(self) -> set[str]:
        now_ms = self._now_ms()
        return {key for key, until_ms in self.until_ms.items() if until_ms <= now_ms}

    # Commands

    def _hash(self, key: str, write: bool = False) -> dict[str, str]:
        held = self.keys.setdefault(key, {}) if write else self.keys.get(key, {})
        if not isinstance(held, dict):
            raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        if write:
            self._touched.add(key)
        return held

    def _get(self, key: str) -> str | None:
        held = self.keys.get(key)
        if isinstance(held, (dict, list)):
            raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return held

    def _set(self, key: str, value: str) -> bool:
        self.keys[key] = value
        return True

    def _del(self, key: str) -> int:
        self._touched.add(key)
        self.until_ms.pop(key, None)
        return int(self.keys.pop(key, None) is not None)

    def _exists(self, key: str) -> int:
        return int(key in self.keys)

    def _hgetall(self, key: str) -> dict[str, str]:
        return dict(self._hash(key))

    def _time(self) -> tuple[int, int]:
        now_ms = self._now_ms()
        return now_ms // 1000, now_ms % 1000 * 1000

    def _hget(self, key: str, field: str) -> str | None:
        return self._hash(key).get(field)

    def _hmget(self, key: str, *fields: str) -> list[str | None]:
        held = self._hash(key)
        return [held.get(field) for field in fields]

    def _hset(self, key: str, *parts: Any) -> int:
        held = self._hash(key, write=True)
        before = len(held)
        texts = [part if type(part) is str else text(part) for part in parts]
        held.update(zip(texts[::2], texts[1::2], strict=True))
        return len(held) - before

    def _hdel(self, key: str, *fields: str) -> int:
        held = self._hash(key, write=True)
        gone = sum(held.pop(field, None) is not None for field in fields)
        if not held:
            self._del(key)
        return gone

    def _hlen(self, key: str) -> int:
        return len(self._hash(key))

    def _sorted(self, key: str) -> dict[str, int]:
        held: dict[str, int] = self.keys.setdefault(key, [{}])[0]
        return held

    def _zadd(self, key: str, how: str, *parts: str) -> int:
        assert how == "GT"
        held = self._sorted(key)
        before = len(held)
        for score, member in zip(parts[::2], parts[1::2], strict=True):
            held[member] = max(held.get(member, -(1 << 60)), int(score))
        return len(held) - before

    def _zrem(self, key: str, *members: str) -> int:
        held = self._sorted(key)
        gone = sum(held.pop(member, None) is not None for member in members)
        if not held:
            del self.keys[key]
        return gone

    def _xadd(self, key: str, *parts: str) -> str:
        assert parts[0] == "MAXLEN"
        held: list[dict[str, str]] = self.keys.setdefault(key, [])
        held.append(dict(zip(parts[4::2], parts[5::2], strict=True)))
        return f"{len(held)}-0"

    def _zrange(self, key: str) -> list[str]:
        held = self._sorted(key) if key in self.keys else {}
        return sorted(held, key=lambda member: (held[member], member))

    def _publish(self, channel: str, message: str) -> int:
        self.flushed()
        return 0

    def _config(self, *_: str) -> dict[str, str]:
        return {"maxmemory-policy": "noeviction"}

    def _flushall(self) -> bool:
        self._touched |= set(self.keys)
        self.keys.clear()
        self.until_ms.clear()
        return True

    # Scripts

    def _eval(self, script: str, number: str, *parts: str) -> Any:
        keys, args = parts[: int(number)], parts[int(number) :]
        return SCRIPTS[script](self, keys, args)

    def _evalsha(self, sha: str, number: str, *parts: Any) -> Any:
        if sha not in self.known:
            raise NoScriptError("No matching script")
        return self._write(parts[: int(number)], parts[int(number) :])

    def _write(self, keys: Sequence[str], args: Sequence[Any]) -> str | list[str]:
        kinds, usual, parts = msgspec.msgpack.decode(args[-1])
        rows = [*zip(parts[::3], parts[1::3], parts[2::3], strict=True)]
        told = []
        held = [self._hmget(key, "generation", "fence", "rev") for key in keys]
        if len(keys) > len(rows):
            *keys, _ = keys
            covered = _newer(held.pop(), [*map(int, args[:3])])
            if covered in ("landed", "superseded"):
                return ["uncovered" if covered == "landed" else covered] * len(rows)
        for key, version, (kind, fields, gone) in zip(keys, held, rows, strict=True):
            ours, ttl_ms, base = kinds[kind - 1]
            outcome = _newer(version, ours)
            if outcome == "landed" and base in ("usual", "none"):
                self._del(key)
                if base == "usual":
                    self._hset(key, *usual)
            elif outcome == "landed" and [_number(one) for one in version] != list(base):
                outcome = "unbased"
            if outcome == "landed":
                self._hset(key, *(fields or ()))
                if gone:
                    self._hdel(key, *gone)
                self._expire(key, ttl_ms)
            told.append(outcome)
        return "landed" if {*told} == {"landed"} else told

    def _expire(self, key: str, ttl_ms: Any) -> None:
        self.until_ms.pop(key, None)
        if ttl_ms:
            self.until_ms[key] = self._now_ms() + int(ttl_ms)

    def _drop(self, keys: Sequence[str], args: Sequence[str]) -> int:
        for ours, theirs in zip(args, self._hmget(keys[0], "generation", "fence", "rev"), strict=True):
            if int(ours) != _number(theirs):
                if int(ours) < _number(theirs):
                    return 0
                break
        return self._del(keys[0])

    def _unlist(self, keys: Sequence[str], args: Sequence[str]) -> int:
        index, *rows = keys
        for at, (member, most) in enumerate(zip(args[::2], args[1::2], strict=True)):
            score = self._sorted(index).get(member)
            if score is not None and score <= int(most) and not (rows and self._exists(rows[at])):
                self._zrem(index, member)
        return 1

    def _claim(self, keys: Sequence[str], args: Sequence[str]) -> list[str] | None:
        newer = False
        for place, theirs in enumerate(self._hmget(keys[0], "generation", "fence")):
            ours = int(args[place])
            if ours < _number(theirs):
                return None
            if ours > _number(theirs):
                newer = True
                if place == 0:
                    self._del(keys[0])
                break
        if newer:
            self._hset(keys[0], "generation", args[0], "fence", args[1], "rev", -1)
        return [part for pair in self._hash(keys[0]).items() for part in pair]

    def _take(self, keys: Sequence[str], args: Sequence[str]) -> int:
        taken = max(int(self._get(keys[0]) or 0) + 1, int(args[0]) + 1)
        self._set(keys[0], str(taken))
        return taken

    def _raise(self, keys: Sequence[str], args: Sequence[str]) -> int:
        if int(self._get(keys[0]) or 0) < int(args[0]):
            self._set(keys[0], args[0])
        return 1

    def _put_in_older(self, keys: Sequence[str], args: Sequence[str]) -> int:
        held = self._hash(keys[0]).get("generation")
        if held is None or int(held) >= int(args[0]):
            return 0
        self._hset(keys[0], *args[1:])
        return 1

    def _put(self, keys: Sequence[str], args: Sequence[str]) -> int:
        every, at = iter(keys), 2
        for many in map(int, args[1].split()):
            for key in islice(every, many):
                self._hset(key, args[at], args[at + 1])
                if args[0]:
                    self.until_ms[key] = self._now_ms() + int(args[0])
            at += 2
        return len(keys)

    def _step(self, keys: Sequence[str], args: Sequence[str]) -> int:
        run, _, number = str(self._get(keys[0]) or "").partition("-")
        if run != args[0] or not int(args[1]) <= int(number) < int(args[2]):
            return 0
        self._set(keys[0], f"{args[0]}-{args[2]}")
        return 1


SCRIPTS: dict[str, Callable[[Store, Sequence[str], Sequence[str]], Any]] = {
    scripts.DROP: Store._drop,
    scripts.UNLIST: Store._unlist,
    scripts.CLAIM: Store._claim,
    scripts.TAKE: Store._take,
    scripts.RAISE: Store._raise,
    scripts.PUT_IN_OLDER: Store._put_in_older,
    scripts.PUT: Store._put,
    marks._STEP: Store._step,
}


def text(part: Any) -> str:
    """A part of a command as the server keeps it."""
    kind = type(part)
    return part if kind is str else part.decode() if kind is bytes else str(part)


def _number(held: str | None) -> float:
    return -math.inf if held is None else int(held)


def _newer(held: Sequence[str | None], ours: Sequence[int]) -> str:
    for place, (theirs, own) in enumerate(zip(held, ours, strict=True)):
        if own < _number(theirs):
            return "stale" if place == 2 else "superseded"
        if own > _number(theirs):
            return "landed"
    return "same"
