"""Loads every compiled kernel of numba's cache at import. A process that imports this module and then forks
spares each fork half a second of processor. Uncompiled kernels are left to the forks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from numba.core.dispatcher import Dispatcher


def dispatchers() -> Iterator[Any]:
    """The kernels of the modules of ours that are imported, each once."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("flows."):
            for one in vars(module).values():
                if isinstance(one, Dispatcher) and one.py_func.__module__ == name:
                    yield one


for _kernel in dispatchers():
    # numba has no public list of what its cache holds.
    for _signature, *_ in _kernel._cache._cache_file._load_index():
        _kernel.compile(_signature)
