"""Commands that ask: why, how much, of whom; and what is set."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.command import FILES, command, interruptible
from flows.errors import AudiopixelError, UsageError
from flows.shown import LINE, shown

if TYPE_CHECKING:
    from flows.settings import Settings


@command
def explain(
    conversion: Annotated[str, typer.Argument(help="The order id or the event id of a conversion.")],
) -> None:
    """Say which touches a conversion could have been credited to, to which it was, and by which rule; no
    listener is in it. Conversions of several campaigns or types may have the same order id: all are told.
    """
    import msgspec

    from connectors.redis import connect, read_rows
    from flows.decisions import Body
    from flows.explain import show
    from flows.publish import row_key
    from flows.settings import load

    settings = load()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    (row,) = read_rows(client, [row_key(settings.namespace, "conversion", conversion)])
    if not row:
        raise AudiopixelError(
            f"no decision on {shown(conversion)!r}: a conversion is decided when its minute is final, and "
            f"its decision kept for {settings.decisions_ttl.days} days (AUDIOPIXEL_DECISIONS_TTL)"
        )
    told = []
    for key, decision in sorted(row.items()):
        try:
            told.append(show(msgspec.json.decode(decision, type=Body), settings.zone))
        except (ValueError, ArithmeticError, OSError) as error:
            raise AudiopixelError(
                f"what Redis holds of {shown(conversion)!r} is no decision ({shown(key)}: {error}): delete "
                "it, or read it in the topic of the credits"
            ) from None
    for one in told:
        Console().print(one)


@command
def overlap(
    a: Annotated[str, typer.Argument(help="A placement.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
) -> None:
    """Estimate how many of the listeners that A's flight has reached were also reached by B's, and the other
    way round.
    """
    from connectors.redis import connect, read_rows
    from flows.overlap import overlap as estimated
    from flows.overlap import show, unpack
    from flows.publish import row_key
    from flows.settings import load

    if a == b:
        raise UsageError(f"{shown(a)!r} is there twice: name two placements")
    settings = load()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    rows = read_rows(client, [row_key(settings.namespace, "sketch", name) for name in (a, b)])
    for name, row in zip((a, b), rows, strict=True):
        if "registers" not in row:
            raise AudiopixelError(
                f"no sketch of placement {shown(name)!r}: it has no plan and fewer than 100 consenting "
                f"listeners, or none in the last {settings.row_ttl // timedelta(hours=1)} hours, or there is "
                "no such placement"
            )
    sketches = []
    for name, row in zip((a, b), rows, strict=True):
        try:
            sketches.append(unpack(row["registers"]))
        except ValueError as error:
            raise AudiopixelError(
                f"what Redis holds of placement {shown(name)!r} is no sketch ({error}): it is written anew "
                "once the placement has more listeners, or within a day"
            ) from None
    found = estimated(*sketches)
    Console().print(show(a, b, found))


@command
def forget(
    listener_ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids as the pixels have them; none: one a line on standard input."),
    ] = None,
) -> None:
    """Erase listeners: within a minute the flow drops their touches, and takes no more from their pixels.

    Where AUDIOPIXEL_COLLECT_KEY is set, they are known by the pseudonyms of the collector, too. Redis keeps
    their keyed hashes, never the ids, so that a restart does not bring them back. Numbers stay;
    sketches hold no reversible id. The topic's own messages are yours to expire.
    """
    from flows.forget import deny
    from flows.settings import load

    if not listener_ids and sys.stdin.isatty():
        typer.echo("Ids of listeners, one a line, then Ctrl-D:", err=True)
    ids = [one for one in (listener_ids or sys.stdin.read().splitlines()) if one.strip()]
    if not ids:
        raise UsageError("no listener is named: give ids, or one a line on standard input")
    settings = load()
    deny(settings, [*ids, *_at_the_edge(settings, ids)])
    typer.echo(f"{len(ids)} listeners will be forgotten within a minute")


def _at_the_edge(settings: Settings, ids: list[str]) -> list[str]:
    """What the collector has made of these ids, by each of its keys in force."""
    from flows.collector.pseudonyms import Pseudonyms

    key = settings.collect_key
    if key is None:
        return []
    previous = [one.get_secret_value().encode() for one in settings.collect_previous_keys]
    pseudonyms = Pseudonyms(key.get_secret_value().encode(), previous)
    return [made for one in ids for made in pseudonyms.of_listener(one.strip())]


@command
def plans(
    file: Annotated[Path, typer.Argument(help="Plans, .csv or .json.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(help="Put them into this topic, where nothing is wrong with any.", show_default=False),
    ] = None,
) -> None:
    """Check a file of plans: prints what is wrong, exit code 1 if anything is.

    With --to, each plan goes into the Kafka topic that AUDIOPIXEL_PLANS=kafka:TOPIC reads; what the file does
    not name stays there.
    """
    from connectors.kafka import KafkaWriter
    from flows.outputs import kafka_options
    from flows.planfiles import read_plans
    from flows.plans import plan_to_json
    from flows.settings import load

    book, problems = read_plans(file)
    for problem in problems:
        typer.echo(shown(str(problem), LINE))
    if problems:
        raise typer.Exit(1)
    if to is not None:
        settings, topic = load(), to.removeprefix("kafka:")
        messages = [(name.encode(), plan_to_json(plan)) for name, plan in book.items()]
        writer = KafkaWriter(settings.kafka_brokers, topic, kafka_options(settings))
        writer.write(messages)
        writer.close()
    typer.echo(f"{len(book)} plans" + ("" if to is None else f" put into {shown(to)}"), err=True)


@command
def check(
    files: FILES,
    most: Annotated[
        int, typer.Option(min=0, help="How many lines that are wrong are told one by one.")
    ] = 100,
) -> None:
    """Check logs of pixels before a flow reads them: tells each line that is no pixel by its file and number,
    why it is rejected, in which field, and what that takes. Exit code 1 if there is any.

    It is the flow's own decoder. What is repeated or too late is not judged, and no value is shown.
    """
    from flows.check import Checked
    from flows.check import check as checked
    from flows.progress import progress

    found, told = Checked(), 0

    def tell(line: str) -> None:
        nonlocal told
        told += 1
        if told <= most:
            typer.echo(line)

    interruptible()
    with progress(lambda: f"{found.received:,} messages"):
        checked(files, found, tell)
    if told > most:
        typer.echo(f"… and {told - most:,} more")
    for line in found.summary():
        typer.echo(line)
    if told:
        raise typer.Exit(1)


@command
def config() -> None:
    """Show every setting: what is in force, where it comes from, what it means. Secrets are not shown.

    Each is set by its name in the environment, or in audiopixel.toml by the rest of it in lower case
    (`flush_interval = "PT1S"`). Durations: PT10M, 00:10:00, or seconds. Names with texts: JSON in the
    environment, a table in the file. AUDIOPIXEL_CONFIG names another file.
    """
    from flows.config import show
    from flows.settings import load

    show(load())
