"""Dead letters for people: listed, held against a sender's own file, and sent again through a real door."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from collector_support import NOW_MS, call, understanding, usual
from resend_support import ALL, PIXEL, TOKEN, Kept, of_the_door, of_the_flow, sent
from typer.testing import CliRunner

from connectors.embedded import EmbeddedBroker
from connectors.kafka import KafkaWriter
from flows.cli.commands import app
from flows.collector.call import Outcome
from flows.collector.instruments import Instruments
from flows.collector.ledger import Ledger
from flows.collector.letters import letter
from flows.errors import AudiopixelError
from flows.intake.dead_letters import explain, late_letter
from flows.intake.dead_letters import letter as flow_letter
from flows.intake.decoder import Decoder
from flows.model.messages import Late
from flows.rejected import (
    MAX_GROUPS,
    Groups,
    Letter,
    LetterFilter,
    compare,
    from_files,
    from_topic,
    letter_of,
)
from flows.resend import Door, resend
from flows.settings import load


def test_a_resent_unsigned_call_counts_with_its_play_without_its_listener(url: str, kept: Kept) -> None:
    letters = [of_the_door(id="e1"), of_the_door(id="e2", e="conversion", ct="purchase", o="o-1", v="9.50")]
    assert {one.reason for one in letters} == {"unsigned"}
    assert sent(letters, url).account() == "letters 2 = taken 2 + rejected again 0 + not sent 0"
    start, conversion = (one.event for one in kept.events)
    assert (start["event_id"], start["play_id"], start["ts"]) == ("e1", "play-1", NOW_MS - 1_000)
    assert start["consent"] is True
    assert not {"listener_id", "client_id", "household_id"} & start.keys()
    claimed = {"type": "purchase", "order_id": "o-1", "value": "9.50", "claimed": True}
    assert conversion["conversion"] == claimed, "whoever called could say another value"
    kept.events.clear()
    assert sent([of_the_flow(event="conversion", conversion=claimed, ip=7)], url).accepted == 1
    assert kept.events[0].event["conversion"] == claimed


def test_a_redirect_is_not_followed_and_its_address_sees_no_token() -> None:
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            asked.append((self.path, self.headers["authorization"]))
            self.send_response(302)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    with pytest.raises(AudiopixelError, match="status 302: is this the address of a collector"):
        Door(f"http://127.0.0.1:{server.server_port}", TOKEN, sleep=lambda _: None).send([PIXEL])
    server.shutdown()
    server.server_close()
    assert asked == [("/v1/events", f"Bearer {TOKEN}")]


def test_a_resent_event_is_rejected_until_its_field_is_corrected(url: str, kept: Kept) -> None:
    letters = [of_the_flow(placement_id="[PLACEMENT]"), of_the_flow(event="rewind")]
    again = sent(letters, url)
    assert again.refused == {"invalid: placement_id": 1, "unknown_event: event": 1}
    assert not kept.events
    assert sent(letters[:1], url, placement_id="breakfast-uk").accepted == 1
    assert kept.events[0].event["placement_id"] == "breakfast-uk"


def test_letters_that_cannot_be_sent_stay_and_are_named(url: str, kept: Kept) -> None:
    malformed = letter_of(flow_letter("a", 1, explain(b"{"))[1])
    assert malformed is not None
    late = Letter("a/2", "too_late", "", "a", dict(PIXEL), "")
    nameless, timeless = of_the_flow(event_id=""), of_the_flow(ts="soon")
    final = of_the_flow(playhead_ms="x", ts=NOW_MS - 3_600_000)
    resent = sent([malformed, late, nameless, timeless, final], url, NOW_MS)
    assert resent.accepted == 0
    assert resent.not_sent == {
        "malformed: its letter holds nothing of it": 1,
        "too late: its minute is final": 2,
        "no event id: it could count twice": 1,
        "no time that can be read": 1,
    }
    assert not kept.events


def test_a_resent_event_with_a_wrong_clock_counts_at_its_receipt(url: str, kept: Kept) -> None:
    ahead = str(NOW_MS + 10 * 365 * 86_400_000)
    assert sent([of_the_door(ts=ahead)], url, NOW_MS).accepted == 1
    assert kept.events[0].event["ts"] == NOW_MS + 60_000
    two_days_on = sent([of_the_door(ts=ahead)], url, NOW_MS + 2 * 86_400_000)
    assert two_days_on.not_sent == {"too late: its minute is final": 1}


def test_an_id_truncated_in_its_letter_is_not_resent_as_another(url: str, kept: Kept) -> None:
    long = "x" * 128
    plays = [of_the_flow(event_id=f"e{n}", play_id=f"{long}{n}") for n in range(2)]
    order = {"e": "conversion", "ct": "purchase", "o": f"{long}1", "v": "9.50"}
    others = [of_the_flow(event_id=f"{long}1"), of_the_door(**order), of_the_flow(placement_id=f"{long}1")]
    resent = sent([*plays, *others], url)
    assert (resent.accepted, resent.not_sent) == (
        0,
        {"an id or a landing URL that was too long: its letter holds its begin alone": 5},
    )
    assert sent(others[2:], url, placement_id="breakfast-uk").accepted == 1
    assert [one.event["placement_id"] for one in kept.events] == ["breakfast-uk"]


SHOP = "https://shop.example/"
BOUGHT = {"e": "conversion", "ct": "purchase", "o": "o-1", "cm": "spring"}
PAGE = f"{SHOP}thanks/order/confirmation/2026/11/28/page"
UTM = "utm_source=audiopixel&utm_medium=audio&utm_campaign=spring&utm_content=breakfast-uk-2"


def test_a_landing_url_of_many_utm_values_is_sent_again_whole(url: str, kept: Kept) -> None:
    whole = f"{PAGE}?{UTM}&utm_content=another"
    assert len(whole) > 128
    told = {
        "event": "conversion",
        "conversion": {"type": "purchase"},
        "landing_url": whole,
        "ip": 5,
    }
    assert sent([of_the_door(**BOUGHT, u=whole), of_the_flow(**told)], url).accepted == 2
    for one in kept.events:
        page, _, query = one.event["landing_url"].partition("?")
        assert (page, sorted(query.split("&"))) == (PAGE, sorted(UTM.split("&")))


@pytest.mark.parametrize(
    "landing_url",
    [
        f"{SHOP}?utm_content={'breakfast-uk-' * 10}2",
        f"{SHOP}?utm_content=a&utm_term={'x' * 129}",
        f"{SHOP}{'x' * 128}?utm_content=a",
    ],
)
def test_a_landing_url_truncated_in_its_letter_credits_no_other_placement(
    url: str, kept: Kept, landing_url: str
) -> None:
    told = {"event": "conversion", "conversion": {"type": "purchase"}, "landing_url": landing_url, "ip": 5}
    before = of_the_door(**BOUGHT, u=landing_url)  # as a collector of before cut it
    before.event["landing_url"] = f"{PAGE}?{UTM}"[:128]
    resent = sent([of_the_door(**BOUGHT, u=landing_url), of_the_flow(**told), before], url)
    assert (resent.accepted, resent.not_sent) == (
        0,
        {"an id or a landing URL that was too long: its letter holds its begin alone": 3},
    )
    assert not kept.events


def test_letters_of_very_long_names_go_in_several_calls(url: str, kept: Kept) -> None:
    names = ("campaign_id", "creative_id", "platform", "station", "podcast", "program")
    long = dict.fromkeys(names, "\U0001f3a7" * 127)
    letters = [of_the_flow(event_id=f"e{n}", ip=5, **long) for n in range(200)]
    assert sent(letters, url).accepted == 200
    assert [one.event["event_id"] for one in kept.events] == [f"e{n}" for n in range(200)]


def test_a_resent_event_equals_the_original(url: str, kept: Kept) -> None:
    told = {"event": "impression", "basis": "audible_2s", "episode": "e-7", "ip": 5}
    assert sent([of_the_flow(**told)], url).accepted == 1
    (event,) = (one.event for one in kept.events)
    assert (event["basis"], event["episode"]) == ("audible_2s", "e-7")


@pytest.mark.parametrize("agent", ["AudioCRAWLER 1.1", ""])
def test_invalid_traffic_is_not_resent_as_valid(url: str, kept: Kept, agent: str) -> None:
    found = understanding().pixel(call(usual(ts="x"), headers={"user-agent": agent}))
    found.outcome, found.reason = Outcome.REJECTED, "unsigned"
    of_door = letter_of(letter("c1", found).value)
    told = {"invalid_traffic": "volume"} if not agent else {"user_agent": agent}
    batch = Decoder(b"sixteen secret b").decode(_messages(json.dumps(PIXEL | told | {"ip": 5}).encode()))
    of_flow = letter_of(flow_letter("a", *batch.rejected[0])[1])
    assert of_door is not None
    assert of_flow is not None
    assert "user_agent" not in of_flow.event
    resent = sent([of_door, of_flow], url)
    assert resent.not_sent == {"invalid traffic: its letter no longer holds why": 2}
    assert not kept.events


def _messages(raw: bytes) -> Any:
    from connectors.stream import Messages

    return Messages([raw], [1], 2)


def test_resend_retries_a_full_door_but_not_a_wrong_token(url: str, kept: Kept) -> None:
    kept.full = 2
    assert sent([of_the_door()], url).accepted == 1
    with pytest.raises(AudiopixelError, match="does not accept this token"):
        resend([of_the_door()], Door(url, "host.wrong"), NOW_MS, 600_000, allowed=ALL)
    with pytest.raises(AudiopixelError, match="take no events"):
        sent([of_the_door()], "http://127.0.0.1:9")


def test_a_play_that_names_its_listener_is_in_no_letter() -> None:
    door = understanding(placements="signed")
    naming = [name for name, one in door.dialects.items() if one.play_names_listener]
    assert naming
    for name in naming:
        found = door.pixel(call(usual(), path=f"/p/{name}"))
        if found.outcome is Outcome.REJECTED:
            assert "play_id" not in json.loads(letter("c1", found).value)["event"]


def test_letters_are_grouped_once_each_by_reason_field_sender_and_placement(tmp_path: Path) -> None:
    file = tmp_path / "rejected.ndjson"
    lines = [flow_letter("a/0", n, explain(json.dumps(PIXEL | {"ip": 5}).encode()))[1] for n in (1, 2, 2)]
    file.write_bytes(b"\n".join([*lines, b"no letter", b"{}", letter_bytes()]) + b"\n")
    groups = Groups()
    for one in from_files([str(file)]):
        groups.take(one)
    assert groups.letters == {
        ("invalid", "ip", "a/0", "breakfast-uk"): 2,
        ("unsigned", "placement_id", "dialect/native", "breakfast-uk"): 1,
    }
    wanted = LetterFilter(sender="a/0", reason="invalid")
    assert sum(wanted.has(one) for one in from_files([str(file)])) == 2


def test_letters_of_unknown_events_are_grouped_by_the_events_name() -> None:
    groups = Groups()
    for event in ("impresion", "impresion", "x" * 500, ""):
        groups.take(Letter("a/0/1", "unknown_event", "event", "s", {"event": event}, ""))
    assert {wrong: count for (_, wrong, _, _), count in groups.letters.items()} == {
        "event=impresion": 2,
        f"event={'x' * 40}": 1,
        "event": 1,
    }


def letter_bytes() -> bytes:
    return letter("c1", understanding(placements="signed").pixel(call(usual()))).value


def test_groups_are_bounded_however_many_placements_an_enemy_names() -> None:
    groups = Groups()
    for n in range(MAX_GROUPS + 50):
        groups.take(Letter(f"a/{n}", "invalid", "ip", "a", {"placement_id": f"x{n}"}, ""))
    assert len(groups.letters) == MAX_GROUPS + 1
    assert groups.letters["invalid", "ip", "other", "other"] == 50


def test_groups_are_bounded_however_many_reasons_a_file_names() -> None:
    groups = Groups()
    for n in range(3 * MAX_GROUPS):
        groups.take(Letter(f"a/{n}", f"r{n}", "", "a", {}, ""))
    assert len(groups.letters) == 2 * MAX_GROUPS + 1
    assert groups.letters["other", "other", "other", "other"] == MAX_GROUPS


def test_an_event_id_used_first_by_an_enemy_hides_no_letter(tmp_path: Path) -> None:
    path = tmp_path / "rejected.ndjson"
    body = {"position": "collector/c/e1", "event": {"event_id": "e1"}}
    forged = {**body, "reason": "unsigned", "sender": "dialect/native"}
    true = {**body, "reason": "invalid", "field": "ip", "sender": "token/host"}
    path.write_text("".join(f"{json.dumps(one)}\n" for one in (forged, true, forged, true)))
    assert [letter.sender for letter in from_files([str(path)])] == ["dialect/native", "token/host"]


def test_a_senders_own_file_is_held_against_the_letters(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.ndjson"
    raws = [json.dumps(PIXEL | {"event_id": f"e{n}", "ip": 5 if n == 2 else None}).encode() for n in range(4)]
    theirs.write_bytes(b"\n".join([*raws, b"{nothing"]) + b"\n")
    bad = [explain(raws[2]), explain(b"{nothing")]
    letters = [letter_of(flow_letter("a", n, one)[1]) for n, one in enumerate(bad)]
    found = compare([str(theirs)], [one for one in letters if one is not None])
    assert found.account() == "lines 5 = with a dead letter 2 + without 3"
    assert found.counts == {("invalid", "ip"): 1, ("malformed", ""): 1}
    assert found.first["invalid", "ip"] == f"{theirs}:3"


def test_letters_without_an_event_are_counted(tmp_path: Path) -> None:
    theirs, letters = tmp_path / "theirs.ndjson", tmp_path / "letters.ndjson"
    theirs.write_text("".join(json.dumps(PIXEL | {"event_id": f"e{n}"}) + "\n" for n in range(3)))
    late = [Late("a/0", n, "start", NOW_MS, 7 + n, ("breakfast-uk",)) for n in range(2)]
    nameless = flow_letter("a/0", 9, explain(json.dumps(PIXEL | {"event_id": 5}).encode()))
    letters.write_bytes(b"".join(one[1] + b"\n" for one in (*map(late_letter, late), nameless)))

    def against(*more: str) -> Any:
        return CliRunner().invoke(app, ["rejected", str(letters), "--against", str(theirs), *more])

    told = against()
    assert told.exit_code == 1
    assert told.stdout.splitlines() == [
        "lines 3 = with a dead letter 0 + without 3",
        "2 letters of too_late name no event: they may be of these lines, and were not compared",
        "1 letters of invalid name no event: they may be of these lines, and were not compared",
    ]
    assert against("--placement", "another").stdout == "lines 3 = with a dead letter 0 + without 3\n"
    assert against("--placement", "another").exit_code == 0


def test_reasons_of_letters_without_an_event_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "theirs.ndjson").write_text("{}\n")
    letters = [Letter(f"a/{n}", f"r{n}", "", "a", {}, "") for n in range(MAX_GROUPS + 50)]
    found = compare([str(tmp_path / "theirs.ndjson")], letters)
    assert len(found.unnamed) == MAX_GROUPS + 1
    assert found.unnamed["other"] == 50


def test_each_sender_is_counted_by_the_operators_name() -> None:
    instruments, door = Instruments(Ledger()), understanding(placements="signed")
    bearer = {"authorization": f"Bearer {TOKEN}"}
    for asked in (
        call(usual()),
        call(usual(), "/p/triton"),
        call(usual(), headers=bearer),
        call(usual(), peer="198.51.100.7"),
    ):
        instruments.count([door.pixel(asked)])
    assert instruments.senders == {
        ("dialect/native", "rejected"): 1,
        ("dialect/triton", "rejected"): 1,
        ("token/host", "stored"): 1,
        ("network/198.51.100.0/24", "rejected"): 1,
    }


def test_the_topics_recent_letters_are_read_once_to_the_end() -> None:
    with EmbeddedBroker() as broker:
        broker.create_topic("letters", 2)
        settings = load(kafka_brokers=broker.bootstrap, kafka_rejected_topic="letters")
        writer = KafkaWriter(broker.bootstrap, "letters", {})
        one = flow_letter("a/0", 1, explain(b"{"))
        writer.write([one, one, flow_letter("a/0", 2, explain(b"{"))])
        writer.close()
        assert [found.position for found in from_topic(settings, 1)] in (
            ["a/0/1", "a/0/2"],
            ["a/0/2", "a/0/1"],
        )
        assert list(from_topic(settings, 0)) == []


@pytest.mark.parametrize("more", [[], ["--resend"]], ids=["listed", "sent again"])
def test_an_unknown_reason_is_refused_with_the_nearest_known(more: list[str], tmp_path: Path) -> None:
    letters = tmp_path / "letters.ndjson"
    letters.write_text("")
    done = CliRunner().invoke(app, ["rejected", str(letters), "--reason", "too_lat", *more])
    assert (done.exit_code, done.stdout) == (2, "")
    said = "takes malformed, invalid, unknown_event, too_late or unsigned (did you mean too_late?)"
    assert f"--reason too_lat: {said}" in " ".join(done.stderr.split())
