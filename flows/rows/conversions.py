"""Conversions of rows: credits by minute, day and flight, their currency, frequency, accounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from flows.model.conversions import MONEY, OTHER, VALUED, new_frequency
from flows.model.messages import ConversionAccount, CreditBatch
from flows.rows.credit_cells import CreditCells
from flows.rows.ended import RowName
from flows.state.arrays import I64, U32

NO_ACCOUNT: Final = ConversionAccount(0, 0, 0, 0)


class RowConversions:
    """Conversions of one row shard's rows, by number.

    Attributes:
        credits: by minute, day and flight, in a journal of their own.
        currencies: of the rows that have a value.
        frequency: of campaigns, (2, classes) listeners and millionths of conversions.
        accounts: of campaigns.
    """

    def __init__(self) -> None:
        self.credits = CreditCells()
        self.currencies: dict[int, str] = {}
        self.frequency: dict[int, I64] = {}
        self.accounts: dict[int, ConversionAccount] = {}

    def note(self, batch: CreditBatch, number: Callable[[RowName], int]) -> set[int]:
        """Take a batch's figures of campaigns; returns the rows that change.

        A name may have conversions in `other`, or from before its row was forgotten. For these the row has no
        class that a listener could leave, and a conversion is accepted when it is decided.
        """
        changed = set()
        for name, place, listeners, millionths in batch.frequency:
            changed.add(row := number(name))
            counts = self.frequency.setdefault(row, new_frequency())
            counts[:, place] = np.maximum(counts[:, place] + (listeners, millionths), 0)
        for name, account in batch.accounts:
            changed.add(row := number(name))
            account = self.accounts.get(row, NO_ACCOUNT).plus(account)
            unknown = max(0, -account.pending)
            self.accounts[row] = account.plus(ConversionAccount(unknown, 0, 0, unknown))
        return changed

    def counts(self, batch: CreditBatch, number: Callable[[RowName], int], rows: U32) -> tuple[I64, I64]:
        """Columns of `COLUMNS`, and amounts, of a batch's increments, whose rows are `rows`."""
        foreign = [
            row
            for name, currency in batch.currencies
            if self.currencies.setdefault(row := number(name), currency) != currency
        ]
        columns, amounts = batch.columns.astype(np.int64), batch.amounts.copy()
        if foreign:  # the book has forgotten a row's currency, and decided on another
            theirs = np.isin(rows, foreign)
            amounts[theirs & np.isin(columns, [*MONEY, *MONEY.values()])] = 0
            columns[theirs & (columns == VALUED)] = OTHER
        amounts[columns == VALUED] = columns[columns == VALUED] = 0
        return columns, amounts

    def take_out(self, row: int) -> list[Any]:
        """Forget a row's conversions; returns them as plain values."""
        frequency = self.frequency.pop(row, None)
        return [
            self.currencies.pop(row, None),
            None if frequency is None else frequency.tolist(),
            self.accounts.pop(row, None),
        ]

    def put_back(self, row: int, taken: list[Any]) -> None:
        """Restore to a row the values that `take_out` returned."""
        currency, frequency, account = taken
        if currency is not None:
            self.currencies[row] = currency
        if frequency is not None:
            self.frequency[row] = np.array(frequency, np.int64)
        if account is not None:
            self.accounts[row] = ConversionAccount(*account)

    def snapshot(self, rows: list[int]) -> dict[str, Any]:
        """The conversions of `rows` as plain state."""
        return {
            "currencies": {row: self.currencies[row] for row in rows if row in self.currencies},
            "frequency": {row: self.frequency[row].tolist() for row in rows if row in self.frequency},
            "accounts": {row: tuple(self.accounts[row]) for row in rows if row in self.accounts},
        }

    def restore(self, rows: list[int], state: dict[str, Any]) -> None:
        """Replace the values of `rows` by those of `snapshot`'s state."""
        for row in rows:
            self.take_out(row)
        self.currencies |= state["currencies"]
        self.frequency |= {row: np.array(of, np.int64) for row, of in state["frequency"].items()}
        self.accounts |= {row: ConversionAccount(*of) for row, of in state["accounts"].items()}
