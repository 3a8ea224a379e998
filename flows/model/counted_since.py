"""The moment since which a deployment counts. Everything before the moment is unknown.

The moment is a function of the ticks of a cut, and therefore of one exact prefix of every partition's log. It
does not depend on which partition was read first, and it never becomes later. An execution that resumes from
a save begins with the moment of the save.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flows.model.ticks import Tick


@dataclass
class CountedSince:
    """The moment in the state of one step.

    Args:
        ms: the moment, a time of receipt in epoch ms; 0 if unknown.
    """

    ms: int = 0

    def update(self, ticks: Collection[Tick]) -> int:
        """Update the moment by the ticks of a cut; returns it, in epoch ms, or 0 if it is unknown.

        The moment is the least receipt of the partitions' first messages, or the greatest if a partition's
        start skips messages. A partition that is proven empty is left out.
        """
        waits = any(not tick.first_ms and tick.holding and not tick.ended for tick in ticks)
        firsts_ms = [tick.first_ms for tick in ticks if tick.first_ms]
        if not self.ms and (waits or not firsts_ms):
            return 0
        if not any(tick.skipped for tick in ticks):
            # A partition that was empty may begin with a message that its collector received earlier, even
            # after a save of a cut at which it was empty.
            self.ms = min([*firsts_ms, self.ms] if self.ms else firsts_ms)
        elif not self.ms:
            # For good: the first message of an idle partition must not make a published time unknown.
            self.ms = max(firsts_ms)
        return self.ms
