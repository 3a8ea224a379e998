"""The frame that all commands of `audiopixel` share: the application, one line for an error, an exit code."""

from __future__ import annotations

import errno
import re
import signal
import sys
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from typing import Annotated, Any, Final

import structlog
import typer

from connectors.stream import ConnectError
from flows import logs
from flows.cli.help import Command, Group
from flows.errors import AudiopixelError
from flows.shown import LINE, shown

SERVICES: Final = ("run", "collect", "archive", "recompute", "exporter", "export")
"""Commands that run until they are stopped: their standard error is a log, unless it is a terminal."""
_ESCAPED: Final = re.compile("[\udc80-\udcff]+")
"""Bytes of an argument that are not UTF-8, as Python decodes them. Names of files may have such bytes."""

app = typer.Typer(
    name="audiopixel",
    cls=Group,
    help="Live, exact, reconcilable numbers from audio-ad pixels.\n\n"
    "Settings come from AUDIOPIXEL_… variables and audiopixel.toml; audiopixel config shows what is in force."
    " A duration is written PT10M, 00:10:00, or in seconds.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

FILES = Annotated[
    list[str],
    typer.Argument(help="NDJSON logs, also compressed; each is one source partition.", show_default=False),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"audiopixel {version('audiopixel')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def command(function: Callable[..., None], failed: int = 1) -> Callable[..., None]:
    """Register a command. An error that a person can act on becomes one line and an exit code.

    Args:
        failed: the least exit code of a failure: 2 for a command whose 1 is an answer.
    """

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        logs.configure()
        try:
            function(*args, **kwargs)
        except (AudiopixelError, ConnectError) as error:
            from flows.settings.remedies import exit_code, with_remedy

            _report(with_remedy(error), function.__name__)
            raise typer.Exit(max(failed, exit_code(error))) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has closed the pipe: typer ends quietly
                raise
            prefix = "" if error.filename is None else f"{error.filename}: "
            _report(f"{prefix}{error.strerror or error}", function.__name__)
            raise typer.Exit(failed) from None
        except UnicodeEncodeError as error:
            if not _ESCAPED.fullmatch(error.object[error.start : error.end]):
                raise
            _report("an argument is not UTF-8, so nothing has such a name", function.__name__)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return app.command(cls=Command, help=_flowing(function.__doc__ or ""))(guarded)


def _report(message: str, command: str) -> None:
    """Write the reason for which a command ended; a command with a log writes it there, with its level."""
    if command in SERVICES and not sys.stderr.isatty():
        structlog.get_logger().error(message)
    else:
        typer.echo(f"audiopixel: {shown(message, LINE)}", err=True)


def interruptible() -> None:
    """Make Ctrl-C a `KeyboardInterrupt` from here on, for code that must tidy up a display or files.

    Until then `flows.cli.__main__` ends the process at once: an exception in the middle of a command's
    imports can be lost in a callback of native code, and the command would run on.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _flowing(text: str) -> str:
    """A docstring whose sentences break at the terminal's width instead of the source's."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
