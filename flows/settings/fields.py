"""Declares all settings as one frozen object: of the environment (`AUDIOPIXEL_…`), a TOML file, or defaults.

A duration is written as ISO 8601 (`PT10M`), as `00:10:00`, or in seconds. A `{}` setting is JSON in the
environment, and a table in the file.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import Field, InstanceOf, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from flows.errors import SettingsError
from flows.model.dimensions import NAMES, WITHOUT_APPS
from flows.model.pixel import KNOWN_REASONS, MAX_OWN_REASONS
from flows.model.plan import NAMED
from flows.settings.archive import ArchiveSettings
from flows.settings.attribution import AttributionSettings, TopicName
from flows.settings.collect import CollectSettings
from flows.settings.exports import ExportSettings
from flows.settings.file import PREFIX as PREFIX
from flows.settings.file import values_in_force
from flows.settings.read import ReadSettings
from flows.settings.secret_key import Key
from flows.settings.wording import Takes, nearest


def kafka_options(settings: Settings) -> dict[str, str]:
    """librdkafka's options, with secrets in plain text."""
    return {name: value.get_secret_value() for name, value in settings.kafka_options.items()}


_NONE = timedelta(0)
_MOMENT = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_TOPIC = "[A-Za-z0-9._-]{1,249}"
UNWATCHED = 4
"""The number of flush intervals between two cuts of a log that ends, or of a topic while the flow is behind.
Nobody waits for such numbers, and a cut costs 0.2 s of processor for 1,000 placements.
"""
NO_AGENT = "(?!)"
"""The expression of a reason of invalid traffic that matches no user agent."""
OUTPUT_TOPICS = ("kafka_rejected_topic", "kafka_minutes_topic", "kafka_credits_topic")
"""Settings of the topics that every flow writes. With plans `kafka_alerts_topic` is added."""
_OTHERS = ("alerts", "exports_rejected", "methodology")
_TOPICS = ("kafka_topic", *OUTPUT_TOPICS, *(f"kafka_{name}_topic" for name in _OTHERS))


class Topic(str):
    """A Kafka topic in a setting that may also name a file, as it is written: `kafka:NAME`."""

    @property
    def name(self) -> str:
        """The topic's name in Kafka."""
        return self.removeprefix("kafka:")


INTERNAL: Final = frozenset({"linger", "rows_namespace", "touch_clicks_in_all", "touch_listens_in_all"})
"""Fields that only code may set. The environment and a file may not: no installation has needed to."""


