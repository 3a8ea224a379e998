"""Redis or Valkey, single node or cluster: hashes written whole, fenced, and never backwards.

A row is one hash. A server-side script compares (`generation`, `fence`, `rev`) with the hash's own and writes
the whole version or nothing, so that a reader gets one version and a stale writer cannot overwrite. A version
that follows one which this writer has written travels as its changes. If the hash holds another version, the
script refuses the changes, and the whole row follows. On a single node the script writes rows only if the
same execution has written their cover. No row is therefore written into a store that was emptied in between,
and none of a writer that was superseded, or died after a loss, however late the network delivers it.
Everything here is idempotent: after any error the caller repeats the whole call. Unit of parallelism: one
`RowStore` a process; a script touches only its rows' keys, so any number of writers share a store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from enum import StrEnum
from hashlib import sha1
from typing import Any, Final

from msgspec.structs import replace
from redis import RedisCluster
from redis.exceptions import InvalidResponse, NoScriptError

from connectors.redis.client import Client, Command, checked, chunks, failures, replies
from connectors.redis.fenced_hash import FencedHash, RowVersion
from connectors.redis.marks import Marks, newest_run
from connectors.redis.scripts import CLAIM, DROP, PUT_IN_OLDER, RAISE, TAKE, UNLIST, WRITE

_A_SCRIPT: Final = 32
"""Rows that one call of the script changes: half a millisecond of the server's time. Other rows are copies of
the call's first one, and cheaper.
"""
_COPIED_BYTES, _LEAST_BYTES = 1024, 256
"""A copy of so many packed bytes counts as a changed row. A smaller copy counts as a part of one, with
`_LEAST_BYTES` at least.
"""
_WRITE_SHA: Final = sha1(WRITE.encode(), usedforsecurity=False).hexdigest()


class Superseded(Exception):
    """A newer generation or fence owns `key`: another execution took over, so this one must stop."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is owned by a newer execution: stop this one")
        self.key = key


class Emptied(Exception):
    """The store has lost data since the last write: all that it must hold must be written again."""


class WriteOutcome(StrEnum):
    """The outcome of writing a row.

    `LANDED`: written. `SAME`: exactly this version was there already. `STALE`: a newer `rev` of the same
    (`generation`, `fence`) is there. `SUPERSEDED`: a newer (`generation`, `fence`) is.
    """

    LANDED = "landed"
    SAME = "same"
    STALE = "stale"
    SUPERSEDED = "superseded"


_BY_NAME: Final = {outcome.value: outcome for outcome in WriteOutcome}
_THERE: Final = (WriteOutcome.LANDED, WriteOutcome.SAME)
_OUTCOMES: Final = frozenset([*_BY_NAME, "unbased", "uncovered"])


