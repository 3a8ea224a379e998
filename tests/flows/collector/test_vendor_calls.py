"""Calls as vendors really send them: encoded twice, in forms and JSON, contradicting, refusing consent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast
from urllib.parse import quote, urlencode, urlsplit
from zoneinfo import ZoneInfo

import msgspec
import pytest
from collector_support import CONSENT, HOME, NOW_MS, SECRET, call, token, understanding

from flows.collector.call import Understood
from flows.collector.callers import Callers, networks
from flows.collector.consent import Policy
from flows.collector.dialects import load_dialects, plain
from flows.collector.doors import Doors
from flows.collector.letters import letter
from flows.collector.refusals import Refusals, by_day
from flows.collector.store import Store
from flows.collector.tags import Order, build
from flows.intake.schema import decode, decode_conversion, micros

OTHER: Final = "a value that does not count"
BEARER = {"authorization": f"Bearer host.{SECRET}"}
REFUSED = "CQtDjkAQtDjkAAfAAAENCWFgAAAAAAAAAAwIAAAAAAAA.IAAA.YAAAAAAAAAAA"
"""No purpose, no vendor."""
SALE_OPT_OUT = "DBACTvA~1---~BUkAAABA.QA~BFoAABA"
"""Of California (section 8)."""
POSTBACKS = (
    "/b/prebid?t=imp&b=bid-1&a=acct",
    "/b/podscribe?action=purchase",
    "/b/magellan?ct=purchase",
    "/b/appsflyer?event_name=install",
    "/b/adform?orderId=o-1",
    "/b/claritas?g=sale",
)


@pytest.mark.parametrize("door", [*POSTBACKS, "/p/triton?e=start&pl=a", "/p?e=start&pl=a"])
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (f"gdpr=1&gdpr_consent={REFUSED}", "purpose"),
        (f"gdpr_consent={REFUSED}", "purpose"),
        ("gdpr=1", "no_string"),
        (f"gpp={SALE_OPT_OUT}&gpp_sid=8", "opted_out"),
        ("us_privacy=1YYN", "opted_out"),
        ("lmt=1", "lmt"),
        ("coppa=1", "child"),
        ("tag_for_child_directed_treatment=1", "child"),
    ],
)
def test_a_refusal_counts_at_every_vendors_door(door: str, said: str, reason: str) -> None:
    path, _, query = door.partition("?")
    found = understanding(policy=Policy(5, required=False)).pixel(call(f"{query}&{said}", path))
    assert (found.outcome, found.consent, found.event["consent"]) == ("stored", reason, False)


IFA = "AEBE52E7-03EE-455A-B3C4-E57283966239"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/b/podscribe", f"action=purchase&device_id={IFA}"),
        ("/b/appsflyer", f"event_name=install&advertising_id=&idfa={IFA}"),
        (
            "/b/appsflyer",
            f"event_name=install&idfa=00000000-0000-0000-0000-000000000000&advertising_id={IFA}",
        ),
        ("/b/magellan", f"ct=purchase&aifa={IFA}&idfa="),
        ("/b/adform", f"advertisingId={IFA}"),
    ],
)
def test_a_postback_conversion_belongs_to_the_listener_of_the_ad(path: str, query: str) -> None:
    door = understanding()
    heard = door.pixel(call(f"e=start&pl=a&ifa={IFA}&gdpr_consent={CONSENT}"))
    bought = door.pixel(call(f"{query}&gdpr_consent={CONSENT}", path))
    assert bought.event["event"] == "conversion"
    assert bought.event["listener_id"] == heard.event["listener_id"]
    assert "listener_id" not in door.pixel(call(query, path)).event
    trusted = door.pixel(call(f"{query}&consent=1", path, BEARER))
    assert trusted.event["listener_id"] == heard.event["listener_id"]


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/?utm_content=rock%2Broll",
        "https://shop.example/?utm_content=r%26b&utm_source=audio",
        "https://shop.example/?utm_content=no%231&utm_source=audio",
        "https://shop.example/?utm_content=50%25",
        "https://shop.example/?utm_content=%2540home",
        "https://shop.example/a%2Fb?utm_content=x",
    ],
)
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("event", ["click", "conversion"])
def test_a_landing_url_is_decoded_at_any_depth(event: str, times: int, url: str) -> None:
    door, value = understanding(), url
    for _ in range(times):
        value = quote(value, safe="")
    found = door.pixel(call(f"e={event}&ct=purchase&pl=a&u={value}"))
    assert found.event["landing_url"] == url
    said = {"e": event, "ct": "purchase", "pl": "a"}
    for body in (json.dumps(said | {"u": url}), f"{urlencode(said)}&u={value}"):
        posted = door.pixel(call(method="POST", body=body.encode()))
        assert posted.event["landing_url"] == url


def test_an_unencoded_landing_url_is_read_to_its_end() -> None:
    event = understanding().pixel(call("e=click&pl=a&u=https://shop.example/?utm_content=a+b")).event
    assert event["landing_url"] == "https://shop.example/?utm_content=a+b"
    relative = understanding().pixel(call("e=click&pl=a&u=%2Fthanks%3Futm_content%3Da%2Bb")).event
    assert relative["landing_url"] == "/thanks?utm_content=a+b"


@pytest.mark.parametrize(
    ("country", "headers", "peer", "consent"),
    [
        ("US", {}, HOME, "no_string"),
        ("US", {"authorization": "Bearer host.guessed"}, HOME, "no_string"),
        ("US", {"x-forwarded-for": "198.51.100.9"}, HOME, "no_string"),
        ("US", BEARER, HOME, "given"),
        ("us", BEARER, HOME, "given"),
        ("US", {}, "198.51.100.9", "given"),
        ("GB", BEARER, HOME, "no_string"),
        ("AUT", BEARER, HOME, "no_string"),  # Austria, and not AU
        ("PRT", BEARER, HOME, "no_string"),  # Portugal, and not PR
        ("U", BEARER, HOME, "no_string"),
        ("[COUNTRY]", BEARER, HOME, "no_string"),
    ],
)
def test_a_country_is_believed_as_an_address_is(
    country: str, headers: dict[str, str], peer: str, consent: str
) -> None:
    free = Policy(5, free=frozenset({"US", "AU", "PR"}))
    servers = Callers(
        {"host": token(rights=frozenset({"write"}))}, (), [(networks(["198.51.100.0/24"])[0], "query")]
    )
    door = understanding(policy=free, callers=servers)
    assert door.pixel(call(f"e=start&pl=a&co={country}", headers=headers, peer=peer)).consent == consent


def test_a_strangers_country_counts_as_a_claim() -> None:
    told: list[tuple[str, str, str]] = []
    door = understanding(on_cleaning=lambda *what: told.append(what))
    door.pixel(call("e=start&pl=a&co=US", "/p/triton"))
    assert ("triton", "country", "claim_ignored") in told


ZEROS = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("zeros", [ZEROS, quote(ZEROS.replace("-", "%2D")), f" {ZEROS} "])
def test_a_uuid_of_zeros_names_no_person_and_no_play(zeros: str) -> None:
    door, usual = understanding(), f"e=start&pl=a&gdpr_consent={CONSENT}"
    event = door.pixel(call(f"{usual}&l={zeros}&p={zeros}&cr={zeros}&id={zeros}")).event
    assert not {"listener_id", "play_id", "creative_id"} & set(event)
    assert event["event_id"] != ZEROS
    known = door.pixel(call(f"{usual}&l={zeros}&ifa={IFA}")).event
    assert known["listener_id"] == door.pixel(call(f"{usual}&ifa={IFA}")).event["listener_id"]
    assert "listener_id" not in door.pixel(call(f"{usual}&listenerid={zeros}", "/p/adswizz")).event
    for dialect in ("triton", "openrtb"):
        for play in (f"77-{zeros.strip()}", f"{zeros.strip()}-77"):
            assert "play_id" not in door.pixel(call(f"{usual}&p={play}", f"/p/{dialect}")).event


@pytest.mark.parametrize("path", ["/p", "/v1/events"])
def test_an_overlong_event_id_is_reported_to_prevent_double_counts(path: str) -> None:
    door = understanding()

    def sent(event_id: str) -> Understood:
        if path == "/p":
            return door.pixel(call(f"e=start&pl=a&id={event_id}"))
        raw = {"event": "start", "placement_id": "a", "event_id": event_id}
        return door.events(call(method="POST", headers=BEARER), [raw])[0]

    fits, long = sent("x" * 128), sent("x" * 129)
    assert (fits.outcome, fits.event["event_id"]) == ("stored", "x" * 128)
    assert (long.outcome, long.reason, long.wrong) == ("rejected", "invalid", "event_id")
    assert sent("x" * 130).event["event_id"] == "x" * 130, "so that its letter is sent again as no other"


@dataclass
class Kept:
    """A store that keeps all in memory."""

    events: list[Understood] = field(default_factory=list)

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        self.events += understood
        return True


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("-1", -1_000_000),  # a refund: only as a text is it a placeholder
        ("-2", -2_000_000),
        ('"-1"', None),
        ("-0.5", -500_000),
        ("1234567890123.123456", 1_234_567_890_123_123_456),
        ("19.90", 19_900_000),
        ("1e3", 1_000_000_000),
        ("1e400", OTHER),
        ("1e30", OTHER),
        ('"1,234.50"', None),  # no number: the door leaves it out, and counts it as unreadable
        ("9" * 30, OTHER),
    ],
)
@pytest.mark.parametrize("door", ["/v1/events", "/p"])
def test_door_and_flow_read_equal_values_from_json(door: str, written: str, value: int | str | None) -> None:
    conversion = f'{{"type": "purchase", "value": {written}}}'
    line = f'{{"event": "conversion", "event_id": "e", "conversion": {conversion}}}'
    kept = Kept()
    doors = Doors(understanding(), cast(Store, kept))
    asyncio.run(doors.answer(call(path=door, method="POST", body=line.encode(), headers=BEARER)))
    (found,) = kept.events
    assert found.outcome == "stored"
    understood = decode_conversion(decode(msgspec.json.encode(found.event)))
    assert micros(understood.value) == ((None, True) if value == OTHER else (value, False))


@pytest.mark.parametrize("unknown", ["-1", "-2", "-1.0"])
def test_a_number_below_nought_is_no_place_in_an_ad(unknown: str) -> None:
    body = f'{{"e": "start", "pl": "a", "ph": {unknown}, "dur": {unknown}, "ts": {unknown}}}'
    event = understanding().pixel(call(method="POST", body=body.encode())).event
    assert not {"playhead_ms", "duration_ms"} & set(event)
    assert event["ts"] == NOW_MS
    nameless = understanding().pixel(call(method="POST", body=b'{"e": "start", "pl": -1}'))
    assert (nameless.reason, nameless.wrong) == ("invalid", "placement_id")


def test_a_time_in_json_is_read_however_its_number_is_written() -> None:
    for written in ("1795599990", "1795599990000", "1795599990000.0", "1.79559999e12", '"1795599990"'):
        body = f'{{"e": "start", "pl": "a", "ts": {written}}}'.encode()
        assert understanding().pixel(call(method="POST", body=body)).event["ts"] == 1_795_599_990_000


@pytest.mark.parametrize("great", ["1e99", "9e18", "9" * 19, "9" * 18 + ".9e9"])
def test_an_infinite_number_is_no_time_and_no_position(great: str) -> None:
    event = understanding().pixel(call(f"e=start&pl=a&ts={great}&ph={great}&dur={great}")).event
    assert not {"playhead_ms", "duration_ms"} & set(event)
    assert event["ts"] == NOW_MS
    assert decode(msgspec.json.encode(event)).event == "start"


SERVER = "35.180.1.1"


@pytest.mark.parametrize(
    ("forwarded", "basis"),
    [
        ("81.2.69.0", "claimed"),  # PRX masks the last byte
        ("81.2.69.0, 10.1.2.3", "claimed"),
        ("2a02:c7c:1:2::", "claimed"),
        ("192.168.1.7", "transport"),
        (SERVER, "transport"),
        (f"::ffff:{SERVER}", "transport"),
        ("unknown", "transport"),
        ("", "transport"),
    ],
)
def test_an_undeclared_host_server_is_no_household(forwarded: str, basis: str) -> None:
    asked = call(f"e=start&pl=a&p=x&gdpr_consent={CONSENT}", "/p/prx", {"x-forwarded-for": forwarded}, SERVER)
    event = understanding().pixel(asked).event
    assert (event["device_basis"], event.get("device_confirmed")) == (
        basis,
        True if basis == "transport" else None,
    )
    assert ("household_id" in event) is (basis == "transport")
    native = understanding().pixel(call("e=start&pl=a", "/p", {"x-forwarded-for": forwarded}, SERVER)).event
    assert native["device_basis"] == "transport", "anybody may write that header"


@pytest.mark.parametrize(
    ("said", "target"),
    [
        (
            "https://shop.example/?utm_content=breakfast%20uk",
            "https://shop.example/?utm_content=breakfast%20uk",
        ),
        ("https%3A%2F%2Fshop.example%2Fa%2520b%2Bc+d", "https://shop.example/a%20b+c+d"),
        ("https%3A%2F%2Fshop.example%2Fa%20b%C3%A9", "https://shop.example/a%20b%C3%A9"),
        ("https%3A%2F%2Fshop.example%20.evil.example%2F", None),
        ("https%3A%2F%2Fevil.example%20%40shop.example%2F", None),
    ],
)
def test_a_pasted_target_keeps_its_spaces(said: str, target: str | None) -> None:
    kept = Kept()
    doors = Doors(understanding(), cast(Store, kept))
    answer = asyncio.run(doors.answer(call(f"pl=a&u={said}", "/c")))
    assert (answer.status, dict(answer.headers).get("location")) == (302 if target else 400, target)
    assert [one.outcome for one in kept.events] == ["stored" if target else "rejected"]


def test_each_prx_call_has_its_own_id_and_dead_letter() -> None:
    dialect, order = load_dialects()["prx"], ("impression", "start", "complete")
    built = build("prx", dialect, Order("https://px.example", {"placement_id": "a"}, order), None).urls
    macros = [(plain(macro), f"v{n}") for n, macro in enumerate(set(map(plain, dialect.macros.values())))]

    def fired(event: str) -> Understood:
        url = built[event]
        for macro, value in macros:
            url = url.replace(macro, value)
        parts = urlsplit(url)
        return understanding(placements="signed").pixel(call(parts.query, parts.path))

    calls = [fired(event) for event in order]
    assert len({one.event["play_id"] for one in calls}) == 1
    assert len({one.event["event_id"] for one in calls}) == len({letter("c1", one).key for one in calls}) == 3
    assert fired("start").event["event_id"] == calls[1].event["event_id"], "a retry is the same call"


@pytest.mark.parametrize(
    ("ts", "day"),
    [
        ("2026-11-25T21:00:00Z", "2026-11-25"),
        ("2026-11-26T20:00:00Z", "2026-11-25"),  # cut to one minute after the receipt, as the flow does
        ("2036-11-25T21:00:00Z", "2026-11-25"),
        ("2026-11-24T23:00:00Z", "2026-11-24"),
        ("2026-11-23T23:00:00Z", "2026-11-24"),  # cut to a day before it
        ("1970-01-02T00:00:00Z", "2026-11-24"),
    ],
)
def test_a_rejected_impression_counts_on_its_own_day(ts: str, day: str) -> None:
    refusals, door = Refusals(ZoneInfo("UTC")), understanding(placements="signed")
    received = replace(call(f"e=impression&pl=a&ts={ts}"), received_ms=1_795_640_400_000)  # 21:00 on the 25th
    refusals.count([door.pixel(received)])
    assert by_day(refusals.take().without_row["a"]) == {day: {"unsigned": 1}}


@pytest.mark.parametrize(("path", "more"), [("/p/Triton", ""), ("/p/TRITON;x=1", ""), ("/p", "&d=Triton")])
def test_a_vendors_name_in_capitals_is_the_vendors(path: str, more: str) -> None:
    door, query = understanding(), f"e=start&pl=a&p=77-cookie1{more}"
    assert "cookie1" not in str(door.pixel(call(query, path)).event), "the id of a listener without consent"
    with_consent = f"{query}&gdpr_consent={CONSENT}"
    play = door.pixel(call(with_consent, "/p/triton")).event["play_id"]
    assert door.pixel(call(with_consent, path)).event["play_id"] == play


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("dc_lat=0&lmt=1", "lmt"),
        ("lmt=0&dc_lat=1", "lmt"),
        ("coppa=0&tag_for_child_directed_treatment=1", "child"),
        ("tag_for_child_directed_treatment=0&coppa=true", "child"),
        ("regulations=coppa&coppa=0", "child"),
        ("lmt=0&dc_lat=[LAT]&coppa=0", "given"),
    ],
)
def test_the_refusing_one_of_two_consent_names_counts(said: str, reason: str) -> None:
    found = understanding().pixel(call(f"e=start&pl=a&gdpr_consent={CONSENT}&{said}", "/p/cm360"))
    assert found.consent == reason


def test_one_event_in_several_lines_is_one_event() -> None:
    event = {"event": "conversion", "event_id": "e", "conversion": {"type": "purchase", "value": 12.5}}
    for body in (json.dumps(event, indent=2), json.dumps([event], indent=2), json.dumps(event)):
        kept = Kept()
        doors = Doors(understanding(), cast(Store, kept))
        posted = call(path="/v1/events", method="POST", body=body.encode(), headers=BEARER)
        answer = asyncio.run(doors.answer(posted))
        assert (answer.status, json.loads(answer.body)) == (200, {"results": [{"outcome": "accepted"}]})
        assert [one.event["conversion"] for one in kept.events] == [{"type": "purchase", "value": "12.5"}]
