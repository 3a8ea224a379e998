"""Messages of Kafka as bytes, and whole logs.

Of each message: the scanner, the plain decoder and the oracle, which shares no code with them, make the same
of it; and received = accepted + repeated + rejected. Of each log: the oracle finds no difference from what a
real replay has published.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import uuid4

import zstandard
from lines_support import by_the_flow, by_the_oracle
from scanner_support import Both

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect
from connectors.stream import LATEST_MS, Messages
from flows.cli.reconcile_settings import rules
from flows.intake.dead_letters import late_letter
from flows.intake.decoder import Decoder
from flows.intake.partition import Intake
from flows.intake.watermark import PartitionClock
from flows.model.ticks import Cut
from flows.plays.play_shard import PlayShard
from flows.publish.ledger import Ledger
from flows.reconcile import compare, recompute
from flows.replay import OUTPUTS, replay
from flows.settings import load
from fuzz.corpus import NAMES, T0_MS, conversions, marks, pixels
from fuzz.mutate import document
from fuzz.run import Input

_KEY: Final = b"a key of sixteen bytes"
_LATE_MS, _HORIZON_MS = 10 * 60_000, 30 * 60_000
_STAMPS: Final = (T0_MS, T0_MS + 90_000_000, 0, 1, 2**31, 2**53, LATEST_MS - 1, LATEST_MS, 2**63 - 1)
"""Times at which a broker says that it took a message."""


class _Held:
    """A reader over messages in memory, as of a broker."""

    caught_up, lag, errors, skipped, log_id = True, 0, 0, 0, ""
    in_history = False

    def __init__(self) -> None:
        self.position, self.waiting = 0, list[tuple[bytes, int]]()

    def proven(self) -> bool:
        return False

    def read(self, limit: int) -> Messages | None:
        some, self.waiting = self.waiting[:limit], self.waiting[limit:]
        if not some:
            return None
        before, self.position = self.position, self.position + len(some)
        values, stamps = zip(*some, strict=True)
        return Messages(list(values), range(before, self.position), self.position, list(stamps))

    def commit(self, position: int) -> None:
        """Do nothing: no consumer reads committed positions."""

    def close(self) -> None:
        """Nothing is open."""


class MessagesDoor:
    """The topic of pixels, up to the plays and the ledger."""

    def __init__(self, _: Path, good: Callable[[], Sequence[dict[str, Any]]] = pixels) -> None:
        self._good = good
        self._both, self._reader = Both(), _Held()
        clock = PartitionClock(10_000, 60_000)
        self._intake = Intake(
            "t/0", ("t/0",), self._reader, Decoder(_KEY), clock, 2, 1_000, True, ahead=False
        )
        self._shards = [PlayShard(one, 2, _LATE_MS, _HORIZON_MS, _HORIZON_MS, secret=_KEY) for one in (0, 1)]
        self._ledger, self._tick = Ledger(1.0, 1 << 60), 0

    def make(self, rng: Random) -> Input:
        stamp = str(rng.choice(_STAMPS) if rng.random() < 0.2 else T0_MS + rng.randrange(10**6)).encode()
        return stamp, document(rng.choice(self._good()), NAMES, rng)

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        told = [int(one[0] or b"0") for one in inputs]
        stamps = [stamp if 0 < stamp < LATEST_MS else 0 for stamp in told]  # as every reader of Kafka does
        values = [one[1] for one in inputs]
        self._both.decode(values, stamps)
        lines = [value for value in values if b"\n" not in value]
        assert by_the_oracle(lines) == by_the_flow(lines)
        before, watermark_ms = Counter(self._ledger.counts.get("t/0", {})), self._intake.clock.watermark_ms
        self._reader.waiting += zip(values, stamps, strict=True)
        self._tick += 1
        output = self._intake.step(self._tick, 0)
        assert output.receipt is not None
        assert output.receipt.received + output.receipt.marks == len(values)
        assert self._intake.clock.watermark_ms >= watermark_ms, "the watermark went back"
        letters = list(output.letters)
        for some in output.pixels:
            letters += map(late_letter, self._shards[some.to].apply(some))
        for _, letter in letters:
            json.loads(letter)
        self._ledger.receive(output.receipt)
        cut = Cut(self._tick, self._intake.clock.watermark_ms, False, (("t/0", self._intake.position),))
        for shard in self._shards:
            for outcomes in shard.cut(cut)[-1]:
                self._ledger.add_outcomes(outcomes)
        self._ledger.cut(cut)  # it asserts the sum
        now = Counter(self._ledger.counts["t/0"])
        now.subtract(before)
        return Counter({name: now[name] for name in ("marks", "accepted", "repeated")}) + Counter(
            rejected=now["received"] - now["accepted"] - now["repeated"]
        )

    def close(self) -> None:
        self._intake.close()


def conversions_door(directory: Path) -> MessagesDoor:
    """The same topic's conversions."""
    return MessagesDoor(directory, conversions)


def marks_door(directory: Path) -> MessagesDoor:
    """The same topic's words of collectors."""
    return MessagesDoor(directory, marks)


class LogDoor:
    """Files of a log, through a real flow into a real Redis, and against the oracle."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._valkey = directory, EmbeddedValkey().__enter__()
        self._client = connect(self._valkey.url, timeout=timedelta(seconds=5))
        directory.mkdir(parents=True, exist_ok=True)

    def make(self, rng: Random) -> Input:
        dice = rng.random()
        good = rng.choice((pixels, pixels, conversions, marks))()
        one = rng.choice(good)
        line = json.dumps(one).encode() if dice < 0.6 else document(one, NAMES, rng)
        return (line,)

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        body = b"\n".join(one[0] for one in inputs) + b"\n" * (sum(map(len, inputs[0])) % 2)
        suffix, pack = (("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress))[
            zlib.crc32(body) % 3
        ]
        file, out = self._directory / f"{uuid4().hex}.ndjson{suffix}", self._directory / uuid4().hex
        file.write_bytes(pack(body))
        settings = load(redis_url=self._valkey.url, namespace=f"f{uuid4().hex}:v1", shards=2, metrics_port=0,
                        recovery_dir=None, reject_share=1.0)  # fmt: skip
        replay([str(file)], settings, _KEY, out=out)
        truth = recompute([file], rules(settings))
        found = compare(truth, self._client, settings.namespace).differences
        assert not found, found[:5]
        for name in OUTPUTS:
            for line in (out / name).read_bytes().splitlines():
                json.loads(line)
        counts = self._client.hgetall(f"{settings.namespace}:partition:{{{file}}}")
        told = {name: int(counts.get(name, 0)) for name in ("marks", "received", "accepted", "repeated")}
        lines = body.count(b"\n") + (not body.endswith(b"\n"))
        assert told["marks"] + told["received"] == lines, (told, lines)
        return Counter({"lines": len(inputs)})

    def close(self) -> None:
        self._client.close()
        self._valkey.__exit__(None, None, None)
