"""The entry of `audiopixel`, small so that Ctrl-C ends it quietly while the commands are still imported."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130


def _quit(number: int, frame: FrameType | None) -> None:
    # Not an exception: in the middle of an import it would be reported as that import's failure.
    os._exit(INTERRUPTED)


def main() -> None:
    """Run the command line. SIGINT ends it with exit code 130 until a command handles SIGINT itself."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _quit)
    from flows.cli.commands import app

    app()


if __name__ == "__main__":
    main()
