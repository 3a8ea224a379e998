"""A source as its file declares it: the place and format of its messages, and the mapping of their fields to
pixels.

The file is TOML, `<directory>/<name>.toml`. Words, times and playheads are those of the collector's dialects
(`flows.collector.dialects`).
"""

from __future__ import annotations

import codecs
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from importlib.resources import files
from pathlib import Path as File
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from flows.collector.dialects import WORDS, Dialect
from flows.collector.reading import NEVER_FROM_A_CALLER
from flows.errors import SettingsError
from flows.settings import nearest
from flows.sources.paths import Condition, Path

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MAX_FILE_BYTES: Final = 256 * 1024
_TAG_WORDS: Final = frozenset(("dialect", "signature", "target_signature", "tracked", "cachebuster"))
"""Words that only a tag has."""
FIELDS: Final = (WORDS - _TAG_WORDS) | {"received_at"}
"""Fields that a mapping may set."""
_ENVIRONMENT: Final = "env:"
Format = Literal["json", "csv", "tsv", "avro", "protobuf", "parquet", "snowplow-enriched"]
OF_TOPICS: Final = ("json", "avro", "protobuf", "snowplow-enriched")
OF_FILES: Final = ("json", "csv", "tsv", "parquet", "snowplow-enriched")
OF_A_REGISTRY: Final = ("avro", "protobuf")
"""Formats whose messages carry the id of a schema in a registry."""
Mode = Literal["live", "batch"]
Paths = str | tuple[str, ...]


