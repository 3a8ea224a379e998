"""The log on standard error: coloured lines on a terminal, else logfmt. If a live display is on, the lines go
above it.
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
    """A logger that looks up standard error and the live display at each line, since both may change."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def msg(self, message: str) -> None:
        if _displays:
            _displays[-1].print(Text.from_ansi(message), soft_wrap=True)
        else:
            super().msg(message)

    log = debug = info = warn = warning = error = critical = exception = fatal = msg


def _shown(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Make texts from outside safe to show, such as names of partitions and errors of servers."""
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
def lines_above(display: Console) -> Iterator[None]:
    """A context in which lines go above the live display of this console, instead of into it."""
    _displays.append(display)
    try:
        yield
    finally:
        _displays.remove(display)
