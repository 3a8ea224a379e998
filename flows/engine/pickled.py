"""The pickled form of the messages between the members of a cluster.

The engine pickles each message twice, the first time for its size alone. A message is therefore packed once,
and both pickles have its bytes. In them an array is a type, a shape and bytes, which take half the time of
NumPy's own form.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from flows.model.messages import Message

_PACKED: Final[dict[int, tuple[Message, bytes]]] = {}
"""By a message's `id`, the message and its bytes, between its two pickles. The message is stored so that no
other one has its `id` meanwhile.
"""
MAX_PACKED: Final = 1 << 12
"""The greatest number of messages between their pickles. An engine that pickles once would fill the memory
without it.
"""
_PLAIN: Final = "biuf"
"""Kinds of NumPy's types whose character defines them."""


def pickle_once() -> None:
    """Pickle messages in their packed form from now on."""
    for kind in get_args(Message):
        copyreg.pickle(kind, _reduced)


def unpacked(packed: bytes) -> Message:
    """The message of some bytes; its arrays can be written."""
    message: Message = pickle.loads(packed)
    return message


def array_of(data: bytearray, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """An array on the memory of `data`."""
    array = np.frombuffer(data, kind)
    return array if len(shape) == 1 else array.reshape(shape)


def _reduced(message: Message) -> tuple[Callable[[bytes], Message], tuple[bytes]]:
    _, packed = _PACKED.pop(id(message), (None, None))
    if packed is None:
        if len(_PACKED) >= MAX_PACKED:
            _PACKED.clear()
        packed = _packed(message)
        _PACKED[id(message)] = message, packed
    return unpacked, (packed,)


def _packed(message: Message) -> bytes:
    file = BytesIO()
    _Packer(file, pickle.HIGHEST_PROTOCOL).dump(message)
    return file.getvalue()


def _array(array: npt.NDArray[Any]) -> str | tuple[Any, ...]:
    if array.dtype.kind not in _PLAIN or not array.dtype.isnative:
        return array.__reduce__()
    # An array on bytes is read-only, and numba compiles a loop once more for such an array.
    return array_of, (bytearray(array.tobytes()), array.dtype.char, array.shape)


class _Packer(pickle.Pickler):
    """Without the forms of `copyreg`, in which a message would contain its own packed form."""

    dispatch_table = {np.ndarray: _array}  # noqa: RUF012  # as the library declares it
