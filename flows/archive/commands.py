"""The commands of the archive: each opens its connections by the settings, and runs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from connectors.buckets import objects
from connectors.durable import Taken
from connectors.objects import Objects
from connectors.redis import connect, put_fields
from connectors.stream import ConnectError
from flows.archive.instruments import Instruments
from flows.archive.message_lines import Forgetting
from flows.archive.writer import Writer
from flows.errors import StateError
from flows.intake import DenyList
from flows.model.redis_keys import archive_key
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.archive.whole_hours import WrittenHours


def store_of(address: str) -> Objects:
    """The store of an archive: a directory, or a prefix of an object store.

    Raises:
        ConnectError: the address is neither.
    """
    return objects(address.removeprefix("archive:"))


def write(settings: Settings, to: str, once: bool = False) -> None:
    """Write the topic into an archive until SIGTERM or Ctrl-C; with `once`, up to the present end.

    Raises:
        SettingsError: the listeners' key is not set, or the port of the metrics is taken.
        StateError: another process writes to this archive.
        ConnectError: Kafka, Redis or the store does not answer.
    """
    store, stop, instruments = store_of(to), threading.Event(), Instruments()
    try:
        with store.alone(), _ended_by_signals(stop):
            instruments.serve(settings)
            Writer(settings, store, stop, once, instruments, report=partial(_publish_reach, settings)).run()
    except Taken:
        raise StateError(f"{to}: another audiopixel archive writes there: run one for it") from None


def hours(settings: Settings, source: str, to: str, report: Callable[[str], None]) -> WrittenHours:
    """Write whole hours of an archive as Parquet.

    Raises:
        SettingsError: the listeners' key is not set.
        StateError: another process writes to the same place, or the archive is damaged.
        ConnectError: Redis or a store does not answer.
    """
    from flows.archive.whole_hours import write_hours  # DuckDB takes a while to import

    denied = DenyList(settings)().tolist()
    warehouse, forgetting = objects(to), Forgetting(settings.secret_listener_key(), denied)
    try:
        with warehouse.alone():
            return write_hours(store_of(source), warehouse, forgetting, report)
    except Taken:
        raise StateError(f"{to}: another audiopixel archive parquet writes there: run one for it") from None


def _publish_reach(settings: Settings, through_ms: int, missing: int, unreadable: int) -> None:
    """Publish the moment up to which the archive is whole. If Redis is away, the next call publishes it."""
    fields = {
        "through_ms": str(through_ms),
        "missing": str(missing),
        "unreadable": str(unreadable),
        "updated_ms": str(time.time_ns() // 1_000_000),
    }
    with suppress(ConnectError):
        client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
        put_fields(client, {archive_key(settings.namespace): fields})
        client.close()


@contextmanager
def _ended_by_signals(stop: threading.Event) -> Iterator[None]:
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
