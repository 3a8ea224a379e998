"""Sources: hostile messages and rows of a foreign topic or file, and hostile mappings."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from collector_support import CONSENT, understanding

from connectors.kafka import Record
from connectors.stream import ConnectError, Messages
from flows.collector.call import Outcome
from flows.collector.log import line_of
from flows.errors import SettingsError
from flows.intake.decoder import Decoder
from flows.sources import Pixels, Source
from flows.sources.compiled import Compiled
from flows.sources.draft import draft
from flows.sources.live import letter_of
from flows.sources.messages import message_of, of_file
from flows.sources.paths import Message
from flows.sources.source import parse_source, presets
from fuzz.corpus import T0_MS
from fuzz.mutate import damaged, document, raw_of, word
from fuzz.run import Input

NOW_MS: Final = T0_MS + 60_000
CANARY: Final = "canary-4711"
"""Stands where a listener's id does: no pixel and no letter may have it."""
_NAMES: Final = (
    "type",
    "event",
    "messageId",
    "anonymousId",
    "timestamp",
    "properties",
    "context",
    "beaconInfo",
)
_PLAIN: Final = """
topic = "t"
skip = ["kind=music"]
identity = ["a.id"]
[names]
event = "event"
placement_id = "a.p[0].id"
play_id = "a.play"
ts = "at"
listener_id = "who"
ip = "ip"
user_agent = "ua"
gdpr_consent = "tcf"
consent = "yes"
lmt = "lmt"
type = "kind"
value = "money"
currency = "cur"
content_category = "cat"
"""
_GOOD: Final = (
    {
        "event": "start",
        "a": {"p": [{"id": "x"}], "play": "p", "id": 1},
        "at": T0_MS,
        "who": CANARY,
        "yes": True,
    },
    {
        "event": "conversion",
        "kind": "purchase",
        "money": 12.5,
        "cur": "GBP",
        "a": '{"p":[{"id":"x"}]}',
        "tcf": CONSENT,
    },
    {
        "type": "track",
        "event": "Audio Ad Started",
        "messageId": "m",
        "anonymousId": CANARY,
        "timestamp": "2025-11-24T16:00:00Z",
        "properties": {"placement_id": "x", "consent": True},
        "context": {"ip": "9.9.9.9", "userAgent": "VLC/3.0"},
    },
    {
        "eventType": "BEACON_FIRED",
        "eventTimestamp": "2025-11-24T16:00:00Z",
        "beaconInfo": {
            "beaconUri": f"https://px.example/p?e=start&pl=x&l={CANARY}&cb=1",
            "headers": [{"name": "User-Agent", "value": "VLC/3.0"}],
        },
    },
)


@cache
def sources() -> tuple[Source, ...]:
    """A mapping of our own, and each preset of JSON."""
    of_topics = {name: text for name, text in presets().items() if "format" not in tomllib.loads(text)}
    texts = {"plain": _PLAIN} | {name: f'topic = "t"\n{text}' for name, text in of_topics.items()}
    return tuple(parse_source(text, name, name) for name, text in texts.items())


class SourceDoor:
    """Each message is a pixel to the flow, not ours, or a dead letter; a mapping is a source or a mistake."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._table = directory / "table.csv"
        self._decoder = Decoder(b"0123456789abcdef")
        self._pixels = [Pixels(one, understanding(), "log") for one in sources()]
        self._compiled = [Compiled(one) for one in self._pixels]
        columns = {"event": "Event", "placement_id": "Line item", "ts": "Time"}
        self._rows = Pixels(
            Source(name="rows", files="table.csv", format="csv", names=columns), understanding()
        )

    def make(self, rng: Random) -> Input:
        """A message, a table, or a mapping."""
        dice = rng.random()
        if dice < 0.8:
            return b"message", document(rng.choice(_GOOD), _NAMES, rng), raw_of(word(rng))
        if dice < 0.9:
            rows = [f"start,{word(rng)},{rng.choice((T0_MS, word(rng)))}" for _ in range(3)]
            table = "\n".join(["Event,Line item,Time", *rows])
            return b"table", raw_of(table) if dice < 0.87 else damaged(raw_of(table), rng)
        text = f'{_PLAIN}[values.event]\n{json.dumps(word(rng))} = "start"\n'
        return b"mapping", damaged(raw_of(text), rng)

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        """Read each as what it is."""
        found: Counter[str] = Counter()
        for kind, body, *more in inputs:
            if kind == b"message":
                found += self._message(body, more[0])
            elif kind == b"table":
                self._table.write_bytes(body)
                found.update(self._outcome(self._rows, one, None) for one in self._read())
            else:
                found[self._mapping(body)] += 1
        return found

    def _read(self) -> list[Message]:
        try:
            return list(of_file(self._rows.source, str(self._table)))
        except ConnectError:
            return []

    def _message(self, body: bytes, key: bytes) -> Counter[str]:
        record = Record("t", 0, 7, T0_MS, key, body, {"x": key})
        message = message_of(record)
        assert draft([message], {"topic": "t"}, "json")
        for compiled, pixels in zip(self._compiled, self._pixels, strict=True):
            assert_as_one_by_one(compiled, pixels, record)
        return Counter(self._outcome(one, message, record) for one in self._pixels)

    def _outcome(self, pixels: Pixels, message: Message, record: Record | None) -> str:
        understood = pixels.understand(message, None if record is None else NOW_MS)
        if understood is None:
            return "not ours"
        if understood.outcome is not Outcome.STORED:
            _, said = letter_of("s", record or Record("t", 0, 7, T0_MS, b"", b""), understood)
            assert not _leaks(message, said)
            return f"rejected {understood.reason}"
        line = line_of(understood.event, understood.key)
        assert not _leaks(message, line.body)
        batch = self._decoder.decode(Messages([line.body], range(1), 1, None))
        assert not batch.rejected, f"the flow rejects {line.body!r}: {batch.rejected}"
        return "a pixel"

    def _mapping(self, body: bytes) -> str:
        try:
            text = body.decode()
            parse_source(text, "x.toml", "x")
        except UnicodeDecodeError:
            return "no text"
        except SettingsError:
            return "a mistake"
        return "a source"

    def close(self) -> None:
        """Hold nothing."""


def assert_as_one_by_one(compiled: Compiled, pixels: Pixels, record: Record) -> None:
    """A batch gives what each record gives by itself, whether its values are known by then or not."""
    found = pixels.understand(message_of(record), NOW_MS)
    for _ in range(2):
        made = compiled.batch([record], NOW_MS)
        if found is None or found.outcome is Outcome.NOT_COUNTED:
            assert (made.not_ours, made.lines, made.rejected) == (1, [], []), record
        elif found.outcome is Outcome.REJECTED:
            assert [(one.reason, one.wrong) for _, one in made.rejected] == [(found.reason, found.wrong)], (
                record
            )
        else:
            ((_, key, body),) = made.lines
            line = line_of(found.event, found.key)
            assert key == line.key, record
            assert msgspec.json.decode(body + b"}") == msgspec.json.decode(line.body), record


def _leaks(message: Message, said: bytes) -> bool:
    """True if the listener's id is there as it came, and stood in the message as a listener's id alone."""
    if CANARY.encode() not in said or message.document is None:
        return False
    rest = {name: one for name, one in message.document.items() if name not in ("who", "anonymousId")}
    return CANARY not in str(rest)
