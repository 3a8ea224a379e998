"""`audiopixel replay`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import FILES, command
from flows.errors import ManyRejectedError


@command
def replay(
    files: FILES,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write minutes.ndjson, credits.ndjson and rejected.ndjson here, over older ones.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Threads. The numbers do not depend on it.")
    ] = 1,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="Replace the numbers of another log in Redis by a new generation."),
    ] = False,
    recovery: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Save snapshots here, to continue after an interruption.", show_default=False
        ),
    ] = None,
) -> None:
    """Run the same flow over log files, into the configured Redis. The replay ends with the files; every
    window is then final.

    Exit code 3: over a tenth of the messages is rejected.

    archive:DIR, or archive:s3://NAME/PREFIX, in place of files is an archive, read at its topic's offsets.
    """
    from flows.state.allocator import share_one_arena

    share_one_arena()
    from flows.cli.progress import progress
    from flows.engine import StopSignal
    from flows.instruments import instruments
    from flows.replay import closing_line, partitions_of
    from flows.replay import replay as run_replay
    from flows.settings import load

    settings = load()
    if settings.listener_key is None:
        typer.echo(
            "audiopixel: AUDIOPIXEL_LISTENER_KEY is not set: this replay uses a throw-away one", err=True
        )
    key = (
        settings.listener_key.get_secret_value().encode()
        if settings.listener_key
        else secrets.token_bytes(32)
    )
    stop = StopSignal()
    stop.on_signals()
    received, partitions = instruments().received, partitions_of(files)

    def progress_words() -> str:
        return f"replaying {sum(received.labels(name)._value.get() for name in partitions):,.0f} messages"

    with progress(progress_words):
        run_replay(
            files,
            settings,
            key,
            out=out,
            workers=workers,
            recompute=recompute,
            recovery_dir=recovery,
            stop=stop,
        )
    if stop.requested:
        typer.echo("audiopixel: stopped before the end of the logs", err=True)
        raise typer.Exit(130)
    line, fault = closing_line(files, settings)
    typer.echo(line)
    if fault:
        raise ManyRejectedError(fault)
