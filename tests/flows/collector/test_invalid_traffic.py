"""Lists of invalid traffic, small ones of our own in the forms in which they are published or bought."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from collector_support import HOME, NOW_MS, PLAYER, call, understanding, usual
from crawleruseragents import CRAWLER_USER_AGENTS_DATA

from flows.collector.call import Call
from flows.collector.callers import Device, parsed
from flows.collector.invalid_traffic import REASONS, Crawlers, Judge, judge_of
from flows.errors import SettingsError

APP = "AcmeCast/3.1 (iPhone; bot protection)"
TODAY = datetime(2026, 11, 25, tzinfo=UTC)
OPAWG = {
    "opawg_bots": [("^AcmeBot", "Acme"), ("scout/", "Scout")],
    "opawg_apps": [("^AcmeCast/", "AcmeCast")],
    "opawg_devices": [("SmartSpeaker", "Speaker")],
    "opawg_libraries": [("^okhttp/", "OkHttp"), ("^AcmeCast", "never reached")],
}
INCLUDE = (
    """# browsers\nmozilla|1|1\nacmecast|1|0|\nold browser|1|0|01/31/2026\nfuture|1|0|12/31/2026\noff|0|0\n"""
)
EXCLUDE = (
    "# robots\nheadless|1|good headless,fine headless|1|0|0\nnightly|1||1|0|1|\ngone|1||1|0|0|11/25/2026\n"
    "caf\xe9|1||1|0|0\n"
)
MakeJudge = Callable[..., Judge]


@pytest.fixture
def make_judge(tmp_path: Path) -> MakeJudge:
    def judge(**contents: bytes) -> Judge:
        paths = {}
        for name, content in contents.items():
            paths[name] = tmp_path / name
            paths[name].write_bytes(content)
        return judge_of(paths, TODAY)

    return judge


def opawg() -> dict[str, bytes]:
    return {
        name: json.dumps({"entries": [{"pattern": one, "name": of} for one, of in entries]}).encode()
        for name, entries in OPAWG.items()
    }


def device(agent: str, address: str = HOME, basis: str = "transport") -> Device:
    return Device(parsed(address), agent, "device", basis, "transport")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agent", "reason", "app"),
    [
        ("AcmeBot/1", "opawg_bot", ""),
        ("scout/2", "opawg_bot", ""),
        (APP, "", "AcmeCast"),
        ("SmartSpeaker crawler", "", "Speaker"),
        ("okhttp/4.9", "opawg_library", ""),
        ("Overcast/3.0 (+http://overcast.fm/; iOS podcast app)", "", "Overcast"),
        ("Googlebot/2.1", "declared_bot", ""),
        ("curl/8.5.0", "crawler_list", ""),
        ("", "no_user_agent", ""),
        ("  ", "no_user_agent", ""),
        (PLAYER, "", ""),
    ],
)
def test_the_first_list_that_matches_decides(
    make_judge: MakeJudge, agent: str, reason: str, app: str
) -> None:
    verdict = make_judge(**opawg()).verdict_on(device(agent))
    assert (verdict.reason, verdict.app) == (reason, app)


@pytest.mark.parametrize(
    ("name", "agents"),
    [
        ("AppleCoreMedia", ("AppleCoreMedia/1.0.0.21E236", "applecoremedia", "ApPlEcOrEmEdIa/1")),
        ("Castbox", ("CastBox/8.2", "Castbox/1", "CASTBOX")),
        ("Podcasts", ("Podcasts/1530.3 CFNetwork", "Podcast/1", "pODCASTS/2")),
        ("Pocket Casts", ("Pocket Casts/7", "PocketCasts/1", "pocket casts")),
        ("Podcast Addict", ("PodcastAddict/v5", "Podcast Addict/5")),
        ("Spotify", ("Spotify/8.9.10 iOS/17.4", "spotify/1")),
        ("GlobalPlayer", ("GlobalPlayer/40",)),
    ],
)
def test_an_app_has_one_name_however_its_user_agent_spells_it(name: str, agents: tuple[str, ...]) -> None:
    assert {Judge().verdict_on(device(agent)).app for agent in agents} == {name}


@pytest.mark.parametrize(
    "app", ["antennapod", "applecoremedia", "podcasts/", "spotify/", "bbcsounds", "audible"]
)
def test_no_caller_makes_names_of_apps(app: str) -> None:
    door = understanding()
    spelled = {
        "".join(letter.upper() if turn >> at & 1 else letter for at, letter in enumerate(app))
        for turn in range(64)
    }
    told = [door.pixel(call(usual(), headers={"user-agent": one})) for one in spelled]
    assert len({one.event["app"] for one in told}) == 1


