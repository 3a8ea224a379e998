"""docs/pixels.md and its JSON schema say what the decoder takes, of the examples and of random messages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_support import accepts

from connectors.stream import Messages
from flows.intake.decoder import Decoder
from flows.intake.schema import Conversion, Event, Mark, Previous
from flows.model.events import CONVERSION_TYPES, EVENTS

DOCS: Final = Path(__file__).parents[3] / "docs"
SCHEMA: Final = json.loads((DOCS / "pixels.schema.json").read_text())
PAGE: Final = (DOCS / "pixels.md").read_text()
RIGHT: Final = {"event_id": "e", "event": "start", "ts": 1_790_000_040_000, "placement_id": "p"}
BOUGHT: Final = RIGHT | {"event": "conversion", "placement_id": None, "conversion": {"type": "purchase"}}
MARK: Final = {"collector": "c", "low_ms": 1_790_000_040_000}

DECODER: Final = Decoder(b"sixteen bytes !!")


def decoder_accepts(message: object) -> bool:
    batch = DECODER.decode(Messages([json.dumps(message).encode()], [1], 1))
    return not batch.rejected


def schema_accepts(message: object) -> bool:
    return accepts(SCHEMA, SCHEMA, message)


def table_of(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading of the page: cells by field."""
    part = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [row.strip("|").split(" | ") for row in re.findall(r"^\| `.*\|$", part, re.M)]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in rows}


# The page


def examples() -> list[Any]:
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)]


def test_decoder_and_schema_accept_every_example_of_the_page() -> None:
    found = examples()
    wanted = {
        "impression",
        "start",
        "firstQuartile",
        "complete",
        "click",
        "conversion",
        "delivered",
        "download",
        None,
    }
    assert {one.get("event") for one in found} >= wanted
    assert [one for one in found if not decoder_accepts(one)] == []
    assert [one for one in found if not schema_accepts(one)] == []


def test_the_page_lists_exactly_the_decoders_fields() -> None:
    objects = (("conversion", Conversion), ("previous", Previous))
    inner = {f"{field}.{name}" for field, form in objects for name in form.__struct_fields__}
    assert table_of("Fields").keys() == {*Event.__struct_fields__, *inner}
    assert table_of("Marks of a collector").keys() == {*Mark.__struct_fields__} - {"event"}


def test_page_and_schema_list_every_event_and_conversion_type() -> None:
    assert table_of("Events").keys() == set(EVENTS)
    assert SCHEMA["$defs"]["pixel"]["properties"]["event"]["enum"] == list(EVENTS)
    assert SCHEMA["$defs"]["conversion"]["properties"]["type"]["enum"] == list(CONVERSION_TYPES)
    assert all(f"`{name}`" in table_of("Fields")["conversion.type"][2] for name in CONVERSION_TYPES)


def test_the_schema_lists_exactly_the_decoders_fields() -> None:
    for part, form in (
        ("pixel", Event),
        ("conversion", Conversion),
        ("previous", Previous),
        ("mark", Mark),
    ):
        assert SCHEMA["$defs"][part]["properties"].keys() == set(form.__struct_fields__)


def test_the_page_lists_the_required_fields() -> None:
    needed = {name for name, cells in table_of("Fields").items() if cells[1] == "yes"}
    assert needed == {"event_id", "event", "ts", "conversion.type"}
    for name in needed - {"conversion.type"}:
        assert not decoder_accepts({key: value for key, value in RIGHT.items() if key != name})


# Messages at random

