"""A door for the tests of letters that are sent again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from resend_support import Kept, doors_of


@pytest.fixture
def kept() -> Kept:
    """The events that the door has stored."""
    return Kept()


@pytest.fixture
def url(kept: Kept) -> Iterator[str]:
    """The address of a door."""
    with doors_of(kept) as address:
        yield address
