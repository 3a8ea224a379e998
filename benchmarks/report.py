"""Contenders: their table, and how many times as fast one is as another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from benchmarks.measure import Result

FOOTNOTE: Final = (
    "Each contender in a process of its own, one worker, one after the other. CPU: user and system time of "
    "that process with all its threads, not of servers. Peak: memory of that process, start-up included. "
    "Start-up (imports, kernels, a small log run through first) is before the rates. "
    "¹ The worse of elapsed and CPU."
)
OURS: Final = "flow_file"


class Row(NamedTuple):
    """One contender's line: its key, its name and what is to be said of it, and its run."""

    key: str
    name: str
    result: Result


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


def table(rows: Sequence[Row]) -> list[list[str]]:
    """The contenders beside ours, which is among them."""
    ours = next(row.result for row in rows if row.key == OURS)
    lines = [
        ["", "CPU µs an event", "elapsed µs", "audiopixel is, by CPU", "elapsed", "peak MiB", "start-up s"]
    ]
    for key, name, result in rows:
        figures = [f"{1e6 / result.cpu_rate:.2f}", f"{1e6 / result.rate:.2f}"]
        if key == OURS:
            figures = [*(f"**{figure}**" for figure in figures), "", ""]
        else:
            figures += [f"{ours.cpu_rate / result.cpu_rate:.2f} ×", f"{ours.rate / result.rate:.2f} ×"]
        lines.append([name, *figures, f"{result.peak_mib:,.0f}", f"{result.startup_s:.1f}"])
    return lines
