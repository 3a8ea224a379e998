"""`audiopixel plans`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import command
from flows.cli.paths import writable
from flows.errors import UsageError
from flows.shown import LINE, shown

if TYPE_CHECKING:
    from flows.model.plan import Plan


@command
def plans(
    file: Annotated[Path, typer.Argument(help="Plans, .csv or .json.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC", help="Put the plans into this topic, unless one is wrong.", show_default=False
        ),
    ] = None,
    delivered: Annotated[
        Path | None,
        typer.Option(
            metavar="THEIRS",
            help="Make opening balances of this report of a publisher or ad server: .csv, .json, .parquet.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The moment up to which the report counts; without an offset by AUDIOPIXEL_TIMEZONE.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Source of the balances; by default the name of the report.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PLANS", help="Write the plans with their opening balances here.", show_default=False
        ),
    ] = None,
) -> None:
    """Check a file of plans and print its errors. Exit code 1: it has an error.

    With --to, each plan is written to the Kafka topic that AUDIOPIXEL_PLANS=kafka:TOPIC reads. Plans that the
    file does not name stay in the topic.

    With --delivered, the plans get opening balances: each placement's impressions of the report up to the
    moment of --until. The report has the form that discrepancy reads, with a row for each placement and day,
    or flight. The balances are printed, and written to --out or --to. If Redis can be read, a balance whose
    moment cannot be used is an error.
    """
    from connectors.kafka import KafkaWriter
    from flows.cli.balances import balanced_plans, refused_moments
    from flows.delivery import parse_plans, plan_to_json, read_plans
    from flows.settings import kafka_options, load

    _check_options(file, delivered, until, {"--until": until, "--source": source, "--out": out})
    writable(out)
    book, problems = read_plans(file)
    _refuse([str(problem) for problem in problems])
    if delivered is not None and until is not None:
        content = balanced_plans(delivered, file, book, until, source)
        book, problems = parse_plans(content, file)
        _refuse([str(problem) for problem in problems])
    if any(plan.delivered_before_until is not None for plan in book.values()):
        _refuse([f"{file}: {line}" for line in refused_moments(load(), book)])
    if out is not None:
        out.write_bytes(content)
    if to is not None:
        settings, topic = load(), to.removeprefix("kafka:")
        messages = [(name.encode(), plan_to_json(plan)) for name, plan in book.items()]
        writer = KafkaWriter(settings.kafka_brokers, topic, kafka_options(settings))
        writer.write(messages)
        writer.close()
    for plan in book.values():
        if plan.unrounded_ms is not None:
            typer.echo(shown(f"{file}: {_rounded(plan)}", LINE), err=True)
    typer.echo(
        f"{len(book)} plans"
        + ("" if out is None else f" written to {shown(str(out))}")
        + ("" if to is None else f" put into {shown(to)}"),
        err=True,
    )


def _check_options(
    file: Path, delivered: Path | None, until: str | None, needing: Mapping[str, object]
) -> None:
    for option, value in needing.items():
        if delivered is None and value is not None:
            raise UsageError(f"{option} is for opening balances alone: name a report by --delivered")
    if delivered is not None and until is None:
        raise UsageError("--delivered needs --until: the moment up to which the report counts")
    out = needing["--out"]
    if isinstance(out, Path) and out.suffix.lower() != file.suffix.lower():
        raise UsageError(f"--out writes the plans as {file.suffix}: name a file that ends so")
    if isinstance(out, Path) and delivered is not None and out.resolve() == delivered.resolve():
        raise UsageError(f"{out}: is the file of --delivered: name another file")


def _rounded(plan: Plan) -> str:
    """The warning that a flight begins or ends at another moment than its plan."""
    assert plan.unrounded_ms is not None, "only a rounded flight has this warning"
    pairs = zip(("start", "end"), plan.unrounded_ms, (plan.start_ms, plan.end_ms), strict=True)
    changed = [
        f"{name} {_moment(plan_ms)} is taken as {_moment(flight_ms)}"
        for name, plan_ms, flight_ms in pairs
        if plan_ms != flight_ms
    ]
    return f"{plan.placement_id}: {' and '.join(changed)}, since flights count whole minutes"


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def _refuse(lines: list[str]) -> None:
    """Print errors, and end with exit code 1 if there are any."""
    for line in lines:
        typer.echo(shown(line, LINE))
    if lines:
        raise typer.Exit(1)
