"""Bars: what each bench has to reach, what its last run found, and their tables in docs/performance.md."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).parent.parent
KEPT: Final = Path(os.environ.get("BENCH_RESULTS", ROOT / "build" / "bench"))
"""The directory of the last results on this machine, a file a bench."""
PUBLISHED: Final = ROOT / "docs" / "proofs" / "bench"
"""The directory of the results whose tables the documents have."""
WRITTEN: Final = ("docs/performance.md",)
"""Files with tables between `<!-- bench: NAME -->` and `<!-- end -->`."""
RATES: Final = {2_000: (0.5, 1.0, 0.7), 100_000: (0.5, 1.0, 0.7), 200_000: (0.45, 0.75, 0.6)}
"""Pixels a second, and the most seconds within which Redis has to show half of them and 99 of 100, and of the
longest gap.
"""


class Bar(NamedTuple):
    """A figure of a bench, and its bound. `line` is a key of `LINES`."""

    line: int
    name: str
    bench: str
    figure: str
    bound: float
    at_least: bool = False

    def passed(self, value: float) -> bool:
        """Whether it keeps it."""
        return value >= self.bound if self.at_least else value <= self.bound


BARS: Final = (
    Bar(1, "by DuckDB's exact batch query ¹", "second", "first_by_duckdb", 0.9, True),
    Bar(1, "by Hazelcast Jet, a third of the work ¹", "peers", "by_jet", 0.9, True),
    Bar(1, "by Flink DataStream, a third of the work ¹", "peers", "by_flink", 1.3, True),
    Bar(1, "by the rival of equal work ¹", "equal", "by_equal", 2.0, True),
    Bar(1, "by plain Bytewax ¹", "bench", "by_plain", 30.0, True),
    Bar(1, "log with the collector's fields, by the first log ¹", "second", "by_first", 0.65, True),
    Bar(
        2,
        "from Kafka, catching up: share of elapsed time in which the flow waits for the writer",
        "bench",
        "waiting",
        0.01,
    ),
    Bar(3, "the collector's fields, by the file's rate ¹", "second", "kafka_by_file", 0.85, True),
    Bar(3, "the collector's fields, by DuckDB's query of a file ¹", "second", "kafka_by_duckdb", 0.7, True),
    Bar(3, "two processes by one, work a CPU second", "members", "by_one.2", 0.95, True),
    Bar(3, "four processes by one", "members", "by_one.4", 0.95, True),
    *(
        Bar(4, f"{rate:,} pixels a second, {name}", "freshness", f"{rate}.{figure}", bound)
        for rate, (p50_s, p99_s, gap_s) in RATES.items()
        for name, figure, bound in (
            ("half within, s", "p50", p50_s),
            ("99 of 100 within, s", "p99", p99_s),
            ("longest gap, s", "gap", gap_s),
            ("the worst run by the median", "worst", 1.3),
        )
    ),
    Bar(5, "rate with 10 M live plays by that with 1 M", "recovery", "share", 0.9, True),
    Bar(5, "memory with 10 M, MiB", "recovery", "peak_mib", 1536.0),
    Bar(5, "a save's pause at 200,000 a second with 1 M, ms", "recovery", "few_pause_ms", 50.0),
    Bar(5, "with 10 M, ms", "recovery", "pause_ms", 100.0),
    Bar(5, "longest from save to save then, s", "recovery", "between_s", 2.0),
    Bar(6, "100,000 placements, a tenth changed a second: 99 of 100 within, s", "rows", "p99", 1.5),
    Bar(6, "a scrape of them, s", "rows", "scrape_s", 10.0),
    Bar(6, "the page's first numbers of them, s", "rows", "page_s", 10.0),
    Bar(6, "`top --once` of 10,000 rows, s", "exporter", "top_s", 1.0),
    Bar(7, "memory, growth in the last quarter", "soak", "memory", 0.05),
    Bar(7, "recovery store, growth", "soak", "store", 0.05),
    Bar(7, "Redis, growth", "soak", "redis", 0.05),
    Bar(7, "processor time an event, growth", "soak", "processor", 0.05),
    Bar(8, "share of two cores, the page open", "exporter", "page", 0.03),
    Bar(8, "the collector's durable call, in fixed GIFs", "collector", "by_gif", 2.5),
    Bar(10, "fresh clone to the page's address, s", "first_start", "seconds", 90.0),
    Bar(10, "second start, s", "first_start", "second_s", 10.0),
    Bar(9, "a read of a row and its factor, µs", "bidder_client", "read_us", 2.0),
    Bar(9, "a change is seen: 99 of 100 within, ms", "bidder_client", "p99_ms", 50.0),
    Bar(9, "share of a core", "bidder_client", "core", 0.05),
    Bar(9, "seen without hiredis: 99 of 100 within, ms", "bidder_client", "p99_ms_plain", 120.0),
    Bar(9, "share of a core without hiredis", "bidder_client", "core_plain", 0.15),
    Bar(9, "memory, KiB a placement", "bidder_client", "kib", 4.0),
    Bar(0, "a new placement with its rows in Redis, CPU µs", "floods", "placement", 60.0),
    Bar(0, "a conversion with its decision in Redis, CPU µs", "floods", "conversion", 30.0),
    Bar(0, "`reconcile`, µs an event", "floods", "reconcile", 5.0),
    Bar(0, "share of two cores, scraped alone", "exporter", "scraped", 0.02),
    Bar(0, "a scrape of 10,000 placements, CPU s", "exporter", "render_s", 0.5),
    Bar(0, "bytes a remembered play", "bench", "bytes_a_play", 64.0),
    Bar(0, "bytes a touch", "bench", "bytes_a_touch", 40.0),
    Bar(0, "bytes a touch and its household's entry", "bench", "bytes_at_home", 44.0),
    Bar(0, "peak memory of a log ten times as long, end by half", "bench", "growth", 1.1),
    Bar(0, "CPU rate with conversions by that without", "bench", "conversions", 0.8, True),
    Bar(0, "CPU rate with households by that without", "bench", "households", 0.9, True),
)
# Growth of a long log: reach fills its sketches in the first half; a leak of 20 bytes a pixel goes beyond.


class Line(NamedTuple):
    """Some bars that belong together; `why` says why they are missed, and what was tried."""

    name: str
    why: str


LINES: Final = {
    1: Line(
        "File to Redis, everything on",
        "The queries answer once, at the end, and two rivals do a third of the work. The rival of "
        "equal work adds one cell a pixel, and sums windows, roll-ups and reach where it publishes. "
        "With the collector's fields a pixel has more rows, and a household. "
        "Tried in rows, with these fields: unions of crowded rows where a row is "
        "published, rare counts summed before they spread, counts added by compiled loops: "
        "0.64 to 0.52 µs. Rolling reach gains nothing by waiting until a row is published, since its "
        "work is by entry. Each entry still updates three tables of reach.",
    ),
    2: Line(
        "The flow never waits for a socket",
        "The publisher has a thread of its own, at most two flushes behind. The threads share "
        "Python's lock, so the flow waits where a flush takes longer than the interval between "
        "flushes.",
    ),
    3: Line(
        "From Kafka",
        "Kafka's client takes 0.5 µs of processor a message, with its own threads and the copy. The broker "
        "shares both cores. A cut costs 0.15 s, and each half second had one: 2.9 µs a message of ten "
        "million. Tried: the client's C interface without an object a message. Tried: reading ahead on a "
        "thread of its own. Tried: every fourth cut while the flow is behind, and all reading on the "
        "reading threads then, 2.1 µs. Members, tried: one arena for all threads, a tenth less with two "
        "processes. Tried: messages that are packed once for the engine's two pickles, 24 µs in place of 46. "
        "Topics of 0.3 and 1 million messages were too short: their slope with four processes was 0.6 µs. "
        "The engine's loop takes a whole core from the end of each ten seconds until the slowest member has "
        "processed them.",
    ),
    4: Line(
        "Freshness",
        "A flush comes every half second, so a quarter of a second is in every median. Tried: a "
        "thread for the publisher; saves at cuts; half the interval between flushes.",
    ),
    5: Line(
        "State that is large",
        "A process of 1,646 MiB with 9 M plays, read slowly beside other work, had: 512 MiB in tables of "
        "plays and frequency; 352 in rolling reach, 212 of it pairs; 205 in touches; 177 in other arrays and "
        "a save's copies; 107 free in the heap; 293 in libraries, kernels and objects. Tried: tables that "
        "grow by a quarter and free the old one's pages on the way, and one arena for all threads, 1,970 to "
        "1,704 and 1,754 by turns. A faster run has more pixels in a cut, whose copies stay free in the "
        "heap. Tried: returning freed memory every two seconds, without gain. Tried: a lower bound for the "
        "C library's own pages, a sixth more processor time. A log of 1 M plays takes a second and two "
        "saves. With 10 M, eleven saves write 1.2 GB.",
    ),
    6: Line(
        "Many rows",
        "`top` pays for its imports first. Tried: sending changed fields alone; rows that time alone "
        "has changed given out in parts, and written behind the flush.",
    ),
    7: Line(
        "Flat for long",
        "What is kept for days fills slowly, and takes most of a short run to.",
    ),
    8: Line(
        "The exporter and the collector",
        "A durable call is read strictly, and waits for a sync of the disk that it shares with "
        "others. Tried: a rare garbage collection, larger batches, three bounded memories of what "
        "calls share: 4.0 GIFs to 3.3 by turns beside other work, 2.55 on a quiet machine. What is "
        "left is reading the call, 23 µs, and Kafka's client, 8 µs.",
    ),
    9: Line(
        "A bidder's client",
        "A thousand rows take 7.5 ms of Redis's processor time and 7.5 ms of the client's; beside "
        "other work they wait for a core. Tried: redis-py's own pipeline, which takes ten times the "
        "processor time for its commands.",
    ),
    10: Line(
        "The first start",
        "Packages are downloaded and kernels compiled once; the rest is servers that start.",
    ),
    0: Line(
        "Promises of before",
        "A log ten times as long ended at 1.06 of its half in a run by itself. Households are a third "
        "table of reach.",
    ),
}


class Saved(msgspec.Struct):
    """One bench's last run: its date, size and machine, a table (the first row is its head), its figures."""

    date: str
    about: str
    table: list[list[str]]
    figures: dict[str, float]


