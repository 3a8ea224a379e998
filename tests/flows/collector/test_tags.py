"""The tag builder and the checker: what a marketer pastes, and what is said of what was pasted."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import pytest
from collector_support import CONSENT, NOW_MS, call, understanding
from hypothesis import example, given
from hypothesis import strategies as st
from test_doors import Kept
from typer.testing import CliRunner

from flows.cli.commands import app
from flows.collector.call import Outcome
from flows.collector.checker import Checked, check, in_words
from flows.collector.consent import Policy
from flows.collector.dialects import load_dialects, plain
from flows.collector.doors import GIF, Answer, Doors
from flows.collector.signatures import LABELS, Signatures
from flows.collector.store import Store
from flows.collector.tags import LONGEST_URL, Built, Order, as_body, as_vast, build, snippet
from flows.errors import UsageError
from flows.model.catalogue.events import ONCE_HEARD
from flows.settings import Settings
from flows.settings.takes import takes

DIALECTS = load_dialects()
SIGNING = Signatures({"a1": b"a signing key"}, frozenset({"shop.example"}))
BASE = "https://px.example"
REFUSED = "CQtDjkAQtDjkAAfAAAENCWFgAAAAAAAAAAwIAAAAAAAA.IAAA.YAAAAAAAAAAA"
"""A consent string that agrees to nothing."""
IDS = {"placement_id": "breakfast-uk", "campaign_id": "spring"}


def tags(name: str, words: dict[str, str] = IDS, **more: object) -> Built:
    return build(name, DIALECTS[name], Order(BASE, words, **more), SIGNING)  # type: ignore[arg-type]


def checked(url: str) -> Checked:
    return check(understanding(placements="signed", signatures=SIGNING), url, NOW_MS)


@pytest.mark.parametrize("name", sorted(name for name, one in DIALECTS.items() if one.use == "tag"))
def test_every_vendors_tags_pass_the_checker_and_the_door(name: str) -> None:
    urls = tags(name, vendor=5).urls
    assert urls
    for event, url in urls.items():
        assert len(url) <= LONGEST_URL
        found = checked(url)
        assert [one.words for one in found.findings if one.level == "error"] == []
        assert (found.trace["outcome"], found.trace["event"]["event"]) == ("stored", event)
        for word, macro in DIALECTS[name].macros.items():
            assert word == "campaign_id" or plain(macro).replace("VENDOR", "5") in url  # raw


def test_a_vendor_that_takes_few_urls_gets_no_more() -> None:
    assert list(tags("megaphone").urls) == ["impression"]
    assert list(tags("triton").urls) == list(ONCE_HEARD)
    with pytest.raises(UsageError, match="takes 5 URLs for an ad, and these are 6"):
        tags("megaphone", events=ONCE_HEARD)


ODD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
ENCODED = st.text("%+25aB! ;-", min_size=1, max_size=12)
IDS_OF_ALL_KINDS = ODD | ENCODED


@given(
    st.sampled_from(sorted(name for name, one in DIALECTS.items() if one.use == "tag")),
    st.fixed_dictionaries(
        {"placement_id": IDS_OF_ALL_KINDS, "campaign_id": IDS_OF_ALL_KINDS},
        optional=dict.fromkeys(LABELS, IDS_OF_ALL_KINDS),
    ),
)
@example("native", {"placement_id": "100%ad", "campaign_id": "spring"})
@example("native", {"placement_id": "sale%20now", "campaign_id": "spring"})
@example("native", {"placement_id": "a", "campaign_id": "spring", "station": "20%de"})
def test_the_door_reads_any_id_as_it_was_signed(name: str, words: dict[str, str]) -> None:
    try:
        (url,) = tags(name, words, events=("start",)).urls.values()
    except UsageError:
        return  # it would be read as a macro, or as another
    parts = urlsplit(url)
    assert url.isascii()
    found = understanding(placements="signed", signatures=SIGNING).pixel(call(parts.query, parts.path))
    assert (found.outcome, found.reason) == (Outcome.STORED, "")
    assert {word: found.event[word] for word in words} == words


@pytest.mark.parametrize(
    ("words", "more", "problem"),
    [
        ({}, {}, "needs a placement"),
        ({"placement_id": "[PLACEMENT]"}, {}, "looks like a macro"),
        ({"placement_id": "none"}, {}, "looks like a macro or a placeholder"),
        ({"placement_id": " a"}, {}, "would be read as none"),
        ({"placement_id": "100%ad"}, {}, "'100%ad' would be read as '100\ufffd': name it without a %"),
        ({"placement_id": "a", "station": "sale%20now"}, {}, "the station 'sale%20now' would be read as"),
        ({"placement_id": "a\udcff"}, {}, "would be read as"),
        ({"placement_id": "x" * 129}, {}, "129 characters"),
        (
            {"placement_id": "ü" * 128, "campaign_id": "ü" * 128, "station": "ü" * 128},
            {},
            "characters, and vendors",
        ),
        ({"placement_id": "a"}, {"events": ("begin",)}, "is no event"),
        ({"placement_id": "a"}, {"events": ("conversion",)}, "is no event"),
    ],
)
def test_a_tag_that_could_not_count_is_not_built(
    words: dict[str, str], more: dict[str, object], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        tags("triton", words, **more)


@pytest.mark.parametrize("base", ["px.example", "ftp://px.example", "https://px.example/?a=1", ""])
def test_an_invalid_address_starts_no_tag(base: str) -> None:
    with pytest.raises(UsageError, match="no address of the doors"):
        build("triton", DIALECTS["triton"], Order(base, IDS), SIGNING)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("triton", "no consent: triton has no macro of a consent string"),
        ("triton", "not documented by triton, so try them first: @AD_ID@-@COOKIE@ (inferred)"),
        ("dv360", "set AUDIOPIXEL_COLLECT_VENDOR"),
        ("acast", "no play id"),
        ("acast", "have your domain approved first"),
        ("megaphone", "no cachebuster"),
        ("megaphone", "takes 5 URLs"),
        ("art19", "nothing of it is documented in public (inferred)"),
        ("prx", "AUDIOPIXEL_COLLECT_SERVERS"),
    ],
)
def test_the_limits_of_a_vendor_are_reported_before_the_flight(name: str, words: str) -> None:
    assert any(words in warning for warning in tags(name).warnings)


def test_a_vendor_with_all_fields_has_only_a_warning_about_servers() -> None:
    warnings = tags("vast4").warnings
    assert all("servers may call" in warning for warning in warnings)
    unsigned = build("vast4", DIALECTS["vast4"], Order("http://px.example", IDS), None).warnings
    assert any(warning.startswith("unsigned") for warning in unsigned)
    assert any(warning.startswith("http:") for warning in unsigned)


def test_tags_as_vast_are_xml_and_say_the_same_urls() -> None:
    built = tags("vast4", events=(*ONCE_HEARD, "error", "click"))
    urls, document = built.urls, ET.fromstring(f"<InLine>{as_vast(built)}</InLine>")
    found = {one.get("event"): one.text for one in document.findall("TrackingEvents/Tracking")}
    found |= {"impression": document.findtext("Impression"), "error": document.findtext("Error")}
    found["click"] = document.findtext("VideoClicks/ClickTracking")
    assert found == urls
    assert document.find("VideoClicks/ClickThrough") is None
    with pytest.raises(UsageError, match="progress"):
        as_vast(tags("vast4", events=("progress",)))


@pytest.mark.parametrize("name", ["native", "vast4", "dv360", "gam"])
def test_a_vast_player_fetches_the_click_pixel_and_opens_the_target(name: str) -> None:
    target = "https://shop.example/buy?c=[CACHEBUSTING]"
    built = tags(name, events=("start", "click"), target=target)
    document = ET.fromstring(f"<InLine>{as_vast(built)}</InLine>")
    assert [one.tag for one in document.find("VideoClicks") or ()] == ["ClickTracking", "ClickThrough"]
    pixel = urlsplit(document.findtext("VideoClicks/ClickTracking") or "")
    through = urlsplit(document.findtext("VideoClicks/ClickThrough") or "")
    door = "" if name == "native" else f"/{name}"
    assert (pixel.path, through.path) == (f"/p{door}", f"/c{door}")
    assert "u" not in dict(parse_qsl(pixel.query))
    assert dict(parse_qsl(through.query))["u"] == target

    async def answers() -> list[Answer]:
        calls = [call(one.query, one.path) for one in (pixel, through)]
        return [await doors.answer(one) for one in calls]

    kept = Kept()
    doors = Doors(understanding(placements="signed"), cast(Store, kept))
    fetched, opened = asyncio.run(answers())
    assert (fetched.status, fetched.body) == (200, GIF)
    assert (opened.status, dict(opened.headers)["location"]) == (302, target)
    assert [(one.outcome, one.reason) for one in kept.events] == [
        (Outcome.STORED, ""),
        (Outcome.NOT_COUNTED, "tracked"),
    ]
    assert kept.events[0].event["event"] == "click"
    assert checked(through.geturl()).good


def test_tags_as_json_carry_their_warnings() -> None:
    built = tags("triton")
    said = json.loads(json.dumps(as_body("triton", built)))
    assert {tag["event"]: tag["url"] for tag in said["tags"]} == built.urls
    assert tuple(said["warnings"]) == built.warnings


def test_a_click_is_signed_for_its_host_and_keeps_its_macros() -> None:
    target = "https://shop.example/buy?c=[CACHEBUSTING]&n=a%20b"
    url = tags("vast4", events=("click",), target=target).urls["click"]
    assert "[CACHEBUSTING]" in url.partition("&u=")[2]
    said = dict(parse_qsl(urlsplit(url).query))
    assert (urlsplit(url).path, said["u"]) == ("/c/vast4", target)
    assert Signatures({"a1": b"a signing key"}).may_lead_to("https://shop.example/", said["s"])


def test_a_click_whose_target_has_encoded_letters_is_found_good() -> None:
    target = "https://shop.example/caf%C3%A9?q=a%252Bb"
    url = tags("vast4", events=("click",), target=target).urls["click"]
    assert [one for one in checked(url).findings if one.words.startswith("u:")] == []


def test_a_click_without_a_target_is_not_built() -> None:
    with pytest.raises(UsageError, match="a click leads there"):
        tags("vast4", events=("click",), target="javascript:alert(1)")


def test_a_signed_tag_leaves_no_signed_id_to_a_macro() -> None:
    for url in tags("dv360", {"placement_id": "a"}, events=("start",)).urls.values():
        assert "CAMPAIGN_ID" not in url
    unsigned = build("dv360", DIALECTS["dv360"], Order(BASE, {"placement_id": "a"}), None)
    assert all("cm=${CAMPAIGN_ID}" in url for url in unsigned.urls.values())


def test_a_postback_is_one_signed_url_without_an_event() -> None:
    url = tags("podscribe", {"campaign_id": "spring"}).urls["postback"]
    parts = urlsplit(url)
    door = understanding(placements="signed", signatures=SIGNING)
    found = door.pixel(call(parts.query + "&action=purchase&order_number=o-1", parts.path))
    assert (found.outcome, found.event["campaign_id"]) == (Outcome.STORED, "spring")


def test_the_snippet_is_signed_and_no_campaign_ends_its_script() -> None:
    page = snippet(BASE, "purchase", '</script><script>alert("x")', SIGNING)
    assert page.count("</script>") == 1
    said = json.loads(page.partition("Object.assign({}, ")[2].partition(", order")[0])
    assert SIGNING.passes(said["k"], None, said["cm"], {})
    body = "&".join(f"{name}={value}" for name, value in {**said, "cm": "spring", "o": "o-1"}.items())
    found = understanding().pixel(call(method="POST", body=body.encode()))
    assert found.event["conversion"] == {"type": "purchase", "order_id": "o-1", "claimed": True}
    with pytest.raises(UsageError, match="no conversion"):
        snippet(BASE, "bought", None, SIGNING)


# A page with consent platforms that say one thing each, and what the snippet sends.
PAGE = """
globalThis.location = {href: "https://shop.example/thanks"};
Object.defineProperty(globalThis, "navigator", {value: {
  globalPrivacyControl: CONTROL, sendBeacon: (door, told) => console.log(String(told)),
}});
PLATFORMS
SNIPPET
audiopixel({o: "o-1"});
"""
TCF_PLATFORM = """
globalThis.__tcfapi = (command, version, said) => command === "addEventListener" &&
  said({eventStatus: "tcloaded", gdprApplies: APPLIES, tcString: "TCF", listenerId: 1}, true);
