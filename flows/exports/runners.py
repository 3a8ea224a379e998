"""Makes exports from settings, and runs each until SIGTERM or Ctrl-C, or once over the present messages."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import SecretStr

from connectors.durable import Taken
from connectors.kafka import GroupReader, KafkaInput, KafkaTrouble, KafkaWriter, Places, has_place, whole
from connectors.redis import connect, read_rows
from connectors.shelves import Shelf, shelf
from flows.errors import AudiopixelError, SettingsError, StateError
from flows.exports.adobe import Adobe
from flows.exports.analytics import DecisionsTarget, PixelsTarget
from flows.exports.calls import Caller, Form
from flows.exports.denied import ExportDenyList
from flows.exports.facts import ClientId, Fact
from flows.exports.ga4 import Ga4, client_of
from flows.exports.handover import Handover, Parcel, Target, TopicReader
from flows.exports.instruments import Instruments
from flows.exports.known_conversions import KnownConversions
from flows.exports.notices import NoticeTarget, SignedWebhook, SlackMessage
from flows.settings import PREFIX, Settings, kafka_options, secret_bytes

if TYPE_CHECKING:
    from flows.viewers.access import Owners

Start = Literal["earliest", "latest"]


@dataclass
class Exports:
    """The common parts of one process's exports.

    Args:
        name: the export's name in its group, its metrics and its dead letters.
        once: whether to end once all present messages are handed over.
        start: the position at which a group without a place begins.
        to: the directory or object storage that an export of files writes to.
        owners: the owners of the planned placements; None without plans.
    """

    settings: Settings
    name: str
    once: bool = False
    start: Start = "latest"
    to: str = ""
    owners: Callable[[Settings], Owners | None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)
    instruments: Instruments = field(default_factory=Instruments)

    @contextmanager
    def reading(
        self, topics: Sequence[str], part: str = "", start: Start | None = None
    ) -> Iterator[GroupReader]:
        """A reader of topics, from the place of the export's group.

        Args:
            part: the suffix of the group, if the export has several.
            start: overrides the export's `start`.
        """
        settings = self.settings
        reader = GroupReader(
            settings.kafka_brokers,
            topics,
            kafka_options(settings),
            group=self.group(part),
            start=start or self.start,
            on_lost=settings.kafka_on_lost,
        )
        try:
            yield reader
        finally:
            reader.close()

    def group(self, part: str = "") -> str:
        """The consumer group that stores the place, or a part of it."""
        return f"{self.settings.kafka_group}-export-{self.name}{part}"

    def handover(self, reader: TopicReader, target: Target) -> Handover:
        """The loop for a target."""
        settings = self.settings
        topic = settings.kafka_exports_rejected_topic
        letters = KafkaWriter(settings.kafka_brokers, topic, kafka_options(settings))
        give_up = settings.export_give_up
        return Handover(self.name, reader, target, letters, self.instruments, give_up, self.stop)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A context in which /metrics is served, and SIGTERM and Ctrl-C set `stop`."""

        def ending(_: int, __: object) -> None:
            self.stop.set()

        before = {number: signal.signal(number, ending) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.instruments.serve(self.settings)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def export_parquet(exports: Exports) -> None:
    """Write days. A new generation of the flow begins days of its own.

    Raises:
        ConnectError: Kafka or Redis does not answer at the start.
        AudiopixelError: no flow has written yet.
        StateError: another export writes to the same place.
    """
    try:
        from flows.exports.complete import Completeness, NewGeneration
        from flows.exports.parquet import ParquetTarget
        from flows.exports.staging import Staging
        from flows.exports.warehouse import Warehouse
    except ImportError:
        raise AudiopixelError("pyarrow is not installed: pip install 'audiopixel[parquet]'") from None
    settings = exports.settings
    kinds = {settings.kafka_minutes_topic: "minutes", settings.kafka_credits_topic: "decisions"}
    to = exports.to
    warehouse_shelf = shelf(to)
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)

    def meta() -> Mapping[str, str]:
        return read_rows(client, [f"{settings.namespace}:meta"])[0]

    with _alone(warehouse_shelf, to), exports.serving():
        while not exports.stop.is_set():
            meta_row = meta()
            if "generation" not in meta_row:
                raise AudiopixelError("no flow has written to Redis yet: start it (audiopixel run) first")
            generation = int(meta_row["generation"])
            completeness = Completeness(settings, meta, generation)
            with (
                exports.reading([*kinds], f"-g{generation}", _begin(exports, [*kinds], generation)) as reader,
                tempfile.TemporaryDirectory(prefix="audiopixel-export-") as directory,
            ):
                staging, warehouse = Staging(Path(directory)), Warehouse(warehouse_shelf, generation)
                target = ParquetTarget(kinds, reader, completeness, staging, warehouse)  # type: ignore[arg-type]  # two literals
                try:
                    exports.handover(reader, target).run(exports.once)
                    return
                except NewGeneration:
                    continue
                finally:
                    staging.close()


