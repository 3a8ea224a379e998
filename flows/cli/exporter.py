"""`audiopixel exporter`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import command


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
    serve(settings, host or settings.metrics_host, port, cap=CAP if cap is None else cap)
