"""The scanner against the plain way in: any bytes make the same batch, or are left to the plain way."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scanner_support import EVENT, LINE, Both, log, named, parts

from benchmarks.plain_log import write_log
from connectors.stream import Lines
from flows.intake import decoder as batches
from flows.intake import dimension_numbers
from flows.intake.decoder import Batch
from flows.intake.fingerprints import FingerprintCache
from flows.intake.scanner import scan
from flows.model.basis import BASES
from flows.model.dimensions import NAMES, WITHOUT_APPS
from flows.model.pixel import BASIS, BASIS_SHIFT, COMBO, HOUSEHOLD, INFO, KEY, LISTENER


def _read_as(line: bytes, knowing: bytes = LINE) -> tuple[Batch, bool]:
    """The outcome of a line with known names, and whether the scanner read it."""
    both = Both()
    both.decode([knowing, knowing])
    before = both.scanned
    batch = both.decode([line])
    return batch, both.scanned > before


# Whole logs


@pytest.mark.parametrize(("name", "share"), [("adversarial", 0.9), ("mta", 0.8), ("obd", 0.95)])
def test_a_log_is_read_the_same_and_mostly_by_the_scanner(name: str, share: float) -> None:
    both, lines = Both(), log(name)
    for part in parts(lines, 3_000):
        both.decode(part)
    assert both.scanned > share * len(lines)


def test_the_scanner_alone_reads_a_plain_log(tmp_path: Path) -> None:
    write_log(tmp_path / "log.ndjson", 20_000, placements=100)
    both = Both()
    batch = both.decode(Lines.split((tmp_path / "log.ndjson").read_bytes()))
    assert len(batch.pixels) == 20_000
    assert len(batch.combos) == 100 == both.scanning.asked[0]
    assert both.scanned >= 19_999  # the last line has no spare bytes after it


def test_the_scanner_asks_for_names_once_whatever_basis_their_pixels_have() -> None:
    both = Both(platform_basis={"spotify": "ad_delivered"})
    bases = [*BASES, None, "", "start", "basis", "[BASIS]", "AD_DELIVERED", "x" * 300]
    lines = [json.dumps({**EVENT, "basis": basis}).encode() for basis in bases]
    batch = both.decode([*lines, LINE])
    codes = batch.pixels[:, INFO] >> np.uint64(BASIS_SHIFT) & np.uint64(BASIS)
    assert codes.tolist() == [0, 1, 2, 3, 4, *[3] * 8]
    assert both.scanning.asked[0] == 1
    assert both.scanned >= len(bases)


# The grammar


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"received_at": None, "campaign_id": None, "consent": None, "user_agent": None},
        {"unknown": "x", "another": 12, "third": None, "fourth": False},
        {"like quotes to a hasty subtraction": "#1!", "#": "##"},
        {"user_agent": "", "play_id": "", "listener_id": "", "platform": "spotify"},
        {"listener_id": "somebody new"},
        {"household_id": "somewhere"},
        {"household_id": "", "listener_id": None},
        {"household_id": "[HOME]", "consent": False},
        {"event": "progress", "playhead_ms": 1_000},
        {"event": "progress"},
        {"event": "delivered"},
        {"event": "download", "play_id": None},
        {"collector": "0123456789abcdef", "low_ms": 1_764_000_000_400, "invalid_traffic": None},
        {"ts": 0, "received_at": 0},
        {"content_category": "IAB1", "ip": "10.0.0.1", "landing_url": "https://x.y/?utm_source=z"},
        {"consent": False, "listener_id": "[LISTENER]"},
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_common_form_is_read_by_the_scanner(
    change: dict[str, object], separators: tuple[str, str]
) -> None:
    known = {
        **EVENT,
        **{name: change[name] for name in ("campaign_id", "content_category") if name in change},
    }
    line = json.dumps({**EVENT, **change}, separators=separators).encode()
    batch, scanned = _read_as(line, json.dumps(known).encode())
    assert scanned
    assert len(batch.pixels) == 1


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace(b"L1", b"L\\u0031"),
        LINE.replace(b"L1", "Lé".encode()),
        LINE.replace(b'"event_id"', b'"\\u0065vent_id"'),
        LINE.replace(b'"consent":true', b'"consent":null,"consent":true'),
        LINE.replace(b"30000", b"-1"),
        LINE.replace(b"1764000000000", b'"2025-11-24T16:00:00Z"'),
        LINE.replace(b"play-000000001", b"[ADSERVINGID]"),
        LINE.replace(b"L1", b"-1"),
        LINE[:-1] + b',"more":{"a":1}}',
        LINE[:-1] + b',"more":1.5}',
        LINE[:-1] + b',"content_category":["IAB1"]}',
        LINE[:-1] + b" }",
        LINE[:-1] + b',"invalid_traffic":"volume"}',
        LINE.replace(b'"start"', b'"conversion"')[:-1] + b',"conversion":{"type":"purchase"}}',
        LINE[:-1] + b"".join(b',"n%d":1' % number for number in range(200)) + b"}",
    ],
)
def test_valid_uncommon_lines_are_set_aside_and_accepted(line: bytes) -> None:
    batch, scanned = _read_as(line)
    assert not scanned
    assert len(batch.pixels) == 1


@pytest.mark.parametrize(
    "line",
    [
        LINE + b"}",
        LINE + b" x",
        LINE[:-1],
        LINE[:-1] + b",}",
        LINE.replace(b"30000", b"030000"),
        LINE.replace(b"30000", b"3000O"),
        LINE.replace(b"30000", b""),
        LINE.replace(b"30000", b'"30000"'),
        LINE.replace(b"true", b"truth"),
        LINE.replace(b"true", b"trueish"),
        LINE.replace(b"true", b"1"),
        LINE[:-1] + b',"collector":7}',
        LINE[:-1] + b',"low_ms":"now"}',
        LINE[:-1] + b',"invalid_traffic":true}',
        LINE.replace(b"L1", b"L\x1f"),
        LINE.replace(b"L1", b"L\xff"),
        LINE.replace(b"L1", b"L" * 129),
        LINE.replace(b"e-1", b""),
        LINE.replace(b"e-1", b"[ID]"),
        LINE.replace(b'"pl-1"', b"null"),
        LINE.replace(b'"start"', b'"begin"'),
        LINE.replace(b'"ts":1764000000000', b'"ts":true'),
        LINE.replace(b'"ts":1764000000000,', b""),
        LINE.replace(b"1764000000500", b"4102444800000"),
        LINE.replace(b"1764000000000", b"4102444800000").replace(b"1764000000500", b"null"),
        LINE.replace(b'"pl-1"', b'""'),
        LINE.replace(b"pl-1", b"{placement}"),
        LINE[:-1] + b',"x":"' + b"." * (64 << 10) + b'"}',
    ],
)
def test_wrong_lines_are_set_aside_and_rejected(line: bytes) -> None:
    batch, scanned = _read_as(line)
    assert not scanned
    assert len(batch.rejected) == 1


def test_a_line_cut_in_two_is_never_read_as_one() -> None:
    both = Both()
    both.decode([LINE] * 2)
    for at in range(1, len(LINE)):
        batch = both.decode([LINE[:at], LINE[at:], LINE])
        assert len(batch.rejected) == 2
        assert len(batch.pixels) == 1


def test_a_line_feed_is_whitespace_between_tokens_and_invalid_in_strings() -> None:
    both = Both()
    batch = both.decode([LINE, LINE.replace(b",", b",\n"), LINE.replace(b"L1", b"L\n1"), LINE])
    assert len(batch.pixels) == 3


# What is looked up


def test_the_same_name_in_another_place_is_another_combination() -> None:
    names = ("campaign_id", "platform", "station", "podcast", "program", "creative_id")
    given = [part for size in range(7) for part in itertools.combinations(names, size)]
    bare = {key: value for key, value in EVENT.items() if key not in names}
    lines = [json.dumps(bare | dict.fromkeys(part, "x")).encode() for part in given]
    both = Both()
    both.decode(lines)
    before = both.scanned
    batch = both.decode(lines + lines)
    assert both.scanned - before == 2 * len(lines)
    assert batch.pixels[:, COMBO].tolist() == [*range(64), *range(64)]
    assert len(batch.combos) == 64


@pytest.mark.parametrize(("names", "combos"), [(NAMES, 3), (WITHOUT_APPS, 1)])
def test_apps_distinguish_combinations_if_counted(names: tuple[str, ...], combos: int) -> None:
    def lines(*apps: object) -> list[bytes]:
        return [json.dumps(EVENT | {"app": app}, ensure_ascii=False).encode() for app in apps]

    both = Both(names=names)
    found = set(both.decode(lines("Overcast", "an app", "[APP]", None)).combos)
    assert both.scanned == 4
    assert len(found) == combos
    assert {len(combo) for combo in found} == {len(names)}
    both.decode(lines("x" * 128, "\u00e9" * 128, 'a "quoted" one', "", "-1"))
    assert len(both.decode(lines("x" * 129, 5, ["a"])).rejected) == 3


def test_empty_and_absent_names_are_separate_entries() -> None:
    lines = [LINE.replace(b'"spotify"', value) for value in (b'""', b"null", b'"x"')]
    both = Both()
    both.decode(lines)
    batch = both.decode(lines)
    assert batch.pixels[:, COMBO].tolist() == [0, 1, 2]
    assert batch.combos[0] == batch.combos[1] != batch.combos[2]


def test_a_user_agent_keeps_its_verdict_and_a_listener_its_hash() -> None:
    lines = [
        LINE.replace(b"Overcast/3.0", agent).replace(b"L1", who)
        for agent in (b"Overcast/3.0", b"Mozilla/5.0 (compatible; Googlebot/2.1)", b"BadBot/1 crawler")
        for who in (b"L1", b"L2", b"L3")
    ]
    lines = [line.replace(b" (+http://overcast.fm/; iOS podcast app)", b"") for line in lines]
    both = Both()
    first, second = both.decode(lines), both.decode(lines)
    assert both.scanned >= 9
    assert (second.pixels[:, : COMBO - 2] == first.pixels[:, : COMBO - 2]).all(axis=0)[[KEY, LISTENER]].all()
    assert (second.pixels[:, INFO] >> np.uint64(16)).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert len(set(second.pixels[:3, LISTENER].tolist())) == 3


def test_both_decoders_hash_households_equally_by_their_own_key() -> None:
    homes = ("h1", "L1", "h" * 128, "h1", "[H]", "é")
    lines = [json.dumps(EVENT | {"household_id": home}).encode() for home in homes]
    both = Both()
    both.decode(lines)
    batch = both.decode(lines)
    first, same_text, long, again, macro, other = batch.pixels[:, HOUSEHOLD].tolist()
    assert first == again != 0
    assert same_text not in (0, int(batch.pixels[1, LISTENER]))
    assert len({first, same_text, long, other}) == 4
    assert macro == 0


@pytest.mark.parametrize("most", [0, 3, 40])
def test_evicting_caches_change_nothing(most: int) -> None:
    lines = log("adversarial")[:6_000]
    both, forgetful = Both(), Both()
    decoder = forgetful.scanning
    decoder._names, decoder._agents = FingerprintCache(most), FingerprintCache(most)
    decoder._listeners = FingerprintCache(most)
    for part in parts(lines, 500):
        assert (forgetful.decode(part).pixels == both.decode(part).pixels).all()
    assert forgetful.scanned == both.scanned > 5_000
    assert decoder.asked[0] > both.scanning.asked[0]


def test_too_many_combinations_reset_both_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimension_numbers, "MAX_COMBOS", 15)
    both = Both()
    lists = []
    for part in parts(log("adversarial")[:6_000], 500):
        lists.append(both.decode(part).combos)
    assert len({id(combos) for combos in lists}) > 3
    assert both.scanned > 1_000


def test_lists_lines_and_single_messages_make_equal_batches() -> None:
    values = log("adversarial")[:3_000]
    whole = Both().decode(values)
    again = Both().decode(Lines.split(b"".join(value + b"\n" for value in values) + b"rest"))
    single = Both()
    parted = [single.decode([value]) for value in values]
    rows = np.concatenate([part.pixels for part in parted])
    assert (whole.pixels == again.pixels).all()
    assert (whole.pixels[:, :COMBO] == rows[:, :COMBO]).all()
    names = [name for part in parted for name in named(part)]
    assert names == [0 if isinstance(name, int) else name for name in named(whole)]  # one conversion a part


def test_a_line_without_bytes_to_spare_behind_it_is_set_aside() -> None:
    both = Both()
    both.decode([LINE])
    for spare, scanned in ((b"", 0), (b"\n", 0), (b"\n" * 63, 0), (b"\n" * 64, 1)):
        before = both.scanned
        both.decode(Lines(LINE + spare, np.array([len(LINE)])))
        assert both.scanned - before == scanned


def test_no_messages_make_an_empty_batch() -> None:
    batch = Both().decode([])
    assert batch.pixels.shape == (0, batches.COLUMNS)


def test_the_scanner_is_compiled_once() -> None:
    both = Both()
    both.decode([LINE] * 3)
    both.decode([LINE] * 3, [1, 2, 3])
    both.decode(Lines.join([LINE] * 3)[1:])
    assert len(scan.signatures) == 1  # type: ignore[attr-defined]
