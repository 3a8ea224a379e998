"""The ledger: received = accepted + repeated + rejected, of every partition, at every cut."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.errors import RejectingError, StateError
from flows.model.messages import PartitionAccount, PixelOutcomes, Receipt
from flows.model.ticks import Cut, Tick
from flows.publish.ledger import COUNTS, PARTS, Ledger
from flows.state.saves import decode, encode

HERE = Cut(1, 0, False, ())
FATES = ("malformed", "invalid", "unknown_event", "too_late", "accepted", "repeated")
MESSAGES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(FATES)), max_size=20)


def ledger(share: float = 1.0, least: int = 10_000) -> Ledger:
    return Ledger(share, least)


def receipt(
    partition: str, position: int, received: int, rejected: dict[str, int] | None = None, skewed: int = 0
) -> Receipt:
    tick = Tick(partition, ("a", "b"), 1, 1000 * position, True, False, position, 0)
    return Receipt(tick, received, rejected or {}, skewed, [(1.0 * position, received)] if received else [])


def rejecting(messages: int, rejected: int, share: float, least: int) -> None:
    one = ledger(share, least)
    one.receive(receipt("a", 1, messages, {"malformed": rejected}))
    one.add_outcomes(PixelOutcomes("a", messages - rejected, 0, 0, ()))
    one.cut(HERE)


@settings(deadline=None)
@given(st.lists(MESSAGES, max_size=8), st.booleans())
def test_every_cut_accounts_for_every_message_whatever_became_of_it(
    log: list[list[tuple[str, str]]], restart: bool
) -> None:
    one, total = ledger(), Counter[tuple[str, str]]()
    given_out: dict[str, PartitionAccount] = {}
    for position, messages in enumerate(log):
        here = Counter(messages)
        total += here
        for partition in "ab":
            fates = {fate: here[partition, fate] for fate in FATES}
            refused = {reason: fates[reason] for reason in FATES[:3] if fates[reason]}
            one.receive(receipt(partition, position, sum(fates.values()), refused))
            for shard_share in (0, 1):  # two shards, of which the first has what is accepted
                one.add_outcomes(
                    PixelOutcomes(
                        partition,
                        0 if shard_share else fates["accepted"],
                        fates["repeated"] if shard_share else 0,
                        fates["too_late"] if shard_share else 0,
                        (),
                    )
                )
        accounts, _ = one.cut(HERE)
        given_out |= {account.partition: account for account in accounts}
        if restart:
            state = decode(encode(one.snapshot()))
            one = ledger()
            one.restore(state)
    for partition, account in given_out.items():
        counts = account.counts
        assert set(counts) == set(COUNTS)
        expected = {fate: total[partition, fate] for fate in FATES}
        assert counts["received"] == sum(expected.values())
        assert {fate: counts.get(fate, counts.get(f"rejected.{fate}")) for fate in FATES} == expected
        assert account.position == len(log) - 1


def test_an_unaccounted_message_stops_the_flow() -> None:
    one = ledger()
    one.receive(receipt("a", 1, 3, {"invalid": 1}))
    one.add_outcomes(PixelOutcomes("a", 1, 0, 0, ()))
    with pytest.raises(AssertionError):
        one.cut(HERE)


def test_only_changed_accounts_are_published_until_a_restart() -> None:
    one = ledger()
    for partition in "ab":
        one.receive(receipt(partition, 1, 2, {"invalid": 2}, skewed=1))
    accounts, arrivals = one.cut(HERE)
    assert [account.partition for account in accounts] == ["a", "b"]
    assert accounts[0].counts["clock_skewed"] == 1
    assert arrivals == [(1.0, 2), (1.0, 2)]
    assert one.cut(HERE) == ([], [])
    one.receive(receipt("b", 2, 1, {"malformed": 1}))
    (changed,), _ = one.cut(HERE)
    assert (changed.partition, changed.position, changed.watermark_ms) == ("b", 2, 2000)
    resumed = ledger()
    resumed.restore(decode(encode(one.snapshot())))
    again, arrivals = resumed.cut(HERE)
    assert [account.partition for account in again] == ["a", "b"]
    assert again[1] == changed
    assert arrivals == []


def test_invalid_traffic_is_a_part_of_what_is_accepted() -> None:
    one = ledger()
    one.receive(receipt("a", 1, 5))
    one.add_outcomes(PixelOutcomes("a", 5, 0, 0, (3, 1)))
    (account,), _ = one.cut(HERE)
    assert (account.counts["accepted"], account.counts["invalid_traffic"]) == (5, 4)


@pytest.mark.parametrize(("messages", "rejected"), [(100, 50), (99, 99)])
def test_a_flow_is_not_stopped_by_half_rejected_or_by_few(messages: int, rejected: int) -> None:
    rejecting(messages, rejected, share=0.5, least=100)


def test_a_flow_with_mostly_rejected_pixels_stops_with_the_reason() -> None:
    with pytest.raises(
        RejectingError, match=r"51 of 100 messages were rejected \(malformed 51\).*AUDIOPIXEL_REJECT_SHARE"
    ):
        rejecting(100, 51, share=0.5, least=100)


HOUR_MS = 3_600_000


class Days:
    """A ledger, and time that goes on with each cut of so many messages."""

    def __init__(self, least: int = 10_000) -> None:
        self.elapsed_ms = 0
        self.ledger = self._new(least)

    def _new(self, least: int) -> Ledger:
        return Ledger(0.5, least, now_ms=lambda: self.elapsed_ms)

    def cut(self, messages: int, rejected: int, elapsed_ms: int) -> None:
        self.ledger.receive(receipt("a", 1, messages, {"malformed": rejected}))
        self.ledger.add_outcomes(PixelOutcomes("a", messages - rejected, 0, 0, ()))
        self.elapsed_ms += elapsed_ms
        self.ledger.cut(HERE)

    def restart(self) -> None:
        state = decode(encode(self.ledger.snapshot()))
        self.ledger = self._new(self.ledger.reject_least)
        self.ledger.restore(state)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("a_minute", [1, 300, 120_000])
def test_a_good_month_does_not_hide_a_bad_hour(a_minute: int, restart: bool) -> None:
    days = Days()
    for _ in range(30 * 24):
        days.cut(60 * a_minute, a_minute, HOUR_MS)
    bad = 0
    with pytest.raises(RejectingError, match=r"malformed"):  # noqa: PT012
        while bad < 100 * 24 * 60:
            days.cut(a_minute, a_minute, 60_000)
            bad += 1
            if restart:
                days.restart()
    assert bad <= max(90, 2 * 10_000 / a_minute), "an hour and a half, or until there is enough to judge by"


def test_a_bad_minute_of_a_good_hour_does_not_stop_the_flow() -> None:
    days = Days()
    for minute in range(24 * 60):
        days.cut(1_000, 1_000 if minute % 60 == 30 else 0, 60_000)


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 2 * HOUR_MS)), max_size=100))
def test_the_judged_window_is_bounded_and_large_enough(cuts: list[tuple[int, int]]) -> None:
    days, all_ = Days(), 0
    for messages, elapsed_ms in cuts:
        days.cut(messages, 0, elapsed_ms)
        all_ += messages
        parts, _ = days.ledger.snapshot()[3]
        assert len(parts) <= PARTS
        assert sum(part.get("received", 0) for part in parts) >= min(all_, 10_000)


def test_state_of_another_format_is_refused() -> None:
    with pytest.raises(StateError, match="format 0"):
        ledger().restore((0, {}, {}, ([], 0)))


def test_marks_are_counted_and_published_without_other_messages() -> None:
    one = ledger()
    one.receive(receipt("a", 1, 0)._replace(marks=3))
    one.receive(receipt("a", 2, 1, {"invalid": 1})._replace(marks=2))
    one.receive(receipt("b", 1, 0))
    (account,), _ = one.cut(HERE)
    assert (account.partition, account.counts["marks"], account.counts["received"]) == ("a", 5, 1)