class Settings(
    ArchiveSettings, AttributionSettings, CollectSettings, ExportSettings, ReadSettings, BaseSettings
):
    """The settings of all commands. Unknown names are refused, and secrets are never printed."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    kafka_brokers: Annotated[str, Takes("host:port[,host:port…]")] = Field(
        "127.0.0.1:9092", description="Kafka brokers"
    )
    kafka_topic: TopicName = Field("audio-pixels", description="topic of the pixels")
    kafka_rejected_topic: TopicName = Field("audio-pixels-rejected", description="topic of the dead letters")
    kafka_minutes_topic: TopicName = Field(
        "placement-minutes", description="topic of the placements' minutes, compactable"
    )
    kafka_start: Annotated[str, Takes("earliest | latest | epoch ms | archive:DIR or archive:URL")] = Field(
        "earliest",
        description="where the very first start begins to read; after an archive it goes on in the topic",
    )
    kafka_on_lost: Literal["stop", "earliest", "latest"] = Field(
        "stop",
        description="what to do when Kafka has deleted the saved position: `stop` with an error, or skip to "
        "the `earliest` or `latest` pixel that exists, and count the skipped ones",
    )
    kafka_options: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="further librdkafka options (SASL, TLS…), as JSON in the environment",
    )
    kafka_group: str = Field(
        "audiopixel", description="group under which positions are reported to lag tools"
    )

    redis_url: Annotated[SecretStr, Takes("redis://, rediss:// or redis+sentinel:// URL")] = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis >= 7 or Valkey >= 8: a node, nodes of a cluster, or Sentinels",
    )
    redis_timeout: timedelta = Field(timedelta(seconds=2), ge=_MOMENT, description="longest time of one call")
    row_ttl: timedelta = Field(
        timedelta(hours=48),
        ge=_MINUTE,
        description="how long a row without a plan stays after its last pixel, by the watermark, and in "
        "Redis after its last change",
    )
    row_memory: timedelta = Field(
        timedelta(days=62),
        ge=_MINUTE,
        description="how long a row that has ended is remembered, to come back whole",
    )
    row_cap: int = Field(
        200_000, ge=1, description="rows of a scope without planned ones; further names count as other"
    )
    unplanned_rows: int = Field(
        20_000,
        ge=1,
        description="rows of all scopes that no plan names; further names count together as other",
    )
    unplanned_bytes: int = Field(
        256 << 20,
        ge=1 << 20,
        description="memory, in bytes, of rows that no plan names; beyond it new names count as other",
    )
    app_rows: bool = Field(
        False, description="whether listening apps have rows; part of the recovery store's format"
    )
    namespace: Annotated[str, Takes("letters, digits, colons, _ and -")] = Field(
        "audiopixel:v1", description="prefix of every Redis key"
    )
    rows_namespace: str | None = Field(None, description="prefix of the keys of a recomputation's rows")
    flush_interval: timedelta = Field(
        timedelta(milliseconds=500),
        ge=_MOMENT,
        description="time between two flushes of changed rows; the length of a tick",
    )
    minutes_interval: timedelta = Field(
        timedelta(seconds=10), ge=_NONE, description="least time between two provisional values of a minute"
    )

    listener_key: Key = Field(None, description="secret of the keyed hash that stands for a listener")
    consent: Literal["required", "assumed"] = Field(
        "required", description="what a pixel without `consent` means"
    )
    invalid_agents: dict[str, str] = Field(
        default_factory=dict,
        description="invalid traffic besides declared bots: by a reason of your own a regular expression of "
        "user agents, case-insensitive; the first that fits counts",
    )

    plans: Annotated[Path | InstanceOf[Topic] | None, Takes("path | kafka:TOPIC, or unset")] = Field(
        None,
        description="file of plans, CSV or JSON, which is read again when it changes, or a compacted topic",
    )
    labels: Literal["any", "planned"] = Field(
        "any",
        description=f"{', '.join(NAMED[:-1])} and {NAMED[-1]} that count: `any` that pixels name, "
        "or `planned` ones alone, which plans list",
    )
    under: float = Field(
        0.90, gt=0, description="delivery indicator below which a placement is under-delivering"
    )
    over: float = Field(
        1.10, gt=0, description="delivery indicator above which a placement is over-delivering"
    )
    delivery_grace: timedelta = Field(
        timedelta(minutes=15),
        ge=_NONE,
        description="time from a flight's start in which delivery is not judged",
    )
    delivery_gap: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of the elapsed flight up to which delivery is judged although nothing was counted",
    )
    state_hold: timedelta = Field(
        timedelta(minutes=5),
        ge=_NONE,
        description="event time for which a new condition of delivery must hold to become the state",
    )
    kafka_alerts_topic: TopicName = Field(
        "delivery-alerts", description="topic of the changes of delivery states, and of silent feeds"
    )
    silent_after: timedelta = Field(
        timedelta(minutes=1),
        ge=_SECOND,
        description="least time without a pixel after which a partition, platform or collector is silent",
    )
    silent_history: timedelta = Field(
        timedelta(minutes=10),
        ge=_NONE,
        description="how long such a unit must have sent before it can be silent",
    )
    kafka_exports_rejected_topic: TopicName = Field(
        "exports-rejected", description="topic of the dead letters of exports"
    )

    out_of_orderness: timedelta = Field(
        timedelta(seconds=10),
        ge=_NONE,
        description="how far the watermark stays behind the greatest event time",
    )
    allowed_lateness: timedelta = Field(
        timedelta(minutes=10), ge=_NONE, description="how long a minute stays provisional after its end"
    )
    horizon: timedelta = Field(
        timedelta(minutes=30),
        ge=_MINUTE,
        description="how long plays and events are remembered behind the watermark",
    )
    conversion_horizon: timedelta = Field(
        timedelta(days=60), ge=_MINUTE, description="how long conversions are remembered"
    )
    quiet: timedelta = Field(
        timedelta(seconds=60),
        ge=_NONE,
        description="how far behind the elapsed time a quiet partition advances",
    )
    max_hold: timedelta = Field(
        timedelta(hours=6),
        ge=_MINUTE,
        description="how long the flow waits for a collector that is silent, or whose low mark stands still",
    )
    max_state: int = Field(
        50_000_000,
        ge=1,
        description="pixels of a partition that may come while its time waits for a collector; with more, "
        "the oldest hold is released",
    )
    mature_after: timedelta = Field(
        timedelta(seconds=90), ge=_NONE, description="age of a start minute from which its rate is mature"
    )
    timezone: Annotated[str, Takes("IANA name of a time zone")] = Field(
        "Europe/London", description="calendar of the `1d` window"
    )

    shards: int = Field(
        8,
        ge=1,
        le=1024,
        description="packed shards of state, as many as workers or more; a recovery store keeps the number "
        "that it was made with, and each flush costs their square in messages",
    )
    recovery_dir: Path | None = Field(Path("recovery"), description="where saves go; made on first use")
    save_interval: timedelta = Field(
        timedelta(seconds=2),
        ge=_MOMENT,
        description="longest time between saves of all state, if it is longer than a flush interval",
    )
    batch_messages: int = Field(
        32_768,
        ge=1,
        description="most messages in a batch of one partition; before a flush, four times as many",
    )
    linger: timedelta = Field(
        timedelta(milliseconds=100),
        ge=_NONE,
        description="how long a partition that is not busy gathers a batch",
    )

    reject_share: float = Field(
        0.5, gt=0, le=1, description="share of rejected messages in the last hour at which the flow stops"
    )
    reject_least: int = Field(
        10_000, ge=1, description="messages in the last hour below which that share stops nothing"
    )

    metrics_port: int = Field(
        9464,
        ge=0,
        le=65535,
        description="port of the flow's /metrics; each further process adds its number; `0` opens none",
    )
    metrics_host: str = Field("127.0.0.1", description="address that /metrics and the exporter listen on")
    member_network: Literal["loopback", "private"] = Field(
        "loopback",
        description="where a member of a flow on several machines may listen: on `loopback`, or on a "
        "`private` network, such as a tunnel. Whoever reaches that network can run code as the flow",
    )

    @model_validator(mode="after")
    def _remembers_what_is_open(self) -> Settings:
        for name in ("horizon", "conversion_horizon"):
            if getattr(self, name) < self.allowed_lateness + _MINUTE:
                raise ValueError(
                    f"{PREFIX}{name.upper()} must be at least {PREFIX}ALLOWED_LATENESS and a minute, or an "
                    "open minute could count a pixel twice"
                )
        return self

    @model_validator(mode="after")
    def _rows_outlive_their_credits(self) -> Settings:
        least = max(self.row_ttl, max(self.click_window, self.listen_window) + self.allowed_lateness)
        if self.row_memory < least:
            raise ValueError(
                f"{PREFIX}ROW_MEMORY must be at least {PREFIX}ROW_TTL, and the longest attribution window "
                f"with {PREFIX}ALLOWED_LATENESS, or a conversion would be credited to a forgotten row"
            )
        return self

    @model_validator(mode="after")
    def _states_apart(self) -> Settings:
        if self.under >= self.over:
            raise ValueError(f"{PREFIX}UNDER must be below {PREFIX}OVER, or a placement would be both")
        return self

    @field_validator("*", mode="before")
    @classmethod
    def _seconds(cls, value: Any, info: ValidationInfo) -> Any:
        """Convert a number of seconds that is text, as in the environment. Refuse empty text."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, str) and not value.strip() and info.field_name != "redis_url":
            raise ValueError("is empty: give it a value, or leave it out for the default")
        if field.annotation is timedelta and isinstance(value, str):
            with suppress(ValueError):
                return float(value)
        return value

    @property
    def rows_at(self) -> str:
        """The namespace of this flow's rows: `namespace`, except for a recomputation's flow."""
        return self.rows_namespace or self.namespace

    @property
    def names(self) -> tuple[str, ...]:
        """The fields of `flows.model.dimensions.NAMES` by which this flow counts."""
        return NAMES if self.app_rows else WITHOUT_APPS

    @property
    def flushes_a_save(self) -> int:
        """The number of flushes from one save to the next: at least one less than `save_interval` has, since
        a flush may be late. Above `UNWATCHED` the number is a multiple of `UNWATCHED`, so that a log that
        ends is saved as often as a live one.
        """
        most = max(1, math.ceil(self.save_interval / self.flush_interval) - 1)
        return most - most % min(UNWATCHED, most)

    @property
    def output_topics(self) -> tuple[str, ...]:
        """The names of the topics that every flow writes, in the order of `OUTPUT_TOPICS`."""
        return tuple(getattr(self, name) for name in OUTPUT_TOPICS)

    @field_validator(*_TOPICS)
    @classmethod
    def _topic(cls, name: str) -> str:
        if re.fullmatch(_TOPIC, name) is None:
            raise ValueError("takes the name of a topic: up to 249 letters, digits, dots, _ and -")
        return name

    @field_validator("namespace")
    @classmethod
    def _prefix(cls, namespace: str) -> str:
        if re.fullmatch("[A-Za-z0-9:_-]+", namespace) is None:
            raise ValueError("takes letters, digits, colons, _ and -")
        return namespace

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            zones = available_timezones()
            cities = {zone.rpartition("/")[2]: zone for zone in zones}
            meant = f" (did you mean {cities[name]}?)" if name in cities else nearest(name, zones)
            raise ValueError(
                f"no such time zone: {name!r}{meant}; takes a name like Europe/London"
            ) from error
        return name

    @field_validator("invalid_agents")
    @classmethod
    def _expressions(cls, agents: dict[str, str]) -> dict[str, str]:
        if len(agents) > MAX_OWN_REASONS:
            raise ValueError(f"takes up to {MAX_OWN_REASONS} reasons")
        for reason, expression in agents.items():
            if re.fullmatch("[a-z][a-z_]{0,40}", reason) is None or reason in KNOWN_REASONS:
                raise ValueError(
                    "a reason is a word of lower case and _, and none of "
                    f"{' '.join(KNOWN_REASONS)}: {reason!r}"
                )
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{reason}: no regular expression: {error}") from None
        return agents

    @field_validator("plans", mode="before")
    @classmethod
    def _plans_topic(cls, value: Any) -> Any:
        if not isinstance(value, str) or not value.startswith("kafka:"):
            return value
        if re.fullmatch(f"kafka:{_TOPIC}", value) is None:
            raise ValueError("takes a file, or kafka:TOPIC with the name of a topic")
        return Topic(value)

    @field_validator("kafka_start")
    @classmethod
    def _start(cls, start: str) -> str:
        if start not in ("earliest", "latest") and not start.isdigit() and not start.startswith("archive:"):
            raise ValueError("takes earliest, latest, epoch milliseconds, or archive:DIR or archive:URL")
        return start

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources in the order of precedence: arguments, the environment, the file."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, values_in_force())

    @cached_property
    def zone(self) -> ZoneInfo:
        """The time zone of the calendar day."""
        return ZoneInfo(self.timezone)

    def secret_listener_key(self, of_the_flow: bool = False) -> bytes:
        """The key of the listeners' hash.

        Args:
            of_the_flow: whether the key must be that of an existing flow.

        Raises:
            SettingsError: no key is set. A key made up at each start would lose all known listeners.
        """
        if self.listener_key is None and of_the_flow:
            raise SettingsError(
                f"{PREFIX}LISTENER_KEY is not set, by which the flow of {self.namespace} hashes listeners. "
                "Nothing is forgotten: set it as audiopixel run has it, in its environment or its "
                "audiopixel.toml. A new key finds no listener"
            )
        if self.listener_key is None:
            raise SettingsError(
                f"{PREFIX}LISTENER_KEY is not set, by which listeners are hashed. "
                "Set it to 16 to 64 secret bytes (python -c 'import secrets; print(secrets.token_hex(16))') "
                "and never change it"
            )
        return self.listener_key.get_secret_value().encode()


SETTABLE: Final = tuple(name for name in Settings.model_fields if name not in INTERNAL)
"""The settings, in the order of their classes."""


def ms(duration: timedelta) -> int:
    """A duration in whole milliseconds."""
    return duration // timedelta(milliseconds=1)
