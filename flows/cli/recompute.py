"""`audiopixel recompute`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import command
from flows.errors import UsageError
from flows.shown import shown

if TYPE_CHECKING:
    from flows.settings import Settings

PROGRESS_S = 10.0
"""Seconds between two lines of progress."""


@partial(command, failed=2)
def recompute(
    step: Annotated[
        str, typer.Argument(metavar="[diff|switch]", help="Without one it counts.", show_default=False)
    ] = "",
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="diff, switch: of the recomputation.", show_default=False)
    ] = "",
    archive: Annotated[
        str,
        typer.Option("--from", metavar="archive:DIR|URL", help="The archive to count.", show_default=False),
    ] = "",
    as_name: Annotated[
        str,
        typer.Option(
            "--as", metavar="NAME", help="Name of the second flow, such as august.", show_default=False
        ),
    ] = "",
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port of its /metrics; 0 opens none.")
    ] = 0,
    most: Annotated[int, typer.Option(min=1, metavar="N", help="diff: lines of the table.")] = 40,
    json: Annotated[bool, typer.Option("--json", help="diff: for programs, with every value.")] = False,
) -> None:
    """Count an archive again next to the live flow, compare, and switch readers to the recomputed numbers.

    --from and --as start a second flow. It has the settings of its environment, but separate rows, topics,
    group and recovery directory, which it prints. It runs until SIGTERM, at the lowest priority until it
    serves. After the archive it reads the topic.

    diff prints the numbers that change, and the methods that differ. Exit code 0: equal. 1: a number changes.
    2: the flows cannot be compared.

    switch makes the flow of NAME serve. The same command again switches back. Exit code 0: every row was read
    back. 1: not switched, with the reason.
    """
    if step == "":
        if not archive or not as_name or name:
            raise UsageError("--from names the archive, and --as the recomputation")
        _count(archive, as_name, metrics_port)
        return
    if step not in ("diff", "switch"):
        raise UsageError(f"{shown(step)}: takes diff, switch, or nothing")
    if not name or archive or as_name:
        raise UsageError(f"{step} takes the NAME of a recomputation, and neither --from nor --as")
    if step == "diff":
        _diff(name, most, json)
    else:
        _switch(name)


def _count(archive: str, name: str, metrics_port: int) -> None:
    from flows.state.allocator import share_one_arena

    share_one_arena()
    import os

    from flows.engine import execute, preflight
    from flows.pixels import live
    from flows.publish import seated
    from flows.recompute import begins_anew, derived

    settings, values = derived(archive, name, metrics_port)
    for setting_name, value in values.items():
        typer.echo(f"{setting_name} = {shown(value)}")
    begins_anew(settings)
    if seated(settings).rows_at != settings.namespace:
        os.nice(19)  # in Linux it lowers the priority of its disk as well
    preflight(settings)
    _log_progress(settings)
    execute(live(settings), recovery_dir=settings.recovery_dir)


def _log_progress(settings: Settings) -> None:
    """Log the progress of the second flow until it is live."""
    import threading
    import time

    import structlog

    from connectors.redis import connect
    from connectors.stream import ConnectError
    from flows.errors import AudiopixelError
    from flows.recompute import progress_of

    def log_progress() -> None:
        log, client = structlog.get_logger("recompute"), None
        while True:
            time.sleep(PROGRESS_S)
            try:
                url = settings.redis_url.get_secret_value()
                client = client or connect(url, timeout=settings.redis_timeout)
                progress, is_live = progress_of(client, settings.namespace, settings.rows_at)
            except (ConnectError, AudiopixelError):
                continue
            log.info("live next to the flow that serves" if is_live else "counting again", **progress)
            if is_live:
                return

    threading.Thread(target=log_progress, daemon=True).start()


def _diff(name: str, most: int, json: bool) -> None:
    from connectors.redis import connect
    from flows.model.redis_keys import recomputation_namespace
    from flows.recompute import as_json, checked, difference, report
    from flows.settings import load

    settings = load()
    beside_namespace = recomputation_namespace(settings.namespace, checked(name))
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    differences = difference(client, settings.namespace, beside_namespace, settings.zone)
    client.close()
    typer.echo(as_json(differences) if json else "\n".join(report(differences, most)))
    if differences.moves:
        raise typer.Exit(1)


def _switch(name: str) -> None:
    from connectors.redis import connect
    from flows.cli.progress import phases
    from flows.recompute import checked, turn
    from flows.settings import load

    settings = load()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    with phases("reading both flows") as begin_phase:
        outcome = turn(client, settings.namespace, checked(name), report=begin_phase)
    client.close()
    if not outcome.done:
        typer.echo(f"not done: {outcome.why}; generation {outcome.generation} serves")
        raise typer.Exit(1)
    typer.echo(
        f"done: generation {outcome.generation} serves, {outcome.rows:,} rows read back; "
        "the same command switches back"
    )