@pytest.mark.parametrize(
    ("agent", "invalid"),
    [
        ("Mozilla/5.0", False),
        ("Something Mozilla", True),
        ("the AcmeCast player", False),
        ("Old Browser 1", True),
        ("Future 1", False),
        ("off 1", True),
        ("Mozilla/5.0 Headless", True),
        ("Mozilla/5.0 Good Headless", False),
        ("Mozilla/5.0 nightly", False),
        ("nightly Mozilla", True),
        ("Mozilla gone", False),
        ("Mozilla caf\xe9", True),
    ],
)
def test_iab_and_abc_lists_are_read_in_their_own_format(
    make_judge: MakeJudge, agent: str, invalid: bool
) -> None:
    judge = make_judge(iab_include=INCLUDE.encode(), iab_exclude=EXCLUDE.encode("latin-1"))
    assert judge.iab is not None
    assert judge.iab(agent) is invalid


def test_the_first_line_of_a_list_counts_behind_a_byte_order_mark(make_judge: MakeJudge) -> None:
    judge = make_judge(iab_include=b"\xef\xbb\xbfmozilla|1|1\n")
    assert judge.verdict_on(device("Mozilla/5.0")).reason == ""


def test_a_podcast_app_is_valid_before_the_browser_list_applies(make_judge: MakeJudge) -> None:
    judge = make_judge(**opawg(), iab_include=b"mozilla|1|1\n")
    assert judge.verdict_on(device(APP)).reason == ""
    assert judge.verdict_on(device("Unknown/1")).reason == "iab_list"


@pytest.mark.parametrize(
    ("address", "basis", "reason"),
    [
        ("35.180.1.1", "transport", "data_centre"),
        ("35.180.255.255", "transport", "data_centre"),
        ("35.181.0.0", "transport", ""),
        ("2600:1f00::1", "transport", "data_centre"),
        ("2600:2000::1", "transport", ""),
        ("81.2.69.142", "transport", ""),
        ("35.180.1.1", "trusted", ""),
        ("35.180.1.1", "claimed", "data_centre"),
        ("81.2.69.142", "claimed", "unverified_server"),
        ("1.2.3.4", "transport", "data_centre"),
        ("1.2.3.5", "transport", ""),
    ],
)
def test_the_data_centre_list_judges_only_untrusted_callers(
    make_judge: MakeJudge, address: str, basis: str, reason: str
) -> None:
    judge = make_judge(
        data_centres=b"# ours\n35.180.0.0/17\n35.180.128.0/17 # joined\n1.2.3.4\n2600:1f00::/24\n"
    )
    assert judge.verdict_on(device(PLAYER, address, basis)).reason == reason


CLAIMS: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"ss": "1"}, {}),
    ({"ss": "2"}, {}),
    ({"ip": "9.9.9.9"}, {}),
    ({"ua": "Overcast/3"}, {}),
    ({}, {"x-device-ip": "8.8.4.4"}),
    ({}, {"x-device-user-agent": "Overcast/3"}),
    ({"ss": "1", "ip": "9.9.9.9", "ua": "Overcast/3"}, {"x-device-ip": "8.8.4.4"}),
]


@pytest.mark.parametrize(("parameters", "headers"), CLAIMS)
@pytest.mark.parametrize(
    ("agent", "address", "reason"),
    [
        ("Googlebot/2.1", HOME, "declared_bot"),
        ("AcmeBot/1", HOME, "opawg_bot"),
        ("okhttp/4.9", HOME, "opawg_library"),
        ("python-requests/2.31", HOME, "crawler_list"),
        ("HeadlessChrome/120", "35.180.1.1", "crawler_list"),
        ("", "35.180.1.1", "no_user_agent"),
        ("VLC/3.0", "35.180.1.1", "data_centre"),
        (APP, "35.180.1.1", "data_centre"),
        ("VLC/3.0", HOME, "unverified_server"),
        (APP, HOME, "unverified_server"),
    ],
)
def test_a_claim_lifts_no_suspicion(
    make_judge: MakeJudge,
    parameters: dict[str, str],
    headers: dict[str, str],
    agent: str,
    address: str,
    reason: str,
) -> None:
    judge = make_judge(**opawg(), data_centres=b"35.180.0.0/16\n")
    for peer, forwarded in ((address, {}), ("10.0.0.1", {"x-forwarded-for": address})):
        door, own = understanding(judge=judge), {"user-agent": agent, **forwarded}
        plain = door.pixel(call(usual(), headers=own, peer=peer)).event
        assert plain.get("invalid_traffic") == (reason if reason != "unverified_server" else None)
        claimed = door.pixel(call(usual(**parameters), headers=own | headers, peer=peer)).event
        assert (claimed["device_basis"], claimed["invalid_traffic"]) == ("claimed", reason)


