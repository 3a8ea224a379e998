"""The schemas of a topic's messages, from a schema registry, by the id that each message carries.

The registry has Confluent's interface, and the client is confluent-kafka's. One thread sends the requests, so
a registry that does not answer holds only messages with unknown ids.

Guarantee: a known id needs no further request. A lookup of an id whose request failed raises
`SchemaAwaitedError`, and the thread repeats the request without end.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from connectors.stream import ConnectError
from flows.errors import SettingsError, UsageError

MAGIC: Final = 0
PREFIX_BYTES: Final = 5
"""The length of the prefix of a message: a zero and the schema's id in four bytes, the highest first."""
MAX_SCHEMA_CHARACTERS: Final = 1 << 20
"""The greatest length of a schema together with all schemas that it refers to."""
MAX_FIELDS: Final = 10_000
"""The greatest number of fields of a schema together with all schemas that it refers to."""
MAX_REFERENCES: Final = 200
MAX_UNKNOWN: Final = 4_096
"""The number of remembered ids that the registry does not have. A sender may invent any number of ids."""
UNKNOWN_FOR_S: Final = 60.0
ANSWER_S: Final = 5.0
"""The greatest time of a request to the registry."""
_NOT_FOUND: Final = (40401, 40402, 40403)
"""Codes of a reachable registry that lacks a schema, subject or version."""
_LONGEST_WAIT_S: Final = 30.0
_SECRETS: Final = ("user.info", "password", "token", "secret")
_OURS: Final = ("timeout", "max.retries", "retries.wait.ms", "retries.max.wait.ms", "cache.capacity")
T = TypeVar("T")


class SchemaAwaitedError(ConnectError):
    """The schema of a message is not available now: the message waits."""

    def __init__(self, schema_id: int, reason: str) -> None:
        super().__init__(f"schema {schema_id}: the registry has not answered: {reason}")
        self.schema_id = schema_id


class UnusableError(Exception):
    """Messages of a schema cannot be read: the schema does not exist, or is unsupported."""


@dataclass(frozen=True)
class Text:
    """A schema as registered: its kind (`AVRO`, `PROTOBUF`), its text, and the texts to which it refers.

    Attributes:
        references: by the names that the schema uses, each after those that it needs itself.
    """

    kind: str
    text: str
    references: Mapping[str, str]


class Registry(Protocol):
    """Fetches a schema by its id.

    Raises:
        UnusableError: the registry has no such schema.
        Exception: the registry did not answer, or its answer cannot be read.
    """

    def text(self, schema_id: int) -> Text: ...


