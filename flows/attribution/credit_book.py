"""Credits: decided conversions as increments of rows, with values in one currency for each row, and the
account of all conversions.

There is one book for the whole flow, for two reasons. The first currency of a row must be the same for all
listeners, and a claimed conversion and its confirmation (`flows.attribution.claims`) are decided in different
shards. One book is fast enough, since conversions are rare. `flows.attribution.decisions` makes the records
of decisions for readers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from msgspec.structs import replace

from flows.attribution.claims import Claim, Claims, Part
from flows.attribution.credit_entries import Entries
from flows.attribution.credit_models import apportion
from flows.model.basis import CLIENTS_AT
from flows.model.client_counts import NO_SIDE_INCREMENTS, ClientCounts, SideIncrements
from flows.model.conversion_columns import (
    AGES_AT,
    AGES_S,
    CLAIMED,
    CLAIMED_COUNT,
    CONFIRMED_COUNT,
    CONFIRMED_RULE,
    JOINED,
    JOINED_AT,
    LOW,
    MONEY,
    OTHER,
    TYPES_AT,
    VALUE,
    VALUE_BITS,
    VALUED,
    WAYS,
    WAYS_AT,
    RowName,
)
from flows.model.decisions import ClaimedValue, Credit, Decision
from flows.model.dimensions import SCOPES, Dimensions
from flows.model.events import CONVERSION_TYPES
from flows.model.messages import ConversionAccount, CreditBatch, Decided, book_files
from flows.model.plan import PlanBook
from flows.model.ticks import DAY_MS, MINUTE_MS, Cut
from flows.state.arrays import I64, U8, U32
from flows.state.homes import Homes
from flows.state.shard import Shard, Stored

MAX_CURRENCIES: Final = 1_000_000
"""The greatest number of rows whose currency is stored: the last credited ones. A row also stores its own
currency, so it can still tell a value in another currency apart after the book has dropped the row.
"""
_Entry = TypeVar("_Entry", bound=tuple[Any, ...])
_TYPE_COLUMNS: Final = {kind: TYPES_AT + number for number, kind in enumerate(CONVERSION_TYPES)}
_WAY_COLUMNS: Final = {way: WAYS_AT + number for number, way in enumerate(WAYS)}
_JOINED_COLUMNS: Final[dict[str | None, tuple[int, ...]]] = {
    None: (),
    **{name: (JOINED_AT + number,) for number, name in enumerate(JOINED)},
}
_AGE_COLUMNS: Final = [(AGES_AT + number,) for number in range(len(AGES_S))]


@dataclass
class CreditBook(Shard):
    """Converts decisions to increments.

    Args:
        shards: of the rows.
        plans: their currency takes precedence over that of the first credit; see
        `have_plans`.
        currencies: the currency of each row's values, including claimed ones.
        valueless: the rows that have a currency from plans, but no value in it yet, with the campaign of
            their first value. An empty currency is determined again at the next value.
        decided: the numbers of all accepted, attributed and unattributed conversions, and of those with a
            noisy household. The numbers of a campaign are stored with its row.
        secret: see `flows.state.homes`.
        claims_kept_ms: the time for which a claimed conversion may be confirmed.
        recovery: the directory that snapshots may put files in.
    """

    STEP = "credits"
    FORMAT = 9
    PLAIN = ("currencies", "decided", "valueless", "_version")
    shards: int
    plans: PlanBook = field(default_factory=PlanBook)
    currencies: dict[RowName, str] = field(default_factory=dict)
    decided: tuple[int, int, int, int] = (0, 0, 0, 0)
    secret: bytes = b""
    valueless: dict[RowName, str | None] = field(default_factory=dict)
    claims_kept_ms: int = 60 * DAY_MS
    recovery: Path | None = None
    _version: str = ""
    _priced: dict[RowName, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index, self._homes = book_files(self.shards), Homes(self.secret, self.shards)
        self.claims = Claims(self.claims_kept_ms)

    def have_plans(self, plans: PlanBook) -> None:
        """Set the plans in force. If they have changed, a row without a value in its currency may get another
        currency.
        """
        self.plans, before, self._version = plans, self._version, plans.version
        if before != self._version:
            self.currencies |= dict.fromkeys(self.valueless, "")

    def cut(
        self, cut: Cut, decided: Sequence[Decided], counted: Sequence[ClientCounts] = ()
    ) -> tuple[list[CreditBatch], ConversionAccount, list[Decision]]:
        """The results of a cut.

        Returns:
            Increments for every row shard, including those of `counted`; the account of all conversions; the
            decisions to publish, sorted.
        """
        unconfirmed = _once(_in_order([decision for one in decided for decision in one.decisions]))
        decisions, claimed = self._confirmed(unconfirmed)
        entries, sides = self._entries(decisions, claimed), self._sides(counted)
        self.claims.sweep(cut.watermark_ms)
        gained = self._account(decided, decisions)
        frequency = self._by_shard(self._frequency(decided, decisions))
        currencies, self._priced = self._by_shard(list(self._priced.items())), {}
        accounts = self._by_shard(
            [(("campaign", campaign), account) for campaign, account in gained.items() if campaign]
        )
        beside = list(zip(frequency, currencies, accounts, sides, strict=True))
        batches = [CreditBatch(shard, cut, *entries[shard], *beside[shard]) for shard in range(self.shards)]
        accepted, attributed, unattributed, noisy = self.decided
        pending = sum(one.pending for one in decided)
        total = ConversionAccount(accepted, attributed, unattributed, pending, noisy)
        assert total.accepted == total.attributed + total.unattributed + total.pending
        return batches, total, [one for one in decisions if not one.conversion.pixel.apart]

    def _confirmed(
        self, decisions: Sequence[Decision]
    ) -> tuple[list[Decision], dict[tuple[int, int], Claim | Decision]]:
        """Replace the decisions that confirm a claimed conversion by confirmations, which have its credits.

        Returns:
            The decisions; and, by key and time, the confirmed claimed conversions, and this cut's new ones,
            which may be confirmed later.
        """
        now: dict[tuple[int, int], Decision] = {}
        claimed: dict[tuple[int, int], Claim | Decision] = {}
        confirmed = []
        for decision in decisions:
            conversion = decision.conversion
            if conversion.claimed_ms is not None:
                claim = conversion.key, conversion.claimed_ms
                claimed_conversion = now.get(claim) or self.claims.claim_of(*claim)
                if claimed_conversion is not None:
                    claimed[claim], decision = claimed_conversion, _confirmation(decision, claimed_conversion)
            elif conversion.pixel.claimed and not conversion.pixel.apart and decision.credits:
                now[conversion.key, conversion.ts_ms] = decision
            confirmed.append(decision)
        return confirmed, now | claimed

    def _account(
        self, decided: Sequence[Decided], decisions: Sequence[Decision]
    ) -> dict[str, ConversionAccount]:
        """Add new conversions and decisions to the account.

        Returns:
            The gain of the campaign that each conversion names ("" without one).
        """
        gained: dict[str, list[int]] = {}
        for shard_decided in decided:
            for campaign, count in shard_decided.accepted.items():
                gained.setdefault(campaign, [0, 0, 0, 0])[0] += count
        for decision in decisions:
            conversion = decision.conversion
            if conversion.pixel.apart or decision.rule == CONFIRMED_RULE:
                continue
            gain = gained.setdefault(conversion.pixel.combo[1] or "", [0, 0, 0, 0])
            # a conversion that might have been a confirmation was not accounted yet
            gain[0] += not conversion.accounted
            gain[1 if decision.credits else 2] += 1
            gain[3] += decision.noisy
        accepted, attributed, unattributed, noisy = map(sum, zip(self.decided, *gained.values(), strict=True))
        self.decided = (accepted, attributed, unattributed, noisy)
        return {name: ConversionAccount(a, b, c, a - b - c, d) for name, (a, b, c, d) in gained.items()}

    def _frequency(
        self, decided: Sequence[Decided], decisions: Sequence[Decision]
    ) -> list[tuple[RowName, int, int, int]]:
        sums: dict[tuple[str, int], tuple[int, int]] = {}
        gained = chain([one.frequency for one in decided], [one.classes for one in decisions])
        for campaign, place, listeners, millionths in chain.from_iterable(gained):
            before = sums.get((campaign, place), (0, 0))
            sums[campaign, place] = (before[0] + listeners, before[1] + millionths)
        return [(("campaign", campaign), place, *more) for (campaign, place), more in sums.items()]

    def _by_shard(self, entries: Iterable[_Entry]) -> list[list[_Entry]]:
        """Entries that begin with a row's name, by row shard."""
        shards: list[list[_Entry]] = [[] for _ in range(self.shards)]
        for entry in entries:
            scope, name = entry[0]
            shards[self._homes.shard_of(scope, name)].append(entry)
        return shards

    def _entries(
        self, decisions: Sequence[Decision], claimed: Mapping[tuple[int, int], Claim | Decision]
    ) -> list[tuple[list[RowName], U32, U32, U8, I64]]:
        """Amounts of the decisions by row shard: its rows, and (place in them, minute, column, amount). A
        cell may have several amounts.

        Args:
            claimed: see `_confirmed`; this cut's new ones are stored.
        """
        rows, groups = Entries(), _alike(decisions)
        priced: _Priced = {}
        # The cut at which this happened may be an earlier one: a book that has dropped a currency stays full.
        most = len(self.currencies) + len(SCOPES) * sum(len(one.all_credits) for one in decisions)
        forgetful = most > MAX_CURRENCIES
        for alike, values in groups:
            if isinstance(alike, Decision):
                conversion = alike.conversion
                assert conversion.claimed_ms is not None, "it is a confirmation"
                claimed_conversion = claimed[conversion.key, conversion.claimed_ms]
                claim = (
                    _claim(rows, priced, claimed_conversion)
                    if isinstance(claimed_conversion, Decision)
                    else claimed_conversion
                )
                self._confirm(rows, priced, alike, claim, forgetful)
                continue
            minute, kind, by, currency, (by_tag, apart), has_value, other_value, parts = alike
            always = (0, _TYPE_COLUMNS[kind], *((CLAIMED_COUNT,) if by_tag else ()))
            value, many = CLAIMED if by_tag else VALUE, len(values)
            valued, other_groups = set[int](), set[int]()
            for (combo, way, age, millionths), shares in zip(parts, zip(*values, strict=True), strict=True):
                group_number = rows.group_of(combo)
                if apart:
                    rows.add(group_number, minute, (CLAIMED_COUNT,), many * millionths)
                    continue
                columns = (*always, _WAY_COLUMNS[way], *_JOINED_COLUMNS[by], *age)
                rows.add(group_number, minute, columns, many * millionths)
                if has_value:
                    own, other_group = self._priced_rows(rows, priced, combo, currency)
                    _pay(rows, own, minute, value, sum(shares))
                    if forgetful:
                        valued.add(own)
                    if rows.groups[other_group]:
                        other_groups.add(other_group)
                elif other_value:
                    other_groups.add(group_number)
            if valued:  # once for each conversion, however many parts it has
                rows.add(rows.union(valued), minute, (VALUED,), many)
            if other_groups:
                rows.add(rows.union(other_groups), minute, (OTHER,), many)
        for (key, ts_ms), confirmable in claimed.items():
            if isinstance(confirmable, Decision):
                self.claims.add(key, ts_ms, _claim(rows, priced, confirmable))
        return rows.by_shard(self._homes)

    def _confirm(
        self, rows: Entries, priced: _Priced, decision: Decision, claim: Claim, forgetful: bool
    ) -> None:
        """Add the changes of a confirmation: a count, and one value replaced by another."""
        pixel, minute = decision.conversion.pixel, decision.conversion.ts_ms // MINUTE_MS
        shares = apportion([part.millionths for part in claim.parts], pixel.value_micros or 0)
        valued, other_rows, before = set[int](), set[int](), set[int]()
        for part, share in zip(claim.parts, shares, strict=True):
            group_number = rows.group_of(part.combo)
            rows.add(group_number, minute, (CONFIRMED_COUNT,), part.millionths)
            own = [
                row for row in rows.groups[group_number] if part.own >> SCOPES.index(rows.names[row][0]) & 1
            ]
            if claim.valued:
                _pay(rows, rows.group(own), minute, CLAIMED, -part.value)
            if claim.valued or claim.odd:
                before.update(set(rows.groups[group_number]).difference(own))
            if pixel.value_micros is not None:
                paid, other_group = self._priced_rows(rows, priced, part.combo, pixel.currency)
                _pay(rows, paid, minute, VALUE, share)
                other_rows.update(rows.groups[other_group])
                if forgetful:
                    valued.add(paid)
            elif pixel.other_value:
                other_rows.update(rows.groups[group_number])
        if valued:
            rows.add(rows.union(valued), minute, (VALUED,), 1)
        if more := sorted(other_rows - before):  # the claimed conversion counts there already
            rows.add(rows.group(more), minute, (OTHER,), 1)

    def _priced_rows(
        self, rows: Entries, priced: _Priced, combo: Dimensions, currency: str | None
    ) -> tuple[int, int]:
        """`_by_currency`, computed once in each cut."""
        group_number = rows.group_of(combo)
        if (groups := priced.get((group_number, currency))) is None:
            groups = priced[group_number, currency] = self._by_currency(rows, group_number, combo, currency)
        return groups

    def _sides(self, counted: Sequence[ClientCounts]) -> list[SideIncrements]:
        """Increments by clients' downloads and deliveries, by row shard."""
        batches, rows = [one for one in counted if len(one.amounts)], Entries()
        if not batches:
            return [NO_SIDE_INCREMENTS] * self.shards
        for batch in batches:
            groups = np.array([rows.group_of(combo) for combo in batch.names], np.int64)
            columns = batch.columns.astype(np.int64) + CLIENTS_AT
            rows.add_all(np.column_stack([groups[batch.combos], batch.minutes, columns, batch.amounts]))
        return [SideIncrements(*entries) for entries in rows.by_shard(self._homes)]

    def _by_currency(
        self, rows: Entries, group_number: int, combo: Dimensions, currency: str | None
    ) -> tuple[int, int]:
        """A group of rows that get a value in a currency, split into rows with that currency and the
        others.
        """
        own, other_rows = list[int](), list[int]()
        for row in rows.groups[group_number]:
            row_currency = self._currency(rows.names[row], combo[1], currency)
            # At every cut, since a row may have been dropped meanwhile.
            if row_currency is not None and rows.names[row] not in self.valueless:
                self._priced[rows.names[row]] = row_currency
            (own if currency in (None, row_currency) else other_rows).append(row)
        return rows.group(own), rows.group(other_rows)

    def _currency(self, row: RowName, campaign: str | None, currency: str | None) -> str | None:
        """The currency of a row's value.

        A placement has its plan's currency, else that of its first value's campaign. A campaign has the
        currency on which all its plans with a currency agree. Every other row has the currency of its first
        credit. A known currency stays; before the first value in it, it is determined again when plans
        change.
        """
        row_currency = self.currencies.pop(row, None)
        if not row_currency and currency is not None:
            scope, name = row
            campaign = self.valueless.pop(row, campaign)
            if scope == "placement":
                plan = self.plans.get(name)
                row_currency = None if plan is None else plan.currency
            elif scope == "campaign":
                row_currency = self.plans.currencies.get(name)
            if row_currency is None and scope == "placement" and campaign is not None:
                row_currency = self._currency(("campaign", campaign), None, currency)
            row_currency = row_currency or currency
            if row_currency != currency:
                self.valueless[row] = campaign
        elif row_currency == currency and self.valueless:
            self.valueless.pop(row, None)
        if row_currency is not None:  # last in order: the first entry is dropped next
            self.currencies[row] = row_currency
            if len(self.currencies) > MAX_CURRENCIES:
                del self.currencies[first := next(iter(self.currencies))]
                self.valueless.pop(first, None)
        return row_currency

    def stored(self) -> dict[str, Stored]:
        """See `Shard.stored`."""
        return {"claims": self.claims}

    def plain(self) -> dict[str, Any]:
        """See `Shard.plain`."""
        return super().plain() | {"currencies": dict(self.currencies), "valueless": dict(self.valueless)}

    def gather(self) -> None:
        """See `Shard.gather`."""
        self.claims.gather(self.files)

    def restore(self, state: tuple[Any, ...]) -> None:
        """See `Shard.restore`."""
        super().restore(state)
        self.currencies, self.valueless = dict(self.currencies), dict(self.valueless)