def test_a_known_server_is_judged_by_the_listeners_agent_alone(make_judge: MakeJudge) -> None:
    judge = make_judge(data_centres=b"198.51.100.0/24\n")
    for agent, reason in (("VLC/3.0", None), ("Googlebot/2.1", "declared_bot")):
        headers = {"user-agent": agent, "x-forwarded-for": HOME}
        event = (
            understanding(judge=judge).pixel(call(usual(ss="1"), headers=headers, peer="198.51.100.7")).event
        )
        assert (event["device_basis"], event.get("invalid_traffic")) == ("trusted", reason)


def test_a_bot_in_a_data_centre_is_a_bot(make_judge: MakeJudge) -> None:
    judge = make_judge(data_centres=b"35.180.0.0/16\n")
    assert judge.verdict_on(device("Googlebot/2.1", "35.180.1.1")).reason == "declared_bot"


def test_reasons_are_from_the_closed_set_and_lists_have_hashes(make_judge: MakeJudge) -> None:
    judge = make_judge(**opawg(), data_centres=b"1.2.3.4\n", iab_include=b"mozilla|1|1\n")
    agents = ["AcmeBot/1", "okhttp/4", "Googlebot/2", "curl/8", "", "Unknown/1", PLAYER]
    found = {judge.verdict_on(device(agent)).reason for agent in agents}
    found.add(judge.verdict_on(device(PLAYER, "1.2.3.4")).reason)
    found.add(judge.verdict_on(device(PLAYER, basis="claimed")).reason)
    assert found - {""} <= set(REASONS)
    assert len(found) >= 7
    assert judge.hashes["data_centres"] == sha256(b"1.2.3.4\n").hexdigest()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("opawg_bots", b"{}"),
        ("opawg_bots", b"no json"),
        ("opawg_apps", b'{"entries": [{"pattern": "(", "name": "x"}]}'),
        ("data_centres", b"here\n"),
        ("iab_exclude", b"x|1||1|0|0|2026-01-31\n"),
    ],
)
def test_an_unreadable_list_is_refused_at_the_start(make_judge: MakeJudge, name: str, content: bytes) -> None:
    with pytest.raises(SettingsError):
        make_judge(**{name: content})


def test_a_missing_list_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        judge_of({"opawg_bots": tmp_path / "none.json"})


def test_a_verdict_travels_with_the_event_and_not_counted_is_none() -> None:
    judged = understanding().pixel(call(usual(), headers={"user-agent": "Googlebot/2.1"}))
    assert judged.event["invalid_traffic"] == "declared_bot"
    prefetch = Call("GET", "/p", "e=start&pl=a", {"purpose": "prefetch"}, b"", HOME, NOW_MS)
    assert understanding().pixel(prefetch).event == {}


def test_unique_user_agents_do_not_fill_the_memory() -> None:
    judge = Judge()
    for n in range(300):
        judge.verdict_on(device(f"{n} " + "x" * 1_000))
        judge.verdict_on(device(f"{n}"))
    assert sum(map(len, judge._verdicts)) < 300 * 10


def test_crawlers_are_those_of_all_the_patterns_as_one_expression() -> None:
    patterns = [one["pattern"] for one in CRAWLER_USER_AGENTS_DATA]
    whole, crawlers = re.compile("|".join(f"(?:{one})" for one in patterns)), Crawlers(patterns)
    agents = [agent for one in CRAWLER_USER_AGENTS_DATA for agent in one.get("instances", ())]
    agents += [agent[place:] for place in (3, 9) for agent in agents]
    assert len(agents) > 1_000
    assert [agent for agent in agents if (agent in crawlers) != bool(whole.search(agent))] == []


def test_plain_texts_differ_from_expressions() -> None:
    crawlers = Crawlers([r"a\.b", "c.d", r"e\/f", "^g", r"h\d"])
    yes, no = ("xa.bx", "xc-dx", "e/f", "gx", "h7"), ("xa-bx", "cd", "ef", "xg", "hd")
    assert [agent in crawlers for agent in (*yes, *no)] == [True] * 5 + [False] * 5