class ConfluentRegistry:
    """A registry that speaks Confluent's interface.

    Args:
        options: of confluent-kafka's client: `url`, `basic.auth.user.info`, `ssl.ca.location`, ...
        form: the form of a schema, if the registry has it: `serialized` is a descriptor in base64.

    Raises:
        SettingsError: an option is refused.
        UsageError: the client is not installed.
    """

    def __init__(self, options: Mapping[str, str], name: str, form: str | None = None) -> None:
        self._form = form
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
            from confluent_kafka.schema_registry.error import SchemaRegistryError
        except ImportError:
            raise UsageError(
                f"{name}.toml: registry: its client is not installed: pip install 'audiopixel[sources]'"
            ) from None
        self._error: type[Any] = SchemaRegistryError
        self._secrets = [value for key, value in options.items() if any(one in key for one in _SECRETS)]
        self._secrets += [secret for one in self._secrets if (secret := one.partition(":")[2])]
        self._secrets += [
            one.partition("@")[0].partition("//")[2]
            for one in options.get("url", "").split(",")
            if "@" in one
        ]
        if our_options := sorted(options.keys() & set(_OURS)):
            raise SettingsError(f"{name}.toml: registry.{our_options[0]}: is set by audiopixel: leave it out")
        try:
            self._client = SchemaRegistryClient({**options, "timeout": ANSWER_S, "max.retries": 0})
        except (ValueError, TypeError, OSError) as error:
            raise SettingsError(f"{name}.toml: registry: {self.plain(error)}") from None

    def text(self, schema_id: int) -> Text:
        """A schema and all schemas to which it refers."""
        registered = self._answer(lambda: self._client.get_schema(schema_id, fmt=self._form))
        references: dict[str, str] = {}
        self._refer(registered, references, ())
        size = len(registered.schema_str or "") + sum(map(len, references.values()))
        if size > MAX_SCHEMA_CHARACTERS:
            raise UnusableError(f"its text has over {MAX_SCHEMA_CHARACTERS:,} characters")
        return Text(registered.schema_type or "AVRO", registered.schema_str or "", references)

    def _refer(self, schema: Any, references: dict[str, str], above: tuple[str, ...]) -> None:
        for reference in schema.references or ():
            if reference.name in references:
                continue
            if reference.name in above or len(references) + len(above) >= MAX_REFERENCES:
                raise UnusableError(f"its references form a ring, or are over {MAX_REFERENCES}")
            referred = self._answer(
                partial(
                    self._client.get_version,
                    reference.subject,
                    reference.version,
                    deleted=True,
                    fmt=self._form,
                )
            ).schema
            self._refer(referred, references, (*above, reference.name))
            references[reference.name] = referred.schema_str or ""

    def _answer(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except self._error as error:
            if error.http_status_code == 404 and error.error_code in _NOT_FOUND:
                raise UnusableError("the registry has no such schema") from None
            raise

    def plain(self, error: Exception) -> str:
        """An error's text without secrets."""
        text = str(error) or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


@dataclass
class _Unusable:
    reason: str
    until_s: float


class Schemas(Generic[T]):
    """Schemas by id, each made once by `make`.

    Args:
        registry: fetches schemas, in one thread, which starts at the first lookup of an unknown id.
        make: makes the reader of messages from a schema; raises `UnusableError`.
        plain: an error's text without secrets.
    """

    def __init__(
        self, registry: Registry, make: Callable[[Text], T], plain: Callable[[Exception], str]
    ) -> None:
        self._registry, self._make, self._plain = registry, make, plain
        self._by_id: dict[int, T] = {}
        self._unusable: dict[int, _Unusable] = {}
        self._wanted: dict[int, None] = {}
        self._news = threading.Condition()
        self._away = ""
        self._thread: threading.Thread | None = None
        self._out = structlog.get_logger("source")

    def find(self, schema_id: int, wait_s: float, patient: bool = False) -> T:
        """The schema of an id, as `make` made it.

        Args:
            wait_s: the time to wait for the registry's answer, in s.
            patient: waits as long even if the last request failed.

        Raises:
            UnusableError: the schema does not exist, or is unsupported.
            SchemaAwaitedError: the registry has not answered yet.
        """
        schema = self._by_id.get(schema_id)
        if schema is not None:
            return schema
        with self._news:
            if not self._settled(schema_id):
                self._wanted.setdefault(schema_id)
                self._begin()
                self._news.notify_all()
                self._news.wait_for(
                    lambda: self._settled(schema_id) or (bool(self._away) and not patient), wait_s
                )
            if (refused := self._unusable.get(schema_id)) is not None and self._settled(schema_id):
                raise UnusableError(refused.reason)
            if schema_id not in self._by_id:
                self._away = self._away or f"no answer within {wait_s:g} s"
                raise SchemaAwaitedError(schema_id, self._away)
            return self._by_id[schema_id]

    def has_answer(self, schema_id: int) -> bool:
        """True if the registry has answered for an id."""
        with self._news:
            return self._settled(schema_id)

    def _settled(self, schema_id: int) -> bool:
        refused = self._unusable.get(schema_id)
        return schema_id in self._by_id or (refused is not None and time.monotonic() < refused.until_s)

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve_requests, name="schemas", daemon=True)
            self._thread.start()

    def _serve_requests(self) -> None:
        pause_s, away = 1.0, False
        while True:
            with self._news:
                self._news.wait_for(lambda: bool(self._wanted))
                wanted = [*self._wanted]
            failed = ""
            for schema_id in wanted:
                failed = self._request(schema_id) or failed
            with self._news:
                if failed and not away:
                    self._out.warning("the schema registry does not answer", error=failed, ids=len(wanted))
                elif away and not failed:
                    self._out.info("the schema registry answers again")
                self._away, away = failed, bool(failed)
                self._news.notify_all()
            if failed:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_WAIT_S)
            else:
                pause_s = 1.0

    def _request(self, schema_id: int) -> str:
        """Request a schema. Returns the reason why there is no answer; empty if there is one."""
        try:
            text = self._registry.text(schema_id)
            try:
                schema = self._make(text)
            # a fault of this machine, not of the text: try again later
            except (OSError, subprocess.SubprocessError) as error:
                return str(error)
            except Exception as error:  # another attempt at this text would end in the same way
                raise UnusableError(str(error)) from None
        except UnusableError as error:
            self._out.warning("messages of a schema cannot be read", schema=schema_id, why=str(error))
            with self._news:
                if len(self._unusable) >= MAX_UNKNOWN:
                    self._unusable.pop(next(iter(self._unusable)))
                self._unusable.pop(schema_id, None)
                self._unusable[schema_id] = _Unusable(str(error), time.monotonic() + UNKNOWN_FOR_S)
                self._wanted.pop(schema_id, None)
                self._news.notify_all()
            return ""
        except Exception as error:  # any other answer counts as none: a proxy's page, a refusal, a time-out
            return self._plain(error)
        with self._news:
            self._by_id[schema_id] = schema
            self._unusable.pop(schema_id, None)
            self._wanted.pop(schema_id, None)
            self._news.notify_all()
        return ""
