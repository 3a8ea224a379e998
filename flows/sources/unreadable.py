"""The values of messages that cannot be read, counted by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from flows.collector.call import Understood
from flows.shown import shown
from flows.sources.paths import plain

_OF_NO_PERSON: Final = frozenset(
    ("ts", "received_at", "duration", "playhead", "value", "currency", "content_category", "basis", "episode")
)
"""Fields whose values are shown, since they identify no listener."""
_LONGEST_VALUE: Final = 40


@dataclass
class UnreadableValues:
    """Counts of values that cannot be read.

    Attributes:
        messages: the number of messages that are ours.
        counts: those of them with an unreadable value, by field.
        first: the first such value of a field, as it is shown.
    """

    messages: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def take(self, understood: Understood) -> None:
        """Count one message's values."""
        self.messages += 1
        for name, value in understood.unreadable.items():
            self.counts[name] += 1
            if name in _OF_NO_PERSON and name not in self.first and not isinstance(value, Mapping | list):
                self.first[name] = shown(plain(value)[: _LONGEST_VALUE + 1], _LONGEST_VALUE)

    def lines(self) -> Iterator[str]:
        """A sentence for each field, the most frequent first."""
        for name, count in self.counts.most_common():
            first = f', first "{self.first[name]}"' if name in self.first else ""
            yield f"{name}: {count:,} of {self.messages:,} not readable{first}"