TEXTS = st.sampled_from(
    [
        *("", "a", "é" * 128, "x" * 128, "x" * 129, "purchase", "start", "GBP", "gbp", "GBP\n"),
        *("[MACRO]", "%5bMACRO%5D", "${X}", "{x}", "@x@", "[]", "-1", "-2", "-3", "[x]\n"),
        *("12.50", "1e3", ".5", "5.", "12.1234567", "9" * 14),
        *(
            "2026-01-01T00:00:00Z",
            "2026-01-01 00:00:60.5+01:00",
            "2026-01-01T00:00:00",
            "2026-01-01T24:00:00Z",
        ),
        *("2026-13-01T00:00:00Z", "2026-01-01T00:00:00+24:00", "2026-01-01t00:00:00-23:59"),
        *("1969-12-31T23:00:00Z", "2100-01-01T00:00:00Z", "2026-01-01T00:00:00Z\n", "2026-1-1T00:00:00Z"),
        "٢٠٢٦-01-01T00:00:00Z",
    ]
)
NUMBERS = st.sampled_from(
    [-1, -2, 0, 1, 4_102_444_799_999, 4_102_444_800_000, 2**63, 2**70, 10**13, 10**13 + 1, 0.5]
)
PLAIN = st.one_of(TEXTS, NUMBERS, st.none(), st.booleans())
VALUES = st.one_of(
    PLAIN,
    st.lists(PLAIN, max_size=2),
    st.dictionaries(st.sampled_from([*Conversion.__struct_fields__, "other"]), PLAIN, max_size=4),
    st.dictionaries(st.sampled_from([*Previous.__struct_fields__, "client_id"]), PLAIN, max_size=2),
    st.fixed_dictionaries(
        {"type": st.sampled_from(CONVERSION_TYPES)},
        optional={"order_id": PLAIN, "value": PLAIN, "currency": PLAIN, "claimed": PLAIN},
    ),
)
NAMES = st.sampled_from([*Event.__struct_fields__, "bye", "unknown"])


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """A message that is right, with up to three fields changed, added or taken away."""
    message = dict(draw(st.sampled_from([RIGHT, BOUGHT, MARK])))
    for name in draw(st.lists(NAMES, max_size=3)):
        if draw(st.booleans()):
            message[name] = draw(VALUES)
        else:
            message.pop(name, None)
    return message


def is_bounded_by_a_receipt(message: dict[str, Any]) -> bool:
    """`ts` may lie anywhere where a receipt is there to clamp it."""
    return decoder_accepts({**message, "ts": 0}) and "received_at" in message


def value_does_not_count(message: dict[str, Any]) -> bool:
    """The conversion counts without its value, which the schema refuses so that its sender learns of it."""
    conversion = message.get("conversion")
    return isinstance(conversion, dict) and schema_accepts(
        {**message, "conversion": {**conversion, "value": None}}
    )


def test_whatever_the_schema_accepts_the_decoder_accepts() -> None:
    seen = set[bool]()

    @settings(max_examples=600, deadline=None)
    @given(messages())
    def held(message: dict[str, Any]) -> None:
        accepted = schema_accepts(message)
        seen.add(accepted)
        assert not accepted or decoder_accepts(message), message

    held()
    assert seen == {True, False}


def test_the_schema_accepts_accepted_pixels_except_documented_ones() -> None:
    seen = set[bool]()

    @settings(max_examples=600, deadline=None)
    @given(messages())
    def held(message: dict[str, Any]) -> None:
        accepted = decoder_accepts(message)
        seen.add(accepted)
        if accepted and not schema_accepts(message):
            assert is_bounded_by_a_receipt(message) or value_does_not_count(message), message

    held()
    assert seen == {True, False}


EXCEPTIONS = [
    (RIGHT | {"ts": "2026-02-30T00:00:00Z"}, True, False),
    (RIGHT | {"ts": "1970-01-01T00:00:00+01:00"}, True, False),
    (RIGHT | {"ts": 1_790_000_040_000.0}, True, False),
    (RIGHT | {"user_agent": "x" * (1 << 16)}, True, False),
    (RIGHT | {"ts": -1, "received_at": 1_790_000_040_000}, False, True),
    (BOUGHT | {"conversion": {"type": "purchase", "value": "free"}}, False, True),
]


@pytest.mark.parametrize(("message", "by_schema", "by_decoder"), EXCEPTIONS)
def test_the_exceptions_on_the_page_are_real(
    message: dict[str, Any], by_schema: bool, by_decoder: bool
) -> None:
    assert (schema_accepts(message), decoder_accepts(message)) == (by_schema, by_decoder)
