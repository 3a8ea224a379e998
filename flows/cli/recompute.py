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


@partial(command, failed=2)
def recompute(
    step: Annotated[
        str, typer.Argument(metavar="[diff|switch]", help="Without one it counts.", show_default=False)
    ] = "",
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="diff, switch: of the recomputation.", show_default=False)
    ] = "",
    archive: Annotated[
        str, typer.Option("--from", metavar="archive:DIR|URL", help="What is counted.", show_default=False)
    ] = "",
    as_name: Annotated[
        str,
        typer.Option("--as", metavar="NAME", help="Its name, such as august.", show_default=False),
    ] = "",
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port of its /metrics; 0 opens none.")
    ] = 0,
    most: Annotated[int, typer.Option(min=1, metavar="N", help="diff: lines of the table.")] = 40,
    json: Annotated[bool, typer.Option("--json", help="diff: for programs, with every value.")] = False,
) -> None:
    """Count an archive again beside the live flow, compare, and let the recomputed numbers serve.

    --from and --as begin the second flow: the settings of its environment, with rows, topics, group and
    recovery directory of its own, which it prints. It runs until SIGTERM, at the lowest priority until it
    serves, and goes on in the topic once the archive is read.

    diff prints what moves, and which methods differ. Exit code 0: equal. 1: something moves. 2: they cannot
    be compared.

    switch lets the flow of NAME serve; again, it goes back. Exit code 0: every row was read back. 1: not
    done, and it says why.
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
    import os

    from flows.engine import execute, preflight
    from flows.pixels import live
    from flows.publish import seated
    from flows.recompute import begins_anew, derived

    settings, values = derived(archive, name, metrics_port)
    for of, value in values.items():
        typer.echo(f"{of} = {shown(value)}")
    begins_anew(settings)
    if seated(settings).rows_at != settings.namespace:
        os.nice(19)  # in Linux it lowers the priority of its disk as well
    preflight(settings)
    _say_progress(settings)
    execute(live(settings), recovery_dir=settings.recovery_dir)


def _say_progress(settings: Settings) -> None:
    """Log how far it is, until it is live."""
    import threading
    import time

    import structlog

    from connectors.redis import connect
    from connectors.stream import ConnectError
    from flows.errors import AudiopixelError
    from flows.recompute import progress_of

    def say() -> None:
        log, client = structlog.get_logger("recompute"), None
        while True:
            time.sleep(PROGRESS_S)
            try:
                url = settings.redis_url.get_secret_value()
                client = client or connect(url, timeout=settings.redis_timeout)
                said, done = progress_of(client, settings.namespace, settings.rows_at)
            except (ConnectError, AudiopixelError):
                continue
            log.info("live beside the flow that serves" if done else "counting again", **said)
            if done:
                return

    threading.Thread(target=say, daemon=True).start()


def _diff(name: str, most: int, json: bool) -> None:
    from connectors.redis import connect
    from flows.model.redis_keys import beside
    from flows.recompute import as_json, checked, difference, report
    from flows.settings import load

    settings = load()
    other = beside(settings.namespace, checked(name))
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    found = difference(client, settings.namespace, other, settings.zone)
    client.close()
    typer.echo(as_json(found) if json else "\n".join(report(found, most)))
    if found.moves:
        raise typer.Exit(1)


def _switch(name: str) -> None:
    from connectors.redis import connect
    from flows.cli.progress import progress
    from flows.recompute import checked, turn
    from flows.settings import load

    settings, phase = load(), ["looking at both flows"]
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    with progress(lambda: phase[-1]):
        found = turn(client, settings.namespace, checked(name), report=phase.append)
    client.close()
    if not found.done:
        typer.echo(f"not done: {found.why}; generation {found.generation} serves")
        raise typer.Exit(1)
    typer.echo(
        f"done: generation {found.generation} serves, {found.rows:,} rows read back; "
        "the same command goes back"
    )
