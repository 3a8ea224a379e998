"""Whole objects by name: the interface of a store of objects, and a directory as such a store.

Unit of parallelism: an object. Guarantee: an object appears with all its bytes or not at all; in a directory
it is fsynced with its name. `swap` replaces an object unless another writer has replaced it meanwhile. A
bucket is also such a store (`connectors.buckets`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from connectors import durable
from connectors.stream import ConnectError

_COPIED_BYTES = 1 << 20


class Away(ConnectError):
    """The store cannot read or write an object now."""


class NotThere(ConnectError):
    """There is no such object."""


class Objects(Protocol):
    """A store of objects, by paths with `/`."""

    def alone(self) -> AbstractContextManager[None]:
        """Lock the store, if it has locks.

        Raises:
            durable.Taken: another process has it.
        """
        ...

    def put(self, path: str, body: bytes) -> None:
        """Write an object; replaces an object of that path.

        Raises:
            Away: it is not written.
        """
        ...

    def put_file(self, path: str, file: Path) -> None:
        """Write an object as `put`, from a file.

        Raises:
            Away: it is not written.
        """
        ...

    def swap(self, path: str, body: bytes, tag: str | None) -> str | None:
        """Replace the object that has `tag`, or write a new one if `tag` is None. Returns the new tag.

        Raises:
            Away: it is not written.
            durable.Taken: another writer has replaced it meanwhile.
        """
        ...

    def get(self, path: str) -> tuple[bytes, str | None]:
        """An object and its tag.

        Raises:
            NotThere, Away.
        """
        ...

    def delete(self, path: str) -> None:
        """Delete an object, if it is there.

        Raises:
            Away.
        """
        ...

    def names(self, prefix: str) -> list[str]:
        """The paths of all objects below a folder, sorted.

        Raises:
            Away.
        """
        ...


class Directory:
    """A directory as a store, created on first use. Its files are private."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Create the directory, and lock it."""
        with _away(str(self._root)):
            self._make(self._root)
        with durable.alone(self._root):
            yield

    def put(self, path: str, body: bytes) -> None:
        """Write a temporary file, fsync, then rename."""
        whole = self._root / path
        with _away(str(whole)):
            self._make(whole.parent)
            durable.replace_file(whole, body)

    def put_file(self, path: str, file: Path) -> None:
        """Copy to a temporary file, fsync, then rename."""
        with _away(str(self._root / path)), file.open("rb") as source, self.writing(path) as out:
            shutil.copyfileobj(source, out, _COPIED_BYTES)

    def swap(self, path: str, body: bytes, tag: str | None) -> None:
        """Write as `put`: the writer has locked the directory."""
        self.put(path, body)

    def get(self, path: str) -> tuple[bytes, None]:
        """Read the file."""
        with _away(str(self._root / path)):
            return (self._root / path).read_bytes(), None

    def delete(self, path: str) -> None:
        """Remove an object. A power cut does not bring the object back."""
        whole = self._root / path
        with _away(str(whole)):
            whole.unlink(missing_ok=True)
            if whole.parent.is_dir():
                durable.sync_directory(whole.parent)

    def names(self, prefix: str) -> list[str]:
        """Walk the folder. The result includes files that a kill left half written."""
        folder = self._root / prefix
        with _away(str(folder)):
            paths = (one.relative_to(self._root) for one in folder.rglob("*") if one.is_file())
            return sorted(one.as_posix() for one in paths)

    def holds(self, path: str) -> bool:
        """True if the file is there."""
        return (self._root / path).is_file()

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """Write a second file, fsync it, then rename it. After an error it is not renamed.

        Raises:
            OSError: it is not written.
        """
        whole = self._root / path
        self._make(whole.parent)
        partial = whole.with_name(f".{whole.name}.part")
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(whole)
        durable.sync_directory(whole.parent)

    @contextmanager
    def reading(self, path: str) -> Iterator[IO[bytes]]:
        """Open it.

        Raises:
            OSError: it cannot be read.
        """
        with (self._root / path).open("rb") as file:
            yield file

    def _make(self, folder: Path) -> None:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for directory in missing:
            durable.sync_directory(directory.parent)


@contextmanager
def _away(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotThere(f"{name}: is not there") from None
    except OSError as error:
        raise Away(f"{name}: {error.strerror or error}") from None
