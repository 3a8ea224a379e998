"""The documents of the collector say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from collector_support import CONSENT, HOME, PLAYER, SECRET, call, understanding, usual

from flows.attribution.frequency import REMEMBERED_DAYS
from flows.collector.dialects import WORDS
from flows.collector.pseudonyms import Pseudonyms
from flows.collector.tables import BY_URL, FATES, IN_TOPIC, KEPT, places
from flows.settings.fields import Settings

DOCS = Path(__file__).parents[3] / "docs"
CANARY = "canary-5150"
TYPED = {
    *("event", "ts", "playhead", "playhead_ms", "duration", "duration_ms", "basis", "type", "currency"),
    "value",
    *("gdpr", "lmt", "coppa", "consent", "regulations"),
}
"""Words that have values of a type, so that no canary can be in them."""


def test_every_parameter_has_a_documented_outcome() -> None:
    assert set(FATES) == WORDS


@pytest.mark.parametrize("word", sorted(set(FATES) - TYPED))
def test_the_documented_outcome_of_a_parameter_is_its_real_one(word: str) -> None:
    kept = {KEPT: {True}, BY_URL: {False}, IN_TOPIC: {True}}.get(FATES[word], {False})
    value = f"https://shop.example/?x={CANARY}" if word == "landing_url" else CANARY
    for consent in (CONSENT, ""):
        parameters = {name: value_ for name, value_ in usual(gdpr_consent=consent).items() if name != "gdpr"}
        asked = parameters | {"e": "conversion", "ct": "purchase", word: value}
        if word in ("listener_id", "placement_id", "campaign_id", "play_id", "event_id", "gdpr_consent"):
            short = {"listener_id": "l", "placement_id": "pl", "campaign_id": "cm", "play_id": "p"}
            asked = {name: one for name, one in asked.items() if name != short.get(word)}
        event = json.dumps(understanding().pixel(call(asked)).event)
        wanted = kept if FATES[word] != IN_TOPIC or consent else {False}
        assert (CANARY in event) in wanted, word


def test_the_time_of_the_counters_of_frequency_is_theirs() -> None:
    assert f"| {REMEMBERED_DAYS} days after the last impression of that campaign |" in places()


def test_settings_and_metrics_that_the_documents_name_exist() -> None:
    from flows import process_metrics

    text = "".join((DOCS / name).read_text() for name in ("collector.md", "privacy.md"))
    fields = {f"AUDIOPIXEL_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"AUDIOPIXEL_[A-Z_]+[A-Z]", text))
    named |= {f"AUDIOPIXEL_{name}" for name in re.findall(r"`(COLLECT_[A-Z_]+)`", text)}
    assert named - fields == set()
    known = {one.name.removeprefix("audiopixel_") for one in process_metrics.COLLECT}
    assert set(re.findall(r"`(collect_\w+)[{`]", text)) - known == set()


def test_an_erasure_covers_every_key_of_the_edge() -> None:
    old = Pseudonyms(b"the key of before, 16 bytes")
    new = Pseudonyms(b"the key of today, 16 bytes", [b"the key of before, 16 bytes"])
    asked = call(usual(), headers={"authorization": f"Bearer host.{SECRET}"})
    found = {understanding(pseudonyms=one).pixel(asked).event["listener_id"] for one in (old, new)}
    assert {made for _, made in new.of_person("listener-1")} == found
    assert len(found) == 2
    asked = call(usual(), headers={"x-forwarded-for": HOME})
    events = [understanding(pseudonyms=one).pixel(asked).event for one in (old, new)]
    for field in ("household_id", "client_id"):
        made = {name for of, name in new.of_person(HOME, PLAYER) if of == field}
        assert made == {event[field] for event in events}
    assert {of for of, _ in new.of_person(HOME)} == {"household_id", "listener_id"}
    assert new.of_person("00000000-0000-0000-0000-000000000000") == []
