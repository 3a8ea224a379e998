"""Buckets (`s3://`, `gs://`, `az://`), through obstore: objects below a prefix, and files by a pattern.

Guarantee: an object appears with all its bytes or not at all. Reading a file raises if the file was replaced
meanwhile.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast
from urllib.parse import parse_qs, urlsplit

from connectors import durable
from connectors.objects import Away, Directory, NotThere, Objects
from connectors.stream import ConnectError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES: Final = ("s3", "gs", "az")
"""The clouds whose buckets are read and written."""
_PREFIXES: Final = tuple(f"{scheme}://" for scheme in SCHEMES)
_OPTIONS: Final = frozenset(("endpoint", "region", "scheme"))
_AT_ONCE: Final = 1 << 20
_SECRET: Final = re.compile(r"secret|key|token|password|signature", re.IGNORECASE)
_WILD: Final = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|[^*?\[]+|\[")


def in_bucket(name: str) -> bool:
    """True if a name is the URL of a file in a bucket, or a pattern of such URLs."""
    return name.startswith(_PREFIXES)


def parsed(address: str, schemes: Collection[str]) -> tuple[str, dict[str, str]] | None:
    """The URL of a prefix, and the options after its question mark (`endpoint`, `region`, `scheme`).

    Returns None if the address has none of `schemes`, names a user, or has another option.
    """
    parts = urlsplit(address)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.scheme not in schemes or not parts.netloc or "@" in parts.netloc or options.keys() - _OPTIONS:
        return None
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/"), options


def objects(address: str) -> Objects:
    """The directory, or the prefix of a bucket, at an address.

    Raises:
        ConnectError: it is neither.
    """
    return Bucket(address) if "://" in address else Directory(Path(address))


def _store(root: str, options: Mapping[str, str], **more: Any) -> ObjectStore:
    """The bucket at `root`, with obstore's options; `allow_http` is passed to the client."""
    from obstore.store import from_url

    config: dict[str, Any] = {**options}
    client = {"allow_http": config.pop("allow_http", "") == "true"}
    return cast("ObjectStore", cast(Any, from_url)(root, config=config, client_options=client, **more))


