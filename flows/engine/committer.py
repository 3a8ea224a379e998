"""The committers: each member has one, which commits a cut when all of the member's pieces are durable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from flows.engine.place import member_of
from flows.engine.save_threads import Work
from flows.engine.saves import Saves, refuse
from flows.model.messages import Durable, PartitionStates, shard_key
from flows.model.ticks import Cut


class CommitPartition(StatefulSinkPartition[Durable | PartitionStates, None]):
    """A member's committer. The committer gathers the durable pieces of each cut, and commits a cut once all
    of its pieces are.

    Args:
        shards: the (step, key) of each member's pieces.
    """

    def __init__(self, saves: Saves, shards: Sequence[frozenset[tuple[str, str]]]) -> None:
        self._saves, self._expected = saves, shards[saves.place.member]
        self._shards = tuple(tuple(sorted("-".join(one) for one in some)) for some in shards)
        self._gathered: dict[int, dict[tuple[str, str], Durable]] = {}
        self._states: dict[int, PartitionStates] = {}
        self._latest: Work | None = None

    def write_batch(self, values: list[Durable | PartitionStates]) -> None:
        """Commit the complete cuts. They complete in order, since the pieces of each step come in order."""
        if not self._saves.wanted:
            return
        for value in values:
            number = value.cut.number
            pieces = self._gathered.setdefault(number, {})
            if isinstance(value, PartitionStates):
                self._states[number] = value
            else:
                pieces[value.step, value.key] = value
            if pieces.keys() == self._expected and number in self._states:
                self._commit(value.cut, list(self._gathered.pop(number).values()))

    def _commit(self, cut: Cut, pieces: list[Durable]) -> None:
        before, states = self._latest, self._states.pop(cut.number)

        def commit() -> None:
            if before is not None:
                before.result()
            self._saves.commit(cut, pieces, states, self._shards)

        if before is not None and before.done():
            before.result()
        self._latest = self._saves.defer(commit)

    def snapshot(self) -> None:
        """Give Bytewax nothing at the end of its epoch."""

    def close(self) -> None:
        """Wait for the last commit. Its error is raised at the flow's end: the engine may be ending after an
        error already, and a second error would abort it.
        """
        try:
            if self._latest is not None:
                self._latest.result()
        except Exception as error:
            refuse(error)


@dataclass
class CommitSink(FixedPartitionedSink[Durable | PartitionStates, None]):
    """A committer on each member; `pieces` are the (step, key) of all pieces of a save."""

    saves: Callable[[], Saves]
    pieces: frozenset[tuple[str, str]]

    def list_parts(self) -> list[str]:
        """This member's own committer, which no other member lists."""
        return [shard_key(self.saves().place.member)]

    def part_fn(self, item_key: str) -> int:
        """The number of the member with this key."""
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> CommitPartition:
        """Build the committer."""
        saves, shards = self.saves(), [set[tuple[str, str]]() for _ in range(self.saves().place.members)]
        for step, key in self.pieces:
            shards[member_of(key, len(shards))].add((step, key))
        return CommitPartition(saves, [frozenset(some) for some in shards])
