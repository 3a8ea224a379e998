"""Letters that are sent again."""

from __future__ import annotations

import pytest
from resend_support import Again


@pytest.fixture
def again() -> Again:
    """Sends letters, and has the pixels of all."""
    return Again()
