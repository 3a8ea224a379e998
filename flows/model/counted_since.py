"""The moment since which a deployment counts: of what was before, it knows nothing.

It is a function of the ticks of a cut, so of one exact prefix of every partition's log, whatever was read
first. It never becomes later. An execution that goes on from a save begins with the save's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flows.model.ticks import Tick


@dataclass
class CountedSince:
    """The moment, as one step knows it.

    Args:
        ms: receipt, in epoch ms; 0: unknown.
    """

    ms: int = 0

    def look(self, ticks: Collection[Tick]) -> int:
        """The moment at the cut of these ticks: of the first messages of partitions the least, and where a
        partition's start skips messages the greatest. A partition without a message does not count, once it
        is proven that it has none.
        """
        waits = any(not tick.first_ms and tick.holding and not tick.ended for tick in ticks)
        found = [tick.first_ms for tick in ticks if tick.first_ms]
        if not self.ms and (waits or not found):
            return 0
        if not any(tick.skipped for tick in ticks):
            # One that was empty may come by a message that its collector had received before, also behind a
            # save of a cut at which it was empty: readers may have been shown that message's time already.
            self.ms = min([*found, self.ms] if self.ms else found)
        elif not self.ms:
            self.ms = max(found)  # for good: a partition that was idle then does not take back what is known
        return self.ms