"""
GPP_PLATFORM = """
globalThis.__gpp = (command, said) => command === "addEventListener" && [EVENTS].forEach((status, at) =>
  setTimeout(said, at, {eventName: "x", listenerId: 2, pingData: {
    signalStatus: status, gppString: status === "ready" ? "STRING" : "", applicableSections: [IDS]}}, true));
"""


def sent_by_the_snippet(platforms: str, control: str = "undefined") -> list[str]:
    """The bodies that the snippet sends in a page with these platforms."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("install node, and the snippet runs in it")
    script = snippet(BASE, "purchase", None, None).removeprefix("<script>").removesuffix("</script>")
    page = PAGE.replace("PLATFORMS", platforms).replace("CONTROL", control).replace("SNIPPET", script)
    ran = subprocess.run([node, "-e", page], capture_output=True, check=True, text=True, timeout=60)
    return ran.stdout.split()


def decided(body: str) -> str:
    """The reason of a door that needs no consent where nothing is said."""
    door = understanding(policy=Policy(5, required=False))
    return door.pixel(call(method="POST", body=body.encode())).consent


@pytest.mark.parametrize(
    ("applies", "sent", "reason"),
    [
        ("true", "1", "purpose"),
        ("false", "0", "given"),
        ("undefined", None, "purpose"),
        ("null", None, "purpose"),
        ("0", None, "purpose"),
    ],
)
def test_the_snippet_sends_applicability_only_if_the_page_provides_it(
    applies: str, sent: str | None, reason: str
) -> None:
    (body,) = sent_by_the_snippet(TCF_PLATFORM.replace("APPLIES", applies).replace('"TCF"', f'"{REFUSED}"'))
    assert dict(parse_qsl(body)).get("gdpr") == sent
    assert decided(body) == reason


