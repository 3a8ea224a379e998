"""Batches: they give what each record gives by itself, and known values are decided once."""

from __future__ import annotations

import json
import tomllib
from copy import deepcopy
from random import Random
from typing import Any, Final

import msgspec
import pytest
from collector_support import CONSENT, understanding

from connectors.kafka import Record
from flows.collector.call import Outcome
from flows.collector.log import line_of
from flows.sources import Pixels
from flows.sources.compiled import MAX_REMEMBERED, Compiled
from flows.sources.messages import message_of
from flows.sources.source import parse_source, presets

NOW_MS: Final = 1_795_600_900_000
AT_MS: Final = NOW_MS - 100_000
MAPPING: Final = """
topic = "t"
time = "ms"
skip = ["kind!=ad", "test=true"]
[names]
event = "ad.event"
event_id = "id"
placement_id = ["ad.placement.id", "ad.spot"]
campaign_id = "ad.campaign"
play_id = "ad.play"
ts = "at"
playhead = "ad.position"
duration = "ad.length"
content_category = "ad.categories"
listener_id = "who.id"
ifa = "who.ifa"
gdpr = "who.gdpr"
gdpr_consent = "who.tcf"
gpp = "who.gpp"
gpp_sid = "who.sid"
lmt = "who.lmt"
ip = "device.ip"
user_agent = "device.agent"
order_id = "order.id"
value = "order.total"
currency = "order.currency"
type = "order.type"
[values.event]
ad_start = "start"
[values.lmt]
on = "1"
[when."ad.event=buy"]
event = "conversion"
type = "purchase"
"""
GOOD: Final[dict[str, Any]] = {
    "id": "m-1",
    "kind": "ad",
    "at": AT_MS,
    "ad": {
        "event": "ad_start",
        "placement": {"id": "x"},
        "campaign": "c",
        "play": "p-1",
        "position": 7,
        "length": 30,
    },
    "who": {"id": "listener-1", "gdpr": True, "tcf": CONSENT},
    "device": {"ip": "81.2.69.142", "agent": "VLC/3.0"},
    "other": {"title": "Ein Lied"},
}
ODD: Final = (
    *(
        None,
        "",
        " ",
        "x",
        " x",
        "[CB]",
        "null",
        "-1",
        "ad_end",
        "Ünder",
        'a"b',
        "\u0001",
        "0" * 200,
        "1",
        "true",
    ),
    *(
        0,
        1,
        -1,
        5,
        1.0,
        2**63,
        10**30,
        True,
        False,
        [],
        ["IAB1", "IAB2"],
        [7],
        {},
        {"id": "x"},
        {"event": "start"},
    ),
    *(
        "00000000-0000-0000-0000-000000000000",
        "2026-11-25T10:00:00Z",
        AT_MS + 5,
        str(AT_MS),
        "1.2.3.0",
        "::1",
    ),
    *(
        "0-0",
        "0000",
        "bot/1.0",
        "atc/1 watchOS",
        '{"id":"y"}',
        CONSENT,
        "DBABMA~CQ",
        "on",
        "buy",
        "complete",
        "GBP",
        "12.5",
    ),
)


def record(value: Any, offset: int = 1, stamp_ms: int = AT_MS + 50) -> Record:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Record("t", 3, offset, stamp_ms, b"k", body)


def both(text: str = MAPPING) -> tuple[Compiled, Pixels]:
    pixels = Pixels(parse_source(text, "x.toml", "x"), understanding(), "log")
    return Compiled(pixels), pixels


def assert_equal(compiled: Compiled, pixels: Pixels, one: Record) -> None:
    found, made = pixels.understand(message_of(one), NOW_MS), compiled.batch([one], NOW_MS)
    if found is None or found.outcome is Outcome.NOT_COUNTED:
        assert (made.not_ours, made.lines, made.rejected) == (1, [], []), one.value
    elif found.outcome is Outcome.REJECTED:
        assert [(one.reason, one.wrong) for _, one in made.rejected] == [(found.reason, found.wrong)], (
            one.value
        )
    else:
        ((_, key, body),) = made.lines
        line = line_of(found.event, found.key)
        assert key == line.key
        assert msgspec.json.decode(body + b"}") == msgspec.json.decode(line.body), one.value
        assert body.startswith(b'{"received_at":')


