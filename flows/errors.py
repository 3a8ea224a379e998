"""Errors, by kind. A message has the event, its place and the remedy; facts are attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors of msgspec over foreign bytes of another form. Text that is no UTF-8, and brackets a thousand
deep, have errors of their own.
"""


CANNOT_BEGIN: Final = (2, 3, 4)
"""Exit codes of a process that would end the same way the next time: a setting, the state, the input."""


class AudiopixelError(Exception):
    """A failure that a person can act on: shown as one line, exit code not 0, no traceback."""

    exit_code = 1


class SettingsError(AudiopixelError):
    """A setting is missing, malformed or unsafe; names the setting."""

    exit_code = 2


class UsageError(AudiopixelError):
    """Options that do not go together, or are missing; the error that the command line itself gives."""

    exit_code = 2


class StateError(AudiopixelError):
    """Recovery state cannot be read by this version; never a silent fresh start."""

    exit_code = 3


class RejectingError(AudiopixelError):
    """Nearly everything is rejected: the flow probably reads another input than intended."""

    exit_code = 4


class DifferencesError(AudiopixelError):
    """Redis and an exact recomputation differ."""

    exit_code = 1


class PlanError(AudiopixelError):
    """A plan, or a whole file of them, is refused; `column` and `line` give the place, if known.

    Attributes:
        cells: of one plan all that is wrong, as (column, reason); the first are `column` and `reason`.
    """

    exit_code = 2

    def __init__(
        self,
        reason: str,
        column: str | None = None,
        line: int | None = None,
        more: Sequence[tuple[str | None, str]] = (),
    ) -> None:
        self.cells = ((column, reason), *more)
        super().__init__("; ".join(f"{where}: {what}" if where else what for where, what in self.cells))
        self.reason = reason
        self.column = column
        self.line = line
