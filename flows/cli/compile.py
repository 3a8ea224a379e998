"""`audiopixel compile`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flows.cli.app import command, interruptible


@command
def compile(
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Write the throw-away rows to this Redis; by default to an embedded one.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compile the kernels ahead, for an image or before the first start.

    A flow compiles missing kernels when it starts, which takes 45 s of one core. The compiled code is stored
    next to the sources, or in NUMBA_CACHE_DIR, and serves processors of the same kind.
    """
    from flows.cli.progress import progress
    from flows.compile import compile_kernels

    interruptible()
    began_s = time.monotonic()
    with progress(lambda: "compiling kernels", lambda: 0.0):
        compile_kernels(redis)
    typer.echo(f"kernels are compiled, {time.monotonic() - began_s:.0f} s", err=True)
