"""`audiopixel discrepancy`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import command
from flows.cli.paths import writable
from flows.errors import UsageError
from flows.shown import print_table


@partial(command, failed=2)
def discrepancy(
    claims_file: Annotated[
        Path,
        typer.Argument(
            metavar="THEIRS",
            help="The other party's counts: .csv, .json or .parquet, a row a day.",
            show_default=False,
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a report with charts here.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Explain the difference between another party's count of impressions and ours, to the unit.

    Each row of the file names a placement_id or a campaign_id, a day (or flight), and the other party's
    impressions. The column excludes names parts that do not apply. The difference is split into signed parts;
    the rest is unexplained.

    A difference up to 5 % of our count is fine, and up to 10 % is worth a look. Above 10 % it is over the
    tolerance.
    A plan's tolerance replaces both limits. If our number is unknown, the band is "no verdict", and the row
    has the reason. Exit code 1: a row is over the tolerance. 2: no row is, but a row has no verdict; or Redis
    holds no counts of a flow, or damaged ones.

    A day is compared with our count of that day, and flight with all days of the flight, up to today. The
    flights and tolerances are those of AUDIOPIXEL_PLANS. Without plans no tolerance is known, and the flights
    are those of the rows in Redis: the note has the days of each. A flight without a row gets no verdict.
    """
    from connectors.redis import connect
    from flows import waterfall
    from flows.delivery import read_book
    from flows.settings import load

    writable(html)
    if html is not None and html.exists() and claims_file.exists() and html.samefile(claims_file):
        raise UsageError(f"{html}: is the file to compare: name another file for the report")
    settings = load()
    claims = waterfall.read_claims(claims_file)
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    rows = waterfall.compare(client, settings.namespace, settings.zone, read_book(settings), claims)
    if html is not None:
        html.write_text(waterfall.as_html(rows, f"Discrepancies of {claims_file.name}"), encoding="utf-8")
    if as_json:
        typer.echo(waterfall.as_json(rows))
    else:
        print_table(waterfall.as_table(rows))
    bands = {row.band for row in rows}
    if waterfall.Band.BREACH in bands:
        raise typer.Exit(1)
    if waterfall.Band.NONE in bands:
        raise typer.Exit(2)