OPTED_OUT = "DBACTvA~1---~BUkAAABA.QA~BFoAABA"
"""Its section 8 opts out; 9 does not."""


@pytest.mark.parametrize(
    ("events", "ids", "reason"),
    [
        ('"ready"', "8", "opted_out"),
        ('"not ready", "not ready", "ready", "ready"', "8", "opted_out"),
        ('"ready"', "9", "given"),
        ('"ready"', "", "opted_out"),
        ('"ready"', "-1", "opted_out"),
        ('"not ready"', "9", None),
        ("", "9", None),
    ],
)
@pytest.mark.parametrize("beside", ["", TCF_PLATFORM.replace("APPLIES", "false")])
def test_the_snippet_asks_the_global_privacy_platform_and_waits_for_it(
    beside: str, events: str, ids: str, reason: str | None
) -> None:
    page = GPP_PLATFORM.replace("EVENTS", events).replace("IDS", ids).replace("STRING", OPTED_OUT) + beside
    assert [decided(body) for body in sent_by_the_snippet(page)] == ([reason] if reason else [])


def test_an_unknown_platform_answer_in_the_snippet_is_no_consent() -> None:
    page = 'globalThis.__gpp = (command, said) => said({eventName: "x", listenerId: 2}, true);'
    assert [decided(body) for body in sent_by_the_snippet(page)] == ["unreadable"]


