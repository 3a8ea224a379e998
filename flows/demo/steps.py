"""Shows the steps of a start, each as a line with its seconds, since a start may take minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Steps:
    """A numbered list of steps.

    Args:
        console: the console of standard error. A terminal shows the present step with a running clock.
        count: the number of steps.
    """

    def __init__(self, console: Console, count: int) -> None:
        self._console, self._count = console, count
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show a step, and its seconds at the end."""
        self._number += 1
        began_s, name = time.monotonic(), f"[{self._number}/{self._count}] {title}"
        if self._console.is_terminal:
            columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
            with Progress(*columns, console=self._console, transient=True) as display:
                display.add_task(name)
                yield
        else:
            self._console.print(f"{name} …", markup=False, highlight=False)
            yield
        line = f"{name}  {time.monotonic() - began_s:.1f} s"
        self._console.print(line, markup=False, highlight=False)