def _in_order(decisions: Sequence[Decision]) -> list[Decision]:
    """Decisions in order of time; at one time, possible confirmations last, then by currency and key."""
    conversions = [one.conversion for one in decisions]
    currencies = [one.pixel.currency or "" for one in conversions]
    ranks = {currency: rank for rank, currency in enumerate(sorted(set(currencies)))}
    keys = (
        np.array([one.key for one in conversions], np.uint64),
        np.array([ranks[currency] for currency in currencies], np.int64),
        np.array([one.claimed_ms is not None for one in conversions], bool),
        np.array([one.ts_ms for one in conversions], np.int64),
    )
    return [decisions[place] for place in np.lexsort(keys).tolist()]


def _once(decisions: list[Decision]) -> list[Decision]:
    """A single decision for each conversion.

    The decision by the collector's previous key counts if the other found no touch.
    """
    again = {_identity(one): one for one in decisions if one.conversion.is_second}
    if not again:
        return decisions
    unique_decisions = []
    for decision in decisions:
        if not decision.conversion.is_second:
            before = again.get(_identity(decision)) if decision.joined_by is None else None
            unique_decisions.append(decision if before is None else _either(decision, before))
    return unique_decisions


def _identity(decision: Decision) -> tuple[int, int, bool]:
    conversion = decision.conversion
    return conversion.key, conversion.ts_ms, conversion.claimed_ms is not None


