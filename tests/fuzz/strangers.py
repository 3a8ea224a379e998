"""Strangers who claim what they may not, at the collector's doors: cases of `claims_support`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from claims_support import Checker, make

from fuzz.run import Input


class StrangersDoor:
    """Calls with and without claims: a claim gives nothing, and lifts no suspicion and no cap."""

    def __init__(self, _: Path) -> None:
        self._checker = Checker()

    def make(self, rng: Random) -> Input:
        """A call, and what is added to it."""
        return make(rng)

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        """Hold each to its own call without claims."""
        return Counter(self._checker.check(one) for one in inputs)

    def close(self) -> None:
        """Close the event loop."""
        self._checker.close()
