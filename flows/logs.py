"""The log on standard error: for people on a terminal, logfmt elsewhere. Its lines go above a live display,
if there is one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from rich.console import Console
from rich.text import Text

from flows.shown import LINE, shown

_displays: list[Console] = []


class _Lines(structlog.PrintLogger):
    """Standard error, looked up at each line: it moves while the engine runs, and a display comes and
    goes.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def msg(self, message: str) -> None:
        if _displays:
            _displays[-1].print(Text.from_ansi(message), soft_wrap=True)
        else:
            super().msg(message)

    log = debug = info = warn = warning = error = critical = exception = fatal = msg


def _shown(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Show texts from outside safely: names of partitions, problems of plans, errors of servers."""
    return {
        key: value if value is None or isinstance(value, (bool, int, float)) else shown(str(value), LINE)
        for key, value in event.items()
    }


def configure() -> None:
    """Log to standard error, from `info` on."""
    terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer(colors=True)
    if not terminal:
        renderer = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _shown,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _Lines(),
        cache_logger_on_first_use=False,
    )


@contextmanager
def above(display: Console) -> Iterator[None]:
    """A context in which lines go above the live display of this console, instead of into it."""
    _displays.append(display)
    try:
        yield
    finally:
        _displays.remove(display)
