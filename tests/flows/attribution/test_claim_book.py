"""Claimed conversions in the credit book: what is kept of them, and what a confirmation adds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.attribution.claims import Claim, Claims, Part
from flows.attribution.credit_book import CreditBook
from flows.attribution.decisions import decision_record
from flows.model.conversion_columns import COLUMNS, MONEY_NAMES, VALUE_BITS, VALUED, WAYS, WHOLE
from flows.model.decisions import Body, Credit, Decision, PendingConversion
from flows.model.messages import Decided
from flows.model.pixel import ConversionPixel
from flows.model.plan import Plan, PlanBook
from flows.model.ticks import Cut
from flows.state import interner, journal
from flows.state.journal import Files
from flows.state.saves import decode, encode

DAY, MINUTE = 86_400_000, 60_000
T0 = 1_764_000_000_000 // DAY * DAY
KEPT = 61 * DAY
EUROS, POUNDS = "EUR", "GBP"

# What is kept

SOME = st.lists(
    st.builds(
        Part,
        st.tuples(st.sampled_from(["a", "b", "\uffff"]), st.none() | st.just("red")),
        st.sampled_from(WAYS),
        st.integers(1, WHOLE),
        st.integers(-(10**19), 10**19),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=20,
)


@given(
    SOME,
    st.none() | st.sampled_from(["AAA", "ZZZ", POUNDS]),
    st.booleans(),
    st.booleans(),
    st.integers(0, (1 << 42) - 1),
    st.integers(1, (1 << 64) - 1),
)
def test_a_claim_is_kept_as_it_is(
    parts: list[Part], currency: str | None, valued: bool, odd: bool, ts_ms: int, key: int
) -> None:
    kept, claim = Claims(KEPT), Claim(currency, valued, odd, parts)
    kept.add(key, ts_ms, claim)
    assert kept.claim_of(key, ts_ms) == claim
    assert kept.claim_of(key, ts_ms ^ 1) is None
    assert kept.claim_of(key ^ 1, ts_ms) is None


def one_claim(rng: random.Random, number: int) -> Claim:
    parts = [
        Part(
            (f"p{number % 7}", f"c{rng.randrange(9)}", None), rng.choice(WAYS), 1 + rng.randrange(WHOLE), 5, 3
        )
        for _ in range(rng.choice((1, 1, 1, 4)))
    ]
    return Claim(rng.choice((None, POUNDS)), True, False, parts)


@pytest.mark.parametrize("files", [True, False])
def test_saves_restore_claims_without_outdated_ones(
    files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 512)
    monkeypatch.setattr(interner, "LOOK_AT", 30)
    rng, directory = random.Random(7), Files(tmp_path if files else None)
    kept, there = Claims(KEPT), dict[tuple[int, int], Claim]()
    for day in range(200):
        for number in range(rng.randrange(12)):
            key, ts_ms = rng.getrandbits(64) | 1, T0 + day * DAY + number
            if there and rng.random() < 0.1:  # the same order again, after its horizon
                key = rng.choice([*there])[0]
                there = {known: one for known, one in there.items() if known[0] != key}
            there[key, ts_ms] = one_claim(rng, day)
            kept.add(key, ts_ms, there[key, ts_ms])
        now = T0 + day * DAY
        kept.sweep(now)
        there = {of: one for of, one in there.items() if of[1] + KEPT >= now}
        kept.gather(directory)
        if day % 3 == 0:
            state = decode(encode(kept.snapshot(directory)))
            directory.keep(kept.file_names())
        if day % 21 == 6:
            kept = Claims(KEPT)
            kept.restore(state, directory)
        assert all(kept.claim_of(*of) == one for of, one in there.items())
    assert len(kept) < 1.3 * sum(len(one.parts) for one in there.values())
    assert len(kept.names) < 7 * 9 + 1
    if files:
        assert any(tmp_path.iterdir())


# The additions of a confirmation


def decision(
    at: int,
    credits: Sequence[tuple[str, int]],
    value: int | None = None,
    currency: str | None = None,
    *,
    claimed: bool = False,
    behind: int | None = None,
    **more: Any,
) -> Decision:
    """A decision on order 1. `behind` is the time of its claim."""
    odd = bool(more.pop("odd", False))
    key, classes = more.pop("key", 1), more.pop("classes", ())
    pixel = ConversionPixel(
        (None, "red"), "purchase", "o-1", f"e{at}", value, currency, None, odd, claimed, **more
    )
    one = PendingConversion(T0 + at, 5, key, pixel, claimed_ms=None if behind is None else T0 + behind)
    found = [Credit((name, "red"), share, "click", 61_000) for name, share in credits]
    rule = "last_touch" if found else "none"
    return Decision(one, rule, found, joined_by="listener" if found else None, classes=classes)


class Book:
    """A credit book, and all that it has added, by row and column."""

    def __init__(self, *plans: Plan, directory: Path | None = None) -> None:
        self.book, self.directory = CreditBook(3, claims_kept_ms=KEPT, recovery=directory), directory
        self.book.have_plans(PlanBook(plans))
        self.cuts = 0
        self.rows: dict[tuple[str, str, int], dict[str, int]] = {}
        self.account: tuple[int, ...] = ()
        self.told: list[Decision] = []

    def cut(self, *decisions: Decision, at: int = 0) -> None:
        """Cut the book once more, with these decisions. None of them was pending."""
        accounted = sum(one.conversion.accounted for one in decisions)
        cut = Cut(self.cuts, T0 + at, False, ())
        self.cuts += 1
        batches, account, told = self.book.cut(
            cut, [Decided(0, cut, [*decisions], {"red": accounted}, 0, [])]
        )
        self.account, self.told = account, [*self.told, *told]
        for some in batches:
            columns = zip(
                some.row_places.tolist(),
                some.minutes.tolist(),
                some.columns.tolist(),
                some.amounts.tolist(),
                strict=True,
            )
            for row, minute, column, amount in columns:
                of = self.rows.setdefault((*some.rows[row], minute - T0 // MINUTE), {})
                if column != VALUED:
                    of[COLUMNS[column]] = of.get(COLUMNS[column], 0) + amount

    def restart(self) -> None:
        state = decode(encode(self.book.snapshot()))
        self.book = CreditBook(3, claims_kept_ms=KEPT, recovery=self.directory)
        self.book.restore(state)

    def of(self, scope: str, name: str, minute: int | None = None) -> dict[str, float]:
        """The counts of a row, of a minute or in all: counts in conversions, values in micros."""
        found: dict[str, int] = {}
        for (*row, at), amounts in self.rows.items():
            for column, amount in amounts.items() if row == [scope, name] and minute in (None, at) else ():
                if column.startswith(("conversions_purchase", "conversions_click", "age", "conversions_by")):
                    continue
                of, high = column.removesuffix("_high"), column.endswith("_high")
                amount <<= VALUE_BITS if high else 0
                found[of] = found.get(of, 0) + amount
        money = (*MONEY_NAMES, "conversion_value_other_count")
        return {of: one if of in money else one / WHOLE for of, one in found.items() if one}


CLAIMED = decision(0, [("a", 600_000), ("b", 400_000)], 50, POUNDS, claimed=True)


@pytest.mark.parametrize("together", [True, False, "restart"])
def test_a_confirmation_moves_value_in_its_own_minute(together: bool | str, tmp_path: Path) -> None:
    book = Book(directory=tmp_path)
    late = decision(3 * DAY, [("z", WHOLE)], 70, POUNDS, behind=0)
    if together is True:
        book.cut(late, CLAIMED)
    else:
        book.cut(CLAIMED)
        if together == "restart":
            book.restart()
        book.cut(late)
    first, then = 0, 3 * 1440
    assert book.of("campaign", "red", first) == {
        "conversions": 1,
        "conversions_claimed": 1,
        "conversion_value_claimed": 50,
    }
    assert book.of("campaign", "red", then) == {
        "conversions_confirmed": 1,
        "conversion_value_claimed": -50,
        "conversion_value": 70,
    }
    assert book.of("placement", "a", then) == {
        "conversions_confirmed": 0.6,
        "conversion_value_claimed": -30,
        "conversion_value": 42,
    }
    assert not book.of("placement", "z"), "nobody asks what the server's own listener has heard"
    assert book.account == (1, 1, 0, 0, 0)


def test_a_confirmation_of_an_uncredited_claim_counts_as_new() -> None:
    book = Book()
    book.cut(decision(0, [], 50, POUNDS, claimed=True))
    classes = (("red", 2, 0, WHOLE),)
    book.cut(decision(MINUTE, [("a", WHOLE)], 70, POUNDS, behind=0, classes=classes))
    assert book.of("campaign", "red") == {"conversions": 1, "conversion_value": 70}
    assert book.account == (2, 1, 1, 0, 0)
    assert [one.rule for one in book.told] == ["none", "last_touch"]


def test_a_confirmation_adds_to_frequency_only_if_it_counts_as_new() -> None:
    classes = (("red", 2, 0, WHOLE),)
    gained = []
    for credits in ([("a", WHOLE)], []):
        book = CreditBook(1)
        some = [
            decision(0, credits, claimed=True),
            decision(1, [("a", WHOLE)], behind=0, classes=classes),
        ]
        batches, _, _ = book.cut(
            Cut(0, T0, False, ()), [Decided(0, Cut(0, T0, False, ()), some, {"red": 1}, 0, [])]
        )
        gained.append([entry for one in batches for entry in one.frequency])
    assert gained == [[], [(("campaign", "red"), 2, 0, WHOLE)]]


def test_a_claim_sixty_days_old_is_not_confirmed() -> None:
    book = Book()
    book.cut(CLAIMED)
    book.cut(decision(61 * DAY, [], 50, POUNDS, claimed=True))
    book.cut(decision(62 * DAY, [("a", WHOLE)], 70, POUNDS, behind=61 * DAY))
    assert book.of("campaign", "red", 62 * 1440)["conversions"] == 1


@pytest.mark.parametrize(
    ("claimed", "confirming", "then"),
    [
        ((50, POUNDS), (50, EUROS), {"conversion_value_claimed": -50, "conversion_value_other_count": 1}),
        ((50, EUROS), (50, POUNDS), {"conversion_value": 50}),
        ((50, EUROS), (50, "SEK"), {}),
        ((50, EUROS), (None, None), {}),
        ((50, POUNDS), (None, None), {"conversion_value_claimed": -50}),
        ((None, None), (50, POUNDS), {"conversion_value": 50}),
        ((None, None), (50, EUROS), {"conversion_value_other_count": 1}),
        ((50, None), (60, None), {"conversion_value_claimed": -50, "conversion_value": 60}),
        ((50, POUNDS), (-60, POUNDS), {"conversion_value_claimed": -50, "conversion_value": -60}),
        ((10**19, POUNDS), (8, POUNDS), {"conversion_value_claimed": -(10**19), "conversion_value": 8}),
        ((-(10**19), POUNDS), (8, POUNDS), {"conversion_value_claimed": 10**19, "conversion_value": 8}),
        (("odd", POUNDS), (50, POUNDS), {"conversion_value": 50}),
        (("odd", POUNDS), ("odd", POUNDS), {}),
        ((50, POUNDS), ("odd", POUNDS), {"conversion_value_claimed": -50, "conversion_value_other_count": 1}),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_a_confirmation_replaces_the_claimed_value_and_currency_count_once(
    claimed: tuple[Any, Any], confirming: tuple[Any, Any], then: dict[str, int], together: bool
) -> None:
    book = Book(Plan("a", 1, T0, T0 + DAY, campaign_id="red", currency=POUNDS))
    parts = [("a", WHOLE // 2), ("b", WHOLE // 2)]

    def decision_at(at: int, said: tuple[Any, Any], **more: Any) -> Decision:
        value, currency = said
        odd = value == "odd"
        return decision(at, parts, None if odd else value, currency, odd=odd, **more)

    some = decision_at(0, claimed, claimed=True), decision_at(MINUTE, confirming, behind=0)
    book.cut(*some) if together else [book.cut(one) for one in some]
    for scope, name in (("campaign", "red"), ("placement", "a")):
        found = book.of(scope, name, 1)
        found.pop("conversions_confirmed", None)
        halved = {
            column: amount if scope == "campaign" or column.endswith("count") else -(-amount // 2)
            for column, amount in then.items()
        }
        assert {name: abs(one - halved.get(name, 0)) <= 1 for name, one in found.items()} == dict.fromkeys(
            then, True
        )
        whole = book.of(scope, name)
        assert whole.get("conversion_value_claimed", 0) == 0
        assert whole.get("conversion_value_other_count", 0) <= 1


def test_a_claimed_value_is_taken_back_after_a_plan_changed_currency() -> None:
    plan = Plan("a", 1, T0, T0 + DAY, campaign_id="red", currency=EUROS)
    book = Book(plan)
    book.cut(decision(0, [("a", WHOLE)], 50, POUNDS, claimed=True))
    assert book.of("placement", "a") == {
        "conversions": 1,
        "conversions_claimed": 1,
        "conversion_value_other_count": 1,
    }
    book.book.have_plans(PlanBook([Plan("a", 1, T0, T0 + DAY, campaign_id="red", currency=POUNDS)]))
    book.cut(decision(MINUTE, [("a", WHOLE)], 50, POUNDS, behind=0))
    assert book.of("placement", "a", 1) == {"conversions_confirmed": 1, "conversion_value": 50}


def test_a_separate_claim_counts_as_claimed_alone_without_a_decision() -> None:
    book = Book()
    book.cut(decision(0, [("a", WHOLE)], 50, POUNDS, claimed=True, apart=True, key=2))
    assert book.of("placement", "a") == {"conversions_claimed": 1}
    assert (book.account, book.told, len(book.book.claims)) == ((0, 0, 0, 0, 0), [], 0)
    book.cut(decision(1, [("b", WHOLE)], 70, EUROS))
    assert book.of("campaign", "red") == {
        "conversions": 1,
        "conversions_claimed": 1,
        "conversion_value": 70,
    }, "its currency is no row's"


def test_a_confirmation_has_its_own_record_with_both_values() -> None:
    book = Book()
    book.cut(CLAIMED)
    book.cut(decision(MINUTE, [], 70, POUNDS, behind=0))
    first, second = map(decision_record, book.told)
    assert (first.key, second.key) == (b'["red","purchase","o-1"]', b'["red","purchase","o-1","server"]')
    told = [decode_body(one.body) for one in (first, second)]
    assert [(one.rule, one.claimed, one.value_micros, one.claimed_value_micros) for one in told] == [
        ("last_touch", True, 50, None),
        ("confirmed", False, 70, 50),
    ]
    assert [(one.placement_id, one.millionths, one.touched_at) for one in told[1].credits] == [
        ("a", 600_000, None),
        ("b", 400_000, None),
    ]
    assert book.told[1].claimed_comparison == "other"
    book.cut(decision(2 * MINUTE, [("a", WHOLE)], 50, POUNDS, claimed=True, key=9))
    book.cut(decision(3 * MINUTE, [], 50, POUNDS, behind=2 * MINUTE, key=9))
    assert book.told[-1].claimed_comparison == "same"
    book.cut(decision(4 * MINUTE, [("a", WHOLE)], claimed=True, key=8))
    book.cut(decision(5 * MINUTE, [], 50, POUNDS, behind=4 * MINUTE, key=8))
    assert book.told[-1].claimed_comparison == "none", "a tag without a value contradicts nobody"


def decode_body(body: bytes) -> Body:
    return msgspec.json.decode(body, type=Body)
