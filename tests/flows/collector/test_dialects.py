"""Dialects: one row a vendor, its macros as the vendor sends them, replaced and not."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from collector_support import CONSENT, HOME, NOW_MS, PLAYER, SECRET, call, understanding

from flows.collector.call import Call, Outcome
from flows.collector.dialects import Dialect, load_dialects, plain
from flows.collector.signatures import Signatures
from flows.collector.tags import Order, build
from flows.errors import SettingsError

DIALECTS = load_dialects()
TAGS = sorted(name for name, one in DIALECTS.items() if one.use == "tag")
POSTBACKS = sorted(name for name, one in DIALECTS.items() if one.use == "postback")
IFA = "AEBE52E7-03EE-455A-B3C4-E57283966239"
SECONDS, MS, ISO = "1795599990", "1795599990000", "2026-11-25T9:46:30.000-00"
SENT = {
    "play_id": "play-77",
    "event_id": "play-77",
    "campaign_id": "c-9",
    "creative_id": "cr-9",
    "platform": "site 9",
    "station": "Radio Neun",
    "podcast": "Der Hügel",
    "program": "früh",
    "episode": "e-9",
    "listener_id": "l-9",
    "ifa": IFA,
    "ifa_type": "idfa",
    "ip": HOME,
    "user_agent": PLAYER,
    "server_side": "0",
    "regulations": "gdpr",
    "gdpr": "1",
    "gdpr_consent": CONSENT,
    "gpp": f"DBABM~{CONSENT}",
    "gpp_sid": "2",
    "us_privacy": "1YNN",
    "lmt": "0",
    "cachebuster": "12345678",
    "playhead": "00:00:07.500",
    "content_category": "1,2%2C3",
}
"""What vendors replace their macros with, by what it means."""
TIMES = {"s": SECONDS, "ms": MS, "iso": ISO, "": SECONDS}
WITH_CONSENT = ("vast4", "dv360", "cm360", "openrtb", "adcp")
WITH_PLAY = ("vast4", "triton", "prx", "ttd", "dv360", "openrtb")
WITH_TIME = ("vast4", "triton", "acast", "prx", "openrtb", "adcp", "kevel")


def sent(dialect: Dialect, url: str) -> str:
    """A tag as the vendor fires it."""
    for word, macro in sorted(dialect.macros.items(), key=lambda one: -len(plain(one[1]))):
        text = plain(macro).replace("GDPR_CONSENT_VENDOR", "GDPR_CONSENT_5")
        value = TIMES[dialect.time] if word == "ts" else SENT[word]
        url = url.replace(f"={text}", f"={value if word == 'content_category' else quote(value, safe='')}")
    return url


def fired(url: str) -> Call:
    parts = urlsplit(url)
    return call(parts.query, parts.path)


def tag(name: str, **words: str) -> str:
    order = Order("https://px.example", {"placement_id": "breakfast-uk"} | words, ("start",), vendor=5)
    return build(name, DIALECTS[name], order, None).urls["start"]


@pytest.mark.parametrize("name", TAGS)
def test_a_vendors_tag_is_read_when_its_macros_are_replaced(name: str) -> None:
    dialect = DIALECTS[name]
    found = understanding().pixel(fired(sent(dialect, tag(name))), trace=True)
    assert found.outcome is Outcome.STORED
    event, macros = found.event, dialect.macros
    assert event["placement_id"] == "breakfast-uk"
    for word in (
        "play_id",
        "campaign_id",
        "creative_id",
        "platform",
        "station",
        "podcast",
        "program",
        "episode",
    ):
        hidden = word == "play_id" and dialect.play_names_listener  # without consent, here
        assert event.get(word) == (SENT[word] if word in macros and not hidden else None), word
    assert event["ts"] == (1_795_599_990_000 if "ts" in macros else NOW_MS)
    if "content_category" in macros:
        assert event["content_category"] == ["1", "2,3"]
    assert event["consent"] is (name in WITH_CONSENT)
    assert event["device_basis"] == "transport"
    assert found.trace is not None
    states = {word: said["state"] for word, said in found.trace["fields"].items()}
    assert {states[word] for word in macros} <= {"given"}
    assert ("listener_id" in event) is (event["consent"] and bool({"listener_id", "ifa"} & set(macros)))


def test_each_vendors_row_lists_its_reported_fields() -> None:
    def having(*words: str) -> set[str]:
        return {name for name in TAGS if set(words) & set(DIALECTS[name].macros)}

    assert having("gdpr_consent", "gpp", "us_privacy") == set(WITH_CONSENT)
    assert having("play_id") == set(WITH_PLAY)
    assert having("ts") == set(WITH_TIME)
    ttd = DIALECTS["ttd"].macros
    assert not {"gdpr", "gdpr_consent", "us_privacy"} & set(ttd)  # two spellings in code: no fact


@pytest.mark.parametrize("name", TAGS)
def test_a_vendors_tag_with_unreplaced_macros_is_read(name: str) -> None:
    dialect = DIALECTS[name]
    told: list[tuple[str, str, str]] = []
    door = understanding(on_cleaning=lambda *what: told.append(what))
    url = tag(name)
    for asked in (fired(url), fired(encoded(dialect, url)), fired(encoded(dialect, encoded(dialect, url)))):
        told.clear()
        found = door.pixel(asked, trace=True)
        assert (found.outcome, found.event["placement_id"]) == (Outcome.STORED, "breakfast-uk")
        assert found.trace is not None
        fields = found.trace["fields"]
        assert {word: fields[word]["state"] for word in dialect.macros} == dict.fromkeys(
            dialect.macros, "unreplaced"
        )
        assert {(name, word, "unreplaced") for word in dialect.macros} <= set(told)
        assert (name, "event_id", "unidentified") in told  # so that two fires are two
        allowed = {"event_id", "event", "ts", "received_at", "placement_id", "consent", "device_basis"}
        assert set(found.event) == allowed | {"device_confirmed", *dialect.fixed}
        assert found.event["consent"] is False


def encoded(dialect: Dialect, url: str) -> str:
    """The same tag after a form, or a templating engine, has encoded its macros once more."""
    head, *parts = url.replace("?", "&").split("&")
    pairs = [part.partition("=")[::2] for part in parts]
    fresh = [
        f"{name}={quote(value, safe='')}" if _is_macro(value) else f"{name}={value}" for name, value in pairs
    ]
    return f"{head}?{'&'.join(fresh)}"


def _is_macro(value: str) -> bool:
    return any(mark in value for mark in "[]{}$@%()")


# Postbacks: names of the vendor's own

ROWS: list[tuple[str, Any, str, dict[str, Any]]] = [
    ("prebid", "t=imp&b=bid-1&a=acct&ts=1795599990000", "", {"event": "impression", "play_id": "bid-1"}),
    *(
        ("prebid", f"t=vast&vtype={name}&b=bid-1&a=acct&bidder=x&f=i", "", {"event": meant})
        for name, meant in (
            *(("start", "start"), ("firstQuartile", "firstQuartile"), ("midPoint", "midpoint")),
            *(("thirdQuartile", "thirdQuartile"), ("complete", "complete")),
        )
    ),
    *(
        (
            "podscribe",
            f"action={action}&advertiser=x&timestamp=1795599990&order_value=12.5&order_number=o-1&currency=USD"
            "&hashed_email=SECRET&referrer=SECRET&discount_code=SECRET",
            "",
            {
                "conversion": {
                    "type": kind,
                    "order_id": "o-1",
                    "value": "12.5",
                    "currency": "USD",
                    "claimed": True,
                }
            },
        )
        for action, kind in (
            *(("view", "site_visit"), ("purchase", "purchase")),
            *(("signup", "sign_up"), ("lead", "form_submission")),
        )
    ),
    (
        "magellan",
        "ct=purchase",
        '{"token":"SECRET","value":12.5,"currency":"USD","id":"o-1","discountCode":"SECRET",'
        '"ts":"2026-11-25T09:46:30Z","quantity":2,"lineItems":[{"productName":"SECRET"}]}',
        {
            "conversion": {
                "type": "purchase",
                "order_id": "o-1",
                "value": "12.5",
                "currency": "USD",
                "claimed": True,
            },
            "ts": 1_795_599_990_000,
        },
    ),
    (
        "appsflyer",
        "pid=x&c=y&af_siteid=breakfast-uk&clickid=cl-1&advertising_id=x&af_c_id=c-9&af_ad_id=cr-9",
        "",
        {"event": "impression", "play_id": "cl-1", "campaign_id": "c-9", "creative_id": "cr-9"},
    ),
    *(
        (
            "appsflyer",
            "",
            f'{{"event_name":"{name}","event_time":"2026-11-25 09:46:30.000","customer":"SECRET"}}',
            {"conversion": {"type": kind, "claimed": True}, "ts": 1_795_599_990_000},
        )
        for name, kind in (
            *(("install", "app_download"), ("af_purchase", "purchase")),
            ("af_complete_registration", "sign_up"),
        )
    ),
    (
        "adform",
        "",
        '{"cookieId":"SECRET","orderId":"o-1"}',
        {"conversion": {"type": "site_visit", "order_id": "o-1", "claimed": True}},
    ),
    (
        "claritas",
        "/b/claritas/ppt=25573;g=sale;gid=64985;ord=77;rev=12.5;cv1=SECRET",
        "",
        {"conversion": {"type": "purchase", "value": "12.5", "claimed": True}},
    ),
]


@pytest.mark.parametrize(("name", "query", "body", "expected"), ROWS)
def test_a_vendors_postback_is_read_by_its_own_names(
    name: str, query: str, body: str, expected: dict[str, Any]
) -> None:
    path, query = (query, "") if query.startswith("/") else (f"/b/{name}", query)
    made = call(query, path, method="POST" if body else "GET", body=body.encode())
    found = understanding().pixel(made)
    assert found.outcome is Outcome.STORED, (found.reason, found.wrong)
    assert {field: found.event[field] for field in expected} == expected
    assert "SECRET" not in str(found.event)


def test_every_postback_has_a_row() -> None:
    assert {name for name, *_ in ROWS} == set(POSTBACKS)


@pytest.mark.parametrize(
    ("name", "query", "reason"),
    [
        ("prebid", "t=win&b=bid-1&a=acct", ("unknown_event", "event")),
        ("appsflyer", "event_name=af_level_achieved&af_siteid=a", ("unknown_event", "event")),
        ("magellan", "id=o-1", ("invalid", "conversion.type")),
        ("podscribe", "action=refund", ("invalid", "conversion.type")),
    ],
)
def test_a_vendors_uncounted_event_is_rejected(name: str, query: str, reason: tuple[str, str]) -> None:
    found = understanding().pixel(call(query, f"/b/{name}"))
    assert (found.reason, found.wrong) == reason


def test_a_host_that_masks_addresses_has_clients_and_no_households() -> None:
    headers = {"authorization": f"Bearer host.{SECRET}", "x-device-ip": HOME, "x-device-user-agent": PLAYER}
    event = understanding().pixel(call(f"e=start&pl=a&gdpr_consent={CONSENT}", "/p/prx", headers)).event
    assert "client_id" in event
    assert "household_id" not in event


# The file

GOOD = """
[dialect.mine]
source = "https://vendor.example/macros"
status = "seen"
use = "tag"
macros = {play_id = "<<PLAY>>"}
names = {plc = "placement_id"}
events = {began = "start"}
[dialect.triton]
source = "our contract"
status = "documented"
use = "tag"
"""


def test_an_operators_rows_win_and_are_read(tmp_path: Path) -> None:
    own = tmp_path / "dialects.toml"
    own.write_text(GOOD)
    dialects = load_dialects(own)
    assert dialects["triton"].macros == {}
    assert set(DIALECTS) <= set(dialects)
    event = understanding(dialects=dialects).pixel(call("e=began&plc=a&p=x", "/p/mine")).event
    assert (event["event"], event["placement_id"], event["play_id"]) == ("start", "a", "x")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('use = "tag"', 'use = "tag"\ncode = "x"', "mine.code"),
        ('"placement_id"', '"placement"', "no such word: placement"),
        ('status = "seen"', 'status = "sure"', "mine.status"),
        ("[dialect.mine]", "[dialect.mine", "cannot be read as TOML"),
        ("play_id =", "play =", "no such word: play"),
        ('use = "tag"', 'use = "tag"\nwehn = {}', r"mine\.wehn: Extra .* \(did you mean when\?\)"),
    ],
)
def test_a_row_with_an_unknown_field_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    own = tmp_path / "dialects.toml"
    own.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(SettingsError, match=words):
        load_dialects(own)


def test_the_dialect_of_the_guide_reads_its_call(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "collector.md").read_text()
    _, _, after = guide.partition("### Your player's own parameters")
    own = tmp_path / "dialects.toml"
    own.write_text(after.partition("```toml\n")[2].partition("```")[0])
    query = after.partition("/p/mine?")[2].partition("'")[0]
    event = understanding(dialects=load_dialects(own)).pixel(call(query, "/p/mine")).event
    assert (event["event"], event["placement_id"], event["play_id"]) == ("start", "breakfast-uk", "play-1")
    assert event["ts"] == 1_795_600_800_000


# Signatures: their vectors


@pytest.mark.parametrize(
    ("placement", "campaign", "labels", "signature"),
    [
        ("breakfast-uk", "spring", {}, "a1.32NIhKOx7n7Cetiu"),
        (None, "spring", {}, "a1.F6uUuelINFVod83l"),
        ("breakfast-uk", None, {}, "a1.m1XoR3Ozp9GV1QQW"),
        ('Frühstück "x"', "a,b", {}, "a1.T_mSsuWkJhCJhDSf"),
        (
            "breakfast-uk",
            "spring",
            {"station": "one", "podcast": "two"},
            "a1.FfBYDqcON00o0pLA.podcast,station",
        ),
    ],
)
def test_a_signature_is_the_specifications(
    placement: str | None, campaign: str | None, labels: dict[str, str], signature: str
) -> None:
    assert Signatures({"a1": b"sixteen bytes or more"}).of_tag(placement, campaign, labels) == signature


@pytest.mark.parametrize(
    ("url", "signature"),
    [
        ("https://shop.example/buy?x=[MACRO]", "a1.T1vuDZ4-F-xQ-8RO"),
        ("HTTPS://Shop.example:443", "a1.T1vuDZ4-F-xQ-8RO"),
        ("http://shop.example:8080/", "a1.RwaT-Rjhd3QUabGI"),
    ],
)
def test_a_clicks_signature_is_the_specifications(url: str, signature: str) -> None:
    signatures = Signatures({"a1": b"sixteen bytes or more"})
    assert signatures.of_target(url) == signature
    assert signatures.may_lead_to(url, signature)


@pytest.mark.parametrize(
    "url",
    [
        *("https://shop.example.evil.example/", "https://evil.example/", "http://shop.example/"),
        *("https://shop.example:8443/", "https://shop.example@evil.example/", "//shop.example/"),
        *("javascript:alert(1)", "https://shop.example\\@evil.example/", "https://shop.example/\r\nX: y"),
        *(
            "https:/shop.example/",
            "https://shop.example\t.evil.example/",
            "https://shop.example/caf\u00e9",
            "",
        ),
    ],
)
def test_a_signed_click_leads_only_to_its_target(url: str) -> None:
    signatures = Signatures({"a1": b"sixteen bytes or more"})
    assert not signatures.may_lead_to(url, "a1.T1vuDZ4-F-xQ-8RO")


def test_a_label_is_signed_and_a_missing_one_stays_absent() -> None:
    signatures = Signatures({"a1": b"sixteen bytes or more"})
    signed = signatures.of_tag("a", "b", {"station": "None"})
    assert signatures.passes(signed, "a", "b", {"station": "None"})
    assert not signatures.passes(signed, "a", "b", {"station": None})