def _either(decision: Decision, before: Decision) -> Decision:
    """The decision without a touch, or the decision by the previous key if that has a touch."""
    capped, noisy = decision.capped or before.capped, decision.noisy or before.noisy
    chosen = decision if before.joined_by is None else before
    return replace(chosen, conversion=decision.conversion, capped=capped, noisy=noisy)


def _confirmation(decision: Decision, claimed: Claim | Decision) -> Decision:
    """A decision that confirms a claimed conversion, with the credits of the claimed one."""
    if isinstance(claimed, Claim):
        value = ClaimedValue(claimed.micros, claimed.currency)
        credits = [Credit(part.combo, part.millionths, part.way, None) for part in claimed.parts]
    else:
        pixel = claimed.conversion.pixel
        value = ClaimedValue(pixel.value_micros, pixel.currency)
        credits = [Credit(part.combo, part.millionths, part.way, None) for part in claimed.credits]
    return Decision(decision.conversion, CONFIRMED_RULE, credits, claimed_value=value)


def _claim(rows: Entries, priced: _Priced, decision: Decision) -> Claim:
    """A claimed conversion, built after its increments in this cut."""
    pixel, credits = decision.conversion.pixel, decision.credits
    valued = pixel.value_micros is not None
    shares = apportion([part.millionths for part in credits], pixel.value_micros or 0)
    parts = []
    for part, share in zip(credits, shares, strict=True):
        own = 0
        if valued:
            group, _ = priced[rows.group_of(part.combo), pixel.currency]
            own = sum(1 << SCOPES.index(rows.names[row][0]) for row in rows.groups[group])
        parts.append(Part(part.combo, part.way, part.millionths, share, own))
    return Claim(pixel.currency, valued, pixel.other_value, parts)


