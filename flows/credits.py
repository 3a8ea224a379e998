"""Credits: decided conversions as increments of rows, their values in one currency a campaign, and the
account of all conversions.

One place for the whole flow, since a campaign's first currency is one for all listeners; conversions are
rare.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from flows.attribution import WAYS, WHOLE, Decided, Decision
from flows.batches import SCOPES, Combo
from flows.clock import Cut
from flows.errors import StateError
from flows.events import CONVERSION_TYPES
from flows.kernel import I64, U8, U32
from flows.messages import row_shard
from flows.plans import Plan

FORMAT: Final = 1
AGES_S: Final = (
    60,
    300,
    900,
    1_800,
    3_600,
    7_200,
    14_400,
    28_800,
    86_400,
    172_800,
    345_600,
    604_800,
    1_209_600,
    2_592_000,
)
"""Upper bounds of the classes of the time from the touch to the conversion, in seconds; there is one more
above them.
"""

COLUMNS: Final = (
    "conversions",
    *(f"conversions_{kind}" for kind in CONVERSION_TYPES),
    *(f"conversions_{way}" for way in WAYS),
    "conversion_value",
    "conversion_value_other_count",
    *(f"age_{number}" for number in range(len(AGES_S) + 1)),
)
"""What a row counts of conversions: all in millionths but `conversion_value` (millionths of its currency) and
`…_other_count` (conversions).
"""
TYPES_AT, WAYS_AT = 1, 1 + len(CONVERSION_TYPES)
VALUE, OTHER = COLUMNS.index("conversion_value"), COLUMNS.index("conversion_value_other_count")
AGES_AT: Final = OTHER + 1


class CreditBatch(NamedTuple):
    """What the decisions of a cut add to one row shard: `amounts[i]` to column `columns[i]` of `rows[at[i]]`
    in a minute.

    `frequency` are (row, class of `flows.frequency`, listeners that it gains, millionths of conversions from
    it).
    """

    to: int
    cut: Cut
    rows: list[tuple[str, str]]
    at: U32
    minutes: U32
    columns: U8
    amounts: I64
    frequency: list[tuple[tuple[str, str], int, int, int]]


class Account(NamedTuple):
    """All accepted, valid conversions: accepted = attributed + unattributed + pending."""

    accepted: int
    attributed: int
    unattributed: int
    pending: int


@dataclass
class CreditBook:
    """Turns decisions into increments.

    Args:
        shards: of the rows.
        plans: whose currency goes before the campaign's.
    """

    shards: int
    plans: Mapping[str, Plan] = field(default_factory=dict)
    currencies: dict[str, str] = field(default_factory=dict)
    accepted: int = 0
    attributed: int = 0
    unattributed: int = 0

    def cut(
        self, cut: Cut, decided: Sequence[Decided]
    ) -> tuple[list[CreditBatch], Account, list[tuple[str, bytes]]]:
        """Increments for every row shard, the account, and (id, JSON) of every decision."""
        self.accepted += sum(one.accepted for one in decided)
        pending = sum(one.pending for one in decided)
        decisions = [decision for one in decided for decision in one.decisions]
        decisions.sort(
            key=lambda one: (one.conversion.ts_ms, one.conversion.pixel.currency or "", one.conversion.key)
        )
        rows: list[dict[tuple[str, str], int]] = [{} for _ in range(self.shards)]
        entries: list[list[tuple[int, int, int, int]]] = [[] for _ in range(self.shards)]
        told = [self._enter(decision, rows, entries) for decision in decisions]
        frequency = self._frequency(decided)
        batches = []
        for shard in range(self.shards):
            table = np.array(entries[shard], np.int64).reshape(-1, 4)
            at, minutes, columns, amounts = (table[:, i] for i in range(4))
            batches.append(
                CreditBatch(
                    shard,
                    cut,
                    list(rows[shard]),
                    at.astype(np.uint32),
                    minutes.astype(np.uint32),
                    columns.astype(np.uint8),
                    amounts.copy(),
                    frequency[shard],
                )
            )
        assert self.accepted == self.attributed + self.unattributed + pending
        return batches, Account(self.accepted, self.attributed, self.unattributed, pending), told

    def _frequency(self, decided: Sequence[Decided]) -> list[list[tuple[tuple[str, str], int, int, int]]]:
        sums: dict[tuple[str, int], tuple[int, int]] = {}
        for one in decided:
            for campaign, place, listeners, millionths in one.frequency:
                before = sums.get((campaign, place), (0, 0))
                sums[campaign, place] = (before[0] + listeners, before[1] + millionths)
        shards: list[list[tuple[tuple[str, str], int, int, int]]] = [[] for _ in range(self.shards)]
        for (campaign, place), more in sums.items():
            shards[row_shard("campaign", campaign, self.shards)].append(
                (("campaign", campaign), place, *more)
            )
        return shards

    def _enter(
        self,
        decision: Decision,
        rows: list[dict[tuple[str, str], int]],
        entries: list[list[tuple[int, int, int, int]]],
    ) -> tuple[str, bytes]:
        conversion = decision.conversion
        pixel = conversion.pixel
        if decision.credits:
            self.attributed += 1
        else:
            self.unattributed += 1
        minute, kind = conversion.ts_ms // 60_000, TYPES_AT + CONVERSION_TYPES.index(pixel.type)
        for credit, (column, value) in zip(decision.credits, self._values(decision), strict=True):
            way = WAYS_AT + WAYS.index(credit.way)
            amounts = [(0, credit.millionths), (kind, credit.millionths), (way, credit.millionths)]
            if value is not None:
                amounts.append((column, value))
            if credit.age_ms is not None:
                amounts.append((AGES_AT + bisect_left(AGES_S, credit.age_ms / 1000), credit.millionths))
            for scope, name in zip(SCOPES, credit.combo, strict=True):
                if name is not None:
                    shard = row_shard(scope, name, self.shards)
                    row = rows[shard].setdefault((scope, name), len(rows[shard]))
                    entries[shard] += [(row, minute, at, amount) for at, amount in amounts]
        return pixel.order_id or pixel.event_id, explained(decision)

    def _values(self, decision: Decision) -> list[tuple[int, int | None]]:
        """(column, amount) of each credit's share of the value; None where the conversion names none."""
        pixel = decision.conversion.pixel
        if pixel.value_micros is None:
            return [(VALUE, None)] * len(decision.credits)
        shares = divide(pixel.value_micros, [credit.millionths for credit in decision.credits])
        out: list[tuple[int, int | None]] = []
        for credit, share in zip(decision.credits, shares, strict=True):
            known = self._currency(credit.combo, pixel.currency)
            same = pixel.currency is None or known == pixel.currency
            out.append((VALUE, share) if same else (OTHER, 1))
        return out

    def _currency(self, combo: Combo, currency: str | None) -> str | None:
        """That of the placement's plan, else the first that the campaign was credited in."""
        first = currency and self.currencies.setdefault(combo[1] or "", currency)
        plan = self.plans.get(combo[0] or "")
        return first if plan is None or plan.currency is None else plan.currency

    def snapshot(self) -> tuple[Any, ...]:
        """Plain state with its format's version."""
        return FORMAT, dict(self.currencies), self.accepted, self.attributed, self.unattributed

    def restore(self, state: tuple[Any, ...]) -> None:
        """Take `snapshot`'s state up again.

        Raises:
            StateError: another format's.
        """
        if state[0] != FORMAT:
            raise StateError(
                f"the recovery store holds credits of format {state[0]}, this version reads {FORMAT}: "
                "run the version that wrote it, or recompute from the log with --recompute and an empty "
                "recovery directory"
            )
        _, currencies, self.accepted, self.attributed, self.unattributed = state
        self.currencies = dict(currencies)


