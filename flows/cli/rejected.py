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
    from flows.resend import ExtraLetters
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
    resend: Annotated[bool, typer.Option("--resend", help="Send again what the letters hold.")] = False,
    to: Annotated[
        str,
        typer.Option(
            metavar="URL", help="The collector; AUDIOPIXEL_COLLECT_URL by default.", show_default=False
        ),
    ] = "",
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="With --resend: set a field right in every letter.",
            show_default=False,
        ),
    ] = None,
    conversions: Annotated[
        bool, typer.Option("--conversions", help="With --resend: send conversions, too.")
    ] = False,
) -> None:
    """List the dead letters by reason, field, sender and placement, with event ids as examples.

    --resend calls the collector again with the fields of a letter, and with the token in
    AUDIOPIXEL_COLLECT_TOKEN. The collector checks it like any call. Event ids stay the same, so no event
    counts twice. Letters hold no listener and no app, so resent events have no reach. A letter that is
    malformed, too late or invalid traffic is not sent, nor one that lacks a field that was wrong (--set
    supplies it). The reasons of unsent letters are counted.

    A letter of a source needs no call. The source's message is read again at its offset, by the present
    mapping. Its pixel is written to the pixel topic under the same id as before. Correct the mapping first.
    Exit code 1: a message is rejected again, or its topic has deleted it.

    Unsigned calls may be forged, so they are sent only with --sender. Conversions are sent only with
    --conversions: no touch gets credit for them, and the shop's own corrected call is then a repeat.

    --against looks up the pixels of a sender's file. Exit code 1: a pixel has a dead letter, or a letter
    names no event (such as too_late) and cannot be compared. Leave out letters of others with --placement and
    --reason.
    """
    from flows import rejected as letters_of
    from flows.cli.progress import progress
    from flows.collector.understand import UNSIGNED
    from flows.model.events import REASONS
    from flows.resend import ExtraLetters
    from flows.settings import load, nearest

    if resend and against:
        raise UsageError("--resend and --against do not go together")
    if (to or change or conversions) and not resend:
        raise UsageError("--to, --set and --conversions take --resend")
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
                _resend(settings, letters(), to, change or [], ExtraLetters(conversions, bool(sender)))
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


def _resend(
    settings: Settings, letters: Iterator[Letter], to: str, changes: list[str], allowed: ExtraLetters
) -> None:
    """Send letters again, and print the outcome."""
    from time import time

    from connectors.redis import connect, read_rows
    from flows.resend import SETTABLE, Door, ResendResult, resend
    from flows.settings import ms
    from flows.sources.reread_letters import LetterRereader

    url = to or settings.collect_url
    fields: dict[str, str] = {}
    for change in changes:
        name, sign, value = change.partition("=")
        if name not in SETTABLE or not sign:
            raise UsageError(f"--set {shown(change)}: takes FIELD=VALUE, FIELD one of {' '.join(SETTABLE)}")
        fields[name] = value
    door = None
    if url is not None and settings.collect_token is not None:
        door = Door(url, settings.collect_token.get_secret_value())
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    (meta,) = read_rows(client, [f"{settings.namespace}:meta"], ["watermark_ms", "allowed_lateness_ms"])
    try:
        watermark_ms = int(meta.get("watermark_ms", 0))
        lateness_ms = int(meta.get("allowed_lateness_ms", ms(settings.allowed_lateness)))
    except ValueError as error:
        raise AudiopixelError(
            f"a value of the flow in Redis ({settings.namespace}:meta) is damaged: {error}"
        ) from None
    resent = ResendResult()
    try:
        rereader = LetterRereader(settings, resent, watermark_ms, lateness_ms, changed=bool(fields))
        door_letters, now_ms = rereader.apart(letters), int(time() * 1000)
        resend(door_letters, door, watermark_ms, lateness_ms, fields, resent, allowed, now_ms)
        rereader.end()
    finally:  # also if the door fails, or the output is closed: accepted events stay accepted
        typer.echo(resent.account())
        for outcome, count in (*resent.refused.most_common(), *resent.not_sent.most_common()):
            typer.echo(shown(f"{count:,} {outcome}", LINE))
        for topic, count in resent.expired.most_common():
            typer.echo(shown(f"{count:,} of {topic}, which has deleted their messages", LINE))
    if resent.refused or resent.expired:
        raise typer.Exit(1)
