"""`audiopixel simulate`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import command, interruptible
from flows.errors import UsageError


@command
def simulate(
    output: Annotated[
        str, typer.Argument(help="A file (.ndjson, .gz, .zst), or kafka for the configured topic.")
    ],
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
    rate: Annotated[float, typer.Option(min=1, max=1_000_000, metavar="N", help="Pixels a second.")] = 2000.0,
    placements: Annotated[int, typer.Option(min=1, metavar="N", help="How many placements.")] = 120,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same seed makes the same traffic.")] = 1,
    ledger: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the truth here, as JSON.", show_default=False)
    ] = None,
    plans: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="With kafka: write plans of one day here that fit the traffic, with one placement starved.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make seeded traffic with faults, and a ledger of the truth: to a file, or in real time to Kafka."""
    from flows.cli.paths import writable
    from flows.cli.progress import progress
    from flows.demo.produce import produce
    from flows.engine import kafka_input
    from flows.settings import load
    from flows.simulate import Traffic, now_ms, run_log, write_plans
    from flows.simulate import plans as plans_of

    live = output == "kafka"
    foreign = {"--events": events} if live else {"--seconds": seconds, "--plans": plans}
    for option, value in foreign.items():
        if value is not None:
            raise UsageError(
                f"{option} is for traffic {'to a file' if live else 'to kafka'} alone: leave it out"
            )
    for path in (ledger, plans, *([] if live else [Path(output)])):
        writable(path)
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

        def made() -> int:
            return traffic.ledger.totals["received"]

        interruptible()
        with progress(lambda: f"{made():,} of {wanted:,} events", lambda: made() / wanted):
            run_log(Path(output), traffic, wanted)
    totals = traffic.ledger.expected().totals
    typer.echo(" ".join(f"{name}={number:,}" for name, number in totals.items() if number), err=True)
    if ledger is not None:
        ledger.write_bytes(traffic.ledger.to_json())
