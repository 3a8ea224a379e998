"""Errors by kind. A message states what is wrong, where, and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors of msgspec for bytes of another form. Text that is not UTF-8, and brackets a thousand deep, have
errors of their own.
"""


CANNOT_BEGIN: Final = (2, 3, 4)
"""Exit codes of a process that would end in the same way if it was started again: setting, state, input."""


MOST_REJECTED: Final = 0.1
"""The share of rejected messages up to which a run that reads files to their end ends with exit code 0."""


class AudiopixelError(Exception):
    """A failure that a person can act on, shown as one line without a traceback. Its exit code is not 0."""

    exit_code = 1


class SettingsError(AudiopixelError):
    """A setting is missing, malformed or unsafe. The message names the setting."""

    exit_code = 2


class UsageError(AudiopixelError):
    """Options are missing, or do not go together. The exit code is that of the command line's errors."""

    exit_code = 2


class StateError(AudiopixelError):
    """This version cannot read the recovery state. The flow must not start without it."""

    exit_code = 3


class RejectingError(AudiopixelError):
    """Nearly all messages are rejected: the flow probably reads another input than intended."""

    exit_code = 4


class ManyRejectedError(AudiopixelError):
    """A run has read all of its input, and has rejected more than `MOST_REJECTED` of it."""

    exit_code = 3


class DifferencesError(AudiopixelError):
    """Redis and an exact recomputation differ."""

    exit_code = 1


class PlanError(AudiopixelError):
    """A plan, or a whole file of plans, is refused. `column` and `line` are the place, if it is known.

    Attributes:
        cells: all that is wrong in one plan, as (column, reason). The first pair is `column` and `reason`.
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
        super().__init__(
            "; ".join(f"{column}: {reason}" if column else reason for column, reason in self.cells)
        )
        self.reason = reason
        self.column = column
        self.line = line
