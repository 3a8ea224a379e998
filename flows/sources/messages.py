"""The messages of a source's files and topic, decoded one by one. A message that cannot be decoded has no
document.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from glob import glob, has_magic
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, Protocol

import msgspec

from connectors.buckets import BucketFiles, in_bucket
from connectors.files import regular
from connectors.kafka import GroupReader, Place, Record, SharedReader
from connectors.kafka.read_once import sample
from connectors.stream import ConnectError
from connectors.wrapping import READ_ERRORS, lines_of
from flows.collector.body import Number
from flows.errors import UNREADABLE, UsageError
from flows.settings import Settings, kafka_options
from flows.sources.paths import Message
from flows.sources.schemas import (
    MAGIC,
    PREFIX_BYTES,
    ConfluentRegistry,
    SchemaAwaitedError,
    Schemas,
    Text,
    UnusableError,
)
from flows.sources.shapes import Shape, lacking
from flows.sources.snowplow import columns_of
from flows.sources.source import OF_A_REGISTRY, Source

MAX_MESSAGE_BYTES: Final = 1 << 20
"""The greatest size of one message or line; a longer one is malformed."""
FIRST_ANSWER_S: Final = 2.0
"""The time that a live source waits for a registry's first answer on a schema. After that the partition
waits.
"""
GIVE_UP_S: Final = 60.0
"""The time after which `check` and a batch give up on a registry that does not answer."""
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Number)
_SEPARATORS: Final = {"csv": ",", "tsv": "\t"}
_OTHER_SEPARATORS: Final = {";": "semicolons", "|": "bars", "\t": "tabs"}
_LINE_ENDS: Final = ("\n", "\r")


def remedy_of(reason: str) -> str:
    """The remedy for a reason of rejections, after a colon; empty if the reason says enough."""
    return ': not UTF-8: set encoding = "latin-1", or another one' if reason == "malformed encoding" else ""


def document_of(value: bytes) -> dict[str, Any] | None:
    """The object of a JSON message; None if there is none."""
    if len(value) > MAX_MESSAGE_BYTES:
        return None
    try:
        return _OBJECT.decode(value)
    except UNREADABLE:
        return None


def columns_of_line(value: bytes) -> Mapping[str, Any] | None:
    """The columns of one of Snowplow's enriched events; None if the line is no such event."""
    return columns_of(value) if len(value) <= MAX_MESSAGE_BYTES else None


_LINES: Final[Mapping[str, Callable[[bytes], Mapping[str, Any] | None]]] = {
    "json": document_of,
    "snowplow-enriched": columns_of_line,
}
"""The decoder of each format that has one message in a line."""


def example_of(source: Source, text: str) -> Mapping[str, Any] | None:
    """The document of an example's text. Examples of formats with a schema or a table are JSON."""
    return _LINES.get(source.format, document_of)(text.encode())


def message_of(record: Record) -> Message:
    """A topic's JSON record, decoded."""
    return _message(record, document_of(record.value))


