"""The invariants of a reader's view, checked at every command that changes a row and every message of a
topic.

It knows the contracts and the model alone. After a loss of Redis's data rows may be behind until the next
flush that began behind the loss has ended (docs/proof.md).
"""

from __future__ import annotations

import json
import math
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final

import zstandard

from benchmarks.chaos_monitor import GROWING, day_of, torn
from simulation import clients
from simulation.credits import Attribution, Right, decided
from simulation.history import CLOSING
from simulation.model import COUNTED, EXACTLY, Model, Row, rows_of
from simulation.model import PERHAPS as PERHAPS_READ
from simulation.plans_in_force import Planning
from simulation.reading import SCOPES
from simulation.redis_client import Server
from simulation.redis_store import Store
from simulation.stage import PERHAPS
from simulation.world import T0_MS, Wrong

NAMESPACE: Final = "sim:v1"
REPORTED: Final = 3
"""So many findings of one moment are told."""

UNLIKE: Final = ("rev", "as_of_ms", "methodology")
"""Fields of a minute or a decision that say when it was told, and by which settings, such as the allowed
lateness.
"""

WHO: Final = (*clients.NAMES, "rule", "eligible", "credits", "joined_by", "capped", "noisy_household")
OF_WHOM: Final = ("reach", "conversions", "conversion_value")
"""Fields of rows, minutes and decisions that depend on who was forgotten, and what such begin with."""

HISTORY_SAYS: Final = "0", "catching_up"
"""`judged` of meta and its reason, before the flow is live."""

SKETCHED: Final = 4 * 1.04 / 2**7
"""Four standard errors of an estimate by 2^14 registers, relative."""

NEVER: Final = Counter[str](), None
"""The counts that were right of a row that was not compared, and whether it had a plan."""

FLIGHT: Final = {name: f"flight.{name}" for name in COUNTED}

SKETCHED_FROM: Final = 100
"""From so many listeners on a sketch is given out where it has grown by over 1 %."""

Hash = Mapping[str, str]


