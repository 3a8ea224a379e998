"""Formats of snapshots: a state of another format is refused, never misread."""

from __future__ import annotations

from typing import Any

from flows.errors import StateError


def check_format(step: str, state: tuple[Any, ...], version: int, shards: int) -> None:
    """Refuse state that this code would misread.

    Raises:
        StateError: says what was found and what to do.
    """
    if state[0] != version:
        raise StateError(
            f"the recovery store holds {step} state of format {state[0]}, this version reads {version}: "
            "run the version that wrote it, or recompute from the log with --recompute and an empty recovery "
            "directory"
        )
    if state[1] != shards:
        raise StateError(
            f"the recovery store was made with shards={state[1]}, now shards={shards}: set AUDIOPIXEL_SHARDS "
            f"back"
        )
