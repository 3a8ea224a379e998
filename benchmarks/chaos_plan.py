"""The plan of one chaos run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        seed: of traffic and faults.
        seconds: of traffic, which goes on until all faults are over.
        rate: pixels a second.
        faults: how often each, by its method's name in `Chaos`.
        door_faults: how often collectors are killed or stopped, beside, and as often the source.
        embedded: use the embedded broker although Apache Kafka is there.
        bug: one of `BUGS`, or `OF_THE_SOURCE`; None: none.
        keep: directory to make, for the log, the recovery stores and what the flow said; None: keep nothing.
    """

    seed: int
    seconds: float
    rate: float
    faults: dict[str, int]
    door_faults: int
    embedded: bool
    bug: str | None
    keep: Path | None
