"""The flow over two logs by turns: the bench's, and one with the collector's fields, about 450 bytes a line.

`python -m benchmarks.second`: the second log has the same plays, with creatives, pseudonyms of listener,
client and household, a basis, the collector's low mark, and a conversion every thousand pixels, which carries
pseudonyms of an older key. DuckDB answers the same fields of each.
"""

from __future__ import annotations

import re
import sys
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar, Final

from benchmarks import topic
from benchmarks.bench import Bench, command
from benchmarks.report import OURS, worse
from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from flows.model.basis import BASES

CONVERSION_EVERY: Final = 1000
LISTENERS_A_HOUSEHOLD: Final = 3
CREATIVES: Final = 4
"""A campaign's, of which each of its placements plays all."""
_LINE: Final = re.compile(
    rb'(\{"event_id":"\w+","event":"(\w+)","ts":(\d+),.*"campaign_id":"(c-\d+)".*"play_id":"play-0*(\d+)",)'
    rb'"listener_id":"L(\d+)","consent":true,"duration_ms":\d+,"received_at":(\d+)\}\n'
)


def widen(log: Path, wide: Path) -> tuple[int, int]:
    """Write the second log; returns its lines and bytes."""
    count = size = 0
    known: dict[tuple[str, int], bytes] = {}

    def pseudonyms(listener: int, key: str = "4ab0c7d1") -> bytes:
        named = {"listener": listener, "client": listener, "household": listener // LISTENERS_A_HOUSEHOLD}
        found = b""
        for kind, number in named.items():
            if (kind, number) not in known:
                hashed = blake2b(b"%d" % number, digest_size=16, person=kind.encode()).hexdigest()
                known[kind, number] = hashed.encode()
            found += b'"%b_id":"%b.%b",' % (kind.encode(), key.encode(), known[kind, number])
        return found

    with log.open("rb") as lines, wide.open("wb") as out:
        for number, line in enumerate(lines):
            match = _LINE.fullmatch(line)
            assert match is not None, line
            begun, event, ts, campaign, play, listener, received = match.groups()
            who = pseudonyms(int(listener))
            end = b'"consent":true,"received_at":%b,"collector":"7c41","low_ms":%d}\n'
            end %= (received, int(received) - 9)
            extra = b'"creative_id":"%b-%d",' % (campaign, int(play) % CREATIVES)
            if event == b"impression":
                extra += b'"basis":"%b",' % BASES[int(play) % 7 % len(BASES)].encode()
            elif event == b"start" and int(play) % 3:
                extra += b'"device_confirmed":true,'
            size += out.write(begun + who + extra + end)
            count += 1
            if number % CONVERSION_EVERY == 0:
                size += out.write(
                    b'{"event_id":"v%d","event":"conversion","ts":%b,"campaign_id":"%b","conversion":{"type":'
                    b'"purchase","order_id":"o%d","value":"19.99","currency":"GBP"},"previous":{%b},%b%b'
                    % (number, ts, campaign, number, pseudonyms(int(listener), "90e2f355")[:-1], who, end)
                )
                count += 1
    return count, size


class SecondBench(Bench):
    """The flow over two logs."""

    name: ClassVar[str] = "second"

    def _contend(self) -> None:
        wide, warm = self.directory / "second.ndjson", self.directory / "warm-second.ndjson"
        with self.progress.status("writing second.ndjson"):
            count, size = widen(self.log, wide)
            widen(self.warm, warm)
        self.second = count, size
        for key, log, events, query, name in (
            (OURS, self.log, self.events, "duckdb_batch", "the first log"),
            ("second", wide, count, "duckdb_second", f"{size / count:.0f} bytes"),
        ):
            self.warm = self.warm if log is self.log else warm
            self._batch(query, f"DuckDB, one exact batch query, {name}", log, events)
            with EmbeddedValkey() as valkey:
                whole = self._child(OURS, f"{key} minutes", log, events, redis_url=valkey.url, minutes=True)
                self._compare(f"audiopixel, {name}", whole.answers)
                self._take(
                    key, f"**audiopixel**, {name}", self._runs(OURS, log, events, redis_url=valkey.url)
                )

        with EmbeddedValkey() as valkey, EmbeddedBroker() as broker:
            with self.progress.status("loading the topic"):
                topic.load(wide, broker)
            servers = {"redis_url": valkey.url, "brokers": broker.bootstrap}
            runs = self._runs("flow_kafka", wide, count, **servers)
        self._take("flow_kafka", f"audiopixel from Kafka, {size / count:.0f} bytes", runs)

    def _figures(self) -> dict[str, float]:
        second, batch = self.results["second"], self.results["duckdb_second"]
        return {
            "by_first": worse(second, self.results[OURS]),
            "by_duckdb": worse(second, batch),
            "kafka_by_duckdb": worse(self.results["flow_kafka"], batch),
        }

    def _about(self) -> str:
        count, size = self.second
        return f"{super()._about()}, and {count:,} of {size / count:.0f} bytes"

    def _end(self) -> None:
        """Nothing."""


if __name__ == "__main__":
    sys.exit(command(SecondBench, __doc__))
