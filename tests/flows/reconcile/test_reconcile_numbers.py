"""The oracle and how numbers are written, in a log and in Redis."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from flows.reconcile.recomputation import recompute
from flows.reconcile.values import decimal_of, ratio, wrong_of

T0 = 1_764_000_000_000


@pytest.mark.parametrize("value", ['"0e14"', '"-0e100"', "0e50", "0.0e-40", '"0"', "0"])
def test_a_value_of_zero_is_one_whatever_its_exponent(tmp_path: Path, value: str) -> None:
    who = {"listener_id": "l", "consent": True}
    heard = {"event_id": "i", "event": "impression", "ts": T0, "placement_id": "p", **who}
    order = {"type": "purchase", "value": "VALUE", "currency": "GBP"}
    bought = {"event_id": "c", "event": "conversion", "ts": T0 + 1_000, "conversion": order, **who}
    log = tmp_path / "log.ndjson"
    log.write_text("\n".join(map(json.dumps, (heard, bought))).replace('"VALUE"', value) + "\n")
    row = recompute([log]).flight["placement", "p"]
    names = ("conversions", "conversion_value", "conversion_value_other_count")
    assert [row[f"flight.{name}"] for name in names] == [1, 0, 0]


@pytest.mark.parametrize(
    "text", [" 200 ", "2_0_0", "٢٠٠", "2E2", "+200", "200.", "200.0000000", "", "NaN", "-"]
)
def test_an_unreadable_number_is_a_difference(text: str) -> None:
    assert decimal_of(text) is None
    assert wrong_of(200, text) == "200"
    assert wrong_of(200, "200") is wrong_of(200, "200.000000") is None


@pytest.mark.parametrize(
    ("part", "right", "wrong"), [(1, "0.001562", "0.001563"), (3, "0.004688", "0.004687")]
)
def test_a_rate_is_compared_to_its_last_place(part: int, right: str, wrong: str) -> None:
    want = ratio(Decimal(part), Decimal(640))
    assert wrong_of(want, right) is None
    assert wrong_of(want, wrong) == right


def test_a_rate_of_damaged_counts_is_none_of_ours() -> None:
    want = ratio(Decimal("9" * 400), Decimal(3))
    assert wrong_of(want, "1") == "3" * 400
