"""`audiopixel simulate`."""

from __future__ import annotations

import signal
import threading
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.app import command, interruptible
from flows.errors import UsageError

_RATE: Final = 2000.0
_PLACEMENTS: Final = 120


class Scenario(StrEnum):
    """A kind of traffic that `--scenario` names."""

    FIRST_DAY = "first-day"


@command
def simulate(
    output: Annotated[
        str, typer.Argument(help="A file (.ndjson, .gz, .zst), or kafka for the configured topic.")
    ],
    scenario: Annotated[
        Scenario | None,
        typer.Option(
            metavar="first-day",
            help="To a file, instead of usual traffic: two hours of five placements whose flights of 28 days "
            "began 20 days before, each exactly on plan. They end now.",
            show_default=False,
        ),
    ] = None,
    events: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="To a file: how many; 100,000 by default.", show_default=False),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="To Kafka: how long; until Ctrl-C by default.", show_default=False
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=1, max=1_000_000, metavar="N", help="Pixels a second.")] = _RATE,
    placements: Annotated[int, typer.Option(min=1, metavar="N", help="How many placements.")] = _PLACEMENTS,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same seed makes the same traffic.")] = 1,
    ledger: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the truth here, as JSON.", show_default=False)
    ] = None,
    plans: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="With kafka: write plans of one day here that fit the traffic, with one placement starved. "
            "With --scenario: its plans, without opening balances.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--theirs",
            metavar="PATH",
            help="With --scenario: write the publisher's report of the earlier impressions here.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make seeded traffic with faults, and a ledger of the true counts: to a file, or in real time to
    Kafka.
    """
    from flows.cli.paths import writable
    from flows.cli.progress import progress
    from flows.demo.produce import produce
    from flows.engine import kafka_input
    from flows.settings import load
    from flows.simulate import FirstDay, Traffic, now_ms, run_log, write_lines, write_plans
    from flows.simulate import plans as plans_of

    live, usual = output == "kafka", scenario is None
    foreign = {
        "--events": (events, "to a file", usual and not live),
        "--seconds": (seconds, "to kafka", live),
        "--scenario": (scenario, "to a file", not live),
        "--plans": (plans, "to kafka, or of a scenario,", live or not usual),
        "--theirs": (report, "of a scenario", not usual),
        "--rate": (None if rate == _RATE else rate, "without a scenario", usual),
        "--placements": (None if placements == _PLACEMENTS else placements, "without a scenario", usual),
        "--ledger": (ledger, "without a scenario", usual),
    }
    for option, (value, purpose, fits) in foreign.items():
        if value is not None and not fits:
            raise UsageError(f"{option} is for traffic {purpose} alone: leave it out")
    for path in (ledger, plans, report, *([] if live else [Path(output)])):
        writable(path)
    if scenario is not None:
        day = FirstDay.ending(now_ms(), seed)
        interruptible()
        events = write_lines(Path(output), day.lines())
        if plans is not None:
            write_plans(plans, day.plans())
        if report is not None:
            write_plans(report, day.report())
        typer.echo(f"{events:,} pixels since {day.since}, up to which --theirs counts", err=True)
        return
    if live:
        settings = load()
        traffic = Traffic(
            seed, placements, rate, start_ms=now_ms(), partitions=len(kafka_input(settings).partitions())
        )
        if plans is not None:
            write_plans(plans, plans_of(traffic))
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        produce(settings, traffic, seconds, stopping)
    else:
        wanted = events or 100_000
        traffic = Traffic(seed, placements=placements, rate=rate)

        def written() -> int:
            return traffic.ledger.totals["received"]

        interruptible()
        with progress(lambda: f"{written():,} of {wanted:,} events", lambda: written() / wanted):
            run_log(Path(output), traffic, wanted)
    totals = traffic.ledger.expected().totals
    typer.echo(" ".join(f"{name}={number:,}" for name, number in totals.items() if number), err=True)
    if ledger is not None:
        ledger.write_bytes(traffic.ledger.to_json())
