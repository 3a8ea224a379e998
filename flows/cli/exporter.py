"""`audiopixel exporter`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import command

if TYPE_CHECKING:
    from flows.model.plan import Plan
    from flows.settings import Settings
    from flows.viewers.disputed import Disputed


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
    """Serve the live page at / and /metrics/placements for Prometheus. The exporter reads Redis, and costs
    the flow no time.
    """
    from flows.cli.owners import owners_of
    from flows.delivery import read_book
    from flows.settings import load
    from flows.viewers.exporter import serve
    from flows.viewers.series import CAP

    settings = load()
    partly = not all(token.read_all for token in settings.read_tokens.values())
    serve(
        settings,
        host or settings.metrics_host,
        port,
        cap=CAP if cap is None else cap,
        owners=owners_of(settings, needed=partly),
        disputed=disputed_of(settings),
        plans=partial(read_book, settings),
    )


def disputed_of(settings: Settings) -> Disputed | None:
    """The waterfalls of other parties' counts that the page watches; None if `settings.theirs` is not set.

    Raises:
        UsageError, PlanError, ConnectError: the counts or the plans cannot be read.
    """
    if settings.theirs is None:
        return None
    from connectors.redis import connect
    from flows.delivery import PlanFollower, read_book
    from flows.viewers.disputed import Disputed

    book: Mapping[str, Plan] = read_book(settings)
    follower = PlanFollower(settings)

    def plans() -> Mapping[str, Plan]:
        nonlocal book
        changed = follower.changed(time.monotonic_ns() // 1_000_000) if settings.plans is not None else None
        book = book if changed is None else changed
        return book

    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    disputed = Disputed(settings.theirs, client, settings.namespace, settings.zone, plans)
    disputed.look()
    return disputed
