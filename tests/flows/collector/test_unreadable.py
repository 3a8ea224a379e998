"""A call is read as it is written. A value that cannot be read is left out, or rejects the call."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import msgspec
import pytest
from collector_support import CONSENT, SECRET, call, understanding, usual

from flows.collector.call import Outcome, Understood
from flows.collector.callers import parsed
from flows.collector.consent import Policy
from flows.collector.signatures import Signatures

SIGNING = Signatures({"a1": b"a signing key"})
BEARER = {"authorization": f"Bearer host.{SECRET}"}

CLAIMED = {"claimed": True}
"""What a conversion of a caller without a token says beside its own fields."""


SIGNATURE = SIGNING.of_tag("breakfast-uk", "spring")
TAG = f"e=start&pl=breakfast-uk&cm=spring&k={SIGNATURE}&p=play-1&l=x-1&ts=1795599990"


def stored(query: str, **values: object) -> Understood | None:
    """The event that a signed collector stores of a query; None if the collector rejects it."""
    found = understanding(placements="signed", signatures=SIGNING, **values).pixel(call(query))
    return found if found.outcome is Outcome.STORED else None


@pytest.mark.parametrize("labels", [{}, {"platform": "web-1", "station": "one"}])
@pytest.mark.parametrize("signed_first", [True, False])
def test_a_truncated_signed_tag_is_itself_or_refused(labels: dict[str, str], signed_first: bool) -> None:
    ids = {"pl": "breakfast-uk", "cm": "spring", "pf": labels.get("platform"), "st": labels.get("station")}
    named = "&".join(f"{name}={value}" for name, value in ids.items() if value)
    signature = f"k={SIGNING.of_tag('breakfast-uk', 'spring', labels)}"
    query = "&".join(("e=start", *((signature, named) if signed_first else (named, signature)), "p=play-1"))
    whole = stored(query)
    assert whole is not None
    kept = 0
    for cut in range(len(query)):
        if (one := stored(query[:cut])) is not None:
            kept += 1
            for name in ("placement_id", "campaign_id", "platform", "station"):
                assert one.event.get(name) == whole.event.get(name), query[:cut]
    assert 0 < kept <= len("&p=play-1") + 1


@pytest.mark.parametrize(
    "query",
    [
        TAG.replace("pl=breakfast-uk", "pl=breakfast"),
        TAG.replace("pl=breakfast-uk", "pl="),
        TAG.replace("pl=breakfast-uk&", ""),
        TAG.replace("cm=spring", "cm=spring2"),
        TAG.replace("cm=spring", "cm=spr%00ng"),
        TAG.replace("pl=breakfast-uk", "pl=break%FFast-uk"),
        TAG.replace("pl=breakfast-uk", "pl=break&ast-uk"),
    ],
)
@pytest.mark.parametrize("placements", ["signed", "planned", "any"])
@pytest.mark.parametrize("headers", [{}, BEARER], ids=["a stranger", "a writer"])
def test_a_changed_signed_field_is_unsigned_for_any_caller(
    headers: dict[str, str], placements: str, query: str
) -> None:
    door = understanding(placements=placements, signatures=SIGNING, planned=lambda *_: True)
    found = door.pixel(call(query, headers=headers))
    assert (found.outcome, found.reason) == (Outcome.REJECTED, "unsigned")


def test_a_tag_with_a_retired_key_counts_without_required_signatures() -> None:
    found = understanding(placements="any", signatures=SIGNING).pixel(call(TAG.replace("k=a1", "k=a0")))
    assert found.outcome is Outcome.STORED


NO_UTF_8 = ("%FF", "%FE", "%C3", "%E2%82", "%EF%BF%BD", "a%FFb", "%ED%A0%80")


@pytest.mark.parametrize("bytes_", NO_UTF_8)
@pytest.mark.parametrize(
    ("parameter", "field"),
    [("p", "play_id"), ("l", "listener_id"), ("ifa", "listener_id"), ("o", "order_id"), ("pf", "platform")],
)
def test_an_id_outside_utf_8_is_absent(parameter: str, field: str, bytes_: str) -> None:
    asked = {"e": "conversion", "ct": "purchase", "cm": "c", "pl": "a", "gdpr_consent": CONSENT}
    query = "&".join(f"{name}={value}" for name, value in asked.items()) + f"&{parameter}={bytes_}"
    for one in (call(query), call(method="POST", body=query.encode())):
        found = understanding().pixel(one)
        assert found.outcome is Outcome.STORED
        assert field not in found.event | found.event["conversion"]


@pytest.mark.parametrize("bytes_", NO_UTF_8)
def test_a_placement_or_campaign_outside_utf_8_is_rejected(bytes_: str) -> None:
    for parameter, field in (("pl", "placement_id"), ("cm", "campaign_id")):
        query = f"e=start&pl=a&cm=c&id=1&{parameter}={bytes_}".replace(f"{parameter}=a&", "").replace(
            f"{parameter}=c&", ""
        )
        for one in (call(query), call(method="POST", body=query.encode())):
            found = understanding().pixel(one)
            assert (found.outcome, found.reason, found.wrong) == (Outcome.REJECTED, "invalid", field)


@pytest.mark.parametrize("said", ["\ufffd", "a\ufffdb", "\x00", "a\x01b", "a\x7f", "a\n", "\u0085a"])
def test_an_empty_json_id_is_absent_and_an_empty_placement_rejected(said: str) -> None:
    event = {"event": "start", "placement_id": "a", "play_id": said, "listener_id": said, "consent": True}
    for path in ("/p", "/v1/events"):
        for word, outcome in (("play_id", "stored"), ("placement_id", "rejected")):
            body = event | {word: said}
            door = understanding(policy=Policy(required=False))
            if path == "/p":
                found = door.pixel(call(method="POST", headers=BEARER, body=msgspec.json.encode(body)))
            else:
                (found,) = door.events(call(method="POST", headers=BEARER), [body])
            assert found.outcome.value == outcome
            assert not {"play_id", "listener_id"} & found.event.keys()


@pytest.mark.parametrize(
    "body", [b'{"e":"start","pl":"a\xff"}', b"e=start&pl=a\xff", b'{"e":"start","pl":"\xed\xa0\x80"}']
)
def test_a_body_outside_utf_8_is_malformed(body: bytes) -> None:
    found = understanding().pixel(call(method="POST", body=body))
    assert (found.outcome, found.reason) == (Outcome.REJECTED, "malformed")


@pytest.mark.parametrize("value", ["1234.50", "12", "0.5", ".5", "12.", "-3.20", "1.5E7", "1.2e+21", "0"])
def test_a_value_is_a_number_as_it_came(value: str) -> None:
    found = understanding().pixel(call({"e": "conversion", "ct": "purchase", "v": value}))
    assert found.event["conversion"]["value"] == value


@pytest.mark.parametrize(
    "value",
    [
        *("12x34.50", "12%0034.50", "12+4.50", "12_4.50", "12,50", "1e34", "12.5.0", "NaN", "inf"),
        *("\u0661", "9" * 70, "12=4.50"),
    ],
)
def test_a_conversion_counts_without_its_unreadable_value(value: str) -> None:
    query = f"e=conversion&ct=purchase&cm=c&o=1&v={quote(value, safe='%+&=,#')}&cur=GBP"
    heard: list[tuple[str, str]] = []
    door = understanding(on_cleaning=lambda _, word, how: heard.append((word, how)))
    found = door.pixel(call(query))
    assert found.outcome is Outcome.STORED
    assert found.event["conversion"] == {"type": "purchase", "order_id": "1", "currency": "GBP"} | CLAIMED
    assert ("value", "unreadable") in heard


@pytest.mark.parametrize("currency", ["G?P", "G%FFP", "GB", "GBP%00", "G%2"])
def test_a_value_with_an_unreadable_currency_is_absent(currency: str) -> None:
    found = understanding().pixel(call(f"e=conversion&ct=purchase&cm=c&v=1000&cur={currency}&o=1"))
    assert found.event["conversion"] == {"type": "purchase", "order_id": "1"} | CLAIMED


@pytest.mark.parametrize(
    "refusal",
    [
        *("lmt=%", "lmt=?", "lmt=+", "lmt=1%00", "lmt=2", "us_privacy=1Y?N", "gdpr=1%", "coppa=1%FF"),
        *("gpp=DBABTA!1YYN", "gpp=DBABTA~1YNN&gpp_sid=x", "regulations=gd+pr"),
    ],
)
def test_an_unreadable_refusal_is_no_consent(refusal: str) -> None:
    door = understanding(policy=Policy(required=False))
    assert door.pixel(call("e=start&pl=a&cb=1")).event["consent"] is True
    found = door.pixel(call(f"e=start&pl=a&cb=1&{refusal}&cr=x"))
    assert (found.outcome, found.event["consent"]) == (Outcome.STORED, False)


@pytest.mark.parametrize("claim", ["ss=%01", "ss=%", "ip=9.9.9.x", "ip=nowhere", "ua=x%00"])
def test_an_unreadable_claim_names_no_device(claim: str) -> None:
    asked = f"e=start&pl=a&cb=1&gdpr_consent={CONSENT}&gdpr=1&"
    itself = understanding().pixel(call(asked + "cr=x")).event
    assert {"client_id", "household_id"} <= itself.keys()
    found = understanding().pixel(call(f"{asked}{claim}&cr=x"))
    assert (found.outcome, found.event["device_basis"]) == (Outcome.STORED, "claimed")
    assert not {"client_id", "household_id", "invalid_traffic"} & found.event.keys()


def test_an_unreadable_listener_becomes_no_other() -> None:
    asked = usual(ifa="3C7D6A5E-1111")
    whole = understanding().pixel(call(asked)).event["listener_id"]
    del asked["l"]
    device = understanding().pixel(call(asked)).event["listener_id"]
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    assert whole != device
    assert "listener_id" not in understanding().pixel(call(query + "&l=list%FFner")).event


@pytest.mark.parametrize(
    "path",
    ["/p", "/p/", "/p/nobody", "/p/triton/", "/p/triton/pixel.gif", "/p/our-own_2.1", "/p/tri~ton"],
)
def test_another_collectors_dialect_is_read_as_our_own(path: str) -> None:
    assert understanding().pixel(call(usual(), path)).outcome is Outcome.STORED


@pytest.mark.parametrize(
    "query",
    [
        "&e=start&pl=a&p=1&_=123&cb=1",
        "e=start&pl=a&p=1&cb=123&[timestamp]",
        "e=start&pl=a&p=1&ord=1&u=https://shop.example/?a=b&cb=1&",
        "e=start&pl=a&p=1&x[0]=1&amp;cm=c&a:b=c&unknown=%zz|",
        "e=start&pl=a&p=1&cb=12|34",
        "e=start&pl=a&p=1&&",
        "e=start&pl=a&p=%31&lm&mt=1&l%t=1&lmt?1",
        "e=start&pl=+a&p=1+&us_pri[acy=1YYN",
    ],
)
def test_a_sloppy_call_loses_only_its_sloppy_parts(query: str) -> None:
    found = understanding(policy=Policy(required=False)).pixel(call(query))
    assert found.outcome is Outcome.STORED
    assert (found.event["placement_id"], found.event["play_id"]) == ("a", "1")
    assert found.event["consent"] is True


@pytest.mark.parametrize("play", ["a|b", "a^b", "a%zb", "a<b", "%41%", "x=y", "a`b"])
def test_a_value_is_taken_as_it_is_written(play: str) -> None:
    found = understanding().pixel(call(f"e=start&pl=a&p={play}"))
    assert (found.outcome, found.event["play_id"]) == (Outcome.STORED, play.replace("%41", "A"))


def test_parameters_of_a_path_begin_at_the_slash_before_them() -> None:
    asked = "cm=spring&pl=a;gdpr_consent=x;g=lead;ord=7"
    by_path = understanding().pixel(call({}, f"/b/claritas/{asked}"))
    by_query = understanding().pixel(replace(call({}, "/b/claritas"), query=asked))
    for found in (by_path, by_query):
        assert (found.event["campaign_id"], found.event["placement_id"]) == ("spring", "a")


def test_a_campaign_inside_another_path_value_is_not_a_field() -> None:
    path = "/b/claritas/st=talk%26cm=spring;g=lead;pl=a;ord=7"
    found = understanding().pixel(call({}, path))
    assert (found.outcome, found.reason, found.wrong) == (Outcome.REJECTED, "invalid", "campaign_id")


def test_an_address_with_one_bracket_is_none_and_not_another_household() -> None:
    assert parsed("[2001:4860:4860::8888]:443") == parsed("2001:4860:4860::8888")
    assert parsed("[001:4860:4860::8888") is None
