"""The same events as JSON, wide JSON, CSV, Avro, Protobuf and Parquet give the same log, and its replay gives
the rows of a recomputation.

Each format goes through a source of its own, a batch. Avro and Protobuf are topics of an embedded broker, by
a small schema registry; the others are files. The wide JSON has 1.5 KB a message, of whose 60 fields 12 are
mapped.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from registry_support import SmallRegistry, framed

from connectors.embedded import EmbeddedBroker
from connectors.kafka import KafkaWriter
from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.collector.from_settings import understanding_of
from flows.model.dimensions import SCOPES
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings.fields import Settings
from flows.sources.batch import in_order, pixels_of, write_file
from flows.sources.live import Ledger
from flows.sources.source import Source, parse_source

T0_MS: Final = 1_795_600_800_000
EVERY_MS: Final = 20
KEY: Final = "a key of these events alone"
FIELDS: Final = (
    "event",
    "event_id",
    "placement_id",
    "campaign_id",
    "creative_id",
    "play_id",
    "ts",
    "listener_id",
    "consent",
    "platform",
    "station",
    "podcast",
)
_STEPS: Final = ("impression", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete")
_TEXTS: Final = tuple(name for name in FIELDS if name not in ("ts", "consent"))
AVRO: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Event",
    "fields": [
        *({"name": name, "type": ["null", "string"]} for name in _TEXTS),
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "consent", "type": "boolean"},
    ],
}
_FIELDS_OF_PROTO: Final = "".join(
    f"optional string {name} = {number};" for number, name in enumerate(_TEXTS, 1)
)
PROTO: Final = f"""
syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Event {{ {_FIELDS_OF_PROTO} google.protobuf.Timestamp ts = 20; bool consent = 21; }}
"""
Event = dict[str, Any]


def events(count: int) -> Iterator[Event]:
    """Events of plays that lie within each other, in the order of receipt; one in a hundred comes twice."""
    made = play = 0
    open_plays: list[list[Any]] = []
    while made < count:
        if len(open_plays) < 40:
            open_plays.append([play, 0])
            play += 1
        at = (made * 7) % len(open_plays)
        number, step = open_plays[at]
        event = _event(made, number, _STEPS[step])
        for _ in range(2 if made % 100 == 99 and made + 1 < count else 1):
            yield event | {"received_at": T0_MS + made * EVERY_MS}
            made += 1
        open_plays[at][1] += 1
        if step == len(_STEPS) - 1 or (number * 31 + step * 17) % 11 == 0:
            open_plays.pop(at)


def _event(number: int, play: int, step: str) -> Event:
    placement = play % 40
    return {
        "event": step,
        "event_id": f"e-{number}",
        "placement_id": f"placement-{placement}",
        "campaign_id": f"campaign-{placement % 9}",
        "creative_id": f"creative-{play % 5}",
        "play_id": f"play-{play}",
        "ts": T0_MS + number * EVERY_MS - play % 900,
        "listener_id": f"listener-{(play * 7919) % 5_003}",
        "consent": play % 6 != 0,
        "platform": f"platform-{placement % 3}",
        "station": f"station-{placement % 7}" if placement % 2 else None,
        "podcast": None if placement % 2 else f"podcast-{placement % 4}",
    }


class Formats:
    """Writes events in each format, and makes the source that reads them back.

    Args:
        directory: of files.
        broker, registry: of topics.
    """

    def __init__(self, directory: Path, broker: EmbeddedBroker, registry: SmallRegistry) -> None:
        self._directory, self._broker, self._registry = directory, broker, registry

    def json(self, count: int) -> Source:
        return self._lines("json", count, lambda event: event, lambda name: name)

    def wide_json(self, count: int) -> Source:
        other = {f"other_{number}": "x" * 15 for number in range(48)}

        def wide(event: Event) -> Event:
            nested = {name: event[name] for name in FIELDS}
            return {"received_at": event["received_at"], "ad": {"fields": nested}, "rest": other}

        return self._lines("wide-json", count, wide, lambda name: f"ad.fields.{name}")

    def csv(self, count: int) -> Source:
        path = self._directory / "events.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, (*FIELDS, "received_at"))
            writer.writeheader()
            writer.writerows(events(count))
        return self._source(f'files = "{path}"\nformat = "csv"', lambda name: name)

    def parquet(self, count: int) -> Source:
        import pyarrow as pa
        import pyarrow.parquet as pq

        stamp = pa.timestamp("us", "UTC")
        schema = pa.schema(
            [
                *(pa.field(name, pa.string()) for name in _TEXTS),
                *(pa.field("ts", stamp), pa.field("consent", pa.bool_()), pa.field("received_at", stamp)),
            ]
        )
        path, times = self._directory / "events.parquet", ("ts", "received_at")
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            made = events(count)
            while some := [event for _, event in zip(range(50_000), made, strict=False)]:
                rows = [event | {name: event[name] * 1000 for name in times} for event in some]
                columns = {name: [row[name] for row in rows] for name in schema.names}
                arrays = [pa.array(columns[field.name], field.type) for field in schema]
                writer.write_table(pa.table(arrays, schema=schema))
        return self._source(f'files = "{path}"\nformat = "parquet"', lambda name: name)

    def avro(self, count: int) -> Source:
        from fastavro import parse_schema, schemaless_writer

        schema_id, schema = self._registry.put("avro", AVRO), parse_schema(AVRO)

        def encoded(event: Event) -> bytes:
            file = io.BytesIO()
            schemaless_writer(file, schema, event | {"ts": event["ts"] * 1000})
            return framed(schema_id, file.getvalue())

        return self._topic("avro", count, encoded)

    def protobuf(self, count: int) -> Source:
        from flows.sources.protobuf import ProtobufSchema
        from flows.sources.schemas import Text

        schema_id = self._registry.put("protobuf", PROTO, "PROTOBUF")
        kinds = ProtobufSchema(Text("PROTOBUF", PROTO, {})).kinds.values()
        made = next(one.message_class for one in kinds if one.name.rpartition(".")[2] == "Event")

        def encoded(event: Event) -> bytes:
            message: Any = made(consent=event["consent"], **{name: event[name] for name in _TEXTS})
            message.ts.FromMilliseconds(event["ts"])
            return framed(schema_id, b"\0" + message.SerializeToString())

        return self._topic("protobuf", count, encoded)

    def _lines(
        self, name: str, count: int, shape: Callable[[Event], Event], path_of: Callable[[str], str]
    ) -> Source:
        path = self._directory / f"{name}.ndjson"
        with path.open("w") as file:
            for event in events(count):
                file.write(json.dumps(shape(event), separators=(",", ":")) + "\n")
        return self._source(f'files = "{path}"', path_of)

    def _topic(self, format_: str, count: int, encoded: Callable[[Event], bytes]) -> Source:
        topic = f"events-{format_}"
        self._broker.create_topic(topic, 4)
        writer = KafkaWriter(self._broker.bootstrap, topic)
        for number, event in enumerate(events(count)):
            writer.send(number % 4, b"", encoded(event), event["received_at"])
            if number % 10_000 == 0:
                writer.flush()
        writer.close()
        head = f'topic = "{topic}"\nmode = "batch"\nformat = "{format_}"'
        return self._source(f'{head}\n[registry]\nurl = "{self._registry.url}"', lambda name: name, False)

    def _source(self, head: str, path_of: Callable[[str], str], file: bool = True) -> Source:
        names = [f'{name} = "{path_of(name)}"' for name in FIELDS]
        names += ['received_at = "received_at"'] if file else []
        return parse_source("\n".join((head, "[names]", *names)), "events.toml", "events")


FORMATS: Final = ("wide_json", "csv", "avro", "protobuf", "parquet")
COUNT: Final = 5_000


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        yield server


@pytest.fixture(scope="module")
def registry() -> Iterator[SmallRegistry]:
    with SmallRegistry() as server:
        yield server


@pytest.fixture
def settings(settings_of: Callable[..., Settings], broker: EmbeddedBroker) -> Settings:
    return settings_of(kafka_brokers=broker.bootstrap, collect_key=KEY, collect_placements="any")


@pytest.fixture
def log_of(
    settings: Settings, broker: EmbeddedBroker, registry: SmallRegistry, tmp_path: Path
) -> Callable[[str], Path]:
    """Writes the events in a format, and the pixels that its source makes of them."""
    formats = Formats(tmp_path, broker, registry)

    def written(name: str) -> Path:
        source, log, ledger = getattr(formats, name)(COUNT), tmp_path / f"{name}.log", Ledger()
        rejected: list[object] = []
        lines = pixels_of(
            source, settings, understanding_of(settings), ledger, lambda *told: rejected.append(told)
        )
        write_file(in_order(lines, tmp_path), log)
        assert (ledger.pixels, rejected) == (COUNT, [])
        return log

    return written


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_log_of_json_to_the_byte(name: str, log_of: Callable[[str], Path]) -> None:
    assert log_of(name).read_text().splitlines() == log_of("json").read_text().splitlines()


def test_a_replay_of_the_log_gives_the_rows_of_a_recomputation(
    settings: Settings,
    client: Client,
    log_of: Callable[[str], Path],
    rows_of: Callable[[Settings, str], dict[str, dict[str, str]]],
) -> None:
    log = log_of("json")
    replay([str(log)], settings, KEY.encode())
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []
    assert sum(len(rows_of(settings, scope)) for scope in SCOPES) == 66


def test_the_events_have_repeats_and_nested_plays() -> None:
    made = list(events(2_000))
    ids = [one["event_id"] for one in made]
    assert len(made) == 2_000
    assert len(ids) - len(set(ids)) >= 15
    plays = [one["play_id"] for one in made]
    assert plays != sorted(plays)
    assert [one["received_at"] for one in made] == sorted({one["received_at"] for one in made})
