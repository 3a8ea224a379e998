"""The table, the bars, and the ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Result

PLAIN_BYTEWAX: Final = 30.0
DUCKDB: Final = 1.2
KAFKA: Final = 0.85
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


OURS: Final = "flow_file"
_IN_README: Final = {
    "decode_floor": "msgspec decoding alone",
    "duckdb_batch": "DuckDB, one exact batch query of the same rows, one thread",
    "plain_bytewax": "plain Bytewax: `key_on`, `fold_window`, the same sketch; placements' minutes alone",
    "plain_tuned": "the same tuned further: unordered, 20,000 lines at once, which no live source gives",
    OURS: "**audiopixel**, from a file to Redis, recovery on, everything",
    "flow_kafka": "audiopixel from Kafka, catching up",
    "flow_long": "audiopixel from a file, a log ten times as long, without conversions",
}
"""Contenders that README's table calls by more than their name."""
_NOT_IN_README: Final = ("kafka_floor", "flow_minutes")


class Row(NamedTuple):
    """One contender's line: its key, its name, its run, and what else is to be said."""

    key: str
    name: str
    result: Result
    note: str


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
    ours = results[OURS].cpu_rate
    others = {
        "plain_bytewax": "plain_bytewax",
        "duckdb": "duckdb_batch",
        "decode_floor": "decode_floor",
        "plain_bytewax_tuned": "plain_tuned",
    }
    return {name: ours / results[key].cpu_rate for name, key in others.items()}


def worse(one: Result, other: Result) -> float:
    """How many times as fast `one` is as `other`, by elapsed or by processor time, whichever is less."""
    return min(one.rate / other.rate, one.cpu_rate / other.cpu_rate)


def bars(results: Mapping[str, Result]) -> list[Bar]:
    """Every bar whose figures are there; the memory of a long log is not, in a smoke run."""
    ours = results[OURS]
    plain, batch = results["plain_bytewax"], results["duckdb_batch"]
    bounds = [
        Bar("flow by plain Bytewax, the worse of elapsed and CPU", worse(ours, plain), PLAIN_BYTEWAX),
        Bar("flow by DuckDB's batch query, the worse of elapsed and CPU", worse(ours, batch), DUCKDB),
        Bar(
            "flow from Kafka by flow from file, the worse of elapsed and CPU",
            worse(results["flow_kafka"], ours),
            KAFKA,
        ),
        Bar("bytes a remembered play", ours.facts["bytes_a_play"], BYTES_A_PLAY, at_least=False),
    ]
    if "flow_long" in results:
        long = results["flow_long"]
        growth = long.peak_mib / long.facts["half_mib"]
        bounds.append(Bar("peak memory of the long log, end by half", growth, GROWTH, at_least=False))
    return bounds


def show(console: Console, rows: Sequence[Row]) -> None:
    """The table."""
    table = Table(box=None, pad_edge=False)
    table.add_column("contender", no_wrap=True)
    for name in ("events", "events/s", "events/CPU-s", "CPU µs/event", "peak MiB", "start-up s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for _, name, result, note in rows:
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


def markdown(about: str, rows: Sequence[Row], found: Sequence[Bar]) -> list[str]:
    """The lines of README: what was run, the contenders beside ours, and every bar.

    Args:
        rows: ours is among them.
    """
    ours = next(row.result for row in rows if row.key == OURS)
    lines = [f"Run of {about}.", "", "| | CPU µs an event | elapsed µs | audiopixel is, by CPU | elapsed |"]
    lines.append("|---|---|---|---|---|")
    for key, name, result, note in rows:
        if key in _NOT_IN_README:
            continue
        figures = [f"{1e6 / result.cpu_rate:.2f}", f"{1e6 / result.rate:.2f}"]
        if key == OURS:
            figures = [*(f"**{figure}**" for figure in figures), "", ""]
        else:
            figures += [f"{ours.cpu_rate / result.cpu_rate:.2f} ×", f"{ours.rate / result.rate:.2f} ×"]
        called = _IN_README.get(key, f"{name}: {note}" if note else name)
        lines.append(f"| {called} | {' | '.join(figures)} |")
    lines += ["", "| bar | asked | found | |", "|---|---|---|---|"]
    for bar in found:
        asked = f"at {'least' if bar.at_least else 'most'} {bar.bound:g}"
        lines.append(f"| {bar.name} | {asked} | {bar.value:.2f} | {'pass' if bar.passed else '**miss**'} |")
    return lines
