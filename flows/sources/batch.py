"""A batch source: files, or a topic from its beginning to its present end, become a log of pixels.

The pixels are sorted by their time of receipt, so that a flow that reads them finds none too late.
"""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Final

from flows.collector.call import Outcome, Understood
from flows.collector.log import Line, line_of, received_ms
from flows.collector.understand import Understanding
from flows.settings import Settings
from flows.sources.live import Ledger
from flows.sources.messages import RecordDecoder, files_of, id_of_file, of_file, reader_of
from flows.sources.paths import Message
from flows.sources.pixels import Pixels
from flows.sources.source import Source

RUN_LINES: Final = 200_000
"""The number of lines that are sorted in memory at once."""
_SEPARATOR: Final = b"\t"
_WAIT: Final = timedelta(milliseconds=200)
Rejected = Callable[[Message, Understood], None]


def pixels_of(
    source: Source, settings: Settings, understanding: Understanding, ledger: Ledger, rejected: Rejected
) -> Iterator[Line]:
    """The pixels of all messages of a source, in the messages' order.

    Args:
        ledger: counts the messages.
        rejected: receives each rejected message.

    Raises:
        ConnectError: the messages cannot be read.
    """
    for pixels, message in _messages(source, settings, understanding):
        understood = pixels.understand(message)
        ledger.take(understood)
        if understood is None:
            continue
        if understood.outcome is Outcome.STORED:
            yield line_of(understood.event, understood.key)
        elif understood.outcome is Outcome.REJECTED:
            rejected(message, understood)


def _messages(
    source: Source, settings: Settings, understanding: Understanding
) -> Iterator[tuple[Pixels, Message]]:
    if source.topic is None:
        for path in files_of(source):
            pixels = Pixels(source, understanding, id_of_file(source, path))
            for message in of_file(source, path):
                yield pixels, message
        return
    decoder, reader = RecordDecoder(source), reader_of(source, settings)
    try:
        pixels, ends = Pixels(source, understanding, reader.log_id(source.topic)), reader.ends()
        while not reader.passed(ends):
            for record in reader.read(5_000, _WAIT):
                yield pixels, decoder.message(record, patient=True)
    finally:
        reader.close()


def in_order(lines: Iterable[Line], directory: Path) -> Iterator[Line]:
    """Lines sorted by their time of receipt. Every `RUN_LINES` lines become a sorted file in `directory`."""
    with (
        ExitStack() as files,
        tempfile.TemporaryDirectory(dir=directory, prefix=".sources-") as run_directory,
    ):
        runs: list[Iterator[Line]] = []
        run: list[Line] = []
        for line in lines:
            run.append(line)
            if len(run) >= RUN_LINES:
                path = Path(run_directory) / str(len(runs))
                with open(path, "wb") as file:
                    for sorted_line in _sorted(run):
                        file.write(
                            b"%b%b%b\n" % (sorted_line.key.hex().encode(), _SEPARATOR, sorted_line.body)
                        )
                runs.append(_read(files.enter_context(open(path, "rb"))))
                run = []
        yield from heapq.merge(*runs, _sorted(run), key=_received)


def _received(line: Line) -> int:
    return received_ms(line.body)


def _sorted(run: list[Line]) -> list[Line]:
    return sorted(run, key=_received)


def _read(file: BinaryIO) -> Iterator[Line]:
    for text in file:
        key, _, body = text.rstrip(b"\n").partition(_SEPARATOR)
        yield Line(body, bytes.fromhex(key.decode()))


def write_file(lines: Iterable[Line], path: Path) -> None:
    """Write a log, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.writelines(line.body + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