@contextmanager
def _alone(warehouse_shelf: Shelf, to: str) -> Iterator[None]:
    try:
        with warehouse_shelf.alone():
            yield
    except Taken:
        raise StateError(f"{to}: another export writes there: give each a directory of its own") from None


def _begin(exports: Exports, topics: Sequence[str], generation: int) -> Start | None:
    """The start of a generation without a place; None for the export's `start`. After an older generation of
    this export it is the topics' beginning, since the flow counts the log again.
    """
    options = kafka_options(exports.settings)
    earlier_places = (
        has_place(exports.settings.kafka_brokers, topics, options, exports.group(f"-g{before}"))
        for before in reversed(range(generation))
    )
    return "earliest" if exports.start == "latest" and any(earlier_places) else None


def _secrets(settings: Settings) -> list[bytes]:
    if not settings.export_webhook_secrets:
        raise SettingsError(
            f"{PREFIX}EXPORT_WEBHOOK_SECRETS is not set: receivers recognise our calls by the signature alone"
        )
    return [secret_bytes(one.get_secret_value()) for one in settings.export_webhook_secrets]


def notices(setting: str, form_of: Callable[[Settings], Form]) -> Callable[[Exports], None]:
    """An export that makes one call for each change.

    Args:
        setting: the name of the setting with the address.
        form_of: makes the form of the calls; raises SettingsError if a setting is missing.
    """

    def export(exports: Exports) -> None:
        settings = exports.settings
        form, caller = form_of(settings), caller_of(settings, setting)
        alerts, texts = settings.kafka_alerts_topic, _present(settings, settings.kafka_methodology_topic)
        with exports.serving(), exports.reading([alerts, *texts]) as reader:
            keys_before = {key for topic in texts for key in _keys_before(settings, topic, reader.places)}
            exports.handover(reader, NoticeTarget(caller, form, alerts, keys_before)).run(exports.once)

    return export


def _keys_before(settings: Settings, topic: str, places: Places) -> Iterator[bytes]:
    """The keys of the messages that a topic has before the given places."""
    for change in whole(settings.kafka_brokers, topic, kafka_options(settings)):
        if change.offset < places.get((topic, change.partition), 0):
            yield change.key or b""


def caller_of(settings: Settings, setting: str) -> Caller:
    """The caller of the address that a setting names.

    Raises:
        SettingsError: the setting is not set, or is no URL of HTTP.
    """
    address: SecretStr | str | None = getattr(settings, setting)
    if address is None:
        raise SettingsError(f"{PREFIX}{setting.upper()} is not set: set it to the address to call")
    try:
        url = address if isinstance(address, str) else address.get_secret_value()
        return Caller(url, settings.export_timeout)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}{setting.upper()} {error}") from None


def _present(settings: Settings, topic: str) -> list[str]:
    """The topic, if Kafka has it."""
    try:
        KafkaInput(settings.kafka_brokers, [topic], options=kafka_options(settings)).partitions()
    except KafkaTrouble as error:
        if error.kind != "missing":
            raise
        return []
    return [topic]


