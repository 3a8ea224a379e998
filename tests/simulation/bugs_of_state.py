"""Bugs of what is saved and restored."""

from __future__ import annotations

from typing import Any

from flows.attribution import CreditBook, ListenerShard
from flows.attribution.claims import Claims
from flows.plays import PlayShard
from flows.publish import Ledger
from flows.rows import RowShard
from flows.rows.cells import Cells
from flows.rows.turning import Turning
from flows.state.journal import Journal
from flows.state.rows import Rows
from simulation.mutations import mutation


@mutation(PlayShard, "restore")
def a5_a_minute_is_final_by_the_lateness_of_now_alone(right: Any) -> Any:
    def restore(self: Any, state: Any) -> None:
        right(self, state)
        self.first_open = 0

    return restore


@mutation(PlayShard, "stored")
def plays_are_forgotten_at_a_restart(right: Any) -> Any:
    return lambda self: {"combos": right(self)["combos"]}


@mutation(Journal, "snapshot")
def a_journal_forgets_its_older_pieces(right: Any) -> Any:
    def snapshot(self: Any, *of: Any, **more: Any) -> Any:
        found = right(self, *of, **more)
        self.pieces = []
        return found

    return snapshot


@mutation(ListenerShard, "plain")
def conversions_that_wait_are_not_saved(right: Any) -> Any:
    return lambda self: right(self) | {"pending": []}


@mutation(CreditBook, "snapshot")
def the_credit_books_account_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, shards, state = right(self)
        return form, shards, state | {"decided": (0, 0, 0, 0)}

    return snapshot


@mutation(CreditBook, "snapshot")
def currencies_of_campaigns_are_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, shards, state = right(self)
        return form, shards, state | {"currencies": {}, "valueless": {}}

    return snapshot


@mutation(Cells, "drop_expired")
def expired_minutes_of_an_ended_row_stay_in_its_number(right: Any) -> Any:
    return lambda self, oldest, at_once=False: right(self, oldest)


@mutation(Claims, "snapshot")
def what_public_tags_have_claimed_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any, files: Any) -> Any:
        swept_ms, _, _ = right(self, files)
        return swept_ms, [], []

    return snapshot


@mutation(Claims, "claim_of")
def a_confirmation_finds_what_was_claimed_in_its_own_cut_alone(_: Any) -> Any:
    return lambda self, key, ts_ms: None


@mutation(Ledger, "restore")
def accounts_that_do_not_change_are_not_given_out_at_a_restart(right: Any) -> Any:
    def restore(self: Any, state: Any) -> None:
        right(self, state)
        self._changed = set()

    return restore


@mutation(Ledger, "snapshot")
def the_ledger_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, _, *more = right(self)
        return form, {}, *more

    return snapshot


@mutation(RowShard, "mark_all_unpublished")
def rows_that_do_not_change_are_not_given_out_at_a_restart(_: Any) -> Any:
    return lambda self: None


@mutation(Rows, "snapshot")
def labels_are_not_saved(right: Any) -> Any:
    def snapshot(self: Any, rows: Any) -> Any:
        state = right(self, rows)
        state["values"] |= {"label_names": {}, "label_times": {}}
        return state

    return snapshot


@mutation(RowShard, "take_changed")
def rows_that_change_are_not_written_to_the_journal(right: Any) -> Any:
    def take_changed(self: Any, publish: bool, whole: bool) -> Any:
        unsaved = self.columns.unsaved.copy()
        changed = right(self, publish, whole)
        self.columns.unsaved = unsaved
        return changed

    return take_changed


@mutation(Turning, "part")
def rows_wait_for_their_part_at_a_stop_and_behind_a_crash(right: Any) -> Any:
    return lambda self, rows, watermark_ms, _: right(self, rows, watermark_ms)


@mutation(RowShard, "snapshot")
def which_minutes_are_final_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, shards, state = right(self)
        return form, shards, state | {"first_open": 0}

    return snapshot


@mutation(RowShard, "_final_before")
def a_minute_is_final_when_the_next_one_turns(_: Any) -> Any:
    return lambda self: (self.minute * 60_000 - self.lateness_ms) // 60_000
