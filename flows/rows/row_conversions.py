"""Conversions of rows: credits by minute, day and flight, their currency, frequency, accounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from flows.model.conversion_columns import CLASSES, COLUMNS, MONEY, OTHER, VALUED, carry
from flows.model.messages import ConversionAccount, CreditBatch
from flows.rows.ended import RowName
from flows.rows.row_columns import Frequency, RowColumns
from flows.rows.sparse_cells import SparseCells
from flows.state.arrays import I64, U32

NO_ACCOUNT: Final = ConversionAccount(0, 0, 0, 0)
NO_FREQUENCY: Final[Frequency] = (0,) * len(CLASSES), (0,) * len(CLASSES)


class CreditCells(SparseCells):
    """Credits of one row shard's rows: the columns of `flows.model.conversion_columns.COLUMNS`."""

    def __init__(self) -> None:
        super().__init__(len(COLUMNS))

    def add(self, rows: U32, minutes: I64, days: I64, flown: Any, columns: I64, amounts: I64) -> None:
        """See `SparseCells.add`."""
        super().add(rows, minutes, days, flown, columns, amounts)
        flights = self.flights(np.unique(rows).astype(np.int64))
        counts = self.cells.counts[flights]
        carry(counts)  # otherwise the lower words of 2^31 conversions would overflow
        self.cells.counts[flights] = counts


class RowConversions:
    """Conversions of one row shard's rows, by number.

    Attributes:
        credits: by minute, day and flight, in a journal of their own.
    """

    def __init__(self, columns: RowColumns) -> None:
        self.credits = CreditCells()
        self._currencies, self._frequencies = columns.currencies, columns.frequencies
        self._accounts = columns.accounts

    def note(self, batch: CreditBatch, number: Callable[[RowName], int]) -> set[int]:
        """Take a batch's figures of campaigns; returns the rows that change.

        A name may have conversions in `other`, or from before its row was forgotten. The row then has no
        class that their listeners could leave, and accepts a conversion when it is decided.
        """
        changed = set()
        for name, place, listeners, millionths in batch.frequency:
            changed.add(row := number(name))
            of_row = self._frequencies.get(row, NO_FREQUENCY)
            self._frequencies[row] = (
                _raised(of_row[0], place, listeners),
                _raised(of_row[1], place, millionths),
            )
        for name, account in batch.accounts:
            changed.add(row := number(name))
            account = self._accounts.get(row, NO_ACCOUNT).plus(account)
            unknown = max(0, -account.pending)
            self._accounts[row] = account.plus(ConversionAccount(unknown, 0, 0, unknown))
        return changed

    def counts(self, batch: CreditBatch, number: Callable[[RowName], int], rows: U32) -> tuple[I64, I64]:
        """The column in `COLUMNS` and the amount of each of a batch's increments; its rows are `rows`."""
        foreign = [
            row
            for name, currency in batch.currencies
            if self._currencies.setdefault(row := number(name), currency) != currency
        ]
        columns, amounts = batch.columns.astype(np.int64), batch.amounts.copy()
        if foreign:  # the credit book dropped the row's currency, and chose another
            theirs = np.isin(rows, foreign)
            amounts[theirs & np.isin(columns, [*MONEY, *MONEY.values()])] = 0
            columns[theirs & (columns == VALUED)] = OTHER
        amounts[columns == VALUED] = columns[columns == VALUED] = 0
        return columns, amounts


def _raised(counts: tuple[int, ...], place: int, more: int) -> tuple[int, ...]:
    """`counts` with `more` added at a place, where the least count is 0."""
    return (*counts[:place], max(0, counts[place] + more), *counts[place + 1 :])
