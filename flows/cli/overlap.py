"""`audiopixel overlap`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import command
from flows.errors import UsageError
from flows.shown import print_table, shown


@command
def overlap(
    a: Annotated[str, typer.Argument(help="A placement; with --campaigns a campaign.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    campaigns: Annotated[bool, typer.Option("--campaigns", help="A and B are campaigns.")] = False,
) -> None:
    """Estimate how many listeners of A were also reached by B, and how many of B by A.

    ± after a number is three standard errors: in 997 of 1,000 cases the true number is within it. A campaign
    is estimated from all placements that its plans name. A placement whose plan names neither campaign nor
    advertiser, or that has no plan, belongs to the campaign of its latest pixel. A placement without a plan
    and with fewer than 100 listeners has no sketch, and is left out.
    """
    from connectors.redis import connect
    from flows import waterfall
    from flows.delivery import read_book
    from flows.settings import load
    from flows.viewers.overlap import audience, show
    from flows.viewers.overlap import overlap as estimated

    if a == b:
        raise UsageError(
            f"{shown(a)!r} is named twice: name two {'campaigns' if campaigns else 'placements'}"
        )
    settings = load()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    placements = (
        waterfall.placements_of(client, settings.namespace, read_book(settings)) if campaigns else None
    )
    first, second = (audience(client, settings.namespace, name, placements) for name in (a, b))
    print_table(show(first, second, estimated(first.registers, second.registers)))
