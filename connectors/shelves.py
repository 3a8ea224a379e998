"""Stores of files that are written whole: a directory, or an S3 bucket (pyarrow).

Unit of parallelism: a file. Guarantee: a kill leaves a file with all its bytes or none; in a directory it is
fsynced with its name. An upload that fails may leave its first part. A marker file, written last, therefore
lists the valid files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Final, Protocol, cast

from connectors.buckets import parsed
from connectors.objects import Directory
from connectors.stream import ConnectError

_CONNECT_S: Final = 5.0
_REQUEST_S: Final = 30.0


class Shelf(Protocol):
    """A store of files, by paths below its root."""

    def alone(self) -> AbstractContextManager[None]:
        """Lock the shelf, if it has locks: only one process can at a time.

        Raises:
            Taken: another one has it.
        """
        ...

    def holds(self, path: str) -> bool: ...

    def writing(self, path: str) -> Any:
        """A context manager to write a file, which appears whole when the context ends without an error."""
        ...

    def reading(self, path: str) -> Any:
        """A context manager to read a seekable file."""
        ...


class S3Shelf:
    """A prefix of a bucket, by S3's protocol.

    Args:
        address: `s3://BUCKET/PREFIX`, with `?endpoint=HOST:PORT`, `region` and `scheme` (`http`) for a server
            other than Amazon's. Keys come from AWS's own variables and files.

    Raises:
        ConnectError: the address is malformed.
    """

    def __init__(self, address: str) -> None:
        from pyarrow.fs import S3FileSystem

        parts = parsed(address, ("s3",))
        if parts is None:
            raise ConnectError(
                "an S3 address is s3://BUCKET/PREFIX; endpoint, region and scheme come behind a question "
                "mark, keys from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        url, options = parts
        self._root = url.removeprefix("s3://")
        if "endpoint" in options:
            options["endpoint_override"] = options.pop("endpoint")
        self._files = S3FileSystem(connect_timeout=_CONNECT_S, request_timeout=_REQUEST_S, **options)

    def alone(self) -> AbstractContextManager[None]:
        """Lock nothing: S3 has no lock that a kill releases."""
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
    """The directory, or the S3 prefix, at an address.

    Raises:
        ConnectError: it is neither.
    """
    return S3Shelf(address) if "://" in address else Directory(Path(address))