@pytest.mark.parametrize(
    ("control", "reason"), [("true", "opted_out"), ("false", "given"), ("undefined", "given")]
)
def test_the_snippet_asks_for_the_global_privacy_control(control: str, reason: str) -> None:
    assert [decided(body) for body in sent_by_the_snippet("", control)] == [reason]


# The checker


def tag(**more: str) -> str:
    """A tag that is good but for what a case does to it."""
    said = {"e": "start", "pl": "breakfast-uk", "cm": "spring", "p": "[ADSERVINGID]", "cb": "[CACHEBUSTING]"}
    said |= {
        "gdpr_consent": "[GDPRCONSENT]",
        "ifa": "[IFA]",
        "k": SIGNING.of_tag("breakfast-uk", "spring"),
    } | more
    return f"{BASE}/p/vast4?" + "&".join(f"{name}={value}" for name, value in said.items() if value)


def conversion(**more: str) -> str:
    return tag(**{"e": "conversion", "ct": "purchase", "pl": "", "k": SIGNING.of_tag(None, "spring")} | more)


def test_a_good_tag_has_no_errors_and_no_warnings() -> None:
    found = checked(tag())
    assert found.good
    assert {one.level for one in found.findings} == {"note"}
    assert in_words(found).startswith("stored\n")
    assert checked(tag(gdpr_consent=CONSENT)).good


