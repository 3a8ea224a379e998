"""The flow over two logs: the bench's, and one with the collector's fields, about 470 bytes a line.

`python -m benchmarks.second`: the second log has the same plays, with creatives, pseudonyms of listener,
client and household, a basis, the collector's low mark, and a conversion every thousand pixels, which carries
pseudonyms of an older key. DuckDB answers the same fields of each. The five contenders take turns: DuckDB and
the flow over each log, and the flow over the second one from Kafka.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Final

from benchmarks import topic
from benchmarks.bench import LONG_EVENTS, Bench, command
from benchmarks.measure import Result
from benchmarks.report import OURS, worse
from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from flows.model.basis import BASES

CONVERSION_EVERY: Final = 1000
LISTENERS_A_HOUSEHOLD: Final = 3
FIRST: Final = "duckdb_batch"
"""The query of the first log."""
SECOND: Final = "duckdb_second"
"""That of the second."""
CREATIVES: Final = 4
"""A campaign's, of which each of its placements plays all."""
_LINE: Final = re.compile(
    rb'(\{"event_id":"\w+","event":"(\w+)","ts":(\d+),.*"campaign_id":"(c-\d+)".*"play_id":"play-0*(\d+)",)'
    rb'"listener_id":"L(\d+)","consent":true,"duration_ms":\d+,"received_at":(\d+)\}\n'
)


def widen(log: Path, wide: Path) -> tuple[int, int]:
    """Write the second log; returns its lines and bytes."""
    count = size = 0

    @cache
    def pseudonyms(listener: int, key: str = "4ab0c7d1") -> bytes:
        named = {"listener": listener, "client": listener, "household": listener // LISTENERS_A_HOUSEHOLD}
        found = ""
        for kind, number in named.items():
            hashed = blake2b(b"%d" % number, digest_size=16, person=kind.encode()).hexdigest()
            found += f'"{kind}_id":"{key}.{hashed}",'
        return found.encode()

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
    usual: ClassVar[int] = LONG_EVENTS
    bytes_an_event: ClassVar[int] = 900

    def _contend(self) -> None:
        wide, warm = self.directory / "second.ndjson", self.directory / "warm-second.ndjson"
        with self.progress.status("writing second.ndjson"):
            count, size = widen(self.log, wide)
            widen(self.warm, warm)
        self.second = count, size
        about = f"{size / count:.0f} bytes"
        first: dict[str, Any] = {"log": self.log, "events": self.events}
        second: dict[str, Any] = {"log": wide, "events": count, "warm": warm}

        def over_second(contender: str, **servers: Any) -> Callable[[str], Result]:
            return lambda run: self._child(contender, f"second {run}", **second, **servers)

        with EmbeddedValkey() as valkey, EmbeddedBroker() as broker:
            with self.progress.status("loading the topic"):
                topic.load(wide, broker)
            redis: dict[str, Any] = {"redis_url": valkey.url}
            whole = {
                FIRST: self._child(OURS, "minutes", **first, **redis, minutes=True),
                SECOND: self._child(OURS, "second minutes", **second, **redis, minutes=True),
            }
            runs = self._by_turns(
                {
                    FIRST: partial(self._child, FIRST, **first),
                    OURS: partial(self._child, OURS, **first, **redis),
                    SECOND: over_second(SECOND),
                    "second": over_second(OURS, **redis),
                    "flow_kafka": over_second("flow_kafka", **redis, brokers=broker.bootstrap),
                }
            )
        for query, key, log in ((FIRST, OURS, "the first log"), (SECOND, "second", about)):
            self.truth = runs[query][0].answers
            self._take(query, f"DuckDB, one exact batch query, {log}", runs[query])
            self._compare(f"audiopixel, {log}", whole[query].answers)
            self._take(key, f"**audiopixel**, {log}", runs[key])
        self._take("flow_kafka", f"audiopixel from Kafka, {about}", runs["flow_kafka"])

    def _figures(self) -> dict[str, float]:
        first, batch = self.results[OURS], self.results[FIRST]
        second, its_batch, kafka = (self.results[key] for key in ("second", SECOND, "flow_kafka"))
        return {
            "first_by_duckdb": worse(first, batch),
            "by_first": worse(second, first),
            "by_duckdb": worse(second, its_batch),
            "kafka_by_duckdb": worse(kafka, its_batch),
            "kafka_by_file": worse(kafka, second),
        }

    def _about(self) -> str:
        count, size = self.second
        return f"{super()._about()}, and {count:,} of {size / count:.0f} bytes"

    def _end(self) -> None:
        """Nothing."""


if __name__ == "__main__":
    sys.exit(command(SecondBench, __doc__))
