"""The table, the bars, and the ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Result

PLAIN_BYTEWAX: Final = 10.0
DUCKDB: Final = 0.5
KAFKA: Final = 0.5
BYTES_A_PLAY: Final = 64.0
GROWTH: Final = 1.1
"""Most that the peak memory of a log ten times as long may be, by the peak when half of it was read: reach
fills its sketches up in the first half, and a leak of 20 bytes a pixel goes beyond in the second.
"""

_FOOTNOTE: Final = (
    "Each contender in a process of its own, one worker, one after the other. CPU: user and system time of "
    "that process with all its threads, not of servers. Peak: memory of that process, start-up included. "
    "Start-up (imports, kernels, a small log run through first) is before the rates."
)


@dataclass(frozen=True)
class Bar:
    """A figure and the bound that it has to keep."""

    name: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def passed(self) -> bool:
        """Whether it keeps it."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def ratios(results: Mapping[str, Result]) -> dict[str, float]:
    """The flow's events per second of processor time, by each other contender's."""
    ours = results["flow_file"].cpu_rate
    others = {
        "plain_bytewax": "plain_bytewax",
        "duckdb": "duckdb_batch",
        "decode_floor": "decode_floor",
        "plain_bytewax_tuned": "plain_tuned",
    }
    return {name: ours / results[key].cpu_rate for name, key in others.items()}


def bars(results: Mapping[str, Result]) -> list[Bar]:
    """Every bar whose figures are there; the memory of a long log is not, in a smoke run."""
    ours, found = results["flow_file"], ratios(results)
    kafka = min(results["flow_kafka"].cpu_rate / ours.cpu_rate, results["flow_kafka"].rate / ours.rate)
    bounds = [
        Bar("flow by plain Bytewax, events per CPU-second", found["plain_bytewax"], PLAIN_BYTEWAX),
        Bar("flow by DuckDB's batch query, events per CPU-second", found["duckdb"], DUCKDB),
        Bar("flow from Kafka by flow from file, the worse of elapsed and CPU", kafka, KAFKA),
        Bar("bytes a remembered play", ours.facts["bytes_a_play"], BYTES_A_PLAY, at_least=False),
    ]
    if "flow_long" in results:
        long = results["flow_long"]
        growth = long.peak_mib / long.facts["half_mib"]
        bounds.append(Bar("peak memory of the long log, end by half", growth, GROWTH, at_least=False))
    return bounds


def show(console: Console, rows: Sequence[tuple[str, Result, str]]) -> None:
    """The table, of (name, result, note)."""
    table = Table(box=None, pad_edge=False)
    table.add_column("contender", no_wrap=True)
    for name in ("events", "events/s", "events/CPU-s", "CPU µs/event", "peak MiB", "start-up s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, result, note in rows:
        table.add_row(
            name,
            f"{result.events:,}",
            f"{result.rate:,.0f}",
            f"{result.cpu_rate:,.0f}",
            f"{1e6 * result.cpu_s / result.events:.2f}",
            f"{result.peak_mib:,.0f}",
            f"{result.startup_s:.1f}",
            note,
        )
    console.print(table)
    console.print(_FOOTNOTE)


def show_bars(console: Console, found: Sequence[Bar], judged: bool) -> None:
    """One line a bar."""
    for bar in found:
        verdict = ("pass" if bar.passed else "FAIL") if judged else "not judged"
        sign = ">=" if bar.at_least else "<="
        console.print(f"{verdict:10}  {bar.name}: {bar.value:.2f} ({sign} {bar.bound:g})", highlight=False)