def _pay(rows: Entries, group: int, minute: int, column: int, amount: int) -> None:
    """Add to a value of each row of a group in a minute."""
    rows.add(group, minute, (column,), amount & LOW)
    if high := amount >> VALUE_BITS:
        rows.add(group, minute, (MONEY[column],), high)


_Part: TypeAlias = tuple[Dimensions, str, tuple[int, ...], int]
"""A credit: its dimensions, its way, the column of its age, and its share of the conversion."""
_Alike: TypeAlias = tuple[int, str, str | None, str | None, tuple[bool, bool], bool, bool, tuple[_Part, ...]]
"""The cells in which a decision counts. In order: minute, type, `joined_by`, currency, whether it is claimed,
whether it counts apart, whether it has a value, whether its value does not count, and credits.
"""
_Priced: TypeAlias = dict[tuple[int, str | None], tuple[int, int]]
"""The groups of `CreditBook._by_currency`, by a group of rows and a currency."""


def _alike(decisions: Sequence[Decision]) -> list[tuple[_Alike | Decision, list[Sequence[int]]]]:
    """The values of decisions, split by their credits, and grouped by the cells in which they count. Each
    confirmation is a group of its own. The groups are in the order of their first decisions.
    """
    values_by_cells: dict[_Alike, list[Sequence[int]]] = {}
    groups: list[tuple[_Alike | Decision, list[Sequence[int]]]] = []
    for decision in decisions:
        if decision.rule == CONFIRMED_RULE:
            groups.append((decision, []))
            continue
        conversion, credits = decision.conversion, decision.credits
        pixel = conversion.pixel
        value = pixel.value_micros
        cells = (
            conversion.ts_ms // MINUTE_MS,
            pixel.type,
            decision.joined_by,
            pixel.currency,
            (pixel.claimed, pixel.apart),
            value is not None,
            pixel.other_value,
            tuple([(part.combo, part.way, _age(part.age_ms), part.millionths) for part in credits]),
        )
        if (values := values_by_cells.get(cells)) is None:
            values = values_by_cells[cells] = []
            groups.append((cells, values))
        if len(credits) == 1:  # mostly
            values.append((value or 0,))
        else:
            values.append(apportion([part.millionths for part in credits], value or 0))
    return groups


def _age(age_ms: int | None) -> tuple[int, ...]:
    return () if age_ms is None else _AGE_COLUMNS[bisect_left(AGES_S, age_ms / 1000)]