def console(stderr: bool = False) -> Console:
    """A console, wide enough for the tables where it is none."""
    return Console(width=None if sys.stdout.isatty() else 160, stderr=stderr, highlight=False)


def finish(
    bench: str, about: str, table: list[list[str]], figures: dict[str, float], kept: bool = True
) -> int:
    """Print a run's table and its bars; returns 1 where one is missed.

    Args:
        kept: a run of the usual size. Others are not judged, and the last results stay.
    """
    about += f"; Python {sys.version.split()[0]}, {os.cpu_count()} cores"
    run = Saved(datetime.now(UTC).date().isoformat(), about, table, figures)
    show(table)
    print(about)
    if kept:
        keep(bench, run)
    if any(bar.bench == bench for bar in BARS):
        show(verdicts({bench: run}, bench, judged=kept))
    return int(kept and any(missed(bar, {bench: run}) for bar in BARS))


def keep(bench: str, run: Saved) -> None:
    """Write a bench's run as its last one."""
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{bench}.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)))


def last(directory: Path | None = None) -> dict[str, Saved]:
    """The last run of each bench, by its name; those in `KEPT` without a directory."""
    paths = sorted((directory or KEPT).glob("*.json"))
    return {path.stem: msgspec.json.decode(path.read_bytes(), type=Saved) for path in paths}


