"""Redis or Valkey, single node or cluster: hashes written whole, fenced, and never backwards.

A row is one hash. A server-side script compares (`generation`, `fence`, `rev`) with those of the hash, and
writes the whole version or nothing. A reader therefore gets one version, and a stale writer cannot overwrite
a newer one. A version of a row that this writer has written before is sent as changes. If the hash holds
another version, the script refuses the changes, and the whole row is sent. On a single node the script writes
rows only if the same execution has written their cover. No row is therefore written into a store that was
emptied meanwhile. Rows of a superseded writer, or of one that died after a loss, are refused however late the
network delivers them. Everything here is idempotent: after any error the caller repeats the whole call. Unit
of parallelism: one `RowStore` a process; a script touches only its rows' keys, so any number of writers share
a store.
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
"""The number of rows that one call of the script changes, which takes half a millisecond of the server's
time. Other rows are copies of the call's first row, and cheaper.
"""
_COPIED_BYTES, _LEAST_BYTES = 1024, 256
"""A copy of `_COPIED_BYTES` packed bytes counts as one changed row. A smaller copy counts as a part of one,
but as `_LEAST_BYTES` at least.
"""
_WRITE_SHA: Final = sha1(WRITE.encode(), usedforsecurity=False).hexdigest()


class Superseded(Exception):
    """A newer generation or fence owns `key`: another execution has taken over, so this one must stop."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is owned by a newer execution: stop this one")
        self.key = key


class Emptied(Exception):
    """The store has lost data since the last write: the caller must write all rows again."""


class WriteOutcome(StrEnum):
    """The outcome of writing a row.

    `LANDED`: written. `SAME`: the store has exactly this version already. `STALE`: it has a newer `rev` of
    the same (`generation`, `fence`). `SUPERSEDED`: it has a newer (`generation`, `fence`).
    """

    LANDED = "landed"
    SAME = "same"
    STALE = "stale"
    SUPERSEDED = "superseded"


_BY_NAME: Final = {outcome.value: outcome for outcome in WriteOutcome}
_THERE: Final = (WriteOutcome.LANDED, WriteOutcome.SAME)
_OUTCOMES: Final = frozenset([*_BY_NAME, "unbased", "uncovered"])


def _fits(answer: Any, call: Collection[str]) -> bool:
    """True if an answer fits a call of the script with the keys of these rows."""
    return answer == WriteOutcome.LANDED or (
        isinstance(answer, list)
        and len(answer) == len(call)
        and {*map(type, answer)} <= {str}
        and _OUTCOMES.issuperset(answer)
    )


class RowStore:
    """Writes rows, the index of the rows, and hashes before and after them.

    Every method raises `RedisUnavailable` for temporary errors, and `ConnectError` for permanent ones: a key
    of another type, a missing right.

    Args:
        client: from `connect`.
        layouts: by the name that `Row.layout` gives.
        clock_ms: returns epoch ms for `updated_ms`.
    """

    def __init__(
        self,
        client: Client,
        layouts: Mapping[str, FencedHash],
        *,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        from connectors.redis.row_changes import RowChanges  # only for writers: it loads in a second

        self._client = client
        self._changes = {name: RowChanges(layout) for name, layout in layouts.items()}
        self._clock_ms = clock_ms
        self._marks: Marks | None = None
        self._whole = True
        self._claimed = ""
        self._landed: dict[str, RowVersion] = {}

    def take_fence(self, key: str, above: int = 0) -> int:
        """A new fence, greater than all before it: the greater of `INCR` and `above` + 1."""
        with failures(self._client, key):
            fence: Any = self._client.eval(TAKE, 1, key, str(above))
        return int(fence)

    def newest_run(self, key: str) -> int:
        """The greatest fence that has watched the store by marks at `key`, on any node; 0 for none."""
        return newest_run(self._client, key)

    def watch(self, key: str, fence: int) -> None:
        """Make `write` detect losses of data from now on, by marks at `key`. Only this writer and those that
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

        Call it after a loss of data: otherwise the fence of the next execution would be less than that of the
        restored rows.
        """
        with failures(self._client, key):
            self._client.eval(RAISE, 1, key, str(fence))

    def put_in_older(self, key: str, generation: int, fields: Mapping[str, str]) -> None:
        """Write fields into a hash of an older generation. Other fields stay until the next whole write of
        the hash.
        """
        parts = [part for field in fields.items() for part in field]
        with failures(self._client, key):
            self._client.eval(PUT_IN_OLDER, 1, key, str(generation), *parts)

    def claim(self, key: str, generation: int, fence: int) -> dict[str, str]:
        """Take over the hash that `write` gets as `first`, and return its fields.

        From then on the script refuses every `write` of an older (`generation`, `fence`) with this `first`.
        The returned fields therefore cover all rows that older executions have written or still will. A
        claimed hash has `rev` -1 until its next write, and no fields of older generations. A `write` of this
        store is also refused if the claim is lost. Call `claim` again after `Emptied`, since an older
        execution may have written meanwhile.

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

        Each step begins when all steps before it are stored.

        Returns:
            One outcome for each row of `rows`.

        Raises:
            Superseded: a newer execution owns `first`; no row was written.
            Emptied: the store has lost `first`, or the claim on it; or, after `watch`, any data since the
                last write, or during this one.
        """
        if first is not None:
            claim = replace(first, rev=-1) if first.key == self._claimed else None
            if self._land([first], claim) == [WriteOutcome.SUPERSEDED]:
                raise Superseded(first.key)
        cover = None if isinstance(self._client, RedisCluster) else first  # there in another slot
        self._add_to_index(rows)
        outcomes = [outcome for chunk in chunks(rows) if self._whole for outcome in self._land(chunk, cover)]
        if self._whole:
            self._land(last, cover)
        if not self._whole:
            raise Emptied
        if publish is not None:
            with failures(self._client, publish[0]):
                self._client.publish(*publish)
        return outcomes

    def drop(self, rows: Sequence[RowVersion]) -> None:
        """Delete the hashes of `rows`, and their index entries; newer versions stay.

        A connection may deliver a command after its timeout, when the row has been written again. An entry
        therefore stays if its score has grown, or its row exists; on a cluster the row is on another node.

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
        """Drop the stored last versions of hashes; a later version of such a hash is written whole."""
        for key in keys:
            self._landed.pop(key, None)

    def _land(self, rows: Sequence[RowVersion], cover: RowVersion | None = None) -> list[WriteOutcome]:
        """Write rows: as changes if this writer has written the row before, and whole if the store has
        another version.

        Args:
            cover: the hash that the store must hold in this version, or in a later one of this execution.

        Raises:
            Emptied: the store has lost the rows, or the cover.
        """
        outcomes = self._call(rows, self._landed, cover)
        if outcomes.count("landed") == len(rows):  # usual, and always so in a flood
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
            if answer != "landed":  # each row has its own outcome
                for place, outcome in zip(call.values(), answer, strict=True):
                    outcomes[place] = outcome
        return outcomes

    def _calls(self, rows: Sequence[RowVersion], bases: Container[str]) -> list[dict[str, int]]:
        """The places of the rows by key, grouped into calls of the script. The rows of a call have one
        layout, are all changed or all whole, and have different keys. On a cluster a call has one row, since
        a script's keys must be in one slot.
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
        """The reply to each command. The pipelines end with the steps of the marks."""
        if self._marks is None:
            return replies(self._client, commands)
        steps = self._marks.steps()
        answers = replies(self._client, [*commands, *steps])
        self._whole &= self._marks.settle(steps, checked(answers[len(commands) :]))
        return answers[: len(commands)]
