"""A store that waits while the store below it is away: the one place at which the writer repeats a call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from connectors.durable import Taken
from connectors.objects import Away, NotThere, Objects

T = TypeVar("T")


class PatientStore:
    """Repeats each call of a store until the store answers.

    Args:
        wait: receives the first error of an outage and each later one, and returns when the call is to be
            repeated; it raises to end the process.
        back: runs after the first answer behind an outage.
    """

    def __init__(self, store: Objects, wait: Callable[[Away], None], back: Callable[[], None]) -> None:
        self._store, self._wait, self._back = store, wait, back

    def alone(self) -> AbstractContextManager[None]:
        """Lock the store."""
        return self._store.alone()

    def put(self, path: str, body: bytes) -> None:
        """Write an object."""
        self._answered(lambda: self._store.put(path, body))

    def put_file(self, path: str, file: Path) -> None:
        """Write an object from a file."""
        self._answered(lambda: self._store.put_file(path, file))

    def swap(self, path: str, body: bytes, tag: str | None) -> str | None:
        """Replace an object. A try whose answer was lost may have replaced it: the object is then ours.

        Raises:
            Taken: another writer has replaced it meanwhile.
        """
        try:
            return self._answered(lambda: self._store.swap(path, body, tag))
        except Taken:
            try:
                present, present_tag = self.get(path)
            except NotThere:
                raise Taken from None
            if present != body:
                raise
            return present_tag

    def get(self, path: str) -> tuple[bytes, str | None]:
        """An object and its tag.

        Raises:
            NotThere: there is no such object.
        """
        return self._answered(lambda: self._store.get(path))

    def delete(self, path: str) -> None:
        """Delete an object."""
        self._answered(lambda: self._store.delete(path))

    def names(self, prefix: str) -> list[str]:
        """The paths of all objects below a folder."""
        return self._answered(lambda: self._store.names(prefix))

    def _answered(self, call: Callable[[], T]) -> T:
        is_away = False
        while True:
            try:
                answer = call()
            except Away as error:
                is_away = True
                self._wait(error)
            except (NotThere, Taken):
                if is_away:
                    self._back()
                raise
            else:
                if is_away:
                    self._back()
                return answer
