"""Calls as vendors really send them: encoded twice, in forms and JSON, contradicting, refusing consent."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import pytest
from collector_support import CONSENT, HOME, SECRET, call, token, understanding

from flows.collector.call import Understood
from flows.collector.callers import Callers, networks
from flows.collector.consent import Policy

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
def test_a_refusal_is_heard_at_every_vendors_door(door: str, said: str, reason: str) -> None:
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
def test_a_conversion_by_postback_is_of_the_listener_who_has_heard_the_ad(path: str, query: str) -> None:
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
def test_a_landing_url_says_what_it_says_however_often_it_was_encoded(
    event: str, times: int, url: str
) -> None:
    door, value = understanding(), url
    for _ in range(times):
        value = quote(value, safe="")
    found = door.pixel(call(f"e={event}&ct=purchase&pl=a&u={value}"))
    assert found.event["landing_url"] == url
    said = {"e": event, "ct": "purchase", "pl": "a"}
    for body in (json.dumps(said | {"u": url}), f"{urlencode(said)}&u={value}"):
        posted = door.pixel(call(method="POST", body=body.encode()))
        assert posted.event["landing_url"] == url


def test_a_landing_url_that_is_not_encoded_is_read_to_its_end() -> None:
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


def test_a_country_that_a_stranger_says_is_counted_as_a_claim() -> None:
    told: list[tuple[str, str, str]] = []
    door = understanding(tell=lambda *what: told.append(what))
    door.pixel(call("e=start&pl=a&co=US", "/p/triton"))
    assert ("triton", "country", "claim_ignored") in told


ZEROS = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("zeros", [ZEROS, quote(ZEROS.replace("-", "%2D")), f" {ZEROS} "])
def test_a_uuid_of_zeros_is_nobody_and_no_play(zeros: str) -> None:
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
def test_an_id_of_an_event_that_is_too_long_is_told_so_that_no_retry_counts_twice(path: str) -> None:
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