def _fits(answer: Any, call: Collection[str]) -> bool:
    """True if an answer is one of the script to a call with so many keys of rows."""
    return answer == WriteOutcome.LANDED or (
        isinstance(answer, list)
        and len(answer) == len(call)
        and {*map(type, answer)} <= {str}
        and _OUTCOMES.issuperset(answer)
    )


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
        from connectors.redis.row_changes import RowChanges  # only a writer's: it takes a second to load

        self._client = client
        self._changes = {name: RowChanges(layout) for name, layout in layouts.items()}
        self._clock_ms = clock_ms
        self._marks: Marks | None = None
        self._whole = True
        self._claimed = ""
        self._landed: dict[str, RowVersion] = {}

    def take_fence(self, key: str, above: int = 0) -> int:
        """A new fence: the greater of `INCR` and one more than `above`, greater than all before it."""
        with failures(self._client, key):
            fence: Any = self._client.eval(TAKE, 1, key, str(above))
        return int(fence)

    def newest_run(self, key: str) -> int:
        """The greatest fence that has watched the store by marks at `key`, on any node; 0 for none."""
        return newest_run(self._client, key)

    def watch(self, key: str, fence: int) -> None:
        """Make `write` report losses of data from now on, by marks at `key`. Only this writer and those that
        it superseded may use the key.

        Call it again after `Emptied`, before everything is written again.
        """
        if self._marks is None:
            self._marks = Marks(self._client, key, fence)
        self._marks.begin()
        self._whole = True
        self._landed.clear()

    def raise_fence(self, key: str, fence: int) -> None:
        """Make every later `take_fence` return more than `fence`.

        This is for a store that lost its data: otherwise the next execution would be older than the rows that
        this one restored.
        """
        with failures(self._client, key):
            self._client.eval(RAISE, 1, key, str(fence))

    def put_in_older(self, key: str, generation: int, fields: Mapping[str, str]) -> None:
        """Put fields into a hash that an older generation has written. Other fields stay, and the next whole
        write of the hash replaces them.
        """
        parts = [part for field in fields.items() for part in field]
        with failures(self._client, key):
            self._client.eval(PUT_IN_OLDER, 1, key, str(generation), *parts)

    def claim(self, key: str, generation: int, fence: int) -> dict[str, str]:
        """Take over the hash that `write` gets as `first`, and return its fields.

        From then on no `write` of an older (`generation`, `fence`) with this `first` passes, so the fields
        cover all rows that older executions have written or still will. A claimed hash has `rev` -1 until its
        next write; what an older generation wrote is no longer in it. Nor does a `write` of this store pass
        where the claim is lost: to be called again after `Emptied`, for an older execution may have written
        since.

        Raises:
            Superseded: a newer generation or fence holds it.
        """
        with failures(self._client, key):
            fields: Any = self._client.eval(CLAIM, 1, key, str(generation), str(fence))
        if fields is None:
            raise Superseded(key)
        self._claimed = key
        return dict(zip(fields[::2], fields[1::2], strict=True))

    def write(
        self,
        rows: Sequence[RowVersion],
        *,
        first: RowVersion | None = None,
        last: Sequence[RowVersion] = (),
        publish: tuple[str, str | bytes] | None = None,
    ) -> list[WriteOutcome]:
        """Write `first`, then the index of `rows`, then `rows`, then `last`, then publish (channel, message).

        Each begins when all before it is stored.

        Returns:
            One outcome a row of `rows`.

        Raises:
            Superseded: a newer execution owns `first`; nothing else was written.
            Emptied: the store has lost `first`, or the claim on it; or, where `watch` was called, it has lost
                anything since the last write, or in this one.
        """
        if first is not None:
            claim = replace(first, rev=-1) if first.key == self._claimed else None
            if self._land([first], claim) == [WriteOutcome.SUPERSEDED]:
                raise Superseded(first.key)
        cover = None if isinstance(self._client, RedisCluster) else first  # there it is in another slot
        self._add_to_index(rows)
        outcomes = [outcome for chunk in chunks(rows) if self._whole for outcome in self._land(chunk, cover)]
        if self._whole:
            self._land(last, cover)
        if not self._whole:
            raise Emptied
        if publish is not None:
            with failures(self._client):
                self._client.publish(*publish)
        return outcomes

    def drop(self, rows: Sequence[RowVersion]) -> None:
        """Delete the hashes of `rows`, and their index entries; a newer version stays.

        A connection may deliver a command after its timeout, when a row is back. An entry therefore stays if
        its score has grown, or its row is there; on a cluster the row is on another node.

        Raises as `write` does.
        """
        for chunk in chunks(rows):
            commands: list[Command] = [
                (row.key, ("EVAL", DROP, 1, row.key, row.generation, row.fence, row.rev)) for row in chunk
            ]
            with failures(self._client):
                deletions = checked(self._send(commands))
            entries: dict[str, list[RowVersion]] = {}
            for row, dropped in zip(chunk, deletions, strict=True):
                self._landed.pop(row.key, None)
                if dropped and row.index_key is not None:
                    entries.setdefault(row.index_key, []).append(row)
            with failures(self._client):
                checked(
                    self._send(
                        [(key, self._unlist(key, listed_rows)) for key, listed_rows in entries.items()]
                    )
                )

    def _unlist(self, index_key: str, rows: Sequence[RowVersion]) -> tuple[Any, ...]:
        alone = [] if isinstance(self._client, RedisCluster) else [row.key for row in rows]
        entries = [part for row in rows for part in (row.member, row.score)]
        return "EVAL", UNLIST, 1 + len(alone), index_key, *alone, *entries

    def release(self, keys: Iterable[str]) -> None:
        """Drop the last written versions of hashes; a later version of one is written whole."""
        for key in keys:
            self._landed.pop(key, None)

    def _land(self, rows: Sequence[RowVersion], cover: RowVersion | None = None) -> list[WriteOutcome]:
        """Write rows: the changes of those that this writer has written before, and whole rows if the store
        has another version.

        Args:
            cover: the hash that must be there in this version, or in a later one of this execution.

        Raises:
            Emptied: the store has lost them, or their cover.
        """
        outcomes = self._call(rows, self._landed, cover)
        if outcomes.count("landed") == len(rows):  # mostly, and always in a flood
            self._landed.update(zip([row.key for row in rows], rows, strict=True))
            return [WriteOutcome.LANDED] * len(rows)
        unbased = [place for place, outcome in enumerate(outcomes) if outcome == "unbased"]
        if unbased and not self._whole:  # whole rows follow the positions that cover them
            raise Emptied
        if unbased:
            second_outcomes = self._call([rows[place] for place in unbased], {}, cover)
            for place, outcome in zip(unbased, second_outcomes, strict=True):
                outcomes[place] = outcome
        if "uncovered" in outcomes:
            raise Emptied
        self._landed.update(
            {row.key: row for row, outcome in zip(rows, outcomes, strict=True) if outcome in _THERE}
        )
        return list(map(_BY_NAME.__getitem__, outcomes))

    def _call(
        self, rows: Sequence[RowVersion], bases: Mapping[str, RowVersion], cover: RowVersion | None
    ) -> list[str]:
        """The script's outcome of each row."""
        now_ms, calls, commands = self._clock_ms(), self._calls(rows, bases), list[Command]()
        last, version = ([], ()) if cover is None else ([cover.key], cover.version)
        for call in calls:
            rows_of_call, keys = [rows[place] for place in call.values()], [*call, *last]
            argument = self._changes[rows_of_call[0].layout].argument(rows_of_call, bases, now_ms)
            commands.append(
                (rows_of_call[0].key, ("EVALSHA", _WRITE_SHA, len(keys), *keys, *version, argument))
            )
        with failures(self._client):
            answers = self._send(commands)
            # After a restart, a failover or SCRIPT FLUSH.
            unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                self._client.script_load(WRITE)
                second_answers = self._send([commands[i] for i in unknown])
                for i, answer in zip(unknown, second_answers, strict=True):
                    answers[i] = answer
            call_answers: list[str | list[str]] = checked(answers)
            if not all(map(_fits, call_answers, calls)):
                raise InvalidResponse("no answer to a script's rows")
        outcomes = ["landed"] * len(rows)
        for call, answer in zip(calls, call_answers, strict=True):
            if answer != "landed":  # each row has an outcome of its own
                for place, outcome in zip(call.values(), answer, strict=True):
                    outcomes[place] = outcome
        return outcomes

    def _calls(self, rows: Sequence[RowVersion], bases: Container[str]) -> list[dict[str, int]]:
        """The places of the rows by key, grouped into calls of the script. A call has rows of one layout,
        changed ones or others, and no key twice. On a cluster it has one row, since a script's keys must be
        in one slot.
        """
        alone = isinstance(self._client, RedisCluster)
        calls = list[dict[str, int]]()
        begun, room = dict[tuple[str, bool], dict[str, int]](), dict[tuple[str, bool], int]()
        for place, row in enumerate(rows):
            changed = row.key in bases
            kind = row.layout, changed
            call = begun.get(kind)
            if call is None or alone or room[kind] <= 0 or row.key in call:
                call = begun[kind] = {}
                room[kind] = _A_SCRIPT * _COPIED_BYTES
                calls.append(call)
            call[row.key] = place
            room[kind] -= _COPIED_BYTES if changed else max(_LEAST_BYTES, len(row.packed))
        return calls

    def _add_to_index(self, rows: Sequence[RowVersion]) -> None:
        indexed = [row for row in rows if row.index_key is not None]
        for chunk in chunks(indexed):
            scores: dict[str, list[Any]] = {}
            for row in chunk:
                scores.setdefault(row.index_key or "", []).extend((row.score, row.member))
            # GT: a writer that slept between its row and this must not lower the score.
            commands: list[Command] = [(key, ("ZADD", key, "GT", *parts)) for key, parts in scores.items()]
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
