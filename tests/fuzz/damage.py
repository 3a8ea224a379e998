"""Calls that come damaged to the collector's doors: cases of `damage_support`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from damage_support import case_of, judge

from fuzz.run import Input


class DamageDoor:
    """Good calls of which one byte cannot be: what comes of each is less than the good one, never another."""

    def __init__(self, _: Path) -> None:
        self._runner = asyncio.Runner()

    def make(self, rng: Random) -> Input:
        """The seed of a case."""
        return (rng.getrandbits(64).to_bytes(8, "big"),)

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        """Hold each damaged call to its good one."""
        return self._runner.run(self._run(inputs))

    async def _run(self, inputs: Sequence[Input]) -> Counter[str]:
        return Counter([await judge(case_of(int.from_bytes(one[0], "big"))) for one in inputs])

    def close(self) -> None:
        """Close the event loop."""
        self._runner.close()
