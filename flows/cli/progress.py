"""Progress of long work, on a terminal alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flows.logs import lines_above
from flows.shown import shown

POLL_S = 0.2


@contextmanager
def phases(first: str) -> Iterator[Callable[[str], None]]:
    """Show the phase of the work, in a few words. Yields a function that begins the next phase."""
    present = first

    def begin(phase: str) -> None:
        nonlocal present
        present = phase

    with progress(lambda: present):
        yield begin


@contextmanager
def progress(words: Callable[[], str], share: Callable[[], float] | None = None) -> Iterator[None]:
    """Show the progress that the work reports, five times a second.

    Args:
        words: returns a few words for people.
        share: returns the share of the work that is done, 0 to 1; None if unknown.
    """
    terminal = Console(stderr=True)
    if not terminal.is_terminal:
        yield
        return
    bars = () if share is None else (BarColumn(),)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), *bars, TimeElapsedColumn())
    with Progress(*columns, console=terminal, transient=True) as display, lines_above(terminal):
        task = display.add_task(shown(words()), total=1.0 if share is not None else None)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(POLL_S):
                display.update(
                    task, description=shown(words()), completed=share() if share is not None else None
                )

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
