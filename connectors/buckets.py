"""Files in buckets: `s3://`, `gs://` and `az://`, through obstore.

Guarantee: a file that is replaced while it is read raises, whatever was read of it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from connectors.files import decompressed
from connectors.objects import SCHEMES
from connectors.stream import ConnectError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PREFIXES: Final = tuple(f"{one}://" for one in SCHEMES)
_AT_ONCE: Final = 1 << 20
_SECRET: Final = re.compile(r"secret|key|token|password|signature", re.IGNORECASE)
_WILD: Final = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|[^*?\[]+|\[")


def in_bucket(name: str) -> bool:
    """True if a name is one of a file in a bucket, or a pattern of such names."""
    return name.startswith(_PREFIXES)


class Bucket:
    """The bucket that a URL names.

    Args:
        url: `s3://BUCKET/PATTERN`, `gs://BUCKET/PATTERN`, or `az://ACCOUNT/CONTAINER/PATTERN`.
        options: of obstore, such as `aws_endpoint`; without credentials among them those of the environment.

    Raises:
        ConnectError: obstore is not installed, or refuses an option.
    """

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        try:
            from obstore.store import from_url
        except ImportError:
            raise ConnectError(f"{url}: needs obstore: pip install 'audiopixel[sources]'") from None
        self._url, self._secrets = url, [value for name, value in options.items() if _SECRET.search(name)]
        scheme, _, rest = url.partition("://")
        parts = rest.split("/")
        roots = 2 if scheme == "az" else 1
        self._root, self.pattern = f"{scheme}://{'/'.join(parts[:roots])}", "/".join(parts[roots:])
        try:
            own: dict[str, Any] = {**options}
            http = own.pop("allow_http", "")
            self._store: ObjectStore = cast(Any, from_url)(
                self._root,
                config=own,
                client_options={"allow_http": http == "true"},
                retry_config={"max_retries": 3},
            )
        except Exception as error:
            raise self._failed(self._root, error) from None

    def files(self) -> list[str]:
        """The names of the files that the pattern fits, sorted, as URLs.

        Raises:
            ConnectError: the bucket cannot be listed, or has no such file.
        """
        import obstore

        fits, prefix = re.compile(_regular(self.pattern)), re.split(r"[*?\[]", self.pattern)[0]
        try:
            # A prefix is of whole directories, so the last part of a name is left to the pattern.
            batches = obstore.list(self._store, prefix=prefix.rpartition("/")[0] or None)
            found = [one["path"] for batch in batches for one in batch if fits.fullmatch(one["path"])]
        except Exception as error:
            raise self._failed(self._url, error) from None
        if not found:
            raise ConnectError(f"{self._url}: no file has such a name")
        return [f"{self._root}/{one}" for one in sorted(found)]

    @contextmanager
    def open(self, url: str) -> Iterator[BinaryIO]:
        """A file of `files`, unpacked where it is `.gz` or `.zst`.

        Raises:
            ConnectError: it cannot be read, or was replaced meanwhile.
        """
        import obstore

        path = url.removeprefix(f"{self._root}/")
        try:
            before = obstore.head(self._store, path)
            reader = obstore.open_reader(self._store, path, buffer_size=_AT_ONCE)
        except Exception as error:
            raise self._failed(url, error) from None
        plain = cast(BinaryIO, io.BufferedReader(_Object(reader), _AT_ONCE))
        with plain, decompressed(url, plain) as file:
            yield file
        try:
            after = obstore.head(self._store, path)
        except Exception as error:
            raise self._failed(url, error) from None
        if (before["e_tag"], before["size"]) != (after["e_tag"], after["size"]):
            raise ConnectError(f"{url}: was replaced while it was read: run it again")

    def _failed(self, url: str, error: Exception) -> ConnectError:
        reason = str(error).partition("\n\nDebug source")[0]
        for secret in self._secrets:
            reason = reason.replace(secret, "***")
        return ConnectError(f"{url}: {' '.join(reason.split())[:500]}")


class _Object(io.RawIOBase):
    """A file of a bucket as Python has files."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._reader.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._reader.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        try:
            data = memoryview(self._reader.read(len(buffer)))
        except Exception as error:
            raise OSError(str(error).partition("\n\nDebug source")[0]) from None
        buffer[: len(data)] = data
        return len(data)


def _regular(pattern: str) -> str:
    """A pattern of names as a regular expression: `*` stands within a directory, `**/` for directories."""
    found = []
    for part in _WILD.findall(pattern):
        if part == "**/":
            found.append(r"(?:.*/)?")
        elif part.startswith("**"):
            found.append(r".*")
        elif part == "*":
            found.append(r"[^/]*")
        elif part == "?":
            found.append(r"[^/]")
        elif part.startswith("[") and len(part) > 1:
            inside = re.escape(part[1:-1].lstrip("!")).replace(r"\-", "-")
            found.append(f"[^{inside}]" if part[1] == "!" else f"[{inside}]")
        else:
            found.append(re.escape(part))
    return "".join(found)
