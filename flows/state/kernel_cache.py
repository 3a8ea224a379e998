"""The place of compiled kernels on disk: another one for other sources.

Numba looks at a kernel's own file alone. A kernel that takes a constant from another module, or calls a
kernel there, would be loaded as it was compiled before that module changed: after an upgrade it would count
by the old layout.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

KEPT: Final = 4
"""Places of other sources that stay: those of the version before, and of one that runs beside this one."""
_MARKS: Final = (b"@kernel\n", b"@lean\n", b"@brief\n", b"@compiled\n")


def fingerprint(package: Path) -> str:
    """Digest of what the kernels of a package can depend on: the rooms that have some, and `model`."""
    sources = {path: path.read_bytes() for path in package.glob("*/*.py")}
    rooms = {path.parent for path, text in sources.items() if any(mark in text for mark in _MARKS)}
    rooms.add(package / "model")
    found = sha256()
    for path in sorted(sources):
        if path.parent in rooms:
            found.update(str(path.relative_to(package)).encode() + b"\0" + sha256(sources[path]).digest())
    return found.hexdigest()[:16]


def place(package: Path, given: str) -> str:
    """A directory for the kernels of these sources, made; empty where nothing can be written.

    Args:
        given: `NUMBA_CACHE_DIR`; empty: beside the sources, else in the user's cache.
    """
    bases = [Path(given)] if given else [package / "__pycache__", Path("~/.cache/audiopixel").expanduser()]
    for base in bases:
        own = base / f"kernels-{fingerprint(package)}"
        with suppress(OSError):
            own.mkdir(parents=True, exist_ok=True)
            os.utime(own)
            _drop_old(own)
            return str(own)
    return given


def _drop_old(own: Path) -> None:
    others = [path for path in own.parent.glob("kernels-*") if path != own]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
