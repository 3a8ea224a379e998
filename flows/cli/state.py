"""`audiopixel state`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import command
from flows.errors import UsageError
from flows.shown import print_table

if TYPE_CHECKING:
    from flows.state.saves import Account


@command
def state(
    directory: Annotated[
        Path | None,
        typer.Argument(help="A recovery directory; the configured one by default.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a save.")] = False,
) -> None:
    """Show what the saves in a recovery directory hold, and verify them: every file is read, and held against
    its checksum. The flow may run meanwhile.

    Exit code 1 if a save is damaged, 2 if there is none.
    """
    import msgspec

    from flows.settings import load
    from flows.state.saves import SaveStore

    directory = directory or load().recovery_dir
    if directory is None or not directory.is_dir():
        raise UsageError(f"there is no recovery directory {directory or ''}".rstrip())
    accounts = SaveStore(directory).accounts()
    if as_json:
        for one in accounts:
            typer.echo(msgspec.json.encode(one))
    else:
        for one in accounts:
            _print(one)
    if not accounts:
        raise UsageError(f"there is no save in {directory}")
    if any(one.damage for one in accounts):
        raise typer.Exit(1)


def _print(one: Account) -> None:
    import time
    from datetime import UTC, datetime

    from rich.table import Table

    if one.damage:
        typer.echo(f"save {one.cut}: damaged: {one.damage}")
        return
    watermark = datetime.fromtimestamp(one.watermark_ms / 1000, UTC).isoformat(timespec="seconds")
    typer.echo(
        f"save {one.cut}: whole, {max(0, time.time() - one.made_ms / 1000):,.0f} s old, "
        f"watermark {watermark}, {len(one.positions)} partitions"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("step", "pieces", "KiB", "segments", "KiB"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for step in one.steps:
        table.add_row(
            step.step,
            f"{step.pieces:,}",
            f"{step.size / 1024:,.0f}",
            f"{step.segments:,}",
            f"{step.segments_size / 1024:,.0f}",
        )
    print_table(table)