class RecordDecoder:
    """Decodes the records of a source's topic.

    Args:
        source: gives the format and the schema registry.

    Raises:
        SettingsError: an option of the registry is refused.
        UsageError: the format's library is not installed.
    """

    def __init__(self, source: Source) -> None:
        self._schemas: Schemas[_Compiled] | None = None
        self._document = _LINES.get(source.format, document_of)
        if source.format in OF_A_REGISTRY:
            form = "serialized" if source.format == "protobuf" else None
            registry = ConfluentRegistry(source.registry_options(), source.name, form)
            self._schemas = Schemas(registry, partial(_Compiled, source, _schema_of(source)), registry.plain)

    @property
    def waits(self) -> bool:
        """True if a partition may have to wait for a schema."""
        return self._schemas is not None

    def message(self, record: Record, patient: bool = False) -> Message:
        """A record, decoded.

        Args:
            patient: waits up to `GIVE_UP_S` for a registry that is away.

        Raises:
            SchemaAwaitedError: the registry has not answered; try the record again later.
        """
        value, schema, wrong = record.value, "", ""
        if self._schemas is None:
            return _message(record, self._document(value))
        document: Mapping[str, Any] | None = None
        if PREFIX_BYTES <= len(value) <= MAX_MESSAGE_BYTES and value[0] == MAGIC:
            try:
                schema_id = int.from_bytes(value[1:PREFIX_BYTES], "big")
                compiled = self._schemas.find(schema_id, GIVE_UP_S if patient else FIRST_ANSWER_S, patient)
            except UnusableError:
                wrong = "schema"
            else:
                document, schema, wrong = compiled.message(value[PREFIX_BYTES:])
        return _message(record, document)._replace(schema=schema, wrong=wrong)

    def ready(self, records: Sequence[Record]) -> tuple[list[Record], list[Message], dict[Place, Awaited]]:
        """The records that can be decoded, decoded, and the partitions that wait. A partition waits from its
        first record whose schema the registry has not sent.
        """
        decoded: list[Record] = []
        messages: list[Message] = []
        waiting: dict[Place, Awaited] = {}
        for record in records:
            place = record.topic, record.partition
            if place in waiting:
                continue
            try:
                messages.append(self.message(record))
            except SchemaAwaitedError as error:
                waiting[place] = Awaited(record, error.schema_id)
            else:
                decoded.append(record)
        return decoded, messages, waiting

    def has_answer(self, schema_id: int) -> bool:
        """True if the registry has answered for a schema."""
        return self._schemas is not None and self._schemas.has_answer(schema_id)


def _message(record: Record, document: Mapping[str, Any] | None) -> Message:
    place = record.topic, record.partition, record.offset
    framed = document is None and len(record.value) >= PREFIX_BYTES and record.value[0] == MAGIC
    return Message(
        document,
        *place,
        record.timestamp_ms,
        record.key,
        record.headers,
        wrong="schema" if framed else "",
        tombstone=record.tombstone,
    )


class Awaited(NamedTuple):
    """A record whose schema the registry has not sent."""

    record: Record
    schema_id: int


class _Kind(Protocol):
    """A kind of message."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Shape: ...


class _Schema(Protocol):
    """A schema of a format, which decodes the bytes after a message's prefix; None if they name no kind."""

    def message(self, payload: bytes) -> tuple[_Kind, Mapping[str, Any] | None] | None: ...


class _Compiled:
    """A schema, and the fields of a mapping that each of its kinds of messages lacks."""

    def __init__(self, source: Source, make: Callable[[Text], _Schema], text: Text) -> None:
        self._source, self._schema = source, make(text)
        self._lacks: dict[str, str] = {}

    def message(self, payload: bytes) -> tuple[Mapping[str, Any] | None, str, str]:
        """The document of a message, the name of its kind, and the field that it cannot have."""
        kind_and_document = self._schema.message(payload)
        if kind_and_document is None:
            return None, "", "schema"
        kind, document = kind_and_document
        if document is None:
            return None, kind.name, ""
        if kind.name not in self._lacks:
            self._lacks[kind.name] = lacking(self._source, kind.shape)
        return document, kind.name, self._lacks[kind.name]


def _schema_of(source: Source) -> Callable[[Text], _Schema]:
    """The maker of a format's schemas.

    Raises:
        UsageError: its library is not installed.
    """
    try:
        if source.format == "protobuf":
            from flows.sources.protobuf import ProtobufSchema

            return ProtobufSchema
        from flows.sources.avro import AvroSchema
    except ImportError:
        raise UsageError(
            f"{source.name}.toml: format {source.format}: its library is not installed: "
            "pip install 'audiopixel[sources]'"
        ) from None
    return AvroSchema


def cluster_of(source: Source, settings: Settings) -> tuple[str, dict[str, str]]:
    """The brokers and options of the cluster with a source's topic."""
    cluster_options = source.kafka_options()
    if not cluster_options:
        return settings.kafka_brokers, kafka_options(settings)
    return cluster_options.pop("bootstrap.servers", settings.kafka_brokers), cluster_options


