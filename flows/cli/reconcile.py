"""`audiopixel reconcile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import FILES, command, interruptible
from flows.errors import UsageError


@command
def reconcile(
    files: FILES,
    rejected: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="rejected.ndjson of the run: its late pixels are taken as late, and not judged again.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="minutes.ndjson of the run: compare its final minutes too.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory for the database. The rest goes to temporary files.")
    ] = "2GB",
) -> None:
    """Recompute logs in one exact batch query and compare every published field with Redis. Every difference
    is printed. Exit code 1: there is a difference.
    """
    from connectors.files import logs
    from connectors.redis import connect
    from flows.cli.paths import readable
    from flows.cli.progress import phases
    from flows.cli.reconcile_settings import denied, rules
    from flows.reconcile import (
        compare,
        format_differences,
        late_letters,
        minute_differences,
        recompute,
        summary,
    )
    from flows.settings import load

    settings = load()
    for path in (rejected, minutes):
        readable(path)
    files = logs(files)
    too_late = None if rejected is None else late_letters(rejected)
    if foreign_files := sorted({partition for partition, *_ in too_late or ()} - set(files)):
        raise UsageError(
            f"{rejected}: is of another log, {foreign_files[0]}: name the logs as they were replayed"
        )
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    interruptible()
    with phases("reading") as begin_phase:
        truth = recompute(
            [Path(file) for file in files],
            rules(settings),
            too_late=too_late,
            denied=denied(settings, client),
            memory=memory,
            progress=begin_phase,
        )
        begin_phase("comparing")
        comparison = compare(truth, client, settings.namespace)
    if minutes is not None:
        comparison.differences += minute_differences(truth, minutes)
    typer.echo(summary(comparison, truth))
    if comparison.differences:
        typer.echo(format_differences(comparison.differences))
        raise typer.Exit(1)
