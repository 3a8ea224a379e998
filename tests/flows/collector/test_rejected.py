"""Dead letters for people: listed, held against a sender's own file, and sent again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from collector_support import NOW_MS, SECRET, call, understanding, usual
from resend_support import PIXEL, Again, of_the_door, of_the_flow
from typer.testing import CliRunner

from connectors.embedded import EmbeddedBroker
from connectors.kafka import KafkaWriter
from flows.cli.commands import app
from flows.collector.call import Outcome
from flows.collector.instruments import Instruments
from flows.collector.ledger import Ledger
from flows.collector.letters import letter
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
from flows.settings import load


def test_a_resent_unsigned_call_counts_with_its_play_without_its_listener(again: Again) -> None:
    assert of_the_door(id="e1").reason == "unsigned"
    assert again([of_the_door(id="e1")]).account() == "letters 1 = taken 1 + rejected again 0 + not sent 0"
    (start,) = again.events
    assert (start["event_id"], start["play_id"], start["ts"]) == ("e1", "play-1", NOW_MS - 1_000)
    assert start["consent"] is True
    assert not {"listener_id", "client_id", "household_id"} & start.keys()


def test_a_resent_event_is_rejected_until_its_field_is_corrected(again: Again) -> None:
    letters = [of_the_flow(placement_id="[PLACEMENT]"), of_the_flow(event="rewind")]
    assert again(letters).refused == {"invalid: placement_id": 1, "unknown_event: event": 1}
    assert not again.events
    assert again(letters[:1], placement_id="breakfast-uk").accepted == 1
    assert again.events[0]["placement_id"] == "breakfast-uk"


def test_letters_that_cannot_be_sent_stay_and_are_named(again: Again) -> None:
    malformed = letter_of(flow_letter("a", 1, explain(b"{"))[1])
    assert malformed is not None
    late = Letter("a/2", "too_late", "", "a", dict(PIXEL), "")
    nameless, timeless = of_the_flow(event_id=""), of_the_flow(ts="soon")
    final = of_the_flow(playhead_ms="x", ts=NOW_MS - 3_600_000)
    resent = again([malformed, late, nameless, timeless, final], NOW_MS)
    assert resent.accepted == 0
    assert resent.not_sent == {
        "malformed: its letter holds nothing of it": 1,
        "too late: its minute is final": 2,
        "no event id: it could count twice": 1,
        "no time that can be read": 1,
    }
    assert not again.events


def test_a_resent_event_with_a_wrong_clock_counts_at_its_receipt(again: Again) -> None:
    ahead = str(NOW_MS + 10 * 365 * 86_400_000)
    assert again([of_the_door(ts=ahead)], NOW_MS).accepted == 1
    assert again.events[0]["ts"] == NOW_MS + 60_000
    two_days_on = again([of_the_door(ts=ahead)], NOW_MS + 2 * 86_400_000)
    assert two_days_on.not_sent == {"too late: its minute is final": 1}


def test_an_id_truncated_in_its_letter_is_not_resent_as_another(again: Again) -> None:
    long = "x" * 128
    plays = [of_the_flow(event_id=f"e{n}", play_id=f"{long}{n}") for n in range(2)]
    others = [of_the_flow(event_id=f"{long}1"), of_the_flow(placement_id=f"{long}1")]
    resent = again([*plays, *others])
    assert (resent.accepted, resent.not_sent) == (
        0,
        {"an id that was too long: its letter holds its begin alone": 4},
    )
    assert again(others[1:], placement_id="breakfast-uk").accepted == 1
    assert [one["placement_id"] for one in again.events] == ["breakfast-uk"]


def test_a_resent_event_equals_the_original(again: Again) -> None:
    told = {"event": "impression", "basis": "audible_2s", "episode": "e-7", "ip": 5}
    assert again([of_the_flow(**told)]).accepted == 1
    (event,) = again.events
    assert (event["basis"], event["episode"]) == ("audible_2s", "e-7")


@pytest.mark.parametrize("agent", ["AudioCRAWLER 1.1", ""])
def test_invalid_traffic_is_not_resent_as_valid(again: Again, agent: str) -> None:
    found = understanding().pixel(call(usual(ts="x"), headers={"user-agent": agent}))
    found.outcome, found.reason = Outcome.REJECTED, "unsigned"
    of_door = letter_of(letter("c1", found).value)
    told = {"invalid_traffic": "volume"} if not agent else {"user_agent": agent}
    batch = Decoder(b"sixteen secret b").decode(_messages(json.dumps(PIXEL | told | {"ip": 5}).encode()))
    of_flow = letter_of(flow_letter("a", *batch.rejected[0])[1])
    assert of_door is not None
    assert of_flow is not None
    assert "user_agent" not in of_flow.event
    resent = again([of_door, of_flow])
    assert resent.not_sent == {"invalid traffic: its letter no longer holds why": 2}
    assert not again.events


def _messages(raw: bytes) -> Any:
    from connectors.stream import Messages

    return Messages([raw], [1], 2)


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
    bearer = {"authorization": f"Bearer host.{SECRET}"}
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