class Checker:
    """All that readers have seen.

    Args:
        closing_ms: the minute of the pixels that end the log.
        row_ttl_ms: so long a row is there behind its last pixel.
        capped: rows are only so many, so that a name may count in `other`.
        grace_ms: so long behind its begin a planned flight is not judged.
        lateness_ms: the longest of any execution.

    Attributes:
        archived: offsets before which the flow is in history, by partition.
        history_until_ms: the watermark once all of them are read.
    """

    def __init__(
        self,
        model: Model,
        attribution: Attribution,
        closing_ms: int,
        row_ttl_ms: int,
        capped: bool = False,
        grace_ms: int = 0,
        lateness_ms: int = 0,
    ) -> None:
        self._model, self._closing_ms = model, closing_ms
        self._row_ttl_ms, self._capped, self._lateness_ms = row_ttl_ms, capped, lateness_ms
        times_ms = [one.pixel["own_ms"] for some in model.read.values() for one in some if one.identity]
        self._may_end = closing_ms - min(times_ms, default=T0_MS) > row_ttl_ms
        self.planning = Planning(grace_ms, capped)
        self.days: dict[str, str] = {}
        self.since_ms: dict[str, str | None] = {}
        self._attribution = attribution
        self._right: Mapping[str, Right] | None = None
        self._behind: Mapping[str, str] = {}
        self.archived: Mapping[str, int] = {}
        self.history_until_ms = 0
        self.store: Store
        self.server: Server
        self.versions: dict[str, tuple[int, ...]] = {}
        self.counts: dict[str, dict[str, str]] = {}
        self._alike: dict[Row, tuple[Counter[str], bool]] = {}
        self.minutes: dict[tuple[str, int], dict[str, Any]] = {}
        self.letters: dict[tuple[str, int], dict[str, Any]] = {}
        self.decided: dict[bytes, dict[str, Any]] = {}
        self.flushes = self.seen = self.counted_since_ms = 0
        self.knows_reach = True
        self._losses = self._begun_at = 0
        self._crashed, self._fence, self._dead = False, 0, 0
        self._lost, self._left = 0, dict[Row, dict[str, Decimal]]()

    # Redis

    @property
    def _blind(self) -> bool:
        return self.server.losses > self._losses

    def crashed(self) -> None:
        """Note the end of an execution. The rows before a loss are unknown until the next execution has
        written, whatever earlier rows still land.
        """
        self._crashed, self._dead = True, self._fence

    def changed(self, keys: set[str]) -> None:
        """Look at hashes that a command has changed."""
        for key in keys:
            if key == f"{NAMESPACE}:positions":
                self._begun_at = self.server.losses
                held = self.store.keys.get(key, {})
                self._fence = max(self._fence, int(held.get("fence", 0)))
            of = _row_of(key)
            kind = of[0]
            row = self.store.keys.get(key)
            if kind in SCOPES:
                self._alike.pop(of, None)
                self._row(key, row or {})
            elif kind == "partition" and row:
                _account(key, row)
            elif kind == "meta" and row:
                _conversions(row)

    def _row(self, key: str, row: Hash) -> None:
        self.seen += 1
        if key.endswith(f":{{{PERHAPS}}}"):
            return
        if self._blind:
            self._behind_a_loss(key, row)
            return
        if not row:
            # An ended row may vanish: `flushed` checks its end.
            if key in self.versions and not self._may_end:
                raise Wrong(f"{key} vanished")
            return
        scope, name = _row_of(key)
        planned = name in self.planning.plans  # its flight is not all its pixels
        parted = self._capped and f"{NAMESPACE}:other:{{{scope}}}" in self.store.keys  # an open point
        for what in torn(row) if not planned and "final_through_ms" in row else ():
            if parted and "more completes than starts" in what:
                continue
            raise Wrong(f"{key} is not of one piece: {what}")
        as_of_ms, final_ms = (int(row.get(name, 0)) for name in ("reach_as_of_ms", "final_through_ms"))
        if final_ms and as_of_ms - self._lateness_ms >= final_ms + 60_000:  # 0: there was no pixel yet
            raise Wrong(f"{key} is as of {as_of_ms}, and final through {final_ms} alone")
        version = tuple(int(row[name]) for name in ("generation", "fence", "rev"))
        if version < self.versions.get(key, ()):
            raise Wrong(f"{key} was of version {self.versions[key]}, and is of {version}")
        if version[0] != 1:
            raise Wrong(f"{key} is of generation {version[0]}, and one was begun")
        counts = {name: row.get(name, "0") for name in GROWING}
        before, day = self.counts.get(key, {}), day_of(row)
        # The flight is otherwise recounted; under a cap of rows perhaps since the same minute.
        flown = self.since_ms.get(key) == row.get("flight.since_ms") and not self._capped
        anew = ("flight.", "1d.reach") if planned and not flown else ()
        some = [name for name in before if not name.startswith(anew)]
        same = [name for name in some if name.startswith("flight.") or day == self.days.get(key)]
        same = [name for name in same if self._knows(name.partition(".")[2])]
        if fell := [name for name in same if _is_less(counts[name], before[name])]:
            raise Wrong(f"{key} {fell[0]} was {before[fell[0]]}, and is {counts[fell[0]]}")
        self.versions[key], self.counts[key], self.days[key] = version, counts, day
        self.since_ms[key] = row.get("flight.since_ms")

    def _behind_a_loss(self, key: str, row: Hash) -> None:
        """Until all rows are there again none may fall below what it was seen to be since the loss."""
        if self._lost != self.server.losses:
            self._lost, held = self.server.losses, self._rows()
            self.counted_since_ms = 0  # the published begin is unknown
            self._left = {of: _flights(one) for of, one in held.items() if of[1] != PERHAPS}
        of = _row_of(key)
        if not row or of[1] in self.planning.plans:
            self._left.pop(of, None)
            return
        before, now = self._left.get(of, {}), _flights(row)
        known = {count: was for count, was in before.items() if self._knows(count.partition(".")[2])}
        if fell := [count for count, was in known.items() if now[count] < was]:
            raise Wrong(f"{key} {fell[0]} was {before[fell[0]]} behind a loss, and is {now[fell[0]]}")
        self._left[of] = now

    def flushed(self) -> None:
        """A flush has ended, if all of it is of one cut: every row is as the model says for its positions."""
        keys = self.store.keys
        told, meta = keys.get(f"{NAMESPACE}:positions", {}), keys.get(f"{NAMESPACE}:meta", {})
        versions = [[one.get(name) for name in ("generation", "fence", "rev")] for one in (told, meta)]
        if versions[0] != versions[1] or "positions" not in told or self._begun_at < self.server.losses:
            return
        self.flushes += 1
        positions, watermark_ms = json.loads(told["positions"]), int(meta.get("watermark_ms", 0))
        if self._blind:
            self._losses = self.server.losses
            if self._crashed:
                self.counts.clear()
            for key in [key for key in self.versions if key not in keys]:
                del self.versions[key]
            for (scope, name), row in self._rows().items():
                if not self._ends_by(positions, (scope, name), watermark_ms):  # else it follows the flush
                    self._row(f"{NAMESPACE}:{scope}:{{{name}}}", row)
        self._crashed &= int(told["fence"]) <= self._dead
        found = list(self._unlike(positions, meta, watermark_ms))
        if found:
            raise Wrong(f"a flush of {told['positions']} is not what was read: {'; '.join(found[:REPORTED])}")

    def _unlike(self, positions: Mapping[str, int], meta: Hash, watermark_ms: int) -> Iterator[str]:
        rows = self._rows()
        since_ms = self.planning.since_ms(rows, self._model, positions)
        expected = self._model.rows(positions, since_ms)
        if self._capped:
            # Counts before a flight may be in `other`, before its plan.
            most = self._model.rows(positions, {}) if since_ms else expected
            # A row that ended may have come back beyond the cap, where what it had before does not count.
            yield from self._sums(
                expected,
                most,
                rows,
                lambda row: (
                    self._ends_by(positions, row, watermark_ms)
                    or self._model.longest_gap_ms(positions, row) > self._row_ttl_ms
                ),
            )
        else:
            for row in sorted(expected.keys() | rows.keys()):
                if row[1] == PERHAPS or self._ends_by(positions, row, watermark_ms):
                    continue  # the row follows the flush
                # An unchanged row that was right stays right for the same numbers.
                want, planned = expected.get(row, Counter()), row[1] in self.planning.plans
                before, as_planned = self._alike.get(row, NEVER)
                # As dicts: a Counter compares name by name, and no count of the model is 0.
                if planned == as_planned and dict.__eq__(before, want):
                    continue
                found = [*self._row_unlike(row, want, rows.get(row, {}))]
                yield from found
                if not found:
                    self._alike[row] = want, planned
        for scope in SCOPES:
            listed = self.store.keys.get(f"{NAMESPACE}:index:{scope}", [{}])[0]
            for name in sorted({of for kind, of in rows if kind == scope} - set(listed)):
                if not self._ends_by(positions, (scope, name), watermark_ms):
                    yield f"{scope} {name} is in no index"
        for name, position in positions.items():
            held = self.store.keys.get(f"{NAMESPACE}:partition:{{{name}}}", {})
            for count, right in self._model.account(name, position).items():
                if int(held.get(count, 0)) != right:
                    yield f"{name} {count} {held.get(count)}, right {right}"
        yield from self._since_unlike(positions, meta)
        if self._in_history(positions) and (meta["judged"], meta.get("unjudged_reason")) != HISTORY_SAYS:
            yield f"numbers of history are judged: {meta['judged']} {meta.get('unjudged_reason')}"
        if watermark_ms:
            held, now_ms = "held_by" in meta, self.server.world.now_ms
            of = held, self._crashed, self.counted_since_ms
            yield from self.planning.unlike(rows, self._model, positions, now_ms, *of)

    def _in_history(self, positions: Mapping[str, int]) -> bool:
        """True if a partition is still in the archive that the flow began in."""
        return any(positions.get(name, 0) < end for name, end in self.archived.items())

    def _since_unlike(self, positions: Mapping[str, int], meta: Hash) -> Iterator[str]:
        """The begin of the count that is wrong. It comes from the first read messages or from the execution's
        save, and never moves later.
        """
        told, right = int(meta.get("counted_since_ms", 0)), self._model.counted_since_ms(positions)
        before, self.counted_since_ms = self.counted_since_ms or told, told
        firsts = self._model.receipts_ms.values()
        if not told and (all(positions.values()) or meta["judged"] != "0"):
            yield f"since when is counted is not known, right {right}"
        elif told and (told not in firsts or not right <= told <= before):
            yield f"it is counted since {told}, behind {before}, right {right}"

    def _rows(self) -> dict[Row, Hash]:
        found: dict[Row, Hash] = {}
        for key, held in self.store.keys.items():
            if (of := _row_of(key))[0] in SCOPES:
                found[of] = held
        return found

    def has_ended(self, row: Row) -> bool:
        """Whether a row has no pixel of late, when the whole log is read."""
        ends = {name: len(some) for name, some in self._model.read.items()}
        return self._model.heard_ms(ends, row) + self._row_ttl_ms <= self._closing_ms + 120_000

    def _row_unlike(self, row: Row, want: Counter[str], got: Hash) -> Iterator[str]:
        for name, of in FLIGHT.items():
            right, there = want[name], int(got.get(of, 0))
            if there == right or (name == "reach" and not self.knows_reach):
                continue
            about = SKETCHED * right if name == "reach" and right > EXACTLY else 0
            if abs(there - right) > about:
                yield f"{row[0]} {row[1]} {of} {got.get(of)}, right {right}"
        told = FLIGHT["reach"] in got
        known = want["reach"] > 0 or want["consented"] == 0
        # Listeners of a planned placement may be from before its flight.
        if self.knows_reach and got and row[1] not in self.planning.plans and told != known:
            yield f"{row[0]} {row[1]} has {'a' if told else 'no'} reach, right {want['reach']}"

    def _ends_by(self, positions: Mapping[str, int], row: Row, watermark_ms: int) -> bool:
        """Whether a row has had no pixel of late, and so has ended."""
        heard_ms = self._model.heard_ms(positions, row) if self._may_end else watermark_ms
        return heard_ms + self._row_ttl_ms <= watermark_ms

    def _sums(
        self,
        expected: Mapping[Row, Counter[str]],
        most: Mapping[Row, Counter[str]],
        rows: Mapping[Row, Hash],
        ended: Callable[[Row], bool],
    ) -> Iterator[str]:
        """Names beyond the cap count together in `other`; a row that has ended may be gone."""
        over = {row for row in expected if ended(row)}
        for scope in SCOPES:
            others = self.store.keys.get(f"{NAMESPACE}:other:{{{scope}}}", {})
            held = [of for (kind, name), of in rows.items() if kind == scope and name != PERHAPS]
            for name in ("impressions", "pixels", "repeated", "clicks"):
                counts = {row: of[name] for row, of in expected.items() if row[0] == scope}
                right = sum(counts.values())
                gone = sum(count for row, count in counts.items() if row in over)
                there = sum(int(of.get(f"flight.{name}", 0)) for of in [*held, others])
                upto = sum(of[name] for row, of in most.items() if row[0] == scope)
                perhaps = self._model.unsure[scope]
                if scope == "placement":
                    some = (of for partition in self._model.read.values() for of in partition)
                    perhaps = sum(of.reason == PERHAPS_READ for of in some)
                if not right - gone <= there <= upto + perhaps:
                    yield f"{scope} flight.{name} of all rows {there}, right {right}"

    def over(self) -> None:
        """The log was read to its end: clients are counted, and every plan has a row that says how it is
        delivered.
        """
        if self.knows_reach and not self._capped:
            found = list(self._clients_unlike())
            if found:
                raise Wrong(f"clients are counted wrongly: {'; '.join(found[:REPORTED])}")
        for what in self.planning.over(self._rows()) if self.planning.plans else ():
            raise Wrong(what)
        for what in (*self._sketches_unlike(), *self._values_unlike(), *self._decisions_unlike()):
            raise Wrong(what)

    def _decisions_unlike(self) -> Iterator[str]:
        """Decisions that Redis has not, or has otherwise; those before a loss are not written again."""
        for key, told in self.decided.items() if not self.server.losses else ():
            for name in filter(None, (told["event_id"], told["order_id"])):
                held = self.store.keys.get(f"{NAMESPACE}:conversion:{{{name}}}", {}).get(key.decode(), "{}")
                ours = {of: one for of, one in json.loads(held).items() if of not in UNLIKE}
                if self._known(ours) != self._known(told):
                    yield f"the decision {key!r} of {name} is {told}, and in Redis {held}"

    def _values_unlike(self) -> Iterator[str]:
        """Final minutes that have a claimed value, or another one, with no decision that gives it to them."""
        given = set()
        for told in self.decided.values():
            minute = told["ts"] // 60_000 * 60_000
            for one in told["credits"]:
                if told["value_micros"] is not None:
                    given.add((one["placement_id"], minute, told["claimed"]))
                if told["claimed_value_micros"] is not None:  # which a confirmation takes back
                    given.add((one["placement_id"], minute, True))
        for (placement, minute_ms), numbers in self.minutes.items():
            for name, claimed in (("conversion_value", False), ("conversion_value_claimed", True)):
                if int(numbers[name]) and (placement, minute_ms, claimed) not in given:
                    yield f"minute {placement} {minute_ms} has {name} {numbers[name]}, and no decision of it"

    def _sketches_unlike(self) -> Iterator[str]:
        """Sketches of many that are behind by more than they may be; those of few are compared."""
        for (scope, name), row in self._rows().items():
            held, reach = (
                self.store.keys.get(f"{NAMESPACE}:sketch:{{{name}}}"),
                int(row.get("flight.reach", 0)),
            )
            if scope == "placement" and held and reach >= SKETCHED_FROM:
                packed = b64decode(held["registers"])
                registers = zstandard.ZstdDecompressor().decompress(packed, max_output_size=1 << 20)
                told = len(registers) * math.log(len(registers) / registers.count(0))
                if not 0.98 * reach <= told <= 1.02 * reach:
                    yield f"the sketch of {name} is of {told:.0f} listeners, its row of {reach}"

    def _clients_unlike(self) -> Iterator[str]:
        ends = {name: len(some) for name, some in self._model.read.items()}
        pixels = [one.pixel for one in self._model.accepted(ends)]
        right = clients.rows(clients.counted(pixels, self._model.rules.denied.get("client", "")), rows_of)
        for (scope, name), counts in right.items():
            held = self.store.keys.get(f"{NAMESPACE}:{scope}:{{{name}}}", {})
            for of in clients.NAMES if not self.has_ended((scope, name)) else ():
                if int(held.get(f"flight.{of}", 0)) != counts[of]:
                    yield f"{scope} {name} flight.{of} {held.get(f'flight.{of}')}, right {counts[of]}"

    # Topics

    def _known(self, told: dict[str, Any]) -> dict[str, Any]:
        """A minute or a decision, without fields that depend on erased people once the deny-list is lost."""
        return {name: one for name, one in told.items() if self._knows(name)}

    def _knows(self, name: str) -> bool:
        return self.knows_reach or not (name in WHO or name.startswith(OF_WHOM))

    def minute(self, _: bytes, value: bytes) -> None:
        """Check a published minute."""
        told = json.loads(value)
        key = told["placement_id"], told["minute_ms"]
        numbers = {name: one for name, one in told.items() if name not in UNLIKE}
        if told["minute_ms"] >= self._closing_ms or told["placement_id"] in (CLOSING, PERHAPS):
            return
        if told["state"] == "provisional" and told["as_of_ms"] < self.history_until_ms:
            raise Wrong(f"minute {key} of history is told before it is final")
        if key in self.minutes and self._known(self.minutes[key]) != self._known(numbers):
            raise Wrong(f"minute {key} was final as {self.minutes[key]}, and is told as {numbers}")
        if told["state"] == "final":
            self.minutes[key] = numbers

    def letter(self, _: bytes, value: bytes) -> None:
        """A dead letter has come."""
        told = json.loads(value)
        at = told["partition"], told["offset"]
        if self.letters.setdefault(at, told) != told:
            raise Wrong(f"two dead letters of {at}: {self.letters[at]} and {told}")
        right = self._model.read[at[0]][at[1]].reason
        if right not in (told["reason"], PERHAPS):
            raise Wrong(f"{at} is rejected as {told['reason']}, right {right!r}")

    def decision(self, key: bytes, value: bytes) -> None:
        """A conversion has been decided."""
        told = {name: one for name, one in json.loads(value).items() if name not in UNLIKE}
        if self._known(self.decided.setdefault(key, told)) != self._known(told):
            raise Wrong(f"{key!r} was decided as {self.decided[key]}, and is as {told}")
        right = self._rightly().get(told["event_id"])
        if self._unsure_of_claim(told):
            return
        if right is None or told["capped"] or told["noisy_household"] or not self.knows_reach:
            return
        credits = [(one["placement_id"], one["millionths"]) for one in told["credits"] if one["millionths"]]
        ours = sorted(one for one in right.credits if one[1])
        if (told["rule"], told["joined_by"], sorted(credits)) != (*right[:2], ours):
            raise Wrong(f"{key!r} is decided as {told['rule']} {told['joined_by']} {credits}, right {right}")
        if right.campaigns and right.campaigns != tuple(one["campaign_id"] for one in told["credits"]):
            raise Wrong(f"{key!r} is credited as {told['credits']}, right {right}")
        if told["claimed"] != right.claimed:
            raise Wrong(f"{key!r} is decided with a value that is claimed {told['claimed']}, right {right}")

    def _rightly(self) -> Mapping[str, Right]:
        """The decisions that the model makes of the whole log."""
        if self._right is None:
            ends = {name: len(some) for name, some in self._model.read.items()}
            pixels = [one.pixel for one in self._model.accepted(ends)]
            self._behind = self._model.behind(ends)
            self._right = decided(pixels, self._attribution, self._behind)
        return self._right

    def _unsure_of_claim(self, told: Mapping[str, Any]) -> bool:
        """Whether a cap, or a noisy household, may be in the decision on what this one confirms."""
        claim = self._behind.get(told["event_id"])
        return claim is not None and any(
            one["event_id"] == claim and (one["capped"] or one["noisy_household"])
            for one in self.decided.values()
        )


@cache
def _row_of(key: str) -> Row:
    scope, _, name = key.removeprefix(f"{NAMESPACE}:").partition(":")
    return scope, name[1:-1]


def _flights(row: Hash) -> dict[str, Decimal]:
    """The counts of a flight that never fall."""
    return {name: Decimal(row.get(name, 0)) for name in GROWING if name.startswith("flight.")}


def _is_less(now: str, before: str) -> bool:
    """True if a number, as text, is below what it was: most are the same, and need not be read."""
    return now != before and Decimal(now) < Decimal(before)


def _account(key: str, row: Hash) -> None:
    lost = sum(int(count) for name, count in row.items() if name.startswith("rejected."))
    if int(row["received"]) != int(row["accepted"]) + int(row["repeated"]) + lost:
        raise Wrong(f"{key}: received is not accepted, repeated and rejected together: {dict(row)}")


def _conversions(row: Hash) -> None:
    parts = ("conversions_attributed", "unattributed", "conversions_pending")
    if int(row["conversions_accepted"]) != sum(int(row[name]) for name in parts):
        raise Wrong(f"meta: accepted conversions are not {parts} together: {dict(row)}")
