"""The figures of chaos runs, which add up in a file: what was killed, and that nothing was lost by it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.chaos_stream import PARTITIONS
from connectors.durable import replace_file

SHOWN: Final = 60
"""Findings that are printed."""
_ADDED: Final = (
    "seconds", "events", "kills", "answered", "sent_again", "stored_again", "stops", "rows_read",
    "client_reads", "client_usable", "differences", "backward_steps",
    "source_read", "source_pixels", "source_not_ours", "source_rejected", "source_stored_again",
)  # fmt: skip


class Figures(msgspec.Struct, kw_only=True):
    """The figures of one run, or of all together.

    Attributes:
        runs: how many.
        seconds: of traffic.
        kills: processes of the flow.
        answered: events that the collectors answered as stored.
        sent_again: calls of players that had no such answer.
        stored_again: events that the log has once more each, for the flow to count once.
        source_read: messages that the source has read, of a topic of another shape.
        source_pixels, source_not_ours, source_rejected: outcomes of them, each once.
        source_stored_again: pixels of the source that the log has once more each.
        faults: how often each; collectors are killed one by one.
        rows_read: meanwhile, by the monitor.
        client_reads: rows that the bidder's client gave meanwhile.
        client_usable: those of them that might be acted on.
        client_behind_s: the longest time for which a usable one was older than Redis's.
        behind_s: the most that the watermark was behind, beside time without a flow or a broker.
        first_flush_s: from a kill to the next flow's first flush, in the mean.
        flushed_kills: kills behind which there was one, before another kill.
    """

    runs: int = 1
    seconds: float = 0.0
    events: int = 0
    kills: int = 0
    answered: int = 0
    sent_again: int = 0
    stored_again: int = 0
    source_read: int = 0
    source_pixels: int = 0
    source_not_ours: int = 0
    source_rejected: int = 0
    source_stored_again: int = 0
    faults: dict[str, int] = {}
    stops: int = 0
    rows_read: int = 0
    client_reads: int = 0
    client_usable: int = 0
    client_behind_s: float = 0.0
    differences: int = 0
    backward_steps: int = 0
    behind_s: float = 0.0
    first_flush_s: float = 0.0
    flushed_kills: int = 0

    @property
    def well(self) -> bool:
        """True if nothing was lost, counted twice or seen to fall."""
        return not (self.differences or self.backward_steps)

    def plus(self, other: Figures) -> Figures:
        """Both together."""
        names = self.faults.keys() | other.faults.keys()
        flushed = self.flushed_kills + other.flushed_kills
        mean_s = self.first_flush_s * self.flushed_kills + other.first_flush_s * other.flushed_kills
        return Figures(
            runs=self.runs + other.runs,
            faults={name: self.faults.get(name, 0) + other.faults.get(name, 0) for name in sorted(names)},
            behind_s=max(self.behind_s, other.behind_s),
            client_behind_s=max(self.client_behind_s, other.client_behind_s),
            first_flush_s=round(mean_s / flushed, 2) if flushed else 0.0,
            flushed_kills=flushed,
            **{name: round(getattr(self, name) + getattr(other, name), 1) for name in _ADDED},
        )


def report(
    figures: Figures,
    broker: str,
    stops: Sequence[float],
    caught_up_s: float,
    summary: Mapping[str, int],
    steps: Sequence[Mapping[str, Any]],
    differences: Sequence[str],
) -> None:
    """Print a run.

    Args:
        stops: how long each took, in s.
        caught_up_s: the longest that something sent waited until readers saw it.
        summary, steps: by the monitor.
    """
    print(f"broker: {broker}")
    print(f"events: {figures.events:,} on {PARTITIONS} partitions")
    print(f"faults: {', '.join(f'{name} {times}' for name, times in sorted(figures.faults.items()))}")
    print(f"kills: {figures.kills} processes of the flow")
    print(
        f"collectors: {figures.answered:,} events answered as stored, {figures.sent_again:,} calls sent "
        f"again, {figures.stored_again:,} events stored again"
    )
    print(
        f"source: read {figures.source_read:,} = pixels {figures.source_pixels:,} "
        f"+ not ours {figures.source_not_ours:,} + rejected {figures.source_rejected:,}; "
        f"{figures.source_stored_again:,} pixels stored again"
    )
    if figures.flushed_kills:
        print(f"first flush: {figures.first_flush_s:.1f} s behind a kill, in the mean")
    print(f"stops: {len(stops)} by SIGTERM, all with code 0, the longest {max(stops):.1f} s")
    print(f"longest time to catch up: {caught_up_s:.1f} s")
    print(f"watermark: at most {figures.behind_s:.1f} s behind, beside time without a flow or a broker")
    print("read meanwhile: {rows:,} rows in {polls:,} polls, {unanswered} not answered".format(**summary))
    print(
        f"read through the client: {figures.client_reads:,} rows, {figures.client_usable:,} of them usable, "
        f"at most {figures.client_behind_s:.1f} s behind"
    )
    print(f"backward steps seen: {figures.backward_steps}")
    print(*(f"  {json.dumps(one)}" for one in steps[:SHOWN]), sep="\n", end="\n" if steps else "")
    print(f"differences: {figures.differences}")
    print(*(f"  {one}" for one in differences[:SHOWN]), sep="\n", end="\n" if differences else "")


class Run(msgspec.Struct):
    """A run: its day, the commit that was checked out, its seed, and its figures."""

    date: str
    commit: str
    seed: int
    figures: Figures


class Account(msgspec.Struct):
    """The runs of a file, and their sum."""

    sum: Figures = msgspec.field(default_factory=lambda: Figures(runs=0))
    runs: list[Run] = []

    @classmethod
    def read(cls, file: Path) -> Account:
        """The account in a file; an empty one where there is none.

        Raises:
            msgspec.MsgspecError: it is another file.
        """
        return msgspec.json.decode(file.read_bytes(), type=cls) if file.exists() else cls()

    @property
    def since(self) -> Figures:
        """The sum of the runs after the latest run with a finding, which has been fixed since."""
        total = Figures(runs=0)
        for run in self.runs:
            total = total.plus(run.figures) if run.figures.well else Figures(runs=0)
        return total

    def add(self, file: Path, seed: int, figures: Figures) -> None:
        """Add a run, and write the file."""
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent).stdout
        self.runs.append(Run(datetime.now(UTC).date().isoformat(), commit.strip(), seed, figures))
        self.sum = self.sum.plus(figures)
        replace_file(file, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
