"""The members' meeting at a start.

Each member states which saves its disk has, and all take the greatest common one. Each states the last
published cut that it found, and all take the latest.

`agree` is a member's side, a generator. It yields its statement of a round and receives all statements, so
that all members reach the same result. A single member meets itself. Several meet in Redis, where each adds
the members that it has read. A round is over when all have read the same members. An entry of an earlier
start names a former member, and does not count.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Generator, Sequence
from itertools import count
from typing import Final, NamedTuple, TypeVar

import msgspec
import structlog

from connectors.redis import connect, put_fields, read_rows
from connectors.stream import ConnectError
from flows.engine.place import Place, member_of
from flows.engine.tick_clock import LATER, NOTHING, Published
from flows.errors import AudiopixelError, StateError
from flows.model.redis_keys import saves_key
from flows.publish import FenceRecord, latest_fence_record, write_fence_record
from flows.settings import Settings
from flows.state.saves import KEPT_SAVES, PARTITIONS, REMEDY, Piece, Save, SaveStore
from flows.state.sealed import Damaged

POLL_S: Final = 0.02
MEET_WITHIN_S: Final = 600.0
"""The longest wait for the other members' statements, in s: each may have to read all of its disk."""
REDIS_WITHIN_S: Final = 30.0
"""The longest time for which Redis may fail to answer meanwhile, in s."""
REPEAT_S: Final = 10.0
REPEAT_EVERY_S: Final = 0.2
"""The time for which, and the interval at which, a member that has read all statements writes its own again,
in s: Redis may lose them.
"""

T = TypeVar("T")
Rounds = Generator[bytes, Sequence[bytes], T]