def export_adcp(exports: Exports) -> None:
    """Call a buyer's agent with the delivery of media buys, by AdCP's webhooks.

    Raises:
        SettingsError: the address or the secret is not set.
        StateError: another process has the state.
        ConnectError: Kafka or Redis does not answer at the start.
    """
    from flows.exports.delivery_reports import DeliveryReports, Reports
    from flows.exports.media_buys import FIELDS, SCOPES, MediaBuys, NoTopic
    from flows.viewers.access import Owners
    from flows.viewers.adcp import Agent
    from flows.viewers.reader import RowsReader

    settings = exports.settings
    caller, form = caller_of(settings, "export_adcp"), SignedWebhook(_secrets(settings))
    reports = Reports(settings.export_state, exports.name)
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    board = RowsReader(client, settings.namespace, FIELDS, scopes=SCOPES)
    target = DeliveryReports(
        MediaBuys(Agent(board, settings, exports.owners(settings) or Owners())),
        reports,
        caller,
        form,
        settings.export_adcp_operation,
        settings.export_adcp_every,
        settings.export_give_up,
    )
    try:
        with exports.serving():
            exports.handover(NoTopic(), target).run(exports.once)
    finally:
        board.close()
        reports.close()


def export_ga4(exports: Exports) -> None:
    """Send plays and attributed conversions to Google Analytics.

    Raises:
        SettingsError: the stream, its secret or the listener key is not set.
        StateError: another process has the state.
        ConnectError: Kafka does not answer at the start.
    """
    settings = exports.settings
    stream, secret = settings.export_ga4_measurement_id, settings.export_ga4_secret
    if stream is None or secret is None:
        raise SettingsError(f"set {PREFIX}EXPORT_GA4_MEASUREMENT_ID and {PREFIX}EXPORT_GA4_SECRET first")
    ga4 = Ga4(caller_of(settings, "export_ga4_url"), stream, secret.get_secret_value())
    _analyse(exports, client_of, ga4.parcels)


def export_adobe(exports: Exports) -> None:
    """Send plays and attributed conversions to Adobe Analytics.

    Raises:
        SettingsError: the address, the report suite or the listener key is not set.
        StateError: another process has the state.
        ConnectError: Kafka does not answer at the start.
    """
    settings = exports.settings
    caller = caller_of(settings, "export_adobe_url")
    if settings.export_adobe_suite is None:
        raise SettingsError(f"{PREFIX}EXPORT_ADOBE_SUITE is not set: set it to the report suite's id")
    adobe = Adobe(caller, settings.export_adobe_suite, settings.secret_listener_key(of_the_flow=True))
    _analyse(exports, adobe.visitor_id, adobe.parcels)


def _analyse(
    exports: Exports, client_id_of: ClientId, make: Callable[[Sequence[Fact]], list[Parcel]]
) -> None:
    """Run the loops over the decisions and over the pixels in turn."""
    settings = exports.settings
    secret = settings.secret_listener_key(of_the_flow=True)  # the deny-list has hashes by this key
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    denied = ExportDenyList(client, settings.namespace, secret)
    known_conversions = KnownConversions(settings.export_state, exports.name)
    try:
        with (
            exports.serving(),
            exports.reading([settings.kafka_topic], "-pixels") as pixels,
            exports.reading([settings.kafka_credits_topic], "-decisions") as decisions,
        ):
            connections = settings.export_connections
            pixels_target = PixelsTarget(client_id_of, make, known_conversions, denied, connections)
            pixels_loop = exports.handover(pixels, pixels_target)
            decisions_target = DecisionsTarget(make, known_conversions, denied, pixels_loop, connections)
            decisions_loop = exports.handover(decisions, decisions_target)
            decisions_loop.poll = timedelta(0)
            ends = (pixels.ends(), decisions.ends()) if exports.once else None
            while not exports.stop.is_set():
                decisions_loop.turn()
                pixels_loop.turn()
                if ends is not None and pixels.passed(ends[0]) and decisions.passed(ends[1]):
                    return
    finally:
        known_conversions.close()
        client.close()


RUNS: Final[Mapping[str, Callable[[Exports], None]]] = {
    "parquet": export_parquet,
    "webhook": notices("export_webhook", lambda settings: SignedWebhook(_secrets(settings))),
    "slack": notices("export_slack", lambda _: SlackMessage()),
    "adcp": export_adcp,
    "ga4": export_ga4,
    "adobe": export_adobe,
}
"""The function that runs each of `flows.model.catalogue.exports`, until SIGTERM or Ctrl-C.

Raises SettingsError if a setting is missing or wrong, StateError if another process has the state or the
place, ConnectError if Kafka or Redis is away at the start, AudiopixelError if no flow has written.
"""
