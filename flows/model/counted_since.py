"""The moment since which a deployment counts: everything before it is unknown.

It is a function of the ticks of a cut, and so of one exact prefix of every partition's log, whatever was read
first. It never becomes later. An execution that resumes from a save begins with the save's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flows.model.ticks import Tick


@dataclass
class CountedSince:
    """The moment, as one step knows it.

    Args:
        ms: receipt, in epoch ms; 0 if unknown.
    """

    ms: int = 0

    def look(self, ticks: Collection[Tick]) -> int:
        """The moment at the cut of these ticks: the least over the partitions' first messages, or the
        greatest if a partition's start skips messages. A partition without a message does not count, once it
        is proven empty.
        """
        waits = any(not tick.first_ms and tick.holding and not tick.ended for tick in ticks)
        firsts_ms = [tick.first_ms for tick in ticks if tick.first_ms]
        if not self.ms and (waits or not firsts_ms):
            return 0
        if not any(tick.skipped for tick in ticks):
            # A partition that was empty may begin with a message that its collector had received before, even
            # after a save of a cut at which it was empty: readers may have been shown that message's time
            # already.
            self.ms = min([*firsts_ms, self.ms] if self.ms else firsts_ms)
        elif not self.ms:
            self.ms = max(
                firsts_ms
            )  # for good: a partition that was idle then cannot take back what is known
        return self.ms
