"""What the last flush of an earlier execution covers, for the row shards: while the replay is behind it, a
minute that is told may be told as final already.

The positions in Redis never fall, and the writer of this execution puts its own there only behind those that
it found. So whenever they are read, who has passed them has passed the earlier execution's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from connectors.redis import connect, read_rows
from connectors.stream import ConnectError
from flows.clock import Cut
from flows.fence import kept
from flows.settings import Settings

AGAIN_S: Final = 15.0
"""Between two tries to read from a Redis that does not serve: each may take a timeout."""


def positions_key(namespace: str) -> str:
    """The hash of the last flush's positions."""
    return f"{namespace}:positions"


def positions_of(held: Mapping[str, str]) -> dict[str, int]:
    """Those of that hash; none where nobody has written it."""
    return msgspec.json.decode(held["positions"], type=dict[str, int]) if "positions" in held else {}


def nothing(_: Cut) -> bool:
    """There is nothing to be behind."""
    return False


@dataclass
class Covered:
    """Whether a cut is behind the last flush, as one process knows it; asked at each cut, from the first on.

    Args:
        recompute: whether `--recompute` was given: the first execution with it is behind nobody.
    """

    settings: Settings
    recompute: bool = False
    clock_s: Callable[[], float] = time.monotonic
    _positions: dict[str, int] | None = None
    _next_s: float = -math.inf

    def __post_init__(self) -> None:
        if self.recompute and not kept(self.settings.recovery_dir).begun:
            self._positions = {}

    def behind(self, cut: Cut) -> bool:
        """Whether it is, or Redis does not tell."""
        if self._positions is None:
            self._read()
        if self._positions:
            at = dict(cut.positions)
            if all(at.get(partition, 0) >= position for partition, position in self._positions.items()):
                self._positions = {}
        return self._positions != {}

    def _read(self) -> None:
        if (now_s := self.clock_s()) < self._next_s:
            return
        self._next_s = now_s + AGAIN_S
        try:
            client = connect(self.settings.redis_url.get_secret_value(), timeout=self.settings.redis_timeout)
            (held,) = read_rows(client, [positions_key(self.settings.namespace)])
            client.close()
        except ConnectError:  # asked again: until then nothing is told that might be taken back
            return
        self._positions = positions_of(held)