def files_of(source: Source) -> list[str]:
    """The files of a source, by name.

    Raises:
        ConnectError: no file has such a name, or object storage does not list its files.
    """
    assert source.files is not None
    if in_bucket(source.files):
        return BucketFiles(source.files, source.storage_options()).files()
    paths = sorted(glob(source.files, recursive=True))
    if not paths and Path(source.files).is_file():
        return [source.files]  # a name with brackets, which glob would read as a set of letters
    if not paths:
        raise ConnectError(f"{source.files}: no file has such a name")
    return paths


def id_of_file(source: Source, path: str) -> str:
    """The part of a file's path that the source's glob leaves open. Files of one name in several directories
    differ in this part, and a move of the whole tree does not change it.
    """
    assert source.files is not None
    *directories, _ = Path(source.files).parts
    return str(Path(path).relative_to(Path(*takewhile(lambda one: not has_magic(one), directories))))


def of_file(source: Source, path: str) -> Iterator[Message]:
    """The messages of a file: lines, or rows of a table.

    Raises:
        ConnectError: the file cannot be read.
    """
    name = Path(path).name
    try:
        with _opened(source, path) as file:
            if source.format == "parquet":
                yield from _parquet(source, file, name)
                return
            with lines_of(path, file, source.encoding) as lines:
                if source.format in _SEPARATORS:
                    yield from _rows(lines, name, source)
                else:
                    yield from _lines(lines, name, _LINES[source.format])
    except READ_ERRORS as error:
        raise ConnectError(f"{path}: cannot be read: {error}") from None


def _opened(source: Source, path: str) -> AbstractContextManager[BinaryIO]:
    if in_bucket(path):
        return BucketFiles(source.files or path, source.storage_options()).open(path)
    regular(path)
    return open(path, "rb")


def _parquet(source: Source, file: BinaryIO, name: str) -> Iterator[Message]:
    try:
        from flows.sources import parquet
    except ImportError:
        raise UsageError(f"{name}: pyarrow is not installed: pip install 'audiopixel[sources]'") from None
    wanted = frozenset(
        text for path in source.paths() if not path.root for text in (path.text, str(path.steps[0]))
    )
    try:
        table = parquet.table(file, wanted if source.names else None)
        lacks = lacking(source, table.shape)
        for number, row in enumerate(table.rows, 1):
            whole = all(len(one) <= MAX_MESSAGE_BYTES for one in row.values() if isinstance(one, str | bytes))
            yield Message(row if whole else None, name, 0, number, wrong=lacks if whole else "")
    except parquet.ERRORS as error:
        raise ConnectError(f"{name}: is no Parquet file, or damaged: {error}") from None


def _lines(
    file: BinaryIO, name: str, document: Callable[[bytes], Mapping[str, Any] | None]
) -> Iterator[Message]:
    number = 0
    while line := file.readline(MAX_MESSAGE_BYTES + 1):
        number += 1
        whole = line.endswith(b"\n") or len(line) <= MAX_MESSAGE_BYTES
        part = line
        while not part.endswith(b"\n") and (part := file.readline(MAX_MESSAGE_BYTES)):
            pass  # skip to the end of a line that is too long; a file's last line may lack its end
        if not whole:
            yield Message(None, name, 0, number)
        elif line.strip():
            message = Message(document(line), name, 0, number)
            wrong = message.document is None and not _is_utf8(line)
            yield message._replace(wrong="encoding") if wrong else message


class OneColumnError(ConnectError):
    """A table's header is one column with other separators, and the source names none.

    Attributes:
        separator: the one that the header has most often.
    """

    def __init__(self, name: str, header: str) -> None:
        self.separator = max(_OTHER_SEPARATORS, key=header.count)
        super().__init__(
            f"{name}: its first row is one column with {_OTHER_SEPARATORS[self.separator]}: "
            f'separator = "{self.separator}"'
        )


class EncodingError(ConnectError):
    """A table's header is not UTF-8."""


