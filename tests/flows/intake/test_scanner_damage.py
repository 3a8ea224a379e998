"""Lines damaged in every way: both ways in make the same of them."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scanner_support import EVENT, LINE, Both, log

from flows.intake.keywords import FIELDS
from flows.model.events import EVENTS
from flows.simulate.traffic import Traffic

_VALUES = (
    "null", "true", "false", "0", "1", "-1", "-0", "01", "1.0", "1e3", "NaN", "Infinity", "-",
    "9" * 18, "9" * 19, "4102444799999", "4102444800000", '""', '"x"', '"-1"', '"-2"', '"[X]"', '"%5BX%5D"',
    '"${X}"', '"{x}"', '"@X@"', '"-7"', '"a\\u0041"', '"\\""', '"\\ud800"', '"é"', '"\x7f"', '"\x1f"',
    '"' + "x" * 128 + '"', '"' + "x" * 129 + '"', '"' + "é" * 128 + '"', "[]", "{}",
    '["a"]', "tru", "nulls", '"tab\t"', '"#x"', '"!\\"#"',
    '{"type":"purchase"}', "True", '"2026-01-01T00:00:00Z"', '"2026-01-01T00:00:00"',
    '"Googlebot/2.1"', '"L2"', "1764000000000", "",
    *(f'"{event}"' for event in EVENTS), '"Start"', '"starts"', '"thirdQuartil"',
)  # fmt: skip
_KEYS = (
    *FIELDS, "Event", "event_i", "placement_jd", "placement_id2", "start", "unknown", "", "received_aT",
    "ts ", "content_catégory", "firstQuartile", "ip\\u0000", "creative_campaign_id",
)  # fmt: skip
_BYTES = b'{}[]":, \n\r\t\\/0123456789.eE+-truefalsn\x00\x1f\x20\x7f\x80\xc3\xa9\xff#!'


def _pairs(line: bytes) -> list[list[str]]:
    return [[json.dumps(key), json.dumps(value)] for key, value in json.loads(line).items()]


def _text(pairs: list[list[str]], comma: str = ",", colon: str = ":") -> bytes:
    return ("{" + comma.join(key + colon + value for key, value in pairs) + "}").encode()


def _damaged(line: bytes, rng: random.Random) -> bytes:
    """A line changed in its bytes, or in its fields (which leaves more of them right)."""
    if rng.random() < 0.4:
        raw = bytearray(line)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at = rng.randrange(len(raw) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                raw[at : at + 1] = bytes([rng.choice(_BYTES)])
            elif kind == 1:
                raw[at : at + rng.choice((1, 1, 2, 9))] = b""
            elif kind == 2:
                raw[at:at] = bytes([rng.choice(_BYTES)])
            else:
                raw[at : at + 1] = bytes([raw[at] ^ 1 << rng.randrange(8)]) if at < len(raw) else b"\x00"
        return bytes(raw)
    pairs = _pairs(line)
    a, b = rng.randrange(len(pairs)), rng.randrange(len(pairs))
    kind = rng.randrange(8)
    if kind == 0:
        pairs[a][1], pairs[b][1] = pairs[b][1], pairs[a][1]
    elif kind == 1:
        pairs[a][1] = rng.choice(_VALUES)
    elif kind == 2:
        pairs.insert(a, [f'"{rng.choice(_KEYS)}"', rng.choice(_VALUES)])
    elif kind == 3:
        pairs[a][0] = f'"{rng.choice(_KEYS)}"'
    elif kind == 4:
        del pairs[a]
    elif kind == 5:
        rng.shuffle(pairs)
    elif kind == 6:
        pairs.append(pairs[a])
    comma, colon = rng.choice(((",", ":"), (",", ":"), (", ", ": "), (",  ", ":"), (" ,", ":"), (",", " : ")))
    return _text(pairs, comma, colon)


@pytest.mark.parametrize("count", [10_000, 100_000])
def test_damaged_lines_are_read_the_same(count: int) -> None:
    traffic = [call.value for call in itertools.islice(Traffic(seed=5, placements=40), 6_000)]
    good = [line for line in (*log("adversarial"), *traffic, *log("mta")[::50]) if _is_object(line)]
    rng = random.Random(20_261_124)
    both = Both()
    rng.shuffle(good)
    both.decode(good[:5_000])
    before, rejected_before = both.scanned, both.rejected
    for _ in range(count // 2_000):
        lines = [_damaged(rng.choice(good), rng) for _ in range(2_000)]
        stamps = [rng.choice((0, 1_764_000_000_000, 1_764_009_000_000, 2_000_000_000_000)) for _ in lines]
        both.decode(lines, stamps)
        both.decode(lines)  # now with names that are known, where they are right
    assert both.scanned - before > count // 2
    assert both.rejected - rejected_before > count * 6 // 10


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict) and json.loads(line) != {}
    except ValueError:
        return False


_token = st.one_of(
    st.sampled_from(_VALUES),
    st.integers(-10, 10**20).map(str),
    st.text(max_size=8).map(json.dumps),
    st.text(st.characters(max_codepoint=127), max_size=140).map(lambda text: f'"{text}"'),
)
_pair = st.tuples(st.sampled_from(_KEYS).map(lambda key: f'"{key}"'), _token)


@given(
    changes=st.lists(_pair, max_size=6),
    order=st.randoms(use_true_random=False),
    drop=st.sets(st.sampled_from(sorted(EVENT)), max_size=2),
    space=st.sampled_from([(",", ":"), (", ", ": "), (",\n", ":"), (", ", " :")]),
    around=st.tuples(*[st.sampled_from(["", "", "", " ", "}", "{", "\n", "\x00", ","])] * 2),
    stamp=st.sampled_from([None, 0, 1, 1_763_999_000_000, 1_764_000_000_000, 2**62]),
    consent_default=st.booleans(),
)
def test_both_decoders_agree_on_any_line_new_or_known(
    changes: list[tuple[str, str]],
    order: random.Random,
    drop: set[str],
    space: tuple[str, str],
    around: tuple[str, str],
    stamp: int | None,
    consent_default: bool,
) -> None:
    pairs = [pair for pair in _pairs(LINE) if pair[0].strip('"') not in drop] + [
        list(pair) for pair in changes
    ]
    order.shuffle(pairs)
    line = around[0].encode() + _text(pairs, *space) + around[1].encode()
    both = Both(consent_default)
    for _ in range(2):
        values = [LINE, line, line, LINE]
        both.decode(values, None if stamp is None else [stamp] * len(values))
    assert both.scanned >= 2


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_read_the_same(values: list[bytes]) -> None:
    Both().decode([LINE, *values, LINE])
