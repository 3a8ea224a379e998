"""`audiopixel plans`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import command
from flows.shown import LINE, shown


@command
def plans(
    file: Annotated[Path, typer.Argument(help="Plans, .csv or .json.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC", help="Put the plans into this topic, unless one is wrong.", show_default=False
        ),
    ] = None,
) -> None:
    """Check a file of plans and print what is wrong in it; exit code 1 if anything is.

    With --to, each plan goes into the Kafka topic that AUDIOPIXEL_PLANS=kafka:TOPIC reads. Plans that the
    file does not name stay there.
    """
    from connectors.kafka import KafkaWriter
    from flows.delivery import plan_to_json, read_plans
    from flows.settings import kafka_options, load

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
