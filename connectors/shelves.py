"""Files that are written whole, in a directory or in an S3 bucket (pyarrow).

Unit of parallelism: a file. Guarantee: a kill leaves a file with all its bytes or none; in a directory it is
fsynced with its name. An upload that an error ends may leave its first part, so that a marker, written last,
shows which files count.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Final, Protocol, cast
from urllib.parse import parse_qs, urlsplit

from connectors import durable
from connectors.durable import sync_directory
from connectors.stream import ConnectError

_CONNECT_S: Final = 5.0
_REQUEST_S: Final = 30.0
_OPTIONS: Final = frozenset(("endpoint", "region", "scheme"))


class Shelf(Protocol):
    """A place for files, by paths below it."""

    def alone(self) -> AbstractContextManager[None]:
        """Hold the shelf, if it can be held: only one process can at a time.

        Raises:
            Taken: another one has it.
        """
        ...

    def holds(self, path: str) -> bool: ...

    def writing(self, path: str) -> Any:
        """A context manager: the file appears, whole, when it ends without an error."""
        ...

    def reading(self, path: str) -> Any:
        """A context manager of a seekable file."""
        ...


class DirectoryShelf:
    """A directory; made on first use."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the directory, and lock it."""
        self._make(self._root)
        with durable.alone(self._root):
            yield

    def holds(self, path: str) -> bool:
        """True if the file is there."""
        return (self._root / path).is_file()

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """Write a second file, fsync it, then rename it."""
        whole = self._root / path
        self._make(whole.parent)
        partial = whole.with_name(f".{whole.name}.part")
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(whole)
        sync_directory(whole.parent)

    @contextmanager
    def reading(self, path: str) -> Iterator[IO[bytes]]:
        """Open it."""
        with (self._root / path).open("rb") as file:
            yield file

    def _make(self, folder: Path) -> None:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for one in missing:
            sync_directory(one.parent)


class S3Shelf:
    """A prefix of a bucket, by S3's protocol.

    Args:
        address: `s3://BUCKET/PREFIX`, with `?endpoint=HOST:PORT`, `region` and `scheme` (`http`) for another
            server than Amazon's. Keys come from AWS's own variables and files.

    Raises:
        ConnectError: the address is none.
    """

    def __init__(self, address: str) -> None:
        from pyarrow.fs import S3FileSystem

        parts = urlsplit(address)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or options.keys() - _OPTIONS:
            raise ConnectError(
                "an S3 address is s3://BUCKET/PREFIX; endpoint, region and scheme come behind a question "
                "mark, keys from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        self._root = f"{parts.netloc}{parts.path}".rstrip("/")
        if "endpoint" in options:
            options["endpoint_override"] = options.pop("endpoint")
        self._files = S3FileSystem(connect_timeout=_CONNECT_S, request_timeout=_REQUEST_S, **options)

    def alone(self) -> AbstractContextManager[None]:
        """Hold nothing: S3 has no lock that a kill releases."""
        return nullcontext()

    def holds(self, path: str) -> bool:
        """True if the object is there."""
        from pyarrow.fs import FileType

        return bool(self._files.get_file_info(f"{self._root}/{path}").type == FileType.File)

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """Upload in parts."""
        with self._files.open_output_stream(f"{self._root}/{path}", compression=None) as out:
            yield cast(IO[bytes], out)

    @contextmanager
    def reading(self, path: str) -> Iterator[IO[bytes]]:
        """Open it."""
        with self._files.open_input_file(f"{self._root}/{path}") as file:
            yield cast(IO[bytes], file)


def shelf(address: str) -> Shelf:
    """The directory or the S3 prefix of that address.

    Raises:
        ConnectError: it is neither.
    """
    if "://" in address:
        return S3Shelf(address)
    return DirectoryShelf(Path(address))
