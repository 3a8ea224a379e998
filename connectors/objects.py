"""Whole objects by name, in a directory or in a bucket (obstore: `s3://`, `gs://`, `az://`).

Unit of parallelism: an object. Guarantee: an object appears with all its bytes or not at all; in a directory
it is fsynced with its name. `swap` replaces an object that nobody else has replaced meanwhile.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

from connectors import durable
from connectors.stream import ConnectError

SCHEMES: Final = ("s3", "gs", "az")
"""The clouds whose buckets are read and written."""
_OPTIONS: Final = frozenset(("endpoint", "region", "scheme"))


class Away(ConnectError):
    """The store does not take, or give, an object now."""


class NotThere(ConnectError):
    """There is no such object."""


class Objects(Protocol):
    """A place for objects, by paths with `/`."""

    def alone(self) -> AbstractContextManager[None]:
        """Hold the place, where it can be held.

        Raises:
            durable.Taken: another process has it.
        """
        ...

    def put(self, path: str, body: bytes) -> None:
        """Write an object; one of that path is replaced.

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
            Away: it is not written. durable.Taken: somebody else has written it meanwhile.
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
        """The paths of all objects below a folder, in order.

        Raises:
            Away.
        """
        ...


class Directory:
    """A directory; made on first use. Its files are private."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make the directory, and lock it."""
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
        whole = self._root / path
        with _away(str(whole)):
            self._make(whole.parent)
            partial = whole.with_name(f".{whole.name}.part")
            shutil.copyfile(file, partial)
            with partial.open("rb") as copied:
                os.fsync(copied.fileno())
            partial.rename(whole)
            durable.sync_directory(whole.parent)

    def swap(self, path: str, body: bytes, tag: str | None) -> None:
        """Write as `put`: who writes holds the directory."""
        self.put(path, body)

    def get(self, path: str) -> tuple[bytes, None]:
        """Read it."""
        with _away(str(self._root / path)):
            return (self._root / path).read_bytes(), None

    def delete(self, path: str) -> None:
        """Remove an object. It stays removed after a power cut."""
        whole = self._root / path
        with _away(str(whole)):
            whole.unlink(missing_ok=True)
            if whole.parent.is_dir():
                durable.sync_directory(whole.parent)

    def names(self, prefix: str) -> list[str]:
        """Walk the folder; what a kill left half written is named, too."""
        folder = self._root / prefix
        with _away(str(folder)):
            found = (one.relative_to(self._root) for one in folder.rglob("*") if one.is_file())
            return sorted(one.as_posix() for one in found)

    def _make(self, folder: Path) -> None:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for one in missing:
            durable.sync_directory(one.parent)


@contextmanager
def _away(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotThere(f"{what}: is not there") from None
    except OSError as error:
        raise Away(f"{what}: {error.strerror or error}") from None


class Bucket:
    """A prefix of a bucket.

    Args:
        address: `s3://BUCKET/PREFIX`, `gs://…` or `az://…`; of `s3` with `?endpoint=HOST:PORT`, `region` and
            `scheme` (`http`) for another server than Amazon's. Keys come from the variables of each cloud.

    Raises:
        ConnectError: the address is none, or obstore is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError:
            raise ConnectError("obstore is not installed: pip install 'audiopixel[buckets]'") from None
        self._obstore = obstore
        parts = urlsplit(address)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if (
            parts.scheme not in SCHEMES
            or not parts.netloc
            or "@" in parts.netloc
            or options.keys() - _OPTIONS
        ):
            raise ConnectError(
                "the address of a bucket is s3://BUCKET/PREFIX, gs://… or az://…; endpoint, region and "
                "scheme come behind a question mark, keys from the cloud's own variables"
            )
        self._shown = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        scheme, config = options.pop("scheme", "https"), dict[str, str](options)
        if "endpoint" in config:
            config["endpoint"] = f"{scheme}://{config['endpoint']}"
        client = {"allow_http": True} if scheme == "http" else {}
        try:
            self._store = from_url(self._shown, config=config, client_options=client)  # type: ignore[call-overload]  # one of three
        except Exception as error:
            raise ConnectError(f"{self._shown}: {error}") from None

    def alone(self) -> AbstractContextManager[None]:
        """Hold nothing: a bucket has no lock that a kill releases. `swap` finds a second writer."""
        return nullcontext()

    def put(self, path: str, body: bytes) -> None:
        """Upload it."""
        with self._trouble(path):
            self._obstore.put(self._store, path, body)

    def put_file(self, path: str, file: Path) -> None:
        """Upload it in parts."""
        with self._trouble(path):
            self._obstore.put(self._store, path, file)

    def swap(self, path: str, body: bytes, tag: str | None) -> str | None:
        """Upload it, if the object there still has `tag`."""
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
        """Download it."""
        with self._trouble(path):
            found = self._obstore.get(self._store, path)
            return bytes(found.bytes()), found.meta["e_tag"]

    def delete(self, path: str) -> None:
        """Delete it."""
        try:
            with self._trouble(path):
                self._obstore.delete(self._store, path)
        except NotThere:
            pass

    def names(self, prefix: str) -> list[str]:
        """List the prefix."""
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
            raise NotThere(f"{self._shown}/{path}: is not there") from None
        except (BaseError, OSError) as error:
            raise Away(f"{self._shown}/{path}: {str(error)[:200]}") from None


def objects(address: str) -> Objects:
    """The directory or the prefix of a bucket of that address.

    Raises:
        ConnectError: it is neither.
    """
    return Bucket(address) if "://" in address else Directory(Path(address))
