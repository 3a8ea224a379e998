"""A claim of somebody who is not believed may take rights away, never give any, and lifts no suspicion.

The same cases a million times: `make fuzz DOOR=strangers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from claims_support import Checker, make
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    one = Checker()
    yield one
    one.close()


@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_a_claim_grants_and_changes_nothing(checker: Checker, rng: Random) -> None:
    checker.check(make(rng))


def test_the_cases_reach_every_outcome_of_a_claim(checker: Checker) -> None:
    rng = Random(7)
    found = {checker.check(make(rng)) for _ in range(500)}
    assert found == {"no pixel", "rejected", "suspected", "as it was"}