@pytest.mark.parametrize(
    ("url", "level", "words"),
    [
        (f'<img src="{tag()}">', "error", "this is no plain URL"),
        ("px.example/p?e=start", "error", "this is no plain URL"),
        (tag().replace("/p/", "/pixel/"), "error", "/pixel/vast4 is no door"),
        (tag().replace("/p/vast4", "/p/vasst"), "error", "'vasst' is no known dialect"),
        (tag().replace("https", "http"), "warning", "http: players on secure pages"),
        (tag().replace("&", "&amp;"), "error", "&amp; stands where & belongs"),
        (tag() + "#top", "error", "# ends a URL"),
        (tag() + "?st=one", "error", "a second ? stands where"),
        (tag(dummy="x" * 2_000), "warning", "vendors' forms take 2,000"),
        (tag(e=""), "error", "rejected for its event: it is absent"),
        (tag(e="creativeView"), "error", "e: no event of this name is counted"),
        (tag(pl=""), "error", "rejected for its placement_id: it is absent"),
        (tag(pl="[PLACEMENT]"), "error", "rejected for its placement_id: it is unreplaced"),
        (tag(pl="x" * 129), "error", "too long"),
        (tag(k=""), "error", "k: it is not signed"),
        (
            tag(k=SIGNING.of_tag("breakfast-uk", "summer")),
            "error",
            "signature is of another placement or campaign",
        ),
        (tag(k="b9.AAAAAAAAAAAAAAAA"), "error", "signature is of another placement or campaign"),
        (tag(cb="%5BCACHEBUSTING%5D"), "error", "is percent-encoded, and no vendor replaces it so"),
        (tag(cb="@CACHEBUSTER@"), "error", "@CACHEBUSTER@ is no macro of vast4"),
        (tag(p="", cb=""), "warning", "a retry counts again"),
        (tag(ifa="", gdpr_consent=CONSENT), "warning", "no reach by this pixel"),
        (tag(p=""), "warning", "no completion by this pixel"),
        (
            tag(placement="x"),
            "warning",
            "placement: nothing reads it, and it is not kept; did you mean placement_id?",
        ),
        (tag() + "&pl=other", "error", "pl appears twice"),
        (tag(ss="1"), "warning", "ss: a call with this names another device"),
        (tag(ss="1"), "warning", 'collect_servers."NETWORK" = "x-device"'),
        (tag(ip="[DEVICEIP]", ua="[DEVICEUA]"), "note", "ip, ua: a call with this names another device"),
        (tag(ip="[DEVICEIP]", ss="2"), "warning", 'collect_servers."NETWORK" = "query"'),
        (
            tag(p="", cb="", gdpr_consent="", ifa="", ss="1").replace("/vast4", "/prx"),
            "warning",
            'collect_servers."NETWORK" = "xff-first"',
        ),
        (tag(ip="9.9.9.9"), "note", "is invalid traffic (unverified_server)"),
        (tag(ss="0") + "&ss=1", "error", "a caller that names two devices is a server"),
        (tag(token="host.secret"), "error", "token: no secret may stand in a URL"),
        (tag(l="me%40example.org"), "error", "l: an e-mail address"),
        (tag(ts="soon"), "warning", "ts: its value cannot be read as ts"),
        (tag(gdpr_consent=""), "warning", "the call carries no consent string"),
        (tag(gdpr_consent=CONSENT[:30]), "error", "the consent string cannot be read"),
        (tag(gdpr_consent=CONSENT, lmt="1"), "warning", "limits ad tracking"),
        (tag(gdpr_consent=CONSENT, us_privacy="1YYN"), "warning", "opted out of sale"),
        (conversion(ct="bought"), "error", "rejected for its conversion.type"),
        (
            tag(e="click", u="https%3A%2F%2Fevil.example%2F").replace("/p/", "/c/"),
            "error",
            "u: the click leads nowhere",
        ),
    ],
)
def test_a_broken_tag_is_explained(url: str, level: str, words: str) -> None:
    found = checked(url)
    assert any(one.level == level and words in one.words for one in found.findings), in_words(found)
    assert found.good == (level != "error")


@pytest.mark.parametrize(
    ("path", "podcast"),
    [
        ("/p/acast;pc=a%3Bb", "a"),
        ("/p/acast%3Bpc=a", "a"),
        ("/p/acast;pc=R+B", "R+B"),
        ("/p/acast;pc=R&B", "R&B"),
        ("/p/acast;pc=R%26B", "R&B"),
        ("/p/acast;pc=50%25", "50%"),
    ],
)
def test_the_checker_reads_a_path_as_the_server_hands_it_on(path: str, podcast: str) -> None:
    found = check(understanding(), f"{BASE}{path}?e=start&pl=a&cb=1", NOW_MS)
    assert found.trace["event"]["podcast"] == podcast
    assert any("%3B in the path" in one.words for one in found.findings) is ("%3B" in path)


