"""Messages that the exports read: pixels, decisions, alerts. Each becomes a valid call, a dead letter, or
nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, cast
from xml.etree import ElementTree

from connectors.kafka import Record
from flows.exports.adobe import xml_of
from flows.exports.analytics import DecisionsTarget, PixelsTarget
from flows.exports.denied import ExportDenyList
from flows.exports.facts import Fact
from flows.exports.ga4 import body_of, client_of
from flows.exports.handover import Handover, Parcel, Target
from flows.exports.known_conversions import KnownConversions
from flows.exports.notices import NoticeTarget, SignedWebhook, SlackMessage
from fuzz.corpus import NAMES, T0_MS, conversions, pixels
from fuzz.mutate import document
from fuzz.run import Input


class _Nobody:
    """A deny-list that is empty, and a loop over pixels that has read them all."""

    def __init__(self) -> None:
        self.reader = self

    def ends(self) -> dict[str, int]:
        return {}

    def passed(self, _: object) -> bool:
        return True


class ExportsDoor:
    """Messages that the exports read: pixels, decisions, alerts."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        denied = ExportDenyList(cast(Any, None), "x", b"a key of sixteen bytes", lambda: 0.0)
        denied._looked_s = 0.0
        self._known = KnownConversions(directory, "fuzz")
        self._made: list[Fact] = []
        decisions = DecisionsTarget(self._make, self._known, denied, cast(Handover, _Nobody()), 1)
        pixels = PixelsTarget(client_of, self._make, self._known, denied, 1)
        self._targets: dict[str, Target] = {"pixels": pixels, "credits": decisions}
        form = SignedWebhook([b"k" * 24])
        self._alerts: Target = NoticeTarget(cast(Any, None), form, "alerts")

    def _make(self, facts: Sequence[Fact]) -> list[Parcel]:
        self._made += facts
        return []

    def make(self, rng: Random) -> Input:
        dice = rng.random()
        if dice < 0.4:
            event = rng.choice((*pixels(), *conversions())) | {"consent": True, "ga_client_id": "1.2"}
            return b"pixels", document(event, NAMES, rng)
        if dice < 0.7:
            credit = {
                "placement_id": "p",
                "campaign_id": "c",
                "way": "listen",
                "millionths": 10**6,
                "touched_at": None,
            }
            body = {
                "conversion": "o",
                "order_id": "o",
                "event_id": f"e-{rng.randrange(18)}",
                "type": "purchase",
                "ts": T0_MS,
            }
            body |= {
                "campaign_id": "c",
                "value_micros": 20,
                "currency": "GBP",
                "rule": "linear",
                "eligible": 1,
            }
            return b"credits", document(body | {"capped": False, "credits": [credit]}, tuple(body), rng)
        alert = {"id": "p|under|1", "placement": "p", "from": "on_track", "to": "under", "booked": "1000"}
        alert |= {"as_of_ms": str(T0_MS), "delivered": "400", "indicator": "0.512000", "campaign": "c"}
        return b"alerts", document(alert, (*alert, "short_by", "projected"), rng)

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        outcomes = Counter[str]()
        for offset, one in enumerate(inputs):
            topic, value = (*one, b"", b"")[:2]
            record = Record(topic.decode(errors="replace"), 0, offset, T0_MS, value, value)
            target = self._targets.get(record.topic, self._alerts)
            found = target.sort([record])
            for parcel in found.parcels:
                if target is not self._alerts:
                    parcel.hand_over()
                    continue
                for form in (SignedWebhook([b"k" * 24]), SlackMessage()):
                    body, headers = form.call(cast(Any, parcel).event)
                    json.loads(body)
                    assert all(said.isascii() and said.isprintable() for said in headers.values())
            for fact in self._made:
                json.loads(body_of(fact.client_id, [fact]))
                ElementTree.fromstring(xml_of("suite", fact))
            what = "told" if found.parcels or self._made else "letter" if found.letters else "left out"
            outcomes[what] += 1
            self._made.clear()
        return outcomes

    def close(self) -> None:
        self._known.close()