def divide(whole: int, millionths: Sequence[int]) -> list[int]:
    """`whole` (of either sign) in exact integer parts by millionths, largest remainder first; of equal
    remainders the later one's.
    """
    parts = [whole * share // WHOLE for share in millionths]
    rests = [whole * share % WHOLE for share in millionths]
    order = sorted(range(len(parts)), key=lambda i: (rests[i], i), reverse=True)
    for i in order[: whole - sum(parts)]:
        parts[i] += 1
    return parts


def explained(decision: Decision) -> bytes:
    """Why a conversion was credited as it was, as JSON: no listener in it."""
    conversion, pixel = decision.conversion, decision.conversion.pixel
    ways = {credit.way for credit in decision.credits}
    if "declared" in ways:
        rule = "declared: the conversion names its placement"
    elif "utm" in ways:
        rule = "utm: no eligible touch; utm_content names a placement"
    elif ways:
        rule = f"touches: {decision.eligible} eligible of the listener"
    else:
        rule = "unattributed: no eligible touch, and utm_content names no placement"
    return msgspec.json.encode(
        {
            "conversion": pixel.order_id or pixel.event_id,
            "type": pixel.type,
            "ts": conversion.ts_ms,
            "campaign_id": pixel.combo[1],
            "value_micros": pixel.value_micros,
            "currency": pixel.currency,
            "rule": rule,
            "eligible": decision.eligible,
            "credits": [
                {
                    "placement_id": credit.combo[0],
                    "campaign_id": credit.combo[1],
                    "way": credit.way,
                    "millionths": credit.millionths,
                    "touched_at": None if credit.age_ms is None else conversion.ts_ms - credit.age_ms,
                }
                for credit in decision.credits
            ],
        }
    )


@dataclass
class CreditCells:
    """What one row shard's rows have been credited: by minute, by day, and since ever.

    Few rows convert in few minutes, so these are dictionaries of small arrays.
    """

    minutes: dict[int, dict[int, I64]] = field(default_factory=dict)
    days: dict[tuple[int, int], I64] = field(default_factory=dict)
    flight: dict[int, I64] = field(default_factory=dict)

    def add(self, row: int, minute: int, day: int, counts: I64, flown: bool = True) -> None:
        """Add to a row's minute and day, and where its flight has begun by then, to that."""
        of_row = self.minutes.setdefault(row, {})
        of_row[minute] = of_row.get(minute, 0) + counts
        self.days[row, day] = self.days.get((row, day), 0) + counts
        self.flight[row] = self.flight.get(row, 0) + counts * flown

    def fly_from(self, row: int, minute: int) -> None:
        """Let a row's flight begin with a minute, later than those that were forgotten."""
        if row in self.flight:
            begun = [counts for at, counts in self.minutes.get(row, {}).items() if at >= minute]
            self.flight[row] = np.sum([np.zeros_like(self.flight[row]), *begun], axis=0)

    def windows(self, row: int, minute: int, day: int) -> list[I64 | None]:
        """A row's counts over 5m, 1h, 1d and its flight; None where it has none."""
        if row not in self.flight:
            return [None] * 4
        by_minute = self.minutes.get(row, {})
        sums: list[I64 | None] = []
        for length in (5, 60):
            inside = [counts for at, counts in by_minute.items() if minute - length < at <= minute]
            sums.append(np.sum(inside, axis=0) if inside else None)
        return [*sums, self.days.get((row, day)), self.flight[row]]

    def of(self, row: int, minute: int) -> I64 | None:
        """A row's counts in one minute."""
        return self.minutes.get(row, {}).get(minute)

    def forget(self, oldest_minute: int, today: int) -> None:
        """Drop the minutes before one, and the days that are over."""
        kept = {
            row: {at: counts for at, counts in of.items() if at >= oldest_minute}
            for row, of in self.minutes.items()
        }
        self.minutes = {row: of for row, of in kept.items() if of}
        self.days = {key: counts for key, counts in self.days.items() if key[1] >= today}

    def snapshot(self) -> tuple[Any, ...]:
        """Plain state."""
        minutes = {
            row: {at: counts.tolist() for at, counts in of.items()} for row, of in self.minutes.items()
        }
        days = {key: counts.tolist() for key, counts in self.days.items()}
        return minutes, days, {row: counts.tolist() for row, counts in self.flight.items()}

    @classmethod
    def restored(cls, state: tuple[Any, ...]) -> CreditCells:
        """From `snapshot`'s state."""
        minutes, days, flight = state
        return cls(
            {
                row: {at: np.array(counts, np.int64) for at, counts in of.items()}
                for row, of in minutes.items()
            },
            {key: np.array(counts, np.int64) for key, counts in days.items()},
            {row: np.array(counts, np.int64) for row, counts in flight.items()},
        )


def quantile_s(counts: I64, share: float) -> int | None:
    """Upper bound in seconds of the class of ages in which the `share` quantile lies; None without ages, or
    beyond the last bound.
    """
    ages = np.cumsum(counts[AGES_AT:])
    if not ages[-1]:
        return None
    at = int(np.searchsorted(ages, share * ages[-1]))
    return AGES_S[at] if at < len(AGES_S) else None