def _rows(file: BinaryIO, name: str, source: Source) -> Iterator[Message]:
    """The rows of a table. A row is malformed if its number of cells differs from the header's, if it is too
    long, or if its quotes do not match. An unclosed quote would otherwise take the following rows into its
    cell.
    """
    text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
    separator = source.separator or _SEPARATORS[source.format]
    rows = csv.reader(_TextLines(text), delimiter=separator, strict=True)
    try:
        columns = next(rows, None) if source.header else None
    except csv.Error as error:
        raise ConnectError(f"{name}: its first row names no columns: {error}") from None
    if columns is not None and any(_is_not_utf8(one) for one in columns):
        raise EncodingError(f'{name}: its first row is not UTF-8: encoding = "latin-1", or another one')
    if columns and len(columns) == 1 and not source.separator and _OTHER_SEPARATORS.keys() & {*columns[0]}:
        raise OneColumnError(name, columns[0])
    if columns is not None and len(set(columns)) < len(columns):
        raise ConnectError(f"{name}: two columns have one name: rename one, or read it with header = false")
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            yield Message(None, name, 0, rows.line_num)
            continue
        if row:
            document = _row(row, columns)
            wrong = "encoding" if document is None and any(map(_is_not_utf8, row)) else ""
            yield Message(document, name, 0, rows.line_num, wrong=wrong)


class _TextLines:
    """The lines of a text. A line that is too long raises `csv.Error`, and reading goes on with the
    next one.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_MESSAGE_BYTES)
        if len(line) < MAX_MESSAGE_BYTES or line.endswith(_LINE_ENDS):
            if not line:
                raise StopIteration
            return line
        while line and not line.endswith(_LINE_ENDS):
            line = self._text.readline(MAX_MESSAGE_BYTES)
        raise csv.Error("a line is too long")


def _row(row: list[str], columns: list[str] | None) -> Mapping[str, Any] | None:
    if columns is not None and len(row) != len(columns):
        return None
    names = columns or map(str, range(1, len(row) + 1))
    cells = {name: cell for name, cell in zip(names, row, strict=False) if cell}
    return None if any(map(_is_not_utf8, row)) else cells


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_not_utf8(cell: str) -> bool:
    """True if a cell has bytes that are not UTF-8."""
    return any("\udc80" <= letter <= "\udcff" for letter in cell)


def sample_messages(source: Source, settings: Settings, most: int) -> Iterator[Message]:
    """The latest messages of a topic, or the first ones of the files; `most` messages at most.

    Raises:
        ConnectError: they cannot be read.
    """
    if source.topic is not None:
        brokers, options = cluster_of(source, settings)
        decoder = RecordDecoder(source)
        for record in sample(brokers, source.topic, options, most):
            yield decoder.message(record, patient=True)
        return
    messages_left = most
    for path in files_of(source):
        for message in of_file(source, path):
            yield message
            messages_left -= 1
            if not messages_left:
                return


def reader_of(source: Source, settings: Settings) -> GroupReader:
    """A reader of the source's whole topic, from its beginning.

    Raises:
        ConnectError: it cannot be read.
    """
    assert source.topic is not None
    brokers, options = cluster_of(source, settings)
    group = f"audiopixel-source-{source.name}-{uuid.uuid4().hex}"
    return GroupReader(brokers, [source.topic], options, group=group, headers=source.reads_headers)


def live_reader_of(
    source: Source, settings: Settings, shared: bool = False, start: Literal["earliest", "latest"] = "latest"
) -> GroupReader:
    """A reader of the source's topic, from the positions that its group keeps.

    Args:
        shared: read a share of the topic, together with other processes that set this. Otherwise the whole
            topic is read, without a wait to join.
        start: the first position of a group that keeps none.

    Raises:
        ConnectError: it cannot be read.
    """
    assert source.topic is not None
    brokers, options = cluster_of(source, settings)
    reader_options: dict[str, Any] = {
        "group": f"audiopixel-source-{source.name}",
        "start": start,
        "on_lost": settings.kafka_on_lost,
        "headers": source.reads_headers,
    }
    if shared:
        return SharedReader(brokers, source.topic, options, **reader_options)
    return GroupReader(brokers, [source.topic], options, **reader_options)
