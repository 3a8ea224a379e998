"""Consent: the strings of the frameworks, and the policy that is held against them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.collector import gpp, tcf
from flows.collector.consent import REASONS, WORDS, Policy, Reason, Signals

DATA = Path(__file__).parents[2] / "data"
# Made by @iabgpp/cmpapi 3.2.0 (all but CORE_ONLY): CMP 31, policy 5, service-specific, GB, 2 November 2026.
FIELD = "CQtDjkAQtDjkAAfAAAENCWFgAIKAAAAAAAwIAEEkAAAAAAAA.IAEEkAAA.YAAAAAAAAAAA"
RANGES = "CQtDjkAQtDjkAAfAAAENCWFgAIKAAAAAAAwIF5wAgACgLzAAAAAA.IF5wAgACgLzA.YAAAAAAAAAAA"
NO_PURPOSE_1 = "CQtDjkAQtDjkAAfAAAENCWFgAAKAAAAAAAwIACggAAAA.IACggAAA.YAAAAAAAAAAA"
INTEREST = "CQtDjkAQtDjkAAfAAAENCWFgAIAAAAKAAAwIAFABAAoAIAAA.IAFABAAA.YAAAAAAAAAAA"
NOT_DISCLOSED = "CQtDjkAQtDjkAAfAAAENCWFgAIKAAAAAAAwIAEEkAAAAAAAA.IAEEEAAA.YAAAAAAAAAAA"
NOTHING = "CQtDjkAQtDjkAAfAAAENCWFgAAAAAAAAAAwIAAAAAAAA.IAAA.YAAAAAAAAAAA"
CORE_ONLY = "CQtDjkAQtDjkAAfACAENCWFgAIKAAAAAAAwIACggAAABHAAQACgA.YAAAAAAAAAAA"
CALIFORNIA = "DBACTvA~1---~BUkAAABA.QA~BFoAABA"
VIRGINIA = "DBACTvA~1YNN~BUoAAABA.QA~BFUAABA"


def answer(signals: Signals, **policy: object) -> Reason:
    return Policy(**policy).decide(signals).reason  # type: ignore[arg-type]  # settings of a case


@pytest.mark.parametrize(
    ("text", "of_5", "of_10", "of_755"),
    [
        (FIELD, "given", "vendor", "vendor"),
        (RANGES, "given", "vendor", "given"),
        (NO_PURPOSE_1, "purpose", "purpose", "purpose"),
        (INTEREST, "vendor", "given", "vendor"),
        (NOT_DISCLOSED, "given", "vendor", "vendor"),
        (NOTHING, "purpose", "purpose", "purpose"),
        (CORE_ONLY, "policy", "policy", "policy"),
    ],
)
def test_a_tc_string_answers_for_each_vendor(text: str, of_5: str, of_10: str, of_755: str) -> None:
    for vendor, expected in ((5, of_5), (10, of_10), (755, of_755)):
        policy = Policy(vendor, (1, 7, 9), by_interest=frozenset({7, 9}))
        assert policy.of_tc_string(text) == expected


def test_interest_is_no_basis_where_the_vendor_has_not_registered_it() -> None:
    assert Policy(10, (1, 7, 9)).of_tc_string(INTEREST) == "purpose"


def test_an_undisclosed_vendor_is_refused_under_the_operators_setting() -> None:
    assert Policy(5, (1, 7, 9), needs_disclosure=True).of_tc_string(NOT_DISCLOSED) == "not_disclosed"
    assert Policy(5, (1, 7, 9), needs_disclosure=True).of_tc_string(FIELD) == "given"


def test_a_publishers_restriction_of_a_purpose_holds() -> None:
    said = tcf.decode(CORE_ONLY)
    assert said.restricted(7, 5, tcf.NOT_ALLOWED)
    assert not said.restricted(7, 6, tcf.NOT_ALLOWED)


@pytest.mark.parametrize(
    ("text", "out"),
    [(CALIFORNIA, {6: None, 8: True, 9: False}), (VIRGINIA, {6: False, 8: False, 9: True})],
)
def test_each_section_of_a_gpp_string_says_whether_it_opts_out(
    text: str, out: dict[int, bool | None]
) -> None:
    assert {section: gpp.opted_out(section, body) for section, body in gpp.sections(text).items()} == out


@pytest.mark.parametrize(("header", "ids"), [("DBABM", [2]), ("DBACNY", [2, 6]), ("DBABjw", [5, 6])])
def test_headers_of_the_specification_name_their_sections(header: str, ids: list[int]) -> None:
    assert list(gpp.sections(header + "~x" * len(ids))) == ids


@pytest.mark.parametrize(
    ("signals", "reason"),
    [
        (Signals(), "no_string"),
        (Signals(gdpr=True), "no_string"),
        (Signals(gdpr=False), "no_string"),
        (Signals(tc_string=FIELD), "given"),
        (Signals(gdpr=True, tc_string=FIELD), "given"),
        (Signals(gdpr=False, tc_string=NOTHING, own_consent=True), "given"),
        (Signals(gdpr=True, tc_string=NOTHING, own_consent=True), "purpose"),
        (Signals(gdpr=True, tc_string=FIELD, own_consent=False), "opted_out"),
        (Signals(tc_string=FIELD, lmt=True), "lmt"),
        (Signals(tc_string=FIELD, lmt=True, child=True), "child"),
        (Signals(tc_string=FIELD[:40]), "unreadable"),
        (Signals(tc_string="no string at all"), "unreadable"),
        (Signals(gpp=FIELD), "given"),
        (Signals(gdpr=True, gpp=FIELD), "given"),
        (Signals(gdpr=False, gpp=FIELD), "no_string"),
        (Signals(gpp=f"DBABM~{FIELD}", gpp_sid=(2,)), "given"),
        (Signals(gpp=f"DBABM~{NOTHING}", gpp_sid=(2,)), "purpose"),
        (Signals(gdpr=True, gpp=f"DBABM~{FIELD}", gpp_sid=(2,)), "given"),
        (Signals(gdpr=True, gpp=f"DBABM~{FIELD}"), "given"),
        (Signals(gpp=f"DBABM~{FIELD}"), "given"),
        (Signals(gpp=f"DBABM~{NOTHING}"), "purpose"),
        (Signals(gdpr=False, gpp=f"DBABM~{NOTHING}"), "no_string"),
        (Signals(gdpr=True, gpp=FIELD, gpp_sid=(2,)), "given"),
        (Signals(gpp=NOTHING, gpp_sid=(2,)), "purpose"),
        (Signals(gpp=CALIFORNIA, gpp_sid=(8,)), "opted_out"),
        (Signals(gpp=CALIFORNIA, gpp_sid=(9,)), "given"),
        (Signals(gpp=CALIFORNIA, gpp_sid=(9, 0)), "given"),
        (Signals(gpp=CALIFORNIA), "opted_out"),
        (Signals(gpp=CALIFORNIA, gpp_sid=(0,)), "opted_out"),
        (Signals(gpp=CALIFORNIA, gpp_sid=(9,), gpc=True), "opted_out"),
        (Signals(gpp=CALIFORNIA, gpp_sid=(9, 10)), "no_string"),
        (Signals(gpp=f"DBACNYA~{FIELD}~1YNN", gpp_sid=(2, 6)), "given"),
        (Signals(gpp=f"DBABM~{FIELD}", gpp_sid=(2, 6), us_privacy="1YNN"), "given"),
        (Signals(gpp=f"DBABM~{FIELD}", gpp_sid=(2, 6)), "no_string"),
        (Signals(gpp="DBABTA~1YNN", gpp_sid=(2, 6), tc_string=FIELD), "given"),
        (Signals(gpp="DBA", gpp_sid=(8,)), "unreadable"),
        (Signals(us_privacy="1YYN"), "opted_out"),
        (Signals(us_privacy="1YNN"), "given"),
        (Signals(us_privacy="1---"), "no_string"),
        (Signals(gpp=CALIFORNIA, gpp_sid=(6,)), "no_string"),
        (Signals(us_privacy="2YNN"), "unreadable"),
        (Signals(tc_string=FIELD, us_privacy="1YYN"), "opted_out"),
        (Signals(own_consent=True), "given"),
    ],
)
def test_the_first_no_decides(signals: Signals, reason: Reason) -> None:
    consent = Policy(5).decide(signals)
    assert consent.reason == reason
    assert consent.is_given == (reason == "given")


def test_without_required_consent_only_a_refusal_counts() -> None:
    assert answer(Signals(country="US"), free=frozenset({"US"})) == "given"
    assert answer(Signals(country="GB"), free=frozenset({"US"})) == "no_string"
    assert answer(Signals(), required=False) == "given"
    assert answer(Signals(tc_string=NOTHING), required=False) == "purpose"
    assert answer(Signals(gdpr=True, gpp=NOTHING, gpp_sid=(2,)), required=False) == "purpose"


def test_an_applicable_section_without_an_answer_is_a_reported_refusal() -> None:
    for policy in (Policy(5), Policy(5, required=False)):
        consent = policy.decide(Signals(gpp=CALIFORNIA, gpp_sid=(9, 10), own_consent=True))
        assert consent == (False, "no_string", (10,))
        for unknown in (5, 28, 99):
            text = f"{header(unknown)}~BAAA"
            for signals in (Signals(gpp=text), Signals(gpp=text, gpp_sid=(unknown,))):
                consent = policy.decide(replace(signals, own_consent=True, us_privacy="1YNN"))
                assert consent == (False, "unreadable", (unknown,))


def header(*ids: int) -> str:
    """The header of a GPP string of these sections, each by a range of its own."""
    bits, last = f"{3:06b}{1:06b}{len(ids):012b}", 0
    for one in ids:
        places, rest = [1, 2], one - last
        while places[-1] <= rest:
            places.append(places[-1] + places[-2])
        digits = ""
        for place in reversed([place for place in places if place <= rest]):
            digits = ("1" if place <= rest else "0") + digits
            rest -= place if place <= rest else 0
        bits, last = f"{bits}0{digits}1", one
    return packed(bits)


def test_our_decoder_agrees_with_the_iabs_on_encoded_strings() -> None:
    """Strings by @iabgpp/cmpapi 3.2.0 (`consent_strings.mjs`): 600, of all sections of the United States."""
    lines = gzip.decompress((DATA / "gpp.ndjson.gz").read_bytes()).splitlines()
    outs: Counter[tuple[int, bool | None]] = Counter()
    for one in map(json.loads, lines):
        found = {section: gpp.opted_out(section, body) for section, body in gpp.sections(one["text"]).items()}
        assert found == {int(section): out for section, out in one["out"].items()}, one["text"]
        outs.update(found.items())
        wanted = any(found.values())
        consent = Policy(5, required=False).decide(
            Signals(gpp=one["text"], own_consent=True, us_privacy="1YNN")
        )
        assert consent == (not wanted, "opted_out" if wanted else "given", ())
    assert {section for section, _ in outs} == {gpp.USP, *gpp.OPT_OUTS} == set(range(6, 28))
    assert all(outs[section, out] > 20 for section in range(7, 28) for out in (True, False))


STATES = sorted(gpp.OPT_OUTS)
WITH_CONTROL = [section for section in STATES if section not in (9, 11, 13, 25, 26, 27)]


def state(section: int, place: int = 0, out: bool = False, more: str = "", version: int = 1) -> str:
    """A section of the United States whose fields all say that the user does not opt out, but for one."""
    bits = f"{version:06b}" + "10" * 24
    return packed(bits[:place] + "01" + bits[place + 2 :] if out else bits) + more


@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
@pytest.mark.parametrize("section", STATES)
def test_an_opt_out_of_a_state_is_overruled_by_nothing(section: int, named: bool) -> None:
    sid = (section,) if named else ()
    outs = [state(section, place, out=True) for place in gpp.OPT_OUTS[section]]
    if section in WITH_CONTROL:
        outs.append(state(section, more="." + packed("011")))
    for body in outs:
        signals = Signals(
            gpp=f"{header(section)}~{body}", gpp_sid=sid, own_consent=True, us_privacy="1YNN", country="US"
        )
        for policy in (Policy(5), Policy(5, required=False), Policy(5, free=frozenset({"US"}))):
            assert policy.decide(signals) == (False, "opted_out", ())
            assert policy.decide(replace(signals, gpp="", gpc=True)) == (False, "opted_out", ())
    others = [state(section), state(section, more="." + packed("010"))]
    if section in (25, 26, 27):  # it is about sensitive data there
        others.append(state(section, more="." + packed("011")))
    for body in others:
        assert Policy(5).decide(Signals(gpp=f"{header(section)}~{body}", gpp_sid=sid)).is_given


@pytest.mark.parametrize("section", STATES)
def test_an_unknown_version_is_unreadable(section: int) -> None:
    for version in (0, 1, 2, 3, 63):
        consent = Policy(5, required=False).decide(
            Signals(gpp=f"{header(section)}~{state(section, version=version)}", own_consent=True)
        )
        assert consent.is_given == (version == 1 or (section, version) == (7, 2))


def test_a_not_applicable_section_without_a_signal_is_no_consent() -> None:
    nothing = packed(f"{1:06b}" + "00" * 24)
    for section in STATES:
        text = f"{header(section)}~{nothing}"
        assert Policy(5).decide(Signals(gpp=text)).reason == "no_string"
        assert Policy(5, required=False).decide(Signals(gpp=text)).is_given


@given(st.integers(0, len(FIELD)), st.text("AZaz09-_.~", max_size=3), st.integers(0, 3))
def test_a_damaged_string_is_never_read_past_its_end(place: int, middle: str, cut: int) -> None:
    for text in (FIELD, RANGES, CALIFORNIA, f"DBABM~{FIELD}"):
        damaged = text[:place] + middle + text[place + cut :]
        assert Policy(5).decide(Signals(tc_string=damaged)).reason in REASONS
        assert Policy(5).decide(Signals(gpp=damaged, gpp_sid=(2, 6, 7, 8, 9))).reason in REASONS
        assert Policy(5).decide(Signals(us_privacy=damaged)).reason in REASONS


@given(st.integers(1, len(FIELD.split(".")[0]) - 1))
def test_a_truncated_core_is_unreadable(length: int) -> None:
    core = FIELD.split(".")[0]
    try:
        tcf.decode(core[:length])
    except ValueError:
        return
    # Only the zeros that fill up the last byte may be cut off.
    assert set(core[length:]) <= {"A"}


def packed(bits: str) -> str:
    """Bits as a consent string has them."""
    letters = ascii_uppercase + ascii_lowercase + digits + "-_"
    bits += "0" * (-len(bits) % 6)
    return "".join(letters[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


LONG = 6 * 16_000
CORE = f"{2:06b}{0:0126b}{4:06b}1{0:013b}{0:048b}0{0:012b}{0:017b}{0:017b}"
"""Of a TC string, up to the number of its restrictions."""


@pytest.mark.parametrize(
    "signals",
    [
        Signals(gpp=packed(f"{3:06b}{1:06b}{1:012b}".ljust(LONG, "0")), gpp_sid=(7,)),
        Signals(gpp=CALIFORNIA + ".A" * 7_000, gpp_sid=(9,)),
        Signals(tc_string=packed(CORE + f"{4095:012b}" + f"{1:06b}01{1:012b}0{7:016b}" * 2_500)),
        Signals(tc_string=packed(CORE + f"{1:012b}{1:06b}01{4095:012b}" + f"1{1:016b}{2:016b}" * 2_800)),
        Signals(tc_string=FIELD + ".A" * 7_000),
    ],
    ids=["an id of zeros", "sub-sections", "restrictions", "ranges", "segments"],
)
def test_the_longest_string_is_decoded_fast(signals: Signals) -> None:
    taken_s = []
    for _ in range(5):
        began_s = process_time()
        assert Policy(5).decide(signals).reason == "unreadable"
        taken_s.append(process_time() - began_s)
    assert min(taken_s) < 0.1


@pytest.mark.parametrize("length", [0, 12_000], ids=["short", "long"])
def test_a_string_is_decoded_once_however_often_a_call_names_its_section(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def counting(text: str, decode: Callable[[str], tcf.TcString] = tcf.decode) -> tcf.TcString:
        decoded.append(text)
        return decode(text)

    monkeypatch.setattr(tcf, "decode", counting)
    text = FIELD + "." + packed(f"{3:03b}".ljust(6 * length, "0")) if length else FIELD
    header = packed(f"{3:06b}{1:06b}{1:012b}0011")
    policy = Policy(5)
    for _ in range(3):
        assert policy.decide(Signals(gpp=f"{header}~{text}", gpp_sid=(2,) * 16)).is_given
    assert len(decoded) == 1


@pytest.mark.parametrize("section", [7, 8, 9])
def test_a_section_is_read_once_however_often_a_call_names_it(
    section: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counting(section: int, body: str) -> bool:
        asked.append(section)
        return False

    monkeypatch.setattr(gpp, "opted_out", counting)
    monkeypatch.setattr(gpp, "sections", lambda text: {section: "BUoAAABA"})
    assert Policy(5).decide(Signals(gpp="DBABM~x", gpp_sid=(section,) * 16)).is_given
    assert asked == [section]


def test_every_reason_has_its_words() -> None:
    assert set(WORDS) == set(REASONS)


def test_unique_strings_do_not_fill_the_memory() -> None:
    policy = Policy(5)
    for n in range(20_000):
        policy.of_tc_string(f"{FIELD}.{n}")
    for n in range(100):
        policy.of_tc_string(f"{FIELD}.{n}." + "A" * 16_000)
    assert sum(map(len, policy._reasons)) < 16_384 * 1_024
