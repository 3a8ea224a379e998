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
            help="End by itself after so long, with a summary that compares Redis to the truth.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=1, help="Pixels a second.")] = 2000.0,
    placements: Annotated[int, typer.Option(min=1, help="How many placements.")] = 40,
    partitions: Annotated[int, typer.Option(min=1, help="Of the topic.")] = 4,
    processes: Annotated[int, typer.Option(min=1, help="Of the flow.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the traffic.")] = 1,
) -> None:
    """Show everything working on this machine: a broker, a Valkey, simulated troublesome traffic, the flow
    and the exporter, on loopback. Your AUDIOPIXEL_ settings and audiopixel.toml are not used.
    """
    from flows.demo.demo import Demo

    Demo(seconds, rate, placements, partitions, processes, seed).run()
