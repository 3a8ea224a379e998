"""`audiopixel run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import command
from flows.errors import UsageError


@command
def run(
    processes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes on this machine, which share the work.")
    ] = 1,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Count the log again from scratch, as a new generation in Redis. The recovery directory "
            "must be empty. A restart continues it.",
        ),
    ] = False,
    restarts: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Restart after a crash, at most N times. Without it a crash ends the command.",
            show_default=False,
        ),
    ] = None,
    member: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="On several machines: the place of this machine in --addresses, from 0.",
            show_default=False,
        ),
    ] = None,
    addresses: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT;HOST:PORT",
            help="On several machines: where each listens to the others. The list is the same on all.",
            show_default=False,
        ),
    ] = "",
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what the flow does and for how long, in Chrome's trace format: ui.perfetto.dev shows "
            "where a pause comes from. Each of several processes writes its own file.",
            show_default=False,
        ),
    ] = None,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run the flow on the configured Kafka and Redis. At SIGTERM or Ctrl-C the flow finishes the messages
    that it has read, writes, saves and exits with 0.

    On several machines, run it on each with its own number and its own recovery directory: see the
    second example.
    """
    from flows.state.allocator import share_one_arena

    share_one_arena()
    from flows.engine import (
        ALONE,
        Cluster,
        ExitWhileWaiting,
        Place,
        Trace,
        end_with_supervisor,
        execute,
        members,
        preflight,
    )
    from flows.pixels import live
    from flows.settings import load

    if (member is None) != (not addresses):
        raise UsageError("--member and --addresses go together: this machine's place, and the list of all")
    if member is not None and (processes > 1 or restarts is not None):
        raise UsageError(
            "--processes and --restarts are for one machine: with --member each process is in --addresses, "
            "and this machine's supervisor restarts it"
        )
    settings = load()
    if member is None and (processes > 1 or restarts is not None):
        preflight(settings, recompute)
        options = [*(["--recompute"] if recompute else []), *(["--trace", str(trace)] if trace else [])]
        Cluster(processes, options, restarts or 0).run()
        return
    if supervised:
        end_with_supervisor()
    private = settings.member_network == "private"
    places = None if member is None else members(member, addresses, private)
    preflight(settings, recompute)
    waiting = ExitWhileWaiting() if member is not None and not supervised else None
    traced = None if trace is None else Trace(trace, member or 0)
    begun = waiting.over if waiting else lambda: None
    place = ALONE if member is None or places is None else Place(member, len(places))
    execute(
        live(settings, recompute, place, begun, traced),
        recovery_dir=settings.recovery_dir,
        addresses=places,
        process=member or 0,
    )