def damaged(message: dict[str, Any], rng: Random) -> dict[str, Any]:
    """A message of which some values are others, gone, or elsewhere."""
    found: dict[str, Any] = json.loads(json.dumps(message))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        at = found
        while True:
            name = rng.choice(
                [*at, "ad.event", "ad.play", "spot", "ifa", "gpp", "sid", "lmt", "categories", "test"]
            )
            if isinstance(at.get(name), dict) and rng.random() < 0.9:
                at = at[name]
                continue
            break
        if rng.random() < 0.2:
            at.pop(name, None)
        else:
            at[name] = deepcopy(rng.choice(ODD))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_equals_its_records_decoded_singly(seed: int) -> None:
    rng, (compiled, pixels) = Random(seed), both()
    for number in range(2_500):
        assert_equal(
            compiled, pixels, record(damaged(GOOD, rng), number, rng.choice((0, AT_MS, NOW_MS + 5_000)))
        )


@pytest.mark.parametrize(
    "name", [name for name, text in presets().items() if "format" not in tomllib.loads(text)]
)
def test_the_presets_examples_too(name: str) -> None:
    compiled, pixels = both(f'topic = "t"\n{presets()[name]}')
    rng = Random(name)
    for example in parse_source(presets()[name], name, name).example:
        message = example.message if isinstance(example.message, dict) else json.loads(str(example.message))
        for number in range(300):
            assert_equal(compiled, pixels, record(damaged(message, rng) if number else message, number))


def test_a_refusal_on_any_path_of_consent_counts() -> None:
    compiled, pixels = both(f'topic = "t"\n{presets()["segment-track"]}\n[fixed]\nus_privacy = "1YNN"\n')
    choices: tuple[Any, ...] = (True, False, None, "", 0, 1, "on request", {"categoryPreferences": {}})
    for here in choices:
        for there in choices:
            said = {"type": "track", "event": "Audio Ad Started", "messageId": "m", "anonymousId": "a"}
            said |= {"properties": {"placement_id": "a", "consent": here}, "context": {"consent": there}}
            assert_equal(compiled, pixels, record(said))


def test_known_values_are_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, pixels = both()
    compiled.batch([record(GOOD), record(GOOD | {"kind": "music"})], NOW_MS)
    monkeypatch.setattr(pixels, "understand", None)  # it would be called of another message
    made = compiled.batch(
        [
            record(
                GOOD | {"id": f"m-{number}", "at": AT_MS + number, "ad": GOOD["ad"] | {"play": f"p-{number}"}}
            )
            for number in range(100)
        ]
        + [record({"kind": "music", "title": "Ünder"})],
        NOW_MS,
    )
    assert (len(made.lines), made.not_ours) == (100, 1)


def test_unmapped_parts_of_a_message_can_make_it_malformed() -> None:
    """Bytes that are no UTF-8 make a message malformed, wherever they stand, and so does a field of a path's
    own text that comes first.
    """
    compiled, pixels = both()
    assert_equal(compiled, pixels, record(GOOD))
    whole = json.dumps(GOOD).encode()
    for body in (
        whole.replace(b"Ein Lied", b"\xff"),
        whole.replace(b"Ein Lied", "Lëd".encode()),
        whole.replace(b"Ein Lied", b"\\ud800"),
        whole.replace(b"{", b'{"ad.event":"complete",', 1),
        whole.replace(b"{", b'{"ad":{},', 1),
        whole[:-1] + b',"ad":{"event":"complete"}}',
        whole[:-1],
        whole[:-1] + b',"other":' + b"9" * 5_000 + b"}",
        whole[:-1] + b',"other":' + b"9" * 300 + b"}",
        whole + b"x",
        b"[" * 2_000,
        b"[]",
        b"",
    ):
        assert_equal(compiled, pixels, record(body))


def test_tables_are_bounded() -> None:
    compiled, _ = both()
    compiled.batch([record(GOOD)], NOW_MS)
    for table in (compiled._listeners, compiled._devices, compiled._consents, *compiled._labels):
        table.clear()
        table.update(dict.fromkeys(map(str, range(MAX_REMEMBERED)), "x"))  # type: ignore[arg-type]
    compiled.batch([record(GOOD)], NOW_MS)
    for table in (compiled._listeners, compiled._devices, compiled._consents, *compiled._labels[:1]):
        assert len(table) <= MAX_REMEMBERED
