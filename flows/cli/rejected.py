"""`audiopixel rejected`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import command, interruptible
from flows.errors import AudiopixelError, UsageError
from flows.shown import LINE, print_table, shown

if TYPE_CHECKING:
    from flows.rejected import Letter
    from flows.settings import Settings


@command
def rejected(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Files of dead letters; the configured topic by default.", show_default=False),
    ] = None,
    reason: Annotated[
        str, typer.Option(help="Only letters of this reason, such as unsigned.", show_default=False)
    ] = "",
    sender: Annotated[str, typer.Option(help="Only letters of this sender.", show_default=False)] = "",
    placement: Annotated[str, typer.Option(help="Only letters of this placement.", show_default=False)] = "",
    hours: Annotated[
        float, typer.Option(min=0, metavar="N", help="Only letters that Kafka took in the last N hours.")
    ] = 24,
    most: Annotated[int, typer.Option(min=1, metavar="N", help="Print at most this many groups.")] = 50,
    examples: Annotated[int, typer.Option(min=0, max=20, metavar="N", help="Event ids of each group.")] = 2,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="A sender's own pixels: print which of them have a dead letter.",
            show_default=False,
        ),
    ] = None,
    resend: Annotated[bool, typer.Option("--resend", help="Send the pixels of the letters again.")] = False,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="With --resend: set a field right in every letter.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the dead letters by reason, field, sender and placement, with event ids as examples.

    --resend makes pixels of the letters, and writes them to the pixel topic. It needs the settings of a
    collector. A pixel has its event id and its time of receipt, so it counts once, however often it is sent.
    The reasons of unsent letters are counted. Exit code 1: an event is rejected again, or a source's topic
    has deleted its message.

    The letter of a source names its message, which is read again, by the present mapping. Correct the mapping
    first. Any other letter has the event without its listener and app, so its pixel has no reach. It is not
    sent if it is malformed, too late, a conversion or invalid traffic, nor if it lacks a field that was wrong
    (--set supplies it). Unsigned calls may be forged, so they are sent only with --sender.

    --against looks up the pixels of a sender's file. Exit code 1: a pixel has a dead letter, or a letter
    names no event (such as too_late) and cannot be compared. Leave out letters of others with --placement and
    --reason.
    """
    from flows import rejected as letters_of
    from flows.cli.progress import progress
    from flows.collector.understand import UNSIGNED
    from flows.model.events import REASONS
    from flows.settings import load, nearest

    if resend and against:
        raise UsageError("--resend and --against do not go together")
    if change and not resend:
        raise UsageError("--set takes --resend")
    reasons = (*REASONS, UNSIGNED)
    if reason and reason not in reasons:
        choices = f"{', '.join(reasons[:-1])} or {reasons[-1]}{nearest(reason, reasons)}"
        raise UsageError(f"--reason {shown(reason)}: takes {choices}")
    if resend and reason == "unsigned" and not sender:
        raise UsageError(
            "unsigned calls may be forged: --sender NAME sends those of a sender that you know; "
            "audiopixel rejected --reason unsigned lists the senders"
        )
    settings, left = load(), letters_of.LetterCounts()
    wanted = letters_of.LetterFilter(reason, sender, placement)

    def letters() -> Iterator[Letter]:
        source = letters_of.from_files(files, left) if files else letters_of.from_topic(settings, hours, left)
        for letter in source:
            if wanted.has(letter):
                yield letter
        if left.not_letters and not left.letters:
            unit = "lines" if files else "messages"
            raise AudiopixelError(f"none of {left.not_letters:,} {unit} is a letter")

    interruptible()
    try:
        with progress(lambda: f"{left.letters:,} letters"):
            if resend:
                _resend(settings, letters(), change or [], unsigned=bool(sender))
                return
            if against:
                compared = letters_of.compare(against, letters())
            else:
                groups = letters_of.Groups(examples)
                for letter in letters():
                    groups.take(letter)
    finally:
        if left.not_letters and left.letters:
            units = "lines" if files else "messages"
            typer.echo(f"audiopixel: {left.not_letters:,} {units} are no letters, and left out", err=True)
    if against:
        typer.echo(compared.account())
        for unnamed_reason, count in compared.unnamed.most_common(most):
            explanation = "name no event: they may be of these lines, and were not compared"
            typer.echo(shown(f"{count:,} letters of {unnamed_reason} {explanation}", LINE))
        if compared.counts:
            print_table(compared.table())
        if compared.counts or compared.unnamed:
            raise typer.Exit(1)
        return
    typer.echo(f"letters {groups.letters.total():,} in {len(groups.letters):,} groups")
    if groups.letters:
        print_table(groups.table(most))


def _resend(settings: Settings, letters: Iterator[Letter], changes: list[str], unsigned: bool) -> None:
    """Send letters again, and print the outcome."""
    from time import time

    from connectors.redis import connect, read_rows
    from flows.resend import SETTABLE, Resender
    from flows.settings import ms

    fields: dict[str, str] = {}
    for change in changes:
        name, sign, value = change.partition("=")
        if name not in SETTABLE or not sign:
            raise UsageError(f"--set {shown(change)}: takes FIELD=VALUE, FIELD one of {' '.join(SETTABLE)}")
        fields[name] = value
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    (meta,) = read_rows(client, [f"{settings.namespace}:meta"], ["watermark_ms", "allowed_lateness_ms"])
    try:
        watermark_ms = int(meta.get("watermark_ms", 0))
        lateness_ms = int(meta.get("allowed_lateness_ms", ms(settings.allowed_lateness)))
    except ValueError as error:
        raise AudiopixelError(
            f"a value of the flow in Redis ({settings.namespace}:meta) is damaged: {error}"
        ) from None
    resender = Resender(settings, watermark_ms, lateness_ms, int(time() * 1000), fields, unsigned)
    resent = resender.result
    try:
        resender.send(letters)
    finally:  # also if Kafka fails, or the output is closed: pixels that Kafka has count
        typer.echo(resent.account())
        for outcome, count in (*resent.refused.most_common(), *resent.not_sent.most_common()):
            typer.echo(shown(f"{count:,} {outcome}", LINE))
        for topic, count in resent.expired.most_common():
            typer.echo(shown(f"{count:,} of {topic}, which has deleted their messages", LINE))
    if resent.refused or resent.expired:
        raise typer.Exit(1)
