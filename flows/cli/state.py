"""`audiopixel state`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import command
from flows.errors import UsageError
from flows.shown import LINE, cell, print_table, shown

if TYPE_CHECKING:
    from flows.state.save_accounts import Account


@command
def state(
    directories: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[deal] DIR",
            help="Recovery directories, one for each disk; the configured one by default. The word deal "
            "before them lays out their shards afresh.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each member's part of a save.")
    ] = False,
    members: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="With deal: for how many members of a cluster.", show_default=False
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With deal: where the new directories are made, member-0, member-1 and so on.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the contents of the saves in recovery directories, and verify them: every file is read, and
    compared with its checksum. The flow may run meanwhile. Each member of a cluster has a part of every save.

    With deal as the first word, the command distributes the newest save for another number of members, while
    the flow is stopped. The number of members determines the member of each shard, so another number needs
    other directories. Name the directories of all old members; they stay unchanged, so that you can go back.
    Then set AUDIOPIXEL_RECOVERY_DIR of each machine to one of the new directories, and start all members.
    Members that share one directory need no dealing.

    Exit code 1 if a save is damaged, 2 if there is none, 3 if the shards cannot be dealt.
    """
    import msgspec

    from flows.settings import load
    from flows.state.save_accounts import accounts
    from flows.state.saves import SaveStore

    named = list(directories or [])
    if dealing := named[:1] == [Path("deal")]:
        named.pop(0)
    if not dealing == (members is not None) == (to is not None):
        raise UsageError("deal, --members and --to go together: state deal DIR… --members N --to DIR")
    disks = named or [directory for directory in [load().recovery_dir] if directory is not None]
    for directory in disks or [Path()]:
        if not disks or not directory.is_dir():
            raise UsageError(f"there is no recovery directory {directory if disks else ''}".rstrip())
    if members is not None and to is not None:
        _deal(disks, members, to)
        return
    saves = [save for directory in disks for save in accounts(SaveStore(directory))]
    for save in saves:
        if as_json:
            typer.echo(msgspec.json.encode(save))
        else:
            _print(save)
    if not saves:
        raise UsageError(f"there is no save in {' '.join(map(str, disks))}")
    if any(save.damage for save in saves):
        raise typer.Exit(1)


def _deal(directories: list[Path], members: int, to: Path) -> None:
    from flows.engine import deal

    dealt = deal(directories, members, to)
    typer.echo(f"save {dealt.cut} is dealt to {members}:")
    for directory in dealt.directories:
        typer.echo(f"  {shown(str(directory), LINE)}")


def _print(save: Account) -> None:
    import time
    from datetime import UTC, datetime

    from rich.table import Table

    if save.damage:
        typer.echo(shown(f"save {save.cut} of member {save.member}: damaged: {save.damage}", LINE))
        return
    try:
        watermark = datetime.fromtimestamp(save.watermark_ms / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):  # not in a year from 1 to 9999
        watermark = f"{save.watermark_ms} ms"
    typer.echo(
        f"save {save.cut} of member {save.member} of {save.members}: whole, "
        f"{max(0, time.time() - save.made_ms / 1000):,.0f} s old, "
        f"watermark {watermark}, {len(save.positions)} partitions"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("step", "pieces", "KiB", "segments", "KiB"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for step in save.steps:
        table.add_row(
            cell(step.step),
            f"{step.pieces:,}",
            f"{step.size / 1024:,.0f}",
            f"{step.segments:,}",
            f"{step.segments_size / 1024:,.0f}",
        )
    print_table(table)
