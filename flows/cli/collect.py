"""`audiopixel collect`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import command


@command
def collect(
    processes: Annotated[int, typer.Option(min=1, help="Processes on this machine, one a core.")] = 1,
    seat: Annotated[int | None, typer.Option(hidden=True)] = None,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Take pixels over HTTP, durable before they are answered: in Kafka, or on the spool while Kafka is away.

    SIGTERM: goes on serving for a while (AUDIOPIXEL_COLLECT_DRAIN), drains, and ends with 0, or with 75 where
    something still rests on the spool: start it again to send that.
    """
    import asyncio

    from flows.collector.processes import end_with_supervisor, run_all
    from flows.collector.serve import Collector
    from flows.settings import load

    settings = load()
    if supervised:
        end_with_supervisor()
    if seat is None and processes > 1:
        code = run_all(processes)
    else:
        code = asyncio.run(Collector(settings, seat or 0, processes).run())
    if code:
        raise typer.Exit(code)