class HeldSave(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A save on a disk: its cut, the number of the start that made it, the number of members with a part, and
    the members whose parts are there.
    """

    cut: int
    start: int
    members: int
    there: tuple[int, ...]

    def by(self, member: int, members: int) -> bool:
        """True if one of `members` can continue from the save: the disk has its own part, or all parts."""
        return len(self.there) == self.members or (self.members == members and member in self.there)


BEGINNING: Final = HeldSave(-1, 0, 0, ())
"""The empty save from which all members begin. A member has it from its first start until it knows a save
that is whole everywhere. Without this save a crash between the members' very first manifests would look like
a lost disk.
"""


class Statement(msgspec.Struct, frozen=True):
    """A member's first statement.

    Attributes:
        held_saves: the saves on its disk with whole manifests.
        damaged: the other saves, with their faults.
        fence: the fence of the latest execution in the records on its disk.
        start: a number for this start; member 0's is taken.
        published: the last published cut that it found in Redis. Redis may lose it before another member
            reads.
    """

    held_saves: list[HeldSave] = msgspec.field(name="held")
    damaged: dict[int, str]
    fence: FenceRecord
    start: int
    published: Published


_STATEMENTS: Final = msgspec.json.Decoder(Statement)
"""Built here, in one thread: see `flows.state.saves`."""


class Agreed(NamedTuple):
    """The result of a meeting.

    Attributes:
        save: the save from which all continue; None if all begin empty.
        start: the number of their start.
        published: the last cut that was published before the start.
        whole: the stored cuts that all members have, the newest first.
    """

    save: Save | None
    start: int
    published: Published
    whole: tuple[int, ...] = ()


def agree(store: SaveStore, place: Place, published: Published = NOTHING) -> Rounds[Agreed]:
    """A member's side of the meeting; returns the common result, after newer saves are removed.

    Args:
        published: the last published cut that this member has found.

    Raises:
        StateError: there are saves, but none from which all can continue; the error has the remedy.
    """
    own, damaged = _saves_of(store)
    mine = Statement(own, damaged, latest_fence_record(store.root), secrets.randbits(62), published)
    answers = yield msgspec.json.encode(mine)
    try:
        statements = [_STATEMENTS.decode(one) for one in answers]
    except msgspec.DecodeError as error:
        raise StateError(
            f"a member has written a statement that this one cannot read ({error}): "
            "run the same version on all members"
        ) from None
    saves_by_member = [one.held_saves for one in statements]
    start, published = statements[0].start, max((one.published for one in statements), key=LATER)
    damaged = {cut: reason for one in statements for cut, reason in one.damaged.items()}
    refused: dict[int, str] = {}
    while (cut := common_cut(saves_by_member, refused)) not in (None, BEGINNING.cut):
        save, reason = store.save(cut), ""
        try:
            store.verify(cut, _share(save, place), save.pieces.values())
        except Damaged as error:
            reason = str(error)
        reasons = [one.decode() for one in (yield reason.encode())]
        if not any(reasons):
            break
        refused[cut] = next(filter(None, reasons))
    damaged |= refused
    if cut is None:
        _refuse(store, saves_by_member, damaged)
    if (latest := max(one.fence for one in statements)) > mine.fence:
        # Any member may be the next writer, and all must know that a generation has begun.
        write_fence_record(store.root, place.member, latest)
    if cut is None or cut == BEGINNING.cut:
        store.revoke_after(BEGINNING.cut)
        if place.members > 1:
            store.begin()
        return Agreed(None, start, published)
    for newer, reason in damaged.items():
        if newer > cut:
            structlog.get_logger("saves").warning(
                "a save is damaged: resuming from the save before it",
                damaged=newer,
                taken=cut,
                reason=reason,
            )
    store.revoke_after(cut)
    older = [one for one in common_cuts(saves_by_member) if BEGINNING.cut < one < cut]
    return Agreed(save, start, published, (cut, *older)[:KEPT_SAVES])


def _saves_of(store: SaveStore) -> tuple[list[HeldSave], dict[int, str]]:
    saves, damaged = [BEGINNING] if store.begun else [], dict[int, str]()
    for cut in store.cuts():
        try:
            save = store.save(cut)
        except Damaged as error:
            damaged[cut] = str(error)
        else:
            manifest = save.manifest
            saves.append(HeldSave(cut, manifest.start, manifest.members, tuple(save.members_here)))
    return saves, damaged


def common_cut(saves_by_member: Sequence[Sequence[HeldSave]], refused: dict[int, str]) -> int | None:
    """The greatest cut that each member can continue from and that is not refused, or None.

    Args:
        saves_by_member: the saves on each member's disk.
    """
    return next((cut for cut in common_cuts(saves_by_member) if cut not in refused), None)


def common_cuts(saves_by_member: Sequence[Sequence[HeldSave]]) -> list[int]:
    """The cuts that each member can continue from, the newest first."""
    able = [
        {(one.cut, one.start, one.members) for one in some if one.by(member, len(saves_by_member))}
        for member, some in enumerate(saves_by_member)
    ]
    return sorted((cut for cut, _, _ in set.intersection(*able)), reverse=True)


def _share(save: Save, place: Place) -> list[Piece]:
    """The pieces that a member continues with.

    Raises:
        StateError: one of them is not on its disk.
    """
    mine, missing = [], []
    for file in (file for files in save.manifest.shards for file in files):
        step, _, key = file.partition("-")
        if step != PARTITIONS and member_of(key, place.members) == place.member:
            piece = save.pieces.get((step, key))
            if piece is None:
                missing.append(file)
            else:
                mine.append(piece)
    if missing:
        raise StateError(
            f"the newest save has {missing[0]} with another member than the engine sends it to, and "
            f"{len(missing) - 1} more shards: deal them anew with `audiopixel state deal`"
        )
    return mine + [piece for piece in save.pieces.values() if piece.step == PARTITIONS]


def _refuse(store: SaveStore, saves_by_member: Sequence[Sequence[HeldSave]], damaged: dict[int, str]) -> None:
    """Raise, unless no member has ever had a save.

    Raises:
        StateError: a member lacks a save; the error names both, and the remedy.
    """
    members = len(saves_by_member)
    newest = max((one for some in saves_by_member for one in some), default=BEGINNING)
    if newest == BEGINNING and not damaged:
        return
    why = f" ({damaged[max(damaged)]})" if damaged else ""
    if newest == BEGINNING or members == newest.members == 1:
        raise StateError(f"the recovery directory {store.root} has no whole save{why}: {REMEDY}")
    if newest.members != members:
        raise StateError(
            f"the newest save is of {newest.members} members, and {members} have started: start "
            f"{newest.members}, or deal the shards anew with `audiopixel state deal --members {members}`"
        )
    owners = [sorted({owner for one in some for owner in one.there}) for some in saves_by_member]
    for member, there in enumerate(owners):
        if not there and not damaged:
            raise StateError(
                f"the disk of member {member} has no save, and those of others have: restore its recovery "
                "directory, or count the log anew with --recompute and an empty one on each member"
            )
        if there and member not in there:
            doubled = next((n for n, some in enumerate(owners) if n != member and {*some} & {*there}), None)
            also = "" if doubled is None else f", which are doubled: member {doubled} has them too"
            raise StateError(
                f"the shards of member {member} are missing: its disk has those of member "
                f"{', '.join(map(str, there))}{also}. Give each member its own recovery directory"
            )
    cuts = "; ".join(
        f"member {n} has {' '.join(str(one.cut) for one in some) or 'none'}"
        for n, some in enumerate(saves_by_member)
    )
    raise StateError(f"the members have no whole save in common{why}, {cuts}: {REMEDY}")


def run_alone(rounds: Rounds[T]) -> T:
    """Run the rounds of a single member, which reads itself alone."""
    statement = next(rounds)
    while True:
        try:
            statement = rounds.send([statement])
        except StopIteration as end:
            result: T = end.value
            return result


class Word(msgspec.Struct, frozen=True, array_like=True):
    """A member's statement in a round, with its name in this start, and the names that it has read."""

    member_name: str
    read_names: list[str]
    statement: bytes


_WORDS: Final = msgspec.json.Decoder(Word)
"""Built here, as `_STATEMENTS` is."""


def in_redis(settings: Settings, place: Place, rounds: Rounds[T]) -> T:
    """Run the rounds of several members; each process calls this.

    Raises:
        ConnectError: Redis does not answer in time. AudiopixelError: not all members have written a
            statement.
    """
    member_name, statement, words_by_round = secrets.token_hex(8), next(rounds), dict[str, Word]()
    for number in count():
        words_by_round[f"round-{number}"] = Word(member_name, [], statement)
        words = _round(settings, place, words_by_round)
        try:
            statement = rounds.send([one.statement for one in words])
        except StopIteration as end:
            threading.Thread(
                target=_repeat_statements, args=(settings, place, words_by_round), daemon=True
            ).start()
            result: T = end.value
            return result
    raise AssertionError("without an end")


def patiently(ask: Callable[[], T]) -> T:
    """The answer of Redis to `ask`; Redis may fail to answer for `REDIS_WITHIN_S`.

    Raises:
        ConnectError: Redis does not answer in that time.
    """
    away_s = time.monotonic() + REDIS_WITHIN_S
    while True:
        try:
            return ask()
        except ConnectError:
            if time.monotonic() > away_s:
                raise
            time.sleep(POLL_S)


def _repeat_statements(settings: Settings, place: Place, words_by_round: dict[str, Word]) -> None:
    """Write all statements again for a while."""
    client, over_s = None, time.monotonic() + REPEAT_S
    while time.monotonic() < over_s:
        try:
            client = client or connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
            put_fields(client, {saves_key(settings.namespace, place.member): _fields(words_by_round)})
        except ConnectError:
            client = None
        time.sleep(REPEAT_EVERY_S)
    if client is not None:
        client.close()


def _fields(words_by_round: dict[str, Word]) -> dict[str, str]:
    return {name: msgspec.json.encode(word).decode() for name, word in words_by_round.items()}


def _round(settings: Settings, place: Place, words_by_round: dict[str, Word]) -> list[Word]:
    """The statements of all members in the last round of `words_by_round`.

    Earlier statements are written again, since Redis may lose one before another member reads it.
    """
    field, mine = next(reversed(words_by_round.items()))
    keys = [saves_key(settings.namespace, member) for member in range(place.members)]
    deadline_s, away_s = time.monotonic() + MEET_WITHIN_S, time.monotonic() + REDIS_WITHIN_S
    client, garbled = None, list[str]()
    while time.monotonic() < deadline_s:
        words_by_round[field] = mine
        try:
            client = client or connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
            put_fields(client, {keys[place.member]: _fields(words_by_round)})
            rows = read_rows(client, keys, [field])
        except ConnectError:
            if time.monotonic() > away_s:
                raise
            client = None
            time.sleep(POLL_S)
            continue
        away_s = time.monotonic() + REDIS_WITHIN_S
        words_by_key = {key: _word(row[field]) for key, row in zip(keys, rows, strict=True) if field in row}
        words = [word for word in words_by_key.values() if word]
        garbled = [key for key in words_by_key if not words_by_key[key]]
        heard = [one.member_name for one in words]
        if len(words) == len(keys) and all(one.read_names == heard for one in words):
            client.close()
            return words
        mine = Word(mine.member_name, heard, mine.statement)
        time.sleep(POLL_S)
    why = f" ({', '.join(garbled)} is written by another program)" if garbled else ""
    raise AudiopixelError(
        f"not all {place.members} members met in Redis within {MEET_WITHIN_S:g} s{why}: "
        "start all of them again"
    )


def _word(written: str) -> Word | None:
    """A member's statement; None if another program wrote there, until the member writes it again."""
    try:
        return _WORDS.decode(written)
    except msgspec.DecodeError:
        return None