def test_the_checker_shows_no_personal_id() -> None:
    found = checked(tag(l="listener-7f3a", gdpr_consent=CONSENT, ifa="AEBE52E7-03EE-455A-B3C4-E57283966239"))
    shown = in_words(found) + json.dumps(dict(found.trace))
    for raw in ("listener-7f3a", "AEBE52E7", CONSENT, "iPhone"):
        assert raw not in shown
    assert found.trace["fields"]["ifa"] == {"from": "ifa", "state": "given", "cleaned": []}


@given(st.text(max_size=200))
def test_whatever_is_pasted_is_answered_in_words(text: str) -> None:
    for url in (text, f"{BASE}/p?{text}", f"{BASE}/c/{text}", f"{BASE}/b/prebid?t={text}"):
        assert in_words(checked(url))


@pytest.mark.parametrize(
    "query",
    [
        "x=" + "a" * 16_000,
        "x=a@" + "b" * 16_000,
        "x=" + "a@" * 8_000,
        "&".join(f"{n}=" for n in range(3_000)),
    ],
)
def test_a_hostile_tag_is_checked_at_once(query: str) -> None:
    began_s = time.process_time()
    found = checked(f"{BASE}/p?{query}")
    assert time.process_time() - began_s < 0.5
    assert len(found.findings) < 40


def test_no_more_is_checked_than_a_door_takes() -> None:
    (finding,) = checked(f"{BASE}/p?x={'a' * 100_000}").findings
    assert finding.level == "error"
    assert "the collector takes 16,384 at most" in finding.words


# The command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIOPIXEL_COLLECT_SIGNING_KEYS", '{"a1": "sixteen bytes or more"}')
    return lambda *words: CliRunner().invoke(app, ["tag", *words])


def test_the_command_builds_and_checks_what_it_built(run) -> None:  # type: ignore[no-untyped-def]
    built = run("--dialect", "triton", "--placement", "a", "--campaign", "b", "--base", BASE)
    assert built.exit_code == 0, built.output
    urls = [line for line in built.stdout.splitlines() if line.startswith("https")]
    assert len(urls) == len(ONCE_HEARD)
    assert "no consent" in built.stderr
    for url in urls:
        assert run("--check", url).exit_code == 0
    broken = run("--check", urls[0].replace("pl=a", "pl=c"))
    assert (broken.exit_code, "signature is of another placement or campaign" in broken.stdout) == (1, True)
    said = json.loads(run("--check", urls[0], "--json").stdout)
    assert (said["outcome"], said["event"]["placement_id"]) == ("stored", "a")


def test_a_missing_signing_key_is_explained_with_a_command(
    run,  # type: ignore[no-untyped-def]
    monkeypatch,  # type: ignore[no-untyped-def]
) -> None:
    monkeypatch.delenv("AUDIOPIXEL_COLLECT_SIGNING_KEYS")
    said = run("--check", f"{BASE}/p?e=start&pl=a").stderr
    assert "16 bytes or more (python -c 'import secrets; print(secrets.token_hex(16))')" in said
    assert takes(Settings.model_fields["collect_signing_keys"]) == "{text: secret text of 16 bytes or more}"


def test_tags_are_checked_by_plans_if_only_plans_create_rows(run, monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("AUDIOPIXEL_COLLECT_PLACEMENTS", "planned")
    plans = tmp_path / "plans.csv"
    plans.write_text("placement_id,booked,start,end\na,1000,2026-11-01T00:00Z,2027-11-01T00:00Z\n")
    monkeypatch.setenv("AUDIOPIXEL_PLANS", str(plans))
    assert (
        json.loads(run("--check", "https://x.example/p?e=start&pl=a", "--json").stdout)["outcome"] == "stored"
    )
    other = json.loads(run("--check", "https://x.example/p?e=start&pl=b", "--json").stdout)
    assert (other["outcome"], other["reason"]) == ("rejected", "unsigned")
    plans.unlink()
    unread = run("--check", "https://x.example/p?e=start&pl=a")
    assert (unread.exit_code != 0, "plans.csv" in unread.stderr, unread.stdout) == (True, True, "")


def test_the_command_explains_a_missing_value(run) -> None:  # type: ignore[no-untyped-def]
    assert "the collector's address is missing" in run("--placement", "a").stderr
    unknown = run("--dialect", "trition", "--placement", "a", "--base", BASE)
    assert (
        unknown.exit_code,
        "(did you mean triton?); `audiopixel tag --dialect list`" in unknown.stderr,
    ) == (2, True)
    assert "sendBeacon" in run("--conversion", "purchase", "--campaign", "b", "--base", BASE).stdout
