"""Understanding: what calls of every kind become, and that nothing of a listener gets past it."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from random import Random
from typing import get_args
from urllib.parse import quote, urlencode

import msgspec
import pytest
from collector_support import CONSENT, HOME, NOW_MS, PLAYER, SECRET, call, token, understanding, usual

from flows.collector.call import Outcome
from flows.collector.callers import Callers, networks
from flows.collector.cleaner import How
from flows.collector.dialects import NATIVE, WORDS, load_dialects
from flows.collector.instruments import Instruments
from flows.collector.ledger import Ledger
from flows.collector.reading import NEVER_FROM_A_CALLER
from flows.collector.signatures import Signatures
from flows.intake.schema import decode, decode_conversion

BEARER = {"authorization": f"Bearer host.{SECRET}"}
AGENT = {"x-device-user-agent": PLAYER}


def test_a_usual_call_becomes_a_canonical_event() -> None:
    query = urlencode(usual(ph="00:00:07.500", u="x", unknown="never kept")) + "&cat=1,2%2C3"
    found = understanding().pixel(call(query))
    assert found.outcome is Outcome.STORED
    event = found.event
    assert decode(msgspec.json.encode(event)).event == "start"
    assert (event["placement_id"], event["campaign_id"], event["play_id"]) == (
        "breakfast-uk",
        "spring",
        "play-1",
    )
    assert (event["ts"], event["received_at"]) == (NOW_MS - 1_000, NOW_MS)
    assert (event["playhead_ms"], event["content_category"]) == (7_500, ["1", "2,3"])
    assert (event["consent"], event["device_basis"], event["device_confirmed"]) == (True, "transport", True)
    assert {"listener_id", "client_id", "household_id"} <= set(event)
    assert found.key == b"play-1"
    assert "never kept" not in str(event)


def test_a_call_without_consent_counts_without_a_person() -> None:
    for parameters in (usual(gdpr_consent=""), usual(lmt="1"), usual(coppa="true"), usual(us_privacy="1YYN")):
        event = understanding().pixel(call(parameters)).event
        assert event["consent"] is False
        assert not {"listener_id", "client_id", "household_id", "previous", "ga_client_id"} & set(event)


RAW = (
    "listener-7f3a",
    "81.2.69.142",
    "81.2.69",
    PLAYER,
    "iPhone",
    "AEBE52E7-03EE-455A-B3C4-E57283966239",
    "me@example.org",
)


def test_nothing_raw_gets_past_the_door() -> None:
    parameters = usual(
        l="listener-7f3a",
        ifa="AEBE52E7-03EE-455A-B3C4-E57283966239",
        ip=HOME,
        ua=PLAYER,
        u="https://shop.example/thanks?email=me@example.org&utm_content=breakfast-uk",
        hashed_email="me@example.org",
    )
    for name in ("start", "click", "conversion"):
        for headers in ({}, BEARER | {"x-device-ip": HOME, "x-device-user-agent": PLAYER}):
            asked = call(parameters | {"e": name, "ct": "purchase", "o": "o-1"}, headers=headers)
            found = understanding().pixel(asked, trace=True)
            assert found.outcome is Outcome.STORED
            shown = json.dumps([found.event, found.key.decode(), found.trace])
            assert [raw for raw in RAW if raw in shown] == []
            assert CONSENT not in shown


def test_a_landing_url_keeps_its_utm_alone() -> None:
    url = "https://user:pw@shop.example:8443/thanks?email=me&utm_content=breakfast-uk&utm_source=audio#top"
    event = understanding().pixel(call(usual(e="click", u=url))).event
    assert event["landing_url"] == "https://shop.example/thanks?utm_content=breakfast-uk&utm_source=audio"


@pytest.mark.parametrize("field", NEVER_FROM_A_CALLER)
def test_the_doors_own_fields_are_accepted_from_no_caller(field: str) -> None:
    forged = "forged-by-a-caller"
    door = understanding()
    for parameters in (usual(), usual(e="conversion", ct="purchase")):
        queries = door.pixel(call(parameters | {field: forged}))
        posted = door.pixel(call(method="POST", body=json.dumps(parameters | {field: forged}).encode()))
        canonical = {"event": "start", "placement_id": "a", "event_id": "e", field: forged}
        (listed,) = door.events(call(method="POST", headers=BEARER), [canonical])
        for found in (queries, posted, listed):
            assert found.outcome is Outcome.STORED
            assert forged not in json.dumps(found.event)


def test_a_trusted_boolean_consent_never_overrides_a_refusal() -> None:
    door = understanding()
    canonical = {"event": "start", "placement_id": "a", "event_id": "e", "listener_id": "l", "consent": True}
    assert door.events(call(method="POST", headers=BEARER), [canonical])[0].event["consent"] is True
    assert door.events(call(method="POST"), [canonical])[0].event["consent"] is False
    refused = canonical | {"us_privacy": "1YYN"}
    assert door.events(call(method="POST", headers=BEARER), [refused])[0].event["consent"] is False
    assert door.pixel(call(usual(gdpr_consent="", consent="true"))).event["consent"] is False


def test_a_retried_url_keeps_its_id_and_another_fire_differs() -> None:
    door = understanding()
    parameters = usual(cb="123456789")
    first, retry = (door.pixel(call(parameters)).event["event_id"] for _ in range(2))
    assert first == retry
    turned = "&".join(reversed(urlencode(parameters).split("&")))
    assert door.pixel(call(turned)).event["event_id"] == first
    assert door.pixel(call(usual(cb="123456780"))).event["event_id"] != first
    assert door.pixel(call(parameters | {"id": "mine"})).event["event_id"] == "mine"


def test_identical_calls_get_new_ids_and_a_warning() -> None:
    told: list[tuple[str, str, str]] = []
    door = understanding(on_cleaning=lambda *what: told.append(what))
    ids = {door.pixel(call("e=impression&pl=a&cb=[CACHEBUSTING]")).event["event_id"] for _ in range(2)}
    assert len(ids) == 2
    assert ("native", "event_id", "unidentified") in told
    assert ("native", "cachebuster", "unreplaced") in told


@pytest.mark.parametrize(
    ("parameters", "reason", "wrong"),
    [
        ("pl=a", "invalid", "event"),
        ("e=[EVENT]&pl=a", "invalid", "event"),
        ("e=creativeView&pl=a", "unknown_event", "event"),
        ("e=start", "invalid", "placement_id"),
        ("e=start&pl={placement}", "invalid", "placement_id"),
        (f"e=start&pl={'x' * 129}", "invalid", "placement_id"),
        (f"e=start&pl=a&st={'x' * 129}", "invalid", "station"),
        ("e=conversion&ct=bought", "invalid", "conversion.type"),
    ],
)
def test_a_rejected_pixel_names_its_wrong_field(parameters: str, reason: str, wrong: str) -> None:
    found = understanding().pixel(call(parameters))
    assert (found.outcome, found.reason, found.wrong) == (Outcome.REJECTED, reason, wrong)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (call(usual(), method="HEAD"), "head"),
        (call(usual(), headers={"sec-purpose": "prefetch;prerender"}), "prefetch"),
        (call(usual(), headers={"x-moz": "prefetch"}), "prefetch"),
        (call(usual(), headers={"range": "bytes=0-1"}), "range"),
        (call(usual(), headers={"user-agent": "atc/1.0 watchOS/10.1"}), "watch"),
    ],
)
def test_a_call_without_a_listening_person_is_not_counted(made, why) -> None:  # type: ignore[no-untyped-def]
    found = understanding().pixel(made)
    assert (found.outcome, found.reason) == (Outcome.NOT_COUNTED, why)


def test_a_watchs_double_is_not_counted_whoever_tells_of_it() -> None:
    door, watch = understanding(), "atc/1.0 watchOS/10.4 model/Watch6,1"
    told = BEARER | {"x-device-ip": HOME, "x-device-user-agent": watch}
    found = door.pixel(call(usual(e="download"), headers=told, peer="35.180.1.1"))
    assert (found.outcome, found.reason) == (Outcome.NOT_COUNTED, "watch")
    sent = {"event_id": "d", "event": "download", "placement_id": "p", "ip": HOME, "user_agent": watch}
    (found,) = door.events(call(headers=BEARER), [sent])
    assert (found.outcome, found.reason) == (Outcome.NOT_COUNTED, "watch")


def test_an_unsigned_placement_creates_no_row() -> None:
    signing = Signatures({"b2": b"the newer key", "a1": b"a signing key"})
    old = Signatures({"a1": b"a signing key"})
    door = understanding(placements="signed", signatures=signing)
    for signature in (signing.of_tag("breakfast-uk", "spring"), old.of_tag("breakfast-uk", "spring")):
        assert door.pixel(call(usual(k=signature))).outcome is Outcome.STORED
        assert door.pixel(call(usual(k=signature, pl="breakfast-us"))).reason == "unsigned"
        assert door.pixel(call(usual(k=signature, cm=""))).reason == "unsigned"
        assert (
            door.pixel(call(usual(k=signature[:-1] + ("A" if signature[-1] != "A" else "B")))).reason
            == "unsigned"
        )
    for forged in ("", "b2", "b2.", ".", "c3.AAAA", "b2." + "A" * 16, "b2.AAAA.platform", "x" * 500):
        assert door.pixel(call(usual(k=forged))).reason == "unsigned"
    labels = signing.of_tag("breakfast-uk", "spring", {"station": "one"})
    assert door.pixel(call(usual(k=labels, st="one"))).outcome is Outcome.STORED
    assert door.pixel(call(usual(k=labels, st="two"))).reason == "unsigned"
    assert door.pixel(call(usual(), headers=BEARER)).outcome is Outcome.STORED  # a writer's token needs none


def test_only_planned_placements_create_rows_under_the_operators_setting() -> None:
    door = understanding(
        placements="planned", planned=lambda placement, campaign: placement == "breakfast-uk"
    )
    assert door.pixel(call(usual())).outcome is Outcome.STORED
    assert door.pixel(call(usual(pl="other"))).reason == "unsigned"


# Dialects


def test_prebids_events_are_read_by_its_own_names() -> None:
    door = understanding()
    for query, name in (
        ("t=imp&b=bid-1&a=acct&ts=1795600000123", "impression"),
        ("t=vast&vtype=midPoint&b=bid-1&a=acct&ts=1795600000123", "midpoint"),
    ):
        event = door.pixel(call(query, "/b/prebid")).event
        assert (event["event"], event["play_id"], event["placement_id"]) == (name, "bid-1", "acct")
        assert event["ts"] == 1_795_600_000_123
    assert door.pixel(call("t=win&b=bid-1&a=acct", "/b/prebid")).reason == "unknown_event"


def test_podscribes_conversion_keeps_no_address_of_anybody() -> None:
    query = "action=purchase&advertiser=x&order_number=o-9&order_value=12.50&currency=GBP&hashed_email=abc123"
    found = understanding().pixel(call(query, "/b/podscribe"))
    assert found.event["conversion"] == {
        "type": "purchase",
        "order_id": "o-9",
        "value": "12.50",
        "currency": "GBP",
        "claimed": True,
    }
    assert found.key == b"o-9"
    assert "abc123" not in json.dumps(found.event)


def test_path_parameters_of_a_reused_tag_are_read() -> None:
    event = (
        understanding()
        .pixel(call("", "/p/cm360;e=impression;pl=a;ord=77;gdpr=1;gdpr_consent=" + CONSENT))
        .event
    )
    assert (event["event"], event["placement_id"], event["consent"]) == ("impression", "a", True)


def test_seconds_of_triton_and_acast_are_ms() -> None:
    for dialect in ("triton", "acast"):
        assert understanding().pixel(call(usual(ts="1795600000"), f"/p/{dialect}")).event["ts"] == NOW_MS


# Devices


@pytest.mark.parametrize(
    ("headers", "peer", "parameters", "basis", "pseudonyms"),
    [
        ({}, HOME, {}, "transport", 3),
        ({"x-forwarded-for": "9.9.9.9"}, HOME, {}, "transport", 3),
        ({"x-forwarded-for": f"9.9.9.9, {HOME}"}, "10.1.2.3", {}, "transport", 3),
        ({"x-device-ip": HOME}, "35.180.1.1", {}, "claimed", 0),
        ({}, "35.180.1.1", {"ip": HOME}, "claimed", 0),
        ({}, "35.180.1.1", {"ss": "1"}, "claimed", 0),
        (BEARER | {"x-device-ip": HOME, "x-device-user-agent": PLAYER}, "35.180.1.1", {}, "trusted", 3),
        (BEARER, "35.180.1.1", {}, "trusted", 1),
        (BEARER, "35.180.1.1", {"ip": HOME, "ua": PLAYER}, "trusted", 1),
        (BEARER | {"x-device-ip": "192.168.1.7"}, "35.180.1.1", {}, "trusted", 1),
        (BEARER | {"x-device-ip": "81.2.69.0"} | AGENT, "35.180.1.1", {}, "trusted", 2),
        (BEARER | {"x-device-ip": HOME}, "35.180.1.1", {}, "trusted", 2),
        ({}, HOME, {"ip": "192.168.1.7"}, "transport", 3),
        ({"x-forwarded-for": f"{HOME}, 35.1.1.1"}, "198.51.100.9", {}, "trusted", 3),
        ({}, "127.0.0.1", {}, "transport", 1),
    ],
)
def test_a_device_is_believed_as_far_as_its_teller_is(
    headers: dict[str, str], peer: str, parameters: dict[str, str], basis: str, pseudonyms: int
) -> None:
    event = understanding().pixel(call(usual(**parameters), headers=headers, peer=peer)).event
    assert event["device_basis"] == basis
    assert len({"listener_id", "client_id", "household_id"} & set(event)) == pseudonyms


def test_a_host_without_a_forwarded_listener_has_no_user_agent() -> None:
    alone = call(usual(), headers={"user-agent": "Go-http-client/1.1"}, peer="198.51.100.9")
    event = understanding().pixel(alone).event
    assert (event["device_basis"], event.get("invalid_traffic")) == ("trusted", None)
    assert not {"client_id", "household_id"} & set(event)


def test_a_household_is_one_for_every_spelling_of_its_address() -> None:
    door = understanding()

    def household(peer: str, **headers: str) -> str:
        return str(door.pixel(call(usual(), peer=peer, headers=headers)).event["household_id"])

    assert (
        household(HOME) == household(f"::ffff:{HOME}") == household("10.0.0.1", **{"x-forwarded-for": HOME})
    )
    assert household("2a02:c7c:1:2::1") == household("2a02:c7c:1:2:ffff::9")
    assert household("2a02:c7c:1:2::1") != household("2a02:c7c:1:3::1")


def test_a_podcast_app_is_valid_whatever_lists_of_crawlers_say() -> None:
    for agent, reason in (
        ("Overcast/3.0 (+http://overcast.fm/; iOS podcast app)", None),
        ("Podimo/2.1 (bot detection)", None),
        ("Googlebot/2.1 (+http://www.google.com/bot.html)", "declared_bot"),
        ("python-requests/2.31", "crawler_list"),
        ("", "no_user_agent"),
        (PLAYER, None),
    ):
        event = understanding().pixel(call(usual(), headers={"user-agent": agent})).event
        assert event.get("invalid_traffic") == reason, agent


# The reported faults of a call, and the claims of a conversion


def test_a_conversion_is_a_claim_unless_a_writer_sends_it() -> None:
    door, bought = understanding(), usual(e="conversion", ct="purchase", o="o-1", v="12.50", cur="gbp")
    claimed = door.pixel(call(bought)).event
    assert claimed["conversion"]["claimed"] is True
    assert decode_conversion(decode(msgspec.json.encode(claimed))).claimed is True, "as the flow reads it"
    assert "claimed" not in door.pixel(call(bought, headers=BEARER)).event["conversion"]
    order = usual(e="conversion", ct="purchase", o="o-1")
    assert door.pixel(call(order)).event["conversion"]["claimed"] is True, (
        "an order's number alone is one, too"
    )
    posted = {"event": "conversion", "event_id": "e", "conversion": {"type": "purchase", "value": 1}}
    (trusted,) = door.events(call(method="POST", headers=BEARER), [posted])
    assert "claimed" not in trusted.event["conversion"]
    posted["conversion"]["claimed"] = True  # type: ignore[index]
    (handed_on,) = door.events(call(method="POST", headers=BEARER), [posted])
    assert handed_on.event["conversion"]["claimed"] is True, "a writer may hand on what another claimed"


@pytest.mark.parametrize(("said", "kept"), [("gbp", "GBP"), ("£", None), ("POUNDS", None), ("[CUR]", None)])
def test_an_invalid_currency_loses_only_the_currency(said: str, kept: str | None) -> None:
    found = understanding().pixel(call(usual(e="conversion", ct="purchase", v="1", cur=said)))
    assert found.outcome is Outcome.STORED
    assert found.event["conversion"].get("currency") == kept
    decode_conversion(decode(msgspec.json.encode(found.event)))


def test_postbacks_of_two_kinds_have_two_ids() -> None:
    door = understanding()
    for path, queries in (
        ("/b/prebid", ("t=imp&b=b1&a=x", "t=vast&vtype=start&b=b1&a=x", "t=vast&vtype=complete&b=b1&a=x")),
        ("/b/podscribe", ("action=view&timestamp=1795600000", "action=signup&timestamp=1795600000")),
    ):
        ids = [door.pixel(call(query, path)).event["event_id"] for query in queries]
        assert len(set(ids)) == len(ids)


def test_a_postback_is_signed_and_labelled_in_its_url() -> None:
    signing = Signatures({"a1": b"a signing key"})
    door = understanding(placements="signed", signatures=signing)
    query = urlencode({"cm": "spring", "k": signing.of_tag(None, "spring"), "ct": "sign_up", "id": "o-7"})
    found = door.pixel(call(query, "/b/magellan"))
    assert (found.outcome, found.event["campaign_id"]) == (Outcome.STORED, "spring")
    assert found.event["conversion"] == {"type": "sign_up", "order_id": "o-7", "claimed": True}
    assert door.pixel(call("cm=spring&id=o-7&ct=sign_up", "/b/magellan")).reason == "unsigned"


def test_invalid_claims_and_tokens_and_consent_decisions_are_reported() -> None:
    told: list[tuple[str, str, str]] = []
    door = understanding(on_cleaning=lambda *what: told.append(what))
    assert door.pixel(call(usual(gdpr_consent=""))).consent == "no_string"
    assert door.pixel(call(usual())).consent == "given"
    door.pixel(call(usual(), headers={"x-device-ip": HOME}))
    door.pixel(call(usual(), headers={"authorization": "Bearer host.guessed"}))
    door.pixel(call(usual(gpp="DBACTvA~1---~BUkAAABA.QA~BFoAABA", gpp_sid="10")))
    for one in (*(("ip", "claim_ignored"), ("token", "refused"), ("gpp_sid", "unknown_section")),):
        assert ("native", *one) in told


def test_an_ip_in_the_query_is_read_from_trusted_networks() -> None:
    door = understanding(callers=Callers({}, (), [(networks(["198.51.100.0/24"])[0], "query")]))
    asked = call(usual(ip=HOME, ua=PLAYER), headers={"user-agent": "Go-http-client/1.1"}, peer="198.51.100.9")
    told = door.pixel(asked).event
    assert told["household_id"] == door.pixel(call(usual())).event["household_id"]
    assert "invalid_traffic" not in told
    silent = call(usual(), headers={"user-agent": "Go-http-client/1.1"}, peer="198.51.100.9")
    assert not {"household_id", "client_id", "invalid_traffic"} & set(door.pixel(silent).event)


def test_events_of_a_batch_have_each_a_device_of_its_own() -> None:
    door = understanding()
    raws = [
        {"event": "start", "event_id": str(n), "placement_id": "a", "consent": True, "ip": f"81.2.69.{n}"}
        for n in (1, 2, 2)
    ]
    headers = BEARER | {"x-device-ip": "81.2.69.9"}
    made = call(method="POST", headers=headers, peer="35.180.1.1")
    first, second, third = (one.event["household_id"] for one in door.events(made, raws))
    assert first != second == third


def test_a_debug_token_grants_no_consent() -> None:
    known = {name: token(rights=frozenset({name})) for name in ("debug", "write")}
    door = understanding(callers=Callers(known))
    for name, consent in (("debug", False), ("write", True)):
        headers = {"authorization": f"Bearer {name}.{SECRET}"}
        assert door.pixel(call("e=start&pl=a&consent=1", headers=headers)).event["consent"] is consent


def test_a_click_needs_no_event() -> None:
    assert understanding().pixel(call("pl=a&u=https://shop.example/", "/c")).event["event"] == "click"


def test_lists_of_categories_and_numbers_are_bounded() -> None:
    query = f"e=conversion&ct=purchase&v={'9' * 9_000}&cat={','.join('x' * 200 for _ in range(70))}"
    found = understanding().pixel(call(query))
    assert found.outcome is Outcome.STORED
    assert len(msgspec.json.encode(found.event)) < 8_000


@pytest.mark.parametrize("value", ["@AD_ID@-@COOKIE@", "77-@COOKIE@", "@AD_ID@-c1", "77-", "-c1", "77-null"])
def test_a_play_id_of_two_parts_needs_both(value: str) -> None:
    query = f"e=start&pl=a&gdpr_consent={CONSENT}&p={quote(value)}"
    assert "play_id" not in understanding().pixel(call(query, "/p/triton")).event


def test_ids_of_auctions_have_hyphens_wherever_base64url_puts_them() -> None:
    rng, door = Random(9), understanding()
    for length in (9, 12, 15, 16, 20):
        for imp in ("1", "imp-2", "6D92078A-8246-4BA4-AE5B-76104861E7DC"):
            for _ in range(300):
                auction = urlsafe_b64encode(rng.randbytes(length)).decode().rstrip("=")
                text = f"{rng.choice(('', '-', '--'))}{auction}-{imp}"
                found = door.pixel(call({"e": "start", "pl": "a", "p": text}, "/p/openrtb")).event
                assert found["play_id"] == text
    for text in ("--Ab3-1", "ab--cd-1", "ab---1", "abc", "a-1"):
        assert door.pixel(call({"e": "start", "pl": "a", "p": text}, "/p/openrtb")).event["play_id"] == text


@pytest.mark.parametrize(
    "value",
    [
        *("${AUCTION_ID}-${AUCTION_IMP_ID}", "${AUCTION_ID}-1", "a--b-${AUCTION_IMP_ID}"),
        *("AUDIT-1", "ab-AUDIT", "null-1", "ab-undefined", "-imp", "--1", "ab-", "-", "-1", "-1-1", "-2-imp"),
        "00000000-0000-0000-0000-000000000000-1",
    ],
)
def test_an_auctions_id_with_a_part_missing_is_none(value: str) -> None:
    found = understanding().pixel(call({"e": "start", "pl": "a", "p": value}, "/p/openrtb"))
    assert found.outcome is Outcome.STORED
    assert "play_id" not in found.event


@pytest.mark.parametrize("value", ["-6D92078A-8246-4BA4-AE5B-76104861E7DC", "77--1", "--c1", "-c-1", "77--"])
def test_a_play_id_with_a_withheld_listener_is_absent(value: str) -> None:
    query = {"e": "start", "pl": "a", "gdpr_consent": CONSENT, "p": value}
    assert "play_id" not in understanding().pixel(call(query, "/p/triton")).event


def test_a_play_id_containing_a_listener_is_hashed_and_needs_consent() -> None:
    door, query = understanding(), "e=start&pl=a&p=77-cookie1"
    first, again, other = (
        door.pixel(call(f"{one}&gdpr_consent={CONSENT}", "/p/triton"))
        for one in (query, query + "&cb=2", query + "2")
    )
    assert first.event["play_id"] == again.event["play_id"] != other.event["play_id"]
    without = door.pixel(call(query, "/p/triton"))
    assert "play_id" not in without.event
    assert without.key == without.event["event_id"].encode()
    for found in (first, without):
        assert "cookie1" not in json.dumps(found.event) + found.key.decode()
    assert door.pixel(call(query)).event["play_id"] == "77-cookie1"  # the caller's own, of no listener


def test_no_flood_of_broken_macros_hides_a_vendors_fault() -> None:
    instruments = Instruments(Ledger())
    door, dialects = understanding(on_cleaning=instruments.cleaned), load_dialects()
    for name in dialects:
        for value in ("[X]", "", "-1"):
            door.pixel(call(dict.fromkeys(sorted(WORDS), value), f"/p/{name}"))
            door.pixel(call(dict.fromkeys(NATIVE, value), f"/p/{name}"))
    told = instruments.unreplaced()
    assert sum(map(len, told.values())) > 500
    assert all("campaign_id" in words for words in told.values())
    assert told.keys() == dialects.keys()
    exported = [one for metric in instruments.collect() for one in metric.samples if "cleaned" in one.name]
    assert 1_000 < len(exported) <= len(dialects) * len(WORDS) * len(get_args(How))
