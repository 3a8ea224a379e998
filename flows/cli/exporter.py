"""`audiopixel exporter`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import command

if TYPE_CHECKING:
    from flows.settings import Settings
    from flows.viewers.access import Owners


@command
def exporter(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; the default is loopback.", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 9480,
    cap: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Placements with series of their own; the others share one. 20,000 by default.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve the live page at / and /metrics/placements for Prometheus. It reads Redis and costs the flow
    nothing.
    """
    from flows.settings import load
    from flows.viewers.exporter import serve
    from flows.viewers.series import CAP

    settings = load()
    owners = owners_of(settings)
    serve(settings, host or settings.metrics_host, port, cap=CAP if cap is None else cap, owners=owners)


def owners_of(settings: Settings) -> Owners | None:
    """The owners of the placements by the plans that the flow reads; None where no token asks for them.

    Raises:
        PlanError, ConnectError: the plans cannot be read, so that nobody knows whose a placement is.
    """
    if settings.plans is None or all(token.read_all for token in settings.read_tokens.values()):
        return None
    from flows.delivery import PlanFollower, read_book
    from flows.viewers.access import Owner, Owners

    read_book(settings)
    plans = PlanFollower(settings)

    def read() -> list[Owner] | None:
        book = plans.changed(time.time_ns() // 1_000_000)
        if book is None:
            return None
        return [Owner(name, plan.campaign_id, plan.advertiser) for name, plan in book.items()]

    return Owners(read)
