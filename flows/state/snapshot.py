"""Arrays by name as plain values, and the check of a snapshot's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.errors import StateError


def check_format(step: str, state: tuple[Any, ...], version: int | str, shards: int) -> None:
    """Refuse state that this code would misread.

    Raises:
        StateError: the state has another format, or another number of shards.
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
            "back"
        )


def pack(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Arrays by name as plain values: type, shape, bytes."""
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


def narrow(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Whole numbers in the smallest type that holds them, unless one is negative. Most counts are small."""
    if not numbers.size or numbers.min() < 0:
        return numbers
    return numbers.astype(np.min_scalar_type(numbers.max()))


def unpack(state: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of `pack`; they can be written to."""
    return {
        name: np.frombuffer(body, dtype).reshape(shape).copy() for name, (dtype, shape, body) in state.items()
    }
