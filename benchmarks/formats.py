"""The same events as JSON, wide JSON, CSV, Avro, Protobuf and Parquet: equal rows in Redis, and no difference
to a recomputation.

`python -m benchmarks.formats --events 1000000`: each format goes through a source of its own, a batch, into a
log, and the log through the flow. Avro and Protobuf are topics of an embedded broker, by a small schema
registry; the others are files. The wide JSON has 1.5 KB a message, of whose 60 fields 12 are mapped.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import ROOT
from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.kafka import KafkaWriter
from connectors.redis.client import connect
from flows.cli.reconcile_settings import rules
from flows.collector.call import Understood
from flows.collector.from_settings import understanding_of
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings.loading import load
from flows.sources.batch import in_order, pixels_of, write_file
from flows.sources.live import Ledger
from flows.sources.paths import Message
from flows.sources.source import Source, parse_source

sys.path[:0] = [str(ROOT / "tests" / "support")]  # the registry that the tests have
from registry_support import SmallRegistry, framed  # noqa: E402

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
        from google.protobuf.message_factory import GetMessageClass

        from flows.sources.protobuf import ProtobufSchema
        from flows.sources.schemas import Text

        schema_id = self._registry.put("protobuf", PROTO, "PROTOBUF")
        kinds = ProtobufSchema(Text("PROTOBUF", PROTO, {}))._file.message_types_by_name
        made: Any = GetMessageClass(kinds["Event"])

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


FORMATS: Final = ("json", "wide_json", "csv", "avro", "protobuf", "parquet")


def run(
    count: int, directory: Path, say: Callable[[str], object], chosen: Sequence[str] = FORMATS
) -> list[str]:
    """Run the chosen formats; the differences that were found, in sentences."""
    found: list[str] = []
    with ExitStack() as services:
        broker = services.enter_context(EmbeddedBroker())
        registry = services.enter_context(SmallRegistry())
        redis = services.enter_context(EmbeddedValkey())
        formats = Formats(directory, broker, registry)
        client = connect(redis.url)
        first: dict[str, dict[str, str]] = {}
        for name in chosen:
            source, log, ledger = getattr(formats, name)(count), directory / f"{name}.log", Ledger()
            settings = load(
                kafka_brokers=broker.bootstrap,
                redis_url=redis.url,
                namespace=f"{name}:v1",
                metrics_port=0,
                collect_key=KEY,
                recovery_dir=None,
            )
            rejected: Counter[str] = Counter()
            began_s = time.process_time()
            understanding = understanding_of(settings.model_copy(update={"collect_placements": "any"}))
            count_rejected = partial(_count, rejected)
            lines = pixels_of(source, settings, understanding, ledger, count_rejected)
            write_file(in_order(lines, directory), log)
            took_s = time.process_time() - began_s
            if ledger.pixels != count or rejected:
                found.append(f"{name}: {ledger.line()}: {dict(rejected)}")
            replay([str(log)], settings, KEY.encode())
            of_oracle = differences(recompute([log], rules(settings)), client, settings.namespace)
            rows = rows_of(client, settings.namespace)
            first = first or rows
            unequal = [key for key in first.keys() | rows.keys() if first.get(key) != rows.get(key)]
            digest = hashlib.sha256(log.read_bytes()).hexdigest()[:12]
            of_rows = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:12]
            say(
                f"{name:10} {ledger.line()}; {took_s / count * 1e6:.1f} us of processor an event; "
                f"rows {len(rows):,}, other than the first's {len(unequal):,}; "
                f"differences {len(of_oracle)}; rows {of_rows}; log {digest}"
            )
            found += [f"{name}: {one}" for one in of_oracle] + [f"{name}: {key} differs" for key in unequal]
            for path in directory.iterdir():
                path.unlink()
        client.close()
    return found


def _count(rejected: Counter[str], _: Message, found: Understood) -> None:
    rejected[f"{found.reason} {found.wrong}".strip()] += 1


def rows_of(client: Any, namespace: str) -> dict[str, dict[str, str]]:
    """The rows of all scopes, by key without the namespace."""
    found = {}
    for index in client.scan_iter(match=f"{namespace}:index:*"):
        index = index if isinstance(index, str) else index.decode()
        scope = index.rpartition(":")[2]
        for name in client.zrange(index, 0, -1):
            row = client.hgetall(f"{namespace}:{scope}:{{{name}}}")
            found[f"{scope}/{name}"] = {field: value for field, value in row.items() if field not in OF_A_RUN}
    return found


OF_A_RUN: Final = frozenset(("rev", "updated_ms"))
"""Fields of the moment in which a row was written."""


def main() -> int:
    """Run all formats; exit code 1 where one differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats", description=__doc__)
    parser.add_argument("--events", type=int, default=20_000, help="events in each format")
    parser.add_argument("--formats", default=",".join(FORMATS), help="by commas; the first is compared with")
    chosen = parser.parse_args()
    formats = chosen.formats.split(",")
    if unknown := set(formats) - set(FORMATS):
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(FORMATS)}")
    with tempfile.TemporaryDirectory(prefix="audiopixel-formats-") as directory:
        found = run(chosen.events, Path(directory), lambda line: print(line, flush=True), formats)
    for line in found[:20]:
        print(line)
    print(f"{len(found)} differences in {len(formats)} formats of {chosen.events:,} events")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
