"""Credits: decided conversions as increments of rows, their values in one currency a row, and the account of
all conversions.

One place for the whole flow, since the first currency of a row is one for all listeners; conversions are
rare. What readers are told of a decision is `flows.decisions`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from flows.attribution import WAYS, WHOLE, Credit, Decided, Decision
from flows.batches import SCOPES
from flows.clock import Cut
from flows.errors import StateError
from flows.events import CONVERSION_TYPES
from flows.homes import Homes
from flows.kernel import I64, U8, U32
from flows.plans import Plan

FORMAT: Final = 3
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
AGES_S: Final = (
    *(10, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, 12 * _HOUR),
    *(_DAY, 2 * _DAY, 3 * _DAY, 4 * _DAY, 5 * _DAY, 7 * _DAY, 10 * _DAY, 14 * _DAY, 21 * _DAY),
    *(30 * _DAY, 45 * _DAY, 60 * _DAY),
)
"""Upper bounds of the classes of the time from the touch to the conversion, in seconds, up to the longest
window that the settings allow.
"""

COLUMNS: Final = (
    "conversions",
    *(f"conversions_{kind}" for kind in CONVERSION_TYPES),
    *(f"conversions_{way}" for way in WAYS),
    "conversion_value",
    "conversion_value_other_count",
    *(f"age_{number}" for number in range(len(AGES_S))),
    "conversion_value_high",
)
"""What a row counts of conversions: all in millionths but `…_other_count` (conversions) and
`conversion_value`, millionths of the row's currency: two columns hold its lower 32 bits and the rest, since
64 bits hold the sum of no two of the largest values.
"""
TYPES_AT, WAYS_AT = 1, 1 + len(CONVERSION_TYPES)
VALUE, OTHER = COLUMNS.index("conversion_value"), COLUMNS.index("conversion_value_other_count")
AGES_AT: Final = OTHER + 1
HIGH: Final = len(COLUMNS) - 1
VALUE_BITS: Final = 32
LOW: Final = (1 << VALUE_BITS) - 1

RowName = tuple[str, str]
"""Scope and id."""
MOST_CURRENCIES: Final = 1_000_000
"""Rows whose currency is remembered; in further ones a value counts as one in another currency."""
_Entry = TypeVar("_Entry", bound=tuple[Any, ...])


class Account(NamedTuple):
    """Accepted, valid conversions, or what a cut adds to them: accepted = attributed + unattributed +
    pending.
    """

    accepted: int
    attributed: int
    unattributed: int
    pending: int

    def plus(self, more: Account) -> Account:
        """Both together."""
        return Account(*(ours + theirs for ours, theirs in zip(self, more, strict=True)))


class CreditBatch(NamedTuple):
    """What the decisions of a cut add to one row shard: `amounts[i]` to column `columns[i]` of `rows[at[i]]`
    in a minute.

    `frequency` are (row, class of `flows.frequency`, listeners that it gains, millionths of conversions from
    it). `currencies` are of the rows that get a value; `accounts` are what campaigns' accounts
    gain.
    """

    to: int
    cut: Cut
    rows: list[tuple[str, str]]
    at: U32
    minutes: U32
    columns: U8
    amounts: I64
    frequency: list[tuple[RowName, int, int, int]]
    currencies: list[tuple[RowName, str]]
    accounts: list[tuple[RowName, Account]]


@dataclass
class CreditBook:
    """Turns decisions into increments.

    Args:
        shards: of the rows.
        plans: whose currency goes before what was credited first.
        currencies: of each row's `conversion_value`, once it has one.
        decided: all accepted, attributed and unattributed conversions, those of a campaign being kept with
            its row.
        secret: see `flows.homes`.
    """

    shards: int
    plans: Mapping[str, Plan] = field(default_factory=dict)
    currencies: dict[RowName, str] = field(default_factory=dict)
    decided: tuple[int, int, int] = (0, 0, 0)
    secret: bytes = b""
    _priced: dict[RowName, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._homes = Homes(self.secret, self.shards)

    def cut(self, cut: Cut, decided: Sequence[Decided]) -> tuple[list[CreditBatch], Account, list[Decision]]:
        """Increments for every row shard, the account of all conversions, and all decisions, sorted."""
        decisions = [decision for one in decided for decision in one.decisions]
        decisions.sort(
            key=lambda one: (one.conversion.ts_ms, one.conversion.pixel.currency or "", one.conversion.key)
        )
        rows: dict[RowName, tuple[int, int]] = {}
        names: list[list[RowName]] = [[] for _ in range(self.shards)]
        entries: list[list[int]] = [[] for _ in range(self.shards)]
        for decision in decisions:
            minute = decision.conversion.ts_ms // 60_000
            for name, column, amount in self._amounts(decision):
                if (place := rows.get(name)) is None:
                    shard = self._homes.of(*name)
                    place = rows[name] = (shard, len(names[shard]))
                    names[shard].append(name)
                entries[place[0]] += (place[1], minute, column, amount)
        gained = self._account(decided, decisions)
        frequency = self._by_shard(self._frequency(decided))
        currencies, self._priced = self._by_shard(list(self._priced.items())), {}
        accounts = self._by_shard(
            [(("campaign", campaign), account) for campaign, account in gained.items() if campaign]
        )
        batches = []
        for shard in range(self.shards):
            table = np.array(entries[shard], np.int64).reshape(-1, 4)
            at, minutes, columns, added = (table[:, i] for i in range(4))
            batches.append(
                CreditBatch(
                    shard,
                    cut,
                    names[shard],
                    at.astype(np.uint32),
                    minutes.astype(np.uint32),
                    columns.astype(np.uint8),
                    added.copy(),
                    frequency[shard],
                    currencies[shard],
                    accounts[shard],
                )
            )
        accepted, attributed, unattributed = self.decided
        total = Account(accepted, attributed, unattributed, sum(one.pending for one in decided))
        assert total.accepted == total.attributed + total.unattributed + total.pending
        return batches, total, decisions

    def _account(self, decided: Sequence[Decided], decisions: Sequence[Decision]) -> dict[str, Account]:
        """Enter what has come in and what is decided; returns what each conversion's own campaign gains by it
        ("": those of none).
        """
        gained: dict[str, list[int]] = {}
        for one in decided:
            for campaign, count in one.accepted.items():
                gained.setdefault(campaign, [0, 0, 0])[0] += count
        for decision in decisions:
            campaign = decision.conversion.pixel.combo[1] or ""
            gained.setdefault(campaign, [0, 0, 0])[1 if decision.credits else 2] += 1
        accepted, attributed, unattributed = map(sum, zip(self.decided, *gained.values(), strict=True))
        self.decided = (accepted, attributed, unattributed)
        return {name: Account(a, b, c, a - b - c) for name, (a, b, c) in gained.items()}

    def _frequency(self, decided: Sequence[Decided]) -> list[tuple[RowName, int, int, int]]:
        sums: dict[tuple[str, int], tuple[int, int]] = {}
        for one in decided:
            for campaign, place, listeners, millionths in one.frequency:
                before = sums.get((campaign, place), (0, 0))
                sums[campaign, place] = (before[0] + listeners, before[1] + millionths)
        return [(("campaign", campaign), place, *more) for (campaign, place), more in sums.items()]

    def _by_shard(self, entries: Iterable[_Entry]) -> list[list[_Entry]]:
        """Entries that begin with a row's name, by the row's shard."""
        shards: list[list[_Entry]] = [[] for _ in range(self.shards)]
        for entry in entries:
            scope, name = entry[0]
            shards[self._homes.of(scope, name)].append(entry)
        return shards

    def _amounts(self, decision: Decision) -> Iterator[tuple[RowName, int, int]]:
        """What a decision adds to which column of which row; a row may come several times."""
        pixel, credits = decision.conversion.pixel, decision.credits
        kind = TYPES_AT + CONVERSION_TYPES.index(pixel.type)
        shares = _shares(pixel.value_micros, credits)
        others: set[RowName] = set()
        for credit, share in zip(credits, shares, strict=True):
            columns = [0, kind, WAYS_AT + WAYS.index(credit.way)]
            if credit.age_ms is not None:
                columns.append(AGES_AT + bisect_left(AGES_S, credit.age_ms / 1000))
            for scope, name in zip(SCOPES, credit.combo, strict=True):
                if name is None:
                    continue
                row = (scope, name)
                for column in columns:
                    yield row, column, credit.millionths
                other = pixel.other_value
                if share is not None:
                    currency = self._currency(row, credit.combo[1], pixel.currency)
                    if currency is not None:  # told each time: a row may have been forgotten since
                        self._priced[row] = currency
                    other = pixel.currency not in (None, currency)
                    if not other:
                        yield row, VALUE, share & LOW
                        if high := share >> VALUE_BITS:
                            yield row, HIGH, high
                if other and row not in others:  # a conversion once, in however many parts it came
                    others.add(row)
                    yield row, OTHER, 1

    def _currency(self, row: RowName, campaign: str | None, currency: str | None) -> str | None:
        """That of a row's value: of a placement its plan's, else its campaign's; of a campaign the one that
        its plans agree on; else the first that the row was credited in. Once it is known it stays.
        """
        known = self.currencies.get(row)
        if known is None and currency is not None:
            scope, name = row
            if scope == "placement":
                plan = self.plans.get(name)
                known = None if plan is None else plan.currency
            elif scope == "campaign":
                agreed = {plan.currency for plan in self.plans.values() if plan.campaign_id == name}
                known = agreed.pop() if len(agreed) == 1 else None
            if known is None and len(self.currencies) >= MOST_CURRENCIES:
                return None
            if known is None and scope == "placement" and campaign is not None:
                known = self._currency(("campaign", campaign), None, currency)
            known = self.currencies[row] = known or currency
        return known

    def snapshot(self) -> tuple[Any, ...]:
        """Plain state with its format's version."""
        return FORMAT, dict(self.currencies), self.decided

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
        _, currencies, self.decided = state
        self.currencies = dict(currencies)


def _shares(value: int | None, credits: Sequence[Credit]) -> Sequence[int | None]:
    if value is None or len(credits) <= 1:
        return [value] * len(credits)
    return divide(value, [one.millionths for one in credits])


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
        flight = self.flight[row] = self.flight.get(row, 0) + counts * flown
        flight[HIGH] += flight[VALUE] >> VALUE_BITS  # else the lower words of 2^31 conversions would overflow
        flight[VALUE] &= LOW

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


def value_of(counts: I64) -> int:
    """The `conversion_value` of a row's counts, exact at any size."""
    return (int(counts[HIGH]) << VALUE_BITS) + int(counts[VALUE])


def quantile_s(counts: I64, share: float) -> int | None:
    """Upper bound in seconds of the class of ages in which the `share` quantile lies; None without ages."""
    ages = np.cumsum(counts[AGES_AT:HIGH])
    return AGES_S[int(np.searchsorted(ages, share * ages[-1]))] if ages[-1] else None
