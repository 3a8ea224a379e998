"""`audiopixel verify`."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.app import command, interruptible
from flows.errors import UsageError

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@command
def verify(
    since: Annotated[
        str, typer.Option(metavar="SPAN", help="The compared time, back from now: 30m, 6h, 2d.")
    ] = "1h",
    most: Annotated[
        int, typer.Option(min=1, metavar="N", help="Read at most this many messages.")
    ] = 50_000_000,
    directory: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory for the messages meanwhile.", show_default=False),
    ] = None,
) -> None:
    """Prove on a live system that nothing was lost. The command reads the pixel topic again, recomputes it,
    and compares each count of each minute that became final within SPAN with the published count. Run it with
    the flow's settings, plans and listeners' key.

    A minute becomes final AUDIOPIXEL_ALLOWED_LATENESS after its end, so the compared minutes began that long
    before SPAN ago. The topic is read from AUDIOPIXEL_HORIZON before these minutes. If AUDIOPIXEL_KAFKA_START
    is an archive, older messages are read from it. Rows in Redis are not read: audiopixel reconcile compares
    them with a log, and audiopixel doctor finds those that are missing.

    Exit code 0: all counts are equal. 1: a difference, which is printed. 2: a wrong option, no minute became
    final within SPAN, or Kafka has deleted its messages.
    """
    from connectors.redis import connect
    from flows.cli.progress import phases
    from flows.cli.reconcile_settings import denied, rules
    from flows.reconcile import format_differences
    from flows.settings import load
    from flows.verify import NOT_COMPARED
    from flows.verify import verify as verified_of

    span = re.fullmatch(r"(\d{1,6})([smhd])", since)
    if span is None:
        raise UsageError(f"--since {since}: takes a number with s, m, h or d, such as 1h")
    seconds = int(span[1]) * _UNITS[span[2]]
    settings = load()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    now_ms = time.time_ns() // 1_000_000
    interruptible()
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix="audiopixel-verify-") as messages_directory,
        phases("reading") as begin_phase,
    ):
        verified = verified_of(
            settings,
            rules(settings),
            denied(settings, client),
            client,
            since_ms=now_ms - seconds * 1000,
            now_ms=now_ms,
            directory=Path(messages_directory),
            most=most,
            progress=begin_phase,
        )
    minutes = (verified.before_ms - verified.from_ms) // 60_000
    archived = f", {verified.archived:,} of them in the archive" if verified.archived else ""
    typer.echo(
        f"read {verified.messages:,} messages{archived}; {verified.minutes:,} final minutes of "
        f"{verified.placements:,} placements within {minutes:,} minutes: "
        f"{len(verified.differences):,} differences"
    )
    for line in verified.ledgers:
        typer.echo(line)
    if verified.differences:
        typer.echo(format_differences(verified.differences))
    typer.echo(NOT_COMPARED)
    if verified.differences or verified.ledgers:
        raise typer.Exit(1)