class Example(BaseModel):
    """A message with its outcome: exactly one of `pixel`, `rejected` and `not_ours`.

    Attributes:
        message: a text as in the topic or in a line of the file, or a table of fields.
        of_schema: the full name of its schema, as in `$schema`.
        pixel: fields that the pixel must have; the pixel may have more.
        rejected: `REASON`, or `REASON FIELD`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    message: str | Mapping[str, Any]
    key: str = ""
    of_schema: str = Field("", alias="schema")
    timestamp: int | datetime | None = None
    pixel: Mapping[str, Any] | None = None
    rejected: str | None = None
    not_ours: Literal[True] | None = None

    @model_validator(mode="after")
    def _one_outcome(self) -> Example:
        if sum(one is not None for one in (self.pixel, self.rejected, self.not_ours)) != 1:
            raise ValueError("an example has one of pixel, rejected, not_ours")
        return self


class Source(BaseModel):
    """A source.

    Attributes:
        topic, files: the place of its messages; one of the two. `files` is a glob.
        kafka: librdkafka's options if the topic is in another cluster. A value `env:NAME` is read from the
            environment.
        registry: options of the schema registry's client, at least `url`. Values are as for `kafka`.
        storage: obstore's options if `files` are in object storage. Values are as for `kafka`.
        mode: `live` reads messages as they come, `batch` reads all from the beginning. A topic is live unless
            `mode` says `batch`.
        preset: the name of a mapping of ours, to which this file adds.
        header: whether the first row of a table names its columns; else they are `1`, `2`, ...
        names: by our field, a path, or several paths of which the first with a value counts.
        values: by field, the messages' values, each with ours.
        when: by condition, the fields that it sets. A later condition wins.
        fixed: values of fields that a message does not set itself.
        separator: the character between the cells of a CSV file; a comma by default.
        encoding: of files without a byte order mark, as Python names it; UTF-8 by default.
        decimal: the character before the decimals of a duration, playhead or value that is text.
        time, playhead: as in a dialect.
        timezone: the IANA time zone of times that name no offset; UTC by default.
        skip: conditions of messages that are not ours.
        unlisted: the outcome of an event that `values.event` does not list.
        recognise: conditions by which `draft` recognises messages of a preset.
        url: the path to one of our own tag URLs, which is read as the collector reads it.
        url_hosts: hosts of our tag URLs; a URL of another host is not ours. Empty for any host.
        identity: paths to fields that identify a message, if no event id is mapped.
        masked: whether the messages' addresses lack their last part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = ""
    about: str = ""
    source: str = ""
    status: Literal["", "documented", "seen", "inferred"] = ""
    topic: str | None = None
    files: str | None = None
    kafka: Mapping[str, str] = Field(default_factory=dict, repr=False)
    registry: Mapping[str, str] = Field(default_factory=dict, repr=False)
    storage: Mapping[str, str] = Field(default_factory=dict, repr=False)
    mode: Mode | None = None
    preset: str | None = None
    format: Format = "json"
    header: bool = True
    names: Mapping[str, Paths] = {}
    values: Mapping[str, Mapping[str, str]] = {}
    when: Mapping[str, Mapping[str, str]] = {}
    fixed: Mapping[str, str] = {}
    separator: str = ""
    encoding: str = ""
    decimal: Literal[".", ","] = "."
    time: Literal["", "s", "ms", "us", "iso"] = ""
    timezone: str = ""
    playhead: Literal["ms", "s", "hms"] = "ms"
    skip: tuple[str, ...] = ()
    unlisted: Literal["rejected", "not_ours"] = "rejected"
    recognise: tuple[str, ...] = ()
    url: str | None = None
    url_hosts: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()
    masked: bool = False
    example: tuple[Example, ...] = ()

    @field_validator("names", "values", "fixed")
    @classmethod
    def _only_known_fields(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        for field in fields:
            _check_field(field)
        return fields

    @field_validator("when")
    @classmethod
    def _only_known_cases(cls, cases: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
        for condition, fields in cases.items():
            Condition(condition)
            for field in fields:
                _check_field(field)
        return cases

    @field_validator("names")
    @classmethod
    def _paths(cls, names: Mapping[str, Paths]) -> Mapping[str, Paths]:
        for paths in names.values():
            for path in alternatives(paths):
                Path(path)
        return names

    @field_validator("skip", "recognise")
    @classmethod
    def _conditions(cls, skip: tuple[str, ...]) -> tuple[str, ...]:
        for condition in skip:
            Condition(condition)
        return skip

    @field_validator("timezone")
    @classmethod
    def _zone(cls, timezone: str) -> str:
        try:
            return ZoneInfo(timezone).key if timezone else ""
        except (KeyError, ValueError, OSError):
            raise ValueError("is no IANA time zone, such as Europe/Stockholm") from None

    @field_validator("encoding")
    @classmethod
    def _text_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding or "utf-8")
            name = codecs.lookup(encoding or "utf-8").name
        except (LookupError, ValueError):
            raise ValueError("is no encoding of text, such as latin-1") from None
        return "" if name == "utf-8" else name

    @field_validator("separator")
    @classmethod
    def _one_character(cls, separator: str) -> str:
        if separator and (len(separator) > 1 or separator in '"\r\n' or not separator.isascii()):
            raise ValueError("is one character, such as ;")
        return separator

    @model_validator(mode="after")
    def _whole(self) -> Source:
        if self.topic is not None and self.files is not None:
            raise ValueError("topic and files: a source has one of them")
        if self.files is not None and self.mode == "live":
            raise ValueError('mode: files are read as a whole: take "batch"')
        if self.unlisted == "not_ours" and not self.values.get("event"):
            raise ValueError('unlisted: "not_ours" needs values.event, a table of the events that are ours')
        if self.topic is not None and self.format not in OF_TOPICS:
            raise ValueError(f"format: a topic has {', '.join(OF_TOPICS)}")
        if self.files is not None and self.format not in OF_FILES:
            raise ValueError(f"format: files have {', '.join(OF_FILES)}")
        if self.topic is not None and self.format in OF_A_REGISTRY and not self.registry.get("url"):
            raise ValueError(
                f'registry: {self.format} needs the address of a schema registry: [registry] url = "https://…"'
            )
        if self.encoding and (self.files is None or self.format == "parquet"):
            raise ValueError("encoding: belongs to files of text alone")
        if self.separator and self.format != "csv":
            raise ValueError('separator: belongs to format = "csv" alone')
        for path in (*self.identity, *([self.url] if self.url else [])):
            Path(path)
        return self

    @property
    def live(self) -> bool:
        """True if the source's messages are read as they come."""
        return self.files is None and self.mode != "batch"

    @cached_property
    def reads_headers(self) -> bool:
        """True if a path or condition may begin at a record's headers."""
        paths = [path for paths in self.names.values() for path in alternatives(paths)]
        paths += [*self.skip, *self.when, *self.identity, self.url or ""]
        return any("$headers" in path for path in paths)

    @cached_property
    def dialect(self) -> Dialect:
        """The dialect by which the mapped fields are read."""
        return Dialect(
            source=self.source, status="documented", use="tag", time=self.time, playhead=self.playhead
        )

    def kafka_options(self) -> dict[str, str]:
        """librdkafka's options of the source's own cluster, with secrets in plain text.

        Raises:
            SettingsError: a variable that one names is not set.
        """
        return self._plain("kafka", self.kafka)

    def registry_options(self) -> dict[str, str]:
        """Options of the schema registry's client, with secrets in plain text.

        Raises:
            SettingsError: a variable that one names is not set.
        """
        return self._plain("registry", self.registry)

    def storage_options(self) -> dict[str, str]:
        """obstore's options, with secrets in plain text.

        Raises:
            SettingsError: a variable that one names is not set.
        """
        return self._plain("storage", self.storage)

    def paths(self) -> list[Path]:
        """All paths that the mapping reads."""
        texts = [*self.identity, *([self.url] if self.url else [])]
        texts += [path for paths in self.names.values() for path in alternatives(paths)]
        conditions = [Condition(one) for one in (*self.skip, *self.when)]
        return [Path(one) for one in texts] + [path for one in conditions for path in one.paths]

    def _plain(self, table: str, options: Mapping[str, str]) -> dict[str, str]:
        plain_options = {}
        for name, value in options.items():
            if value.startswith(_ENVIRONMENT):
                variable = value.removeprefix(_ENVIRONMENT)
                if variable not in os.environ:
                    raise SettingsError(f"{self.name}.toml: {table}.{name}: {variable} is not set")
                value = os.environ[variable]
            plain_options[name] = value
        return plain_options


def alternatives(paths: Paths) -> Sequence[str]:
    """The paths of a field, in order."""
    return (paths,) if isinstance(paths, str) else paths


def _check_field(field: str) -> None:
    if field in NEVER_FROM_A_CALLER and field not in FIELDS:
        raise ValueError(f"{field}: only the collector sets it: leave it out of the mapping")
    if field in Source.model_fields and field not in FIELDS:
        raise ValueError(f"{field}: is a key of the source: it stands above the first table")
    if field not in FIELDS:
        hint = nearest(field, sorted(FIELDS))
        raise ValueError(f"{field}: is no field of a pixel{hint}")


def presets() -> dict[str, str]:
    """The text of each of our presets, by name."""
    directory = files("flows.sources").joinpath("presets")
    return {
        one.name.removesuffix(".toml"): one.read_text()
        for one in sorted(directory.iterdir(), key=lambda one: one.name)
        if one.name.endswith(".toml")
    }


def load_source(directory: File, name: str) -> Source:
    """The source with a name.

    Raises:
        SettingsError: there is none, or its file has a mistake. The message names the file and the key.
    """
    if NAME.fullmatch(name) is None:
        raise SettingsError(f"{name}: a source's name has 1 to 64 of a-z, 0-9, _ and -")
    file = directory / f"{name}.toml"
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise SettingsError(f"{file}: is over {MAX_FILE_BYTES // 1024} KiB")
        text = file.read_text("utf-8-sig")
    except FileNotFoundError:
        source_names = sorted(one.stem for one in directory.glob("*.toml"))
        hint = nearest(name, source_names) or (
            f"; there are {', '.join(source_names)}" if source_names else ""
        )
        raise SettingsError(f"{file}: there is no such source{hint} (AUDIOPIXEL_SOURCES)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from None
    source = parse_source(text, str(file), name)
    if source.topic is None and source.files is None:
        raise SettingsError(f"{file}: names neither topic nor files: set one of them")
    return source


def parse_source(text: str, file: str, name: str) -> Source:
    """The source that a text of TOML declares, together with its preset.

    Raises:
        SettingsError: the text has a mistake. The message names the file and the key.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: cannot be read as TOML: {error}") from None
    values = _with_preset(values, file)
    try:
        return Source.model_validate(values | {"name": name})
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}".removeprefix(": ")
            + (nearest(str(one["loc"][0]), Source.model_fields) if one["type"] == "extra_forbidden" else "")
            for one in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError(f"{file}: {'; '.join(problems)}") from None


def _with_preset(values: dict[str, Any], file: str) -> dict[str, Any]:
    """A source merged with its preset; a preset may itself build on another one."""
    preset = values.get("preset")
    if preset is None:
        return values
    preset_texts = presets()
    if preset not in preset_texts:
        hint = nearest(str(preset), list(preset_texts))
        raise SettingsError(f"{file}: preset: there are {', '.join(preset_texts)}{hint}")
    return _merged(_with_preset(tomllib.loads(preset_texts[preset]), file), values)


def _merged(preset: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A preset merged with a user's file: tables by key, `skip` from both, and the file's own examples."""
    merged = {key: value for key, value in preset.items() if key != "example"}
    for key, value in values.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[key] = _merged(before, value)
        elif key == "skip" and isinstance(value, list):
            merged[key] = [*(before or []), *value]
        else:
            merged[key] = value
    return merged
