"""Refusals count in any form that a call writes them, next to any consent."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from collector_support import CONSENT, HOME, SECRET, call, understanding

from flows.collector.call import Call, Outcome, Understood
from flows.collector.checker import check, in_words
from flows.collector.cleaner import boolean, sections
from flows.collector.consent import Policy
from flows.model.catalogue.limits import MAX_PARAMETERS

OPTED_OUT = "DBACTvA~1---~BUkAAABA.QA~BFoAABA"
"""Its section 8 opts out; 9 does not."""
BEARER = {"authorization": f"Bearer host.{SECRET}"}
PIXEL = {"event": "start", "placement_id": "a", "event_id": "i", "listener_id": "joe", "us_privacy": "1YNN"}
SAYS_YES = {"us_privacy": "1YNN", "gdpr": "1", "gdpr_consent": CONSENT, "l": "joe", "e": "start", "pl": "a"}


def event(**more: Any) -> Understood:
    made = call(method="POST", path="/v1/events", headers=BEARER)
    return understanding().events(made, [PIXEL | more])[0]


def posted(**more: Any) -> Call:
    return call(method="POST", body=json.dumps(SAYS_YES | more).encode())


def is_anonymous(found: Understood) -> bool:
    said = found.event
    return said["consent"] is False and not {"listener_id", "client_id", "household_id"} & set(said)


@pytest.mark.parametrize("no", [False, "false", "no", 0, 0.0, "0", [False]])
def test_a_writers_no_is_one_in_every_form(no: Any) -> None:
    found = event(consent=no)
    assert (found.consent, found.outcome, is_anonymous(found)) == ("opted_out", Outcome.STORED, True)


@pytest.mark.parametrize("yes", [True, "true", "yes", 1, 1.0, "1"])
def test_a_writers_yes_is_one_in_every_form(yes: Any) -> None:
    assert event(consent=yes, us_privacy="").consent == "given"
    assert event(consent=None).consent == "given"  # not said


@pytest.mark.parametrize("said", ["maybe", {}, {"given": True}, [None], 7, "2026-11-29"])
def test_a_writers_unreadable_consent_is_a_fault_of_the_event(said: Any) -> None:
    found = event(consent=said)
    assert (found.outcome, found.reason, found.wrong) == (Outcome.REJECTED, "invalid", "consent")
    assert event(consent=said, event="no-such").reason == "unknown_event"


@pytest.mark.parametrize("ids", [[8], ["8"], 8, "8", 8.0, [8, 9], ["9", 8], "9_8", [9] * 40 + [8], [8.0]])
def test_the_sections_that_apply_are_read_in_every_form(ids: Any) -> None:
    assert event(gpp=OPTED_OUT, gpp_sid=ids).consent == "opted_out"
    assert understanding().pixel(posted(gpp=OPTED_OUT, gpp_sid=ids)).consent == "opted_out"


@pytest.mark.parametrize("ids", [{"8": True}, [8, None], "usca", [[8]], "9,usca"])
def test_unreadable_sections_count_as_refusals(ids: Any) -> None:
    found = event(gpp=OPTED_OUT, gpp_sid=ids)
    assert (found.consent, is_anonymous(found)) == ("unreadable", True)
    assert event(gpp_sid=ids).consent == "given"  # there is no string that they are of


@pytest.mark.parametrize("said", ["1", " 1 ", "1,1", "0,1"])
def test_the_global_privacy_control_header_refuses_at_every_door(said: str) -> None:
    door, headers = understanding(policy=Policy(5, required=False)), BEARER | {"sec-gpc": said}
    raws = [PIXEL | {"consent": True}] * 2
    found = door.events(call(method="POST", path="/v1/events", headers=headers), raws)
    for made in (
        call(SAYS_YES | {"consent": "1", "co": "US"}, headers=headers),
        call("event=purchase&id=1&ct=purchase", "/b/magellan", headers=headers),
        call(SAYS_YES | {"u": "https://shop.example/"}, "/c", headers=headers),
        call(method="POST", body=json.dumps(SAYS_YES).encode(), headers=headers),
    ):
        found.append(door.pixel(made))
    assert [(one.outcome, one.consent, is_anonymous(one)) for one in found] == [
        (Outcome.STORED, "opted_out", True)
    ] * 6


@pytest.mark.parametrize(
    ("said", "reason"),
    [("", "given"), ("0", "given"), ("true", "given"), ("11", "given"), ("\ufffd", "unreadable")],
)
def test_an_unreadable_gpc_header_is_a_refusal(said: str, reason: str) -> None:
    assert understanding().pixel(call(SAYS_YES, headers={"sec-gpc": said})).consent == reason


@pytest.mark.parametrize("path", ["/p", "/p/triton", "/b/podscribe"])
def test_the_control_is_a_parameter_too(path: str) -> None:
    door = understanding(policy=Policy(5, required=False))
    for said, reason in (("1", "opted_out"), ("true", "opted_out"), ("0", "given"), ("maybe", "unreadable")):
        asked = {"e": "start", "pl": "a", "action": "view", "us_privacy": "1YNN", "gpc": said}
        assert door.pixel(call(asked, path)).consent == reason


@pytest.mark.parametrize("word", ["lmt", "coppa"])
@pytest.mark.parametrize("yes", [1, 1.0, True, "1", "yes", "TRUE", [1]])
def test_a_devices_refusal_counts_in_every_form(word: str, yes: Any) -> None:
    for found in (understanding().pixel(posted(**{word: yes})), event(**{word: yes})):
        assert (found.consent, is_anonymous(found)) == ({"lmt": "lmt", "coppa": "child"}[word], True)


@pytest.mark.parametrize("word", ["lmt", "coppa", "gdpr", "us_privacy", "gdpr_consent", "gpp"])
@pytest.mark.parametrize("said", [{}, {"value": 1}, [None], [{}], "perhaps"])
def test_a_pixel_with_an_unreadable_signal_counts_without_consent(word: str, said: Any) -> None:
    found = understanding().pixel(posted(**{word: said}))
    assert (found.outcome, found.consent, is_anonymous(found)) == (Outcome.STORED, "unreadable", True)


@pytest.mark.parametrize("word", ["lmt", "coppa", "gdpr", "gpp_sid", "consent"])
@pytest.mark.parametrize("said", ["", "[X]", "${GDPR}", "$GDPR", "-1", "undefined", "null"])
def test_an_unfilled_signal_refuses_nothing(word: str, said: str) -> None:
    assert understanding().pixel(call(SAYS_YES | {word: said})).consent == "given"
    assert understanding().pixel(posted(**{word: said})).consent == "given"


REPEATED = [
    ([("lmt", "0"), ("lmt", "1")], "lmt"),
    ([("lmt", "1"), ("lmt", "0")], "lmt"),
    ([("lmt", "[LIMITADTRACKING]"), ("lmt", "1")], "lmt"),
    ([("lmt", "0"), ("lmt", "0"), ("lmt", "true")], "lmt"),
    ([("coppa", "0"), ("coppa", "1")], "child"),
    ([("coppa", "0"), ("tag_for_child_directed_treatment", "1")], "child"),
    ([("regulations", "gdpr"), ("regulations", "coppa")], "child"),
    ([("gpc", "0"), ("gpc", "1")], "opted_out"),
    ([("gpc", "1"), ("gpc", "0")], "opted_out"),
    ([("us_privacy", "1YNN"), ("us_privacy", "1YYN")], "opted_out"),
    ([("us_privacy", "1YYN"), ("us_privacy", "1YNN")], "opted_out"),
    ([("us_privacy", "1YNN"), ("gdpr", "0"), ("gdpr", "1")], "no_string"),
    ([("us_privacy", "1YNN"), ("gdpr", "0"), ("regulations", "gdpr")], "no_string"),
    ([("us_privacy", "1YNN"), ("gpp", OPTED_OUT), ("gpp_sid", "9"), ("gpp_sid", "8")], "opted_out"),
    ([("gdpr_consent", "${GDPR_CONSENT_755}"), ("gdpr_consent", CONSENT)], "given"),
    ([("gdpr", "0"), ("gdpr", "0"), ("us_privacy", "1YNN"), ("us_privacy", "1YNN")], "given"),
    ([("us_privacy", "1YNN"), ("lmt", "0"), ("lmt", "perhaps")], "unreadable"),
]


@pytest.mark.parametrize(("pairs", "reason"), REPEATED)
def test_the_refusal_of_a_repeated_signal_counts(pairs: list[tuple[str, str]], reason: str) -> None:
    query, door = f"e=start&pl=a&l=joe&{urlencode(pairs)}", understanding()
    (name, value), *others = reversed(pairs)
    in_body = call(
        f"e=start&pl=a&{urlencode(others[::-1])}", method="POST", body=urlencode({name: value}).encode()
    )
    in_path = call(f"e=start&pl=a&{urlencode(pairs[1:])}", f"/p/cm360;{urlencode(pairs[:1])}")
    form = call(method="POST", body=query.encode())
    for made in (call(query), form, in_body, in_path):
        assert door.pixel(made).consent == reason


@pytest.mark.parametrize("last", ["us_privacy=1YYN", "gpc=1", "ss=1"])
def test_a_parameter_beyond_the_bound_rejects_the_call(last: str) -> None:
    """A call with more parameters than the bound is rejected, because a refusal may be among them."""
    door = understanding(policy=Policy(5, required=False))
    for many, outcome in ((MAX_PARAMETERS - 3, Outcome.STORED), (MAX_PARAMETERS - 2, Outcome.REJECTED)):
        said = {"e": "start", "pl": "a"} | {f"unknown{n}": "x" for n in range(many)}
        name, _, value = last.partition("=")
        body = json.dumps(said | {name: value}).encode()
        query = urlencode(said) + f"&{last}"
        for made in (
            call(query),
            call("", "/p/cm360;" + query.replace("&unknown0=x", "").replace("&", ";")),
            call(method="POST", body=query.encode()),
            call(method="POST", body=body),
        ):
            assert door.pixel(made).outcome is outcome
    event = PIXEL | {f"unknown{n}": "x" for n in range(MAX_PARAMETERS)} | {"lmt": 1}
    made = call(method="POST", path="/v1/events", headers=BEARER)
    assert door.events(made, [event])[0].consent == "lmt", "a known caller may have fields of its own"


def test_contradicting_signals_are_a_refusal() -> None:
    found = understanding().pixel(call("e=start&pl=a&consent=1&consent=0", headers=BEARER))
    assert found.consent == "opted_out"
    stranger = understanding(policy=Policy(5, required=False))
    assert stranger.pixel(call("e=start&pl=a&consent=maybe")).consent == "given"  # nobody's word


def test_the_first_of_a_repeated_parameter_counts_as_ever() -> None:
    made = call("e=start&pl=first&pl=second&cm=x&cm=y", peer=HOME)
    found = understanding().pixel(made).event
    assert (found["placement_id"], found["campaign_id"]) == ("first", "x")


def test_a_retry_with_another_consent_keeps_its_event_id() -> None:
    ids = {event(event_id="", ts=1_790_000_000_000, consent=one).event["event_id"] for one in (True, False)}
    assert len(ids) == 1


def test_the_checker_explains_the_cost_of_an_unreadable_signal() -> None:
    url = f"https://px.example/p?e=start&pl=a&cb=1&gdpr_consent={CONSENT}&lmt=perhaps&gdpr=0&gdpr=1"
    said = in_words(check(understanding(), url, 1_790_000_000_000))
    assert "lmt: its value cannot be read as lmt, so that no listener is measured" in said
    assert "gdpr appears twice: the refusal counts" in said


def test_numbers_are_booleans_and_sections_as_json_writes_them() -> None:
    assert [boolean(text)[0] for text in ("1.0", "0.0", "2.0", "1.5")] == [True, False, None, None]
    assert sections("8, 8.0,,9_7") == ((8, 9, 7), None)
    assert sections("8," * 600)[1] == "unreadable"
