"""`audiopixel collect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import command

if TYPE_CHECKING:
    from flows.collector.planned import Planned
    from flows.settings import Settings


@command
def collect(
    processes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes on this machine, one a core.")
    ] = 1,
    seat: Annotated[int | None, typer.Option(hidden=True)] = None,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Take pixels over HTTP. A pixel is in Kafka, or on disk while Kafka is away, before the call is
    answered.

    If its clock is over a minute ahead of the machine's, the collector sends all pixels on disk, and restarts
    itself.

    After SIGTERM it still serves for AUDIOPIXEL_COLLECT_DRAIN, then finishes and exits with 0. It exits with
    75 if pixels are still on disk: start it again to send them.
    """
    import asyncio
    import os
    import sys

    from flows.collector.processes import end_with_supervisor, run_all
    from flows.collector.serve import Collector
    from flows.settings import load

    settings = load()
    if supervised:
        end_with_supervisor()
    if seat is None and processes > 1:
        code = run_all(processes)
    else:
        collector = Collector(settings, seat or 0, processes, planned=_planned(settings))
        code = asyncio.run(collector.run())
        if collector.ended_by_clock:
            os.execv(sys.executable, sys.orig_argv)
    if code:
        raise typer.Exit(code)


def _planned(settings: Settings) -> Planned | None:
    """The plans as the flow reads them, if they decide which placements may make a row."""
    if settings.collect_placements != "planned" or settings.plans is None:
        return None
    from flows.collector.planned import Planned
    from flows.delivery import PlanReader

    reader = PlanReader(settings, logs_problems=True)

    def read() -> list[tuple[str, str | None]] | None:
        book = reader.changed()
        return None if book is None else [(name, plan.campaign_id) for name, plan in book.items()]

    return Planned(read)
