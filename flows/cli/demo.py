"""`audiopixel demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import command


@command
def demo(
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Stop after N seconds, with a summary that compares Redis with the truth.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(min=1, max=1_000_000, metavar="N", help="Pixels a second, also through the collector."),
    ] = 150.0,
    placements: Annotated[int, typer.Option(min=1, metavar="N", help="How many placements.")] = 40,
    partitions: Annotated[int, typer.Option(min=1, metavar="N", help="Partitions of the topic.")] = 4,
    processes: Annotated[int, typer.Option(min=1, metavar="N", help="Processes of the flow.")] = 1,
    lose_feed: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="S",
            help="End the simulator's producer after S seconds, to show what a dead feed looks like.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same seed makes the same traffic.")] = 1,
) -> None:
    """Show everything working on this machine: a broker, a Valkey, simulated traffic with faults, the
    collector, the flow and the exporter, on loopback. Your AUDIOPIXEL_ settings and audiopixel.toml are not
    used.
    """
    from flows.demo.demo import Demo

    Demo(seconds, rate, placements, partitions, processes, seed, lose_feed).run()
