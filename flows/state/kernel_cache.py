"""The place of compiled kernels on disk: a directory for each version of a module and of its imports.

numba checks only a kernel's own file. A kernel that uses a constant or a kernel of another module would be
loaded as it was compiled before that module changed. After an upgrade it would count by the old layout. A
place by all sources would be safe, too, but each change would then compile everything.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

OLD_PLACES: Final = 4
"""The number of other versions of a module whose places stay, such as the version before and a version that
runs in parallel.
"""
_MARKS: Final = (b"@kernel\n", b"@lean\n", b"@brief\n", b"@compiled\n")
_IMPORT: Final = re.compile(r"^\s*(?:from ([\w.]+) import \(?([^)#]*?)(?:\)|$)|import ([\w.]+))", re.M | re.S)


def place(module: Path, cache_dir: str) -> str:
    """A directory for the kernels of a module, created if missing; empty if nothing can be written.

    Args:
        module: its file, in a room of a package: `flows/plays/cohort.py`.
        cache_dir: `NUMBA_CACHE_DIR`; if empty, the place is next to the sources, else in the user's cache.
    """
    return _kernel_directory(
        module.parents[1], f"{module.parent.name}.{module.stem}", fingerprint(module), cache_dir
    )


def place_of_all(package: Path, cache_dir: str) -> str:
    """A directory for all modules of a package that have loops, as `place` makes one for a module."""
    modules = {path for path in package.glob("*/*.py") if any(mark in path.read_bytes() for mark in _MARKS)}
    sources = frozenset[Path]().union(*map(_sources, modules))
    return _kernel_directory(package, "all", _digest(sources, package.parent), cache_dir)


def _kernel_directory(package: Path, name: str, version: str, cache_dir: str) -> str:
    bases = (
        [Path(cache_dir)]
        if cache_dir
        else [package / "__pycache__", Path("~/.cache/audiopixel").expanduser()]
    )
    for base in bases:
        directory = base / "kernels" / f"{name}-{version}"
        with suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            os.utime(directory)
            _drop_old(directory, name)
            return str(directory)
    return cache_dir


def fingerprint(module: Path) -> str:
    """Digest of a module and of all modules of its package that it imports, directly or indirectly."""
    return _digest(_sources(module), module.parents[2])


def _sources(module: Path) -> frozenset[Path]:
    sources, new = {module}, [module]
    while new:
        imported = _imported(new.pop(), module.parents[1]) - sources
        sources |= imported
        new += imported
    return frozenset(sources)


def _digest(sources: frozenset[Path], root: Path) -> str:
    hasher = sha256()
    for path in sorted(sources):
        hasher.update(str(path.relative_to(root)).encode() + b"\0" + _content(path))
    return hasher.hexdigest()[:16]


@cache
def _content(path: Path) -> bytes:
    return sha256(path.read_bytes()).digest()


@cache
def _imported(module: Path, package: Path) -> frozenset[Path]:
    """The modules of a package that a file names in its imports. If an imported name is a module of a room,
    that module counts instead of the room's `__init__.py`, which imports the whole room.
    """
    paths: set[Path] = set()
    for source, names, plain in _IMPORT.findall(module.read_text()):
        dotted = source or plain
        if dotted.partition(".")[0] != package.name:
            continue
        path = package.parent / Path(*dotted.split("."))
        if path.with_suffix(".py").is_file():
            paths.add(path.with_suffix(".py"))
            continue
        words = [name.split()[0] for name in re.split(r"[,\n]", names) if name.strip()]
        modules = {path / f"{word}.py" for word in words}
        paths |= {module_path for module_path in modules if module_path.is_file()}
        if not modules or not all(module_path.is_file() for module_path in modules):
            paths.add(path / "__init__.py")
    return frozenset(module_path for module_path in paths if module_path.is_file())


def _drop_old(directory: Path, name: str) -> None:
    old_places = [path for path in directory.parent.glob(f"{name}-*") if path != directory]
    for path in sorted(old_places, key=lambda path: path.stat().st_mtime, reverse=True)[OLD_PLACES:]:
        shutil.rmtree(path, ignore_errors=True)