class Bucket:
    """A prefix of a bucket.

    Args:
        address: `s3://BUCKET/PREFIX`, `gs://…` or `az://…`; of `s3` with `?endpoint=HOST:PORT`, `region` and
            `scheme` (`http`) for a server other than Amazon's. Keys come from the environment variables of
            each cloud.

    Raises:
        ConnectError: the address is malformed, or obstore is not installed.
    """

    def __init__(self, address: str) -> None:
        parts = parsed(address, SCHEMES)
        if parts is None:
            raise ConnectError(
                "the address of a bucket is s3://BUCKET/PREFIX, gs://… or az://…; endpoint, region and "
                "scheme go after a question mark, keys into the cloud's own environment variables"
            )
        self._address, options = parts
        scheme = options.pop("scheme", "https")
        if "endpoint" in options:
            options["endpoint"] = f"{scheme}://{options['endpoint']}"
        if scheme == "http":
            options["allow_http"] = "true"
        try:
            import obstore

            self._obstore, self._store = obstore, _store(self._address, options)
        except ImportError:
            raise ConnectError("obstore is not installed: pip install 'audiopixel[buckets]'") from None
        except Exception as error:
            raise ConnectError(f"{self._address}: {error}") from None

    def alone(self) -> AbstractContextManager[None]:
        """Lock nothing: a bucket has no lock that a kill releases. `swap` detects a second writer."""
        return nullcontext()

    def put(self, path: str, body: bytes) -> None:
        """Upload an object."""
        with self._trouble(path):
            self._obstore.put(self._store, path, body)

    def put_file(self, path: str, file: Path) -> None:
        """Upload an object in parts."""
        with self._trouble(path):
            self._obstore.put(self._store, path, file)

    def swap(self, path: str, body: bytes, tag: str | None) -> str | None:
        """Upload an object if the present one still has `tag`."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            with self._trouble(path):
                done = self._obstore.put(
                    self._store,
                    path,
                    body,
                    mode="create" if tag is None else {"e_tag": tag},
                    use_multipart=False,
                )
        except (AlreadyExistsError, PreconditionError):
            raise durable.Taken from None
        return done["e_tag"]

    def get(self, path: str) -> tuple[bytes, str | None]:
        """Download an object."""
        with self._trouble(path):
            answer = self._obstore.get(self._store, path)
            return bytes(answer.bytes()), answer.meta["e_tag"]

    def delete(self, path: str) -> None:
        """Delete an object."""
        try:
            with self._trouble(path):
                self._obstore.delete(self._store, path)
        except NotThere:
            pass

    def names(self, prefix: str) -> list[str]:
        """List the objects under a prefix."""
        with self._trouble(prefix):
            return sorted(
                one["path"] for some in self._obstore.list(self._store, prefix=prefix) for one in some
            )

    @contextmanager
    def _trouble(self, path: str) -> Iterator[None]:
        from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError

        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except (NotFoundError, FileNotFoundError):
            raise NotThere(f"{self._address}/{path}: is not there") from None
        except (BaseError, OSError) as error:
            raise Away(f"{self._address}/{path}: {str(error)[:200]}") from None


class BucketFiles:
    """The files of a bucket that a URL with a pattern names.

    Args:
        url: `s3://BUCKET/PATTERN`, `gs://BUCKET/PATTERN`, or `az://ACCOUNT/CONTAINER/PATTERN`.
        options: of obstore, such as `aws_endpoint`. Credentials default to those of the environment.

    Raises:
        ConnectError: obstore is not installed, or refuses an option.
    """

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        self._url, self._secrets = url, [value for name, value in options.items() if _SECRET.search(name)]
        scheme, _, rest = url.partition("://")
        parts = rest.split("/")
        roots = 2 if scheme == "az" else 1
        self._root, self.pattern = f"{scheme}://{'/'.join(parts[:roots])}", "/".join(parts[roots:])
        try:
            self._store = _store(self._root, options, retry_config={"max_retries": 3})
        except ImportError:
            raise ConnectError(f"{url}: needs obstore: pip install 'audiopixel[sources]'") from None
        except Exception as error:
            raise self._failed(self._root, error) from None

    def files(self) -> list[str]:
        """The URLs of the files that match the pattern, sorted.

        Raises:
            ConnectError: the bucket cannot be listed, or has no such file.
        """
        import obstore

        fits, prefix = re.compile(_regular(self.pattern)), re.split(r"[*?\[]", self.pattern)[0]
        try:
            # A prefix names whole directories, so the pattern checks the last part of a name.
            batches = obstore.list(self._store, prefix=prefix.rpartition("/")[0] or None)
            paths = [one["path"] for batch in batches for one in batch if fits.fullmatch(one["path"])]
        except Exception as error:
            raise self._failed(self._url, error) from None
        if not paths:
            raise ConnectError(f"{self._url}: no file has such a name")
        return [f"{self._root}/{one}" for one in sorted(paths)]

    @contextmanager
    def open(self, url: str) -> Iterator[BinaryIO]:
        """A file of `files`, opened for reading its bytes.

        Raises:
            ConnectError: the file cannot be read, or was replaced meanwhile.
        """
        import obstore

        path = url.removeprefix(f"{self._root}/")
        try:
            before = obstore.head(self._store, path)
            reader = obstore.open_reader(self._store, path, buffer_size=_AT_ONCE)
        except Exception as error:
            raise self._failed(url, error) from None
        plain = cast(BinaryIO, io.BufferedReader(_Object(reader), _AT_ONCE))
        with plain:
            yield plain
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
    """A file of a bucket with the interface of Python's files."""

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
    """A pattern of names as a regular expression: `*` matches within a directory, `**/` matches
    directories.
    """
    pieces = []
    for part in _WILD.findall(pattern):
        if part == "**/":
            pieces.append(r"(?:.*/)?")
        elif part.startswith("**"):
            pieces.append(r".*")
        elif part == "*":
            pieces.append(r"[^/]*")
        elif part == "?":
            pieces.append(r"[^/]")
        elif part.startswith("[") and len(part) > 1:
            inside = re.escape(part[1:-1].lstrip("!")).replace(r"\-", "-")
            pieces.append(f"[^{inside}]" if part[1] == "!" else f"[{inside}]")
        else:
            pieces.append(re.escape(part))
    return "".join(pieces)