def _value(bar: Bar, found: Mapping[str, Saved]) -> float | None:
    return found[bar.bench].figures.get(bar.figure) if bar.bench in found else None


def missed(bar: Bar, found: Mapping[str, Saved]) -> bool:
    """Whether its figure was found and is beyond its bound."""
    value = _value(bar, found)
    return value is not None and not bar.passed(value)


def verdicts(
    found: Mapping[str, Saved], bench: str = "", judged: bool = True, run_alone: bool = False
) -> list[list[str]]:
    """A row for each line and each of its bars.

    Args:
        bench: of its bars alone.
        run_alone: without bars whose bench has no result.
    """
    rows = [["", "bar", "asked", "found", "", "run of"]]
    for number, line in LINES.items():
        bars = [bar for bar in BARS if bar.line == number and bench in ("", bar.bench)]
        if run_alone:
            bars = [bar for bar in bars if _value(bar, found) is not None]
        if not bars:
            continue
        verdict = "**miss**" if any(missed(bar, found) for bar in bars) else "pass"
        if verdict == "pass" and any(_value(bar, found) is None for bar in bars):
            verdict = "not run"
        rows.append([str(number or "–"), f"**{line.name}**", "", "", verdict if judged else "not judged", ""])
        for bar in bars:
            value = _value(bar, found)
            asked = f"at {'least' if bar.at_least else 'most'} {bar.bound:g}"
            if value is None:
                rows.append(["", bar.name, asked, "", "not run", ""])
                continue
            verdict = ("pass" if bar.passed(value) else "**miss**") if judged else ""
            shown = f"{value:,.0f}" if value >= 100 else f"{value:.3f}" if bar.bound < 0.1 else f"{value:.2f}"
            rows.append(["", bar.name, asked, shown, verdict, found[bar.bench].date])
    return rows


def reasons(found: Mapping[str, Saved]) -> list[str]:
    """Why each line that is missed is."""
    lines = {bar.line for bar in BARS if missed(bar, found)}
    return [f"- **{one.name}.** {one.why}" for number, one in LINES.items() if number in lines and one.why]


def show(table: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    head, *rows = table
    shown = Table(box=None, pad_edge=False)
    for place, name in enumerate(head):
        figures = all(re.fullmatch(r"(\W*[\d.,]+( ×| %| \(.*\)|\*\*)?)?", row[place]) for row in rows)
        shown.add_column(name, justify="right" if figures else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(cell.replace("**", "") for cell in row))
    console().print(shown, markup=False)


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines."""
    head, *rows = table
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]


def fill(text: str, found: Mapping[str, Saved]) -> str:
    """A document with its tables rewritten from the last runs. A table without a run stays."""

    def block(match: re.Match[str]) -> str:
        head, name, end = match.group(1), match.group(2), match.group(3)
        if name == "lines":
            lines: Iterable[str] = [*markdown(verdicts(found, run_alone=True)), "", *reasons(found)]
        elif name in found:
            run = found[name]
            lines = [f"Run of {run.date}: {run.about}.", "", *markdown(run.table)]
        else:
            return match.group(0)
        return "\n".join([head, *lines, end])

    return re.sub(r"(<!-- bench: (\w+) -->)\n.*?(<!-- end -->)", block, text, flags=re.DOTALL)


def write_documents() -> None:
    """Publish the last results, and write their tables into `WRITTEN`."""
    PUBLISHED.mkdir(exist_ok=True)
    for path in KEPT.glob("*.json"):
        shutil.copy(path, PUBLISHED)
    found = last(PUBLISHED)
    for name in WRITTEN:
        path = ROOT / name
        path.write_text(fill(path.read_text(), found))
