"""The cleaner: what callers write, and what they meant."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.collector.cleaner import boolean, device_id, epoch_ms, event_name, playhead_ms, present
from flows.collector.query import decoded, parameters
from flows.model.catalogue.limits import MAX_PARAMETERS
from flows.model.events import absent


@pytest.mark.parametrize(
    "text",
    [
        *("[X]", "[[CACHEBUSTING]]", "[ERRORCODE]", "${AUCTION_ID}", "$cachebuster", "{timestamp}"),
        *("{{device.ifa}}", "@STATION_NAME@", "@C.EPISODE-TITLE@", "%%CACHEBUSTER%%", "%ebuy!", "%n"),
        *("@AD_ID@-@COOKIE@", "${AUCTION_ID}-${AUCTION_IMP_ID}"),
        *("%5BX%5D", "%5b a\n%5d"),
        *("(acast-ip)", "(x-y)", "__X__", "__CREATIVE_ID__", "#X#", "<X>", "$"),
        '${parameters["aw_0_2rt.show"]!}',
    ],
)
def test_an_unreplaced_macro_is_absent(text: str) -> None:
    assert present(text) == (None, "unreplaced")


_PARTS = ("[", "]", "%5B", "%5d", "${", "{", "}", "@", "-1", "-", "x", " ", "\n", "%", "$")


@given(st.lists(st.sampled_from(_PARTS), max_size=6).map("".join))
def test_a_text_absent_to_the_flow_is_absent_to_the_door(text: str) -> None:
    found, _ = present(text)
    assert not absent(text) or found is None
    assert found is None or not absent(found), "a door stores nothing that the flow has to reject"


@pytest.mark.parametrize(
    "macro",
    [
        "__a__",
        "[a]",
        "%5Ba%5D",
        "[[a]]",
        "${a}",
        "$a",
        "{a}",
        "{{a}}",
        "@a@",
        "%%a%%",
        "%a",
        "%a!",
        "(x-a)",
        "#a#",
    ],
)
@pytest.mark.parametrize("end", ["", "x", "-", "_", "-__"])
def test_no_chain_of_macros_takes_more_than_linear_time(macro: str, end: str) -> None:
    began_s = process_time()
    for links in (3, 22, 2_000):
        text = "-".join([macro] * links)
        assert present(text) == (None, "unreplaced")
        assert present(text + end)[1] in (None, "unreplaced")
    assert process_time() - began_s < 1


@pytest.mark.parametrize("text", ["0" * 16_000 + "x", "-0" * 8_000 + "x", "-" * 16_000])
def test_device_ids_of_zeros_are_checked_in_linear_time(text: str) -> None:
    began_s = process_time()
    assert device_id(text) == (text, None)
    assert process_time() - began_s < 0.1


@pytest.mark.parametrize("text", ["-1", "-2", "null", "NULL", "undefined", "none", "None", "AUDIT"])
def test_a_placeholder_says_nothing(text: str) -> None:
    assert present(text) == (None, "placeholder")


@pytest.mark.parametrize(
    "text",
    [
        "(Live)",
        "[]",
        "{}",
        "@@",
        "${}",
        "a[X]",
        "[X] y",
        "50%",
        "$5 off",
        "#1",
        "<3",
        "_x_",
        "-12",
        "audit",
        "%%",
    ],
)
def test_a_name_similar_to_a_macro_stays(text: str) -> None:
    assert present(text) == (text, None)


@pytest.mark.parametrize("text", ["00000000-0000-0000-0000-000000000000", "0", "0000"])
def test_a_device_id_of_zeros_is_absent(text: str) -> None:
    assert device_id(text) == (None, "placeholder")
    assert device_id("10000000-0000-0000-0000-000000000000")[1] is None


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1790000040", 1_790_000_040_000),
        ("1790000040.5", 1_790_000_040_500),
        ("1790000040123", 1_790_000_040_123),
        ("1790000040123456", 1_790_000_040_123),
        ("2016-01-17T8:15:07.127-05", 1_453_036_507_127),
        ("2016-01-17T08:15:07.127-0500", 1_453_036_507_127),
        ("2016-01-17T08:15:07.127-05:00", 1_453_036_507_127),
        ("2016-01-17T13:15:07.127Z", 1_453_036_507_127),
        ("2016-01-17 13:15:07.127", 1_453_036_507_127),
        ("2016-01-17T14:15:07.127 01:00", 1_453_036_507_127),
        ("2016-01-17T14:15:07,127+01", 1_453_036_507_127),
        ("2016-1-17T13:15", 1_453_036_500_000),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),
    ],
)
def test_a_time_is_read_in_every_sloppy_form(text: str, ms: int) -> None:
    assert epoch_ms(text)[0] == ms


@pytest.mark.parametrize("unit", ["", "s", "ms", "us"])
@pytest.mark.parametrize("text", ["1790000040", "1790000040000", "1790000040000000"])
def test_a_time_in_a_wrong_unit_is_read_by_its_magnitude(text: str, unit: str) -> None:
    assert epoch_ms(text, unit)[0] == 1_790_000_040_000


@pytest.mark.parametrize("text", ["soon", "", "-5", "0", "2016-13-01T00:00Z", "2016-01-17", "٣", "1" * 40])
def test_an_unreadable_time_is_absent_and_raises_nothing(text: str) -> None:
    assert epoch_ms(text) == (None, "unreadable")


@pytest.mark.parametrize(
    ("text", "unit", "ms"),
    [
        ("00:00:15.250", "ms", 15_250),
        ("0:00:15", "ms", 15_000),
        ("15", "s", 15_000),
        ("7.5", "s", 7_500),
        ("15000", "s", 15_000),
        ("15000", "ms", 15_000),
    ],
)
def test_a_playhead_is_read_by_its_form_and_its_dialect(text: str, unit: str, ms: int) -> None:
    assert playhead_ms(text, unit)[0] == ms


def test_events_have_aliases_and_creative_view_is_no_start() -> None:
    named = ["imp", "midPoint", "MIDPOINT", "q3", "100", "start", "creativeView", "loaded"]
    meant = [
        "impression",
        "midpoint",
        "midpoint",
        "thirdQuartile",
        "complete",
        "start",
        "creativeView",
        "loaded",
    ]
    assert [event_name(name)[0] for name in named] == meant


def test_booleans_are_read_in_the_spellings_of_ad_servers() -> None:
    assert [boolean(text)[0] for text in ("1", "true", "Yes", "0", "FALSE", "no", "2", "")] == [
        *(True, True, True, False, False, False),
        *(None, None),
    ]


@given(st.text(max_size=60))
def test_no_input_raises(text: str) -> None:
    for read in (present, device_id, event_name, boolean, epoch_ms, playhead_ms):
        read(text)
    for unit in ("s", "ms", "us"):
        epoch_ms(text, unit)


def test_the_first_of_a_repeated_parameter_counts_and_their_number_is_bounded() -> None:
    assert parameters("a=1&a=2&b=&=x&c&d=e=f") == {"a": "1", "b": "", "d": "e=f"}
    assert parameters("ord=1;gdpr=0;u=2&x=3", "&;") == {"ord": "1", "gdpr": "0", "u": "2", "x": "3"}
    assert len(parameters("&".join(f"p{n}=1" for n in range(1000)))) == MAX_PARAMETERS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a%20b+c", "a b c"),
        ("a%252Bb", "a+b"),
        ("%25255BX%25255D", "[X]"),
        ("%ebuy!", "%ebuy!"),
        ("%%CACHEBUSTER%%", "%%CACHEBUSTER%%"),
        ("%25%25ADVERTISING_IDENTIFIER_PLAIN%25%25", "%%ADVERTISING_IDENTIFIER_PLAIN%%"),
        ("%25ecid!", "%ecid!"),
        ("50%25", "50%"),
        ("%ff", "\ufffd"),
        ("%E2%82", "\ufffd"),
        ("100%", "100%"),
    ],
)
def test_a_value_is_decoded_as_often_as_it_was_encoded(value: str, text: str) -> None:
    assert decoded(value) == text
