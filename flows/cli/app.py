"""The frame that all commands of `audiopixel` share: the application, one line for what went wrong, an exit
code.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer

from connectors.stream import ConnectError
from flows import logs
from flows.errors import AudiopixelError
from flows.shown import LINE, shown

app = typer.Typer(
    name="audiopixel",
    help="Live, exact, reconcilable numbers from audio-ad pixels.\n\nStart with [bold]audiopixel "
    "demo[/bold]: it needs nothing installed. "
    "Settings come from AUDIOPIXEL_… variables and audiopixel.toml; [bold]audiopixel config[/bold] shows "
    "what is in force. A duration is written PT10M, 00:10:00, or in seconds.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

FILES = Annotated[
    list[str],
    typer.Argument(help="NDJSON logs, plain, .gz or .zst; each is one source partition.", show_default=False),
]


_RUN, _LOOK, _PROVE, _CARE = "Run it", "Look at it", "Prove it", "Take care of it"
GUIDE: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "demo": (_RUN, ("demo", "demo --seconds 30")),
    "run": (_RUN, ("run --processes 4 --restarts 3", "run --member 0 --addresses 'one:7000;two:7000'")),
    "replay": (_RUN, ("replay monday.ndjson.gz --out numbers", "replay monday.ndjson.gz --recompute")),
    "tag": (
        _CARE,
        (
            "tag --dialect triton --placement breakfast-uk --campaign spring",
            "tag --check 'https://pixels.example.com/p/triton?e=start&pl=breakfast-uk'",
        ),
    ),
    "collect": (_RUN, ("collect", "collect --processes 4")),
    "exporter": (_RUN, ("exporter --host 0.0.0.0 --port 9480",)),
    "top": (_LOOK, ("top", "top --once")),
    "explain": (_LOOK, ("explain order-1234", "explain -- -1234")),
    "overlap": (_LOOK, ("overlap breakfast-uk drivetime-uk",)),
    "config": (_LOOK, ("config",)),
    "check": (_PROVE, ("check monday.ndjson.gz --most 20",)),
    "simulate": (_PROVE, ("simulate pixels.ndjson --events 10000", "simulate kafka --seconds 60")),
    "reconcile": (
        _PROVE,
        (
            "reconcile monday.ndjson.gz",
            "reconcile monday.ndjson.gz --rejected numbers/rejected.ndjson --minutes numbers/minutes.ndjson",
        ),
    ),
    "plans": (_CARE, ("plans plans.csv", "plans plans.csv --to placement-plans")),
    "release": (_CARE, ("release 9f3c2ab1d4e5f607",)),
    "forget": (_CARE, ("forget 6D92078A-8246-4BA4-AE5B-76104861E7DC", "forget < listeners.txt")),
}
"""Of each command what it is for, and how it is called."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"audiopixel {version('audiopixel')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def command(function: Callable[..., None]) -> Callable[..., None]:
    """One line for what a person can act on, and an exit code that scripts can trust."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        logs.configure()
        try:
            function(*args, **kwargs)
        except (AudiopixelError, ConnectError) as error:
            from flows.settings.remedies import with_remedy as remedied

            _say(remedied(error))
            raise typer.Exit(getattr(error, "exit_code", 1)) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # who reads us has seen enough: typer ends quietly
                raise
            what = "" if error.filename is None else f"{error.filename}: "
            _say(f"{what}{error.strerror or error}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    panel, examples = GUIDE.get(function.__name__, ("More", ()))
    return app.command(
        help=_flowing(function.__doc__ or ""),
        rich_help_panel=panel,
        epilog="\n\n".join(("Examples:", *(f"  audiopixel {one}" for one in examples))) if examples else None,
    )(guarded)


def _say(what: str) -> None:
    typer.echo(f"audiopixel: {shown(what, LINE)}", err=True)


def interruptible() -> None:
    """From here on Ctrl-C is a `KeyboardInterrupt`, for what has a display or files to tidy up.

    Until then `flows.cli.__main__` ends the process at once: an exception in the midst of a command's imports
    can be lost in a callback of native code, and the command would run on.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _flowing(text: str) -> str:
    """A docstring whose sentences break where the terminal's lines end, not where the source's do."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
