"""Understanding: a call becomes a canonical event, or the reason why it is none.

The stages, in order: parse and clean (`reading`), the caller and the device (`callers`), consent, invalid
traffic, pseudonyms, the tag's signature, the event's id and Kafka key. The checker of tags runs the same code
with `trace`, so that its verdict is always the door's.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final, Literal

import msgspec

from flows.collector import pseudonyms as names
from flows.collector import tracing
from flows.collector.body import NO_PARAMETERS, BodyParameters, body_parameters
from flows.collector.call import Call, Outcome, Understood
from flows.collector.callers import Caller, Callers, Device, Reached, device
from flows.collector.consent import Consent, Policy
from flows.collector.dialects import CLAIMS, Dialect
from flows.collector.invalid_traffic import Judge, Verdict, is_double, not_counted
from flows.collector.laps import UNTIMED
from flows.collector.pseudonyms import Pseudonyms
from flows.collector.query import decoded, parameters, readable, root_of, without_query
from flows.collector.reading import PER_FIRE, Reading, canonical, is_cut, read
from flows.collector.signals import signals_of
from flows.collector.signatures import Signatures
from flows.collector.unverified import claimant_of
from flows.model.basis import BASES
from flows.model.catalogue.fields import SIGNED, UNSIGNED_FIELDS
from flows.model.catalogue.limits import LONGEST_ID
from flows.model.events import CODES, CONVERSION_TYPES, INVALID, UNKNOWN_EVENT

UNSIGNED: Final = "unsigned"
TRACKED: Final = "tracked"
"""The reason not to count a click that redirects: the pixel sent with it counts."""
IsPlanned = Callable[[str | None, str | None], bool]
"""A test of (placement, campaign): True if the plans have them."""
Placements = Literal["signed", "planned", "any"]
_IDS: Final = (*UNSIGNED_FIELDS, "play_id", *SIGNED, "episode")
"""Texts of a call. The app is not among them, since it is recognised and never sent."""

_NOWHERE: Final = Reached(None, "", False)
_encode: Final = msgspec.json.Encoder().encode
"""Encodes in half the time of `msgspec.json.encode`, which makes an encoder for each value."""


def nothing_planned(placement: str | None, campaign: str | None) -> bool:
    """False: no placement and no campaign is planned."""
    return False


def _ignore(dialect: str, word: str, how: str) -> None:
    pass


@dataclass
class Understanding:
    """Understands calls.

    Args:
        key: the key that makes ids of events; derived from the collector's.
        placements: the rule by which a placement may make a row.
        planned: whether a placement, or a campaign, is in the plans.
        on_cleaning: receives each cleaning: dialect, word, action.
    """

    dialects: Mapping[str, Dialect]
    callers: Callers
    policy: Policy
    pseudonyms: Pseudonyms
    judge: Judge
    signatures: Signatures
    key: bytes
    placements: Placements = "signed"
    planned: IsPlanned = nothing_planned
    on_cleaning: Callable[[str, str, str], None] = field(default=_ignore)

    def __post_init__(self) -> None:
        self._hasher = blake2b(digest_size=16, key=self.key, person=b"event")
        self._plays = blake2b(digest_size=16, key=self.key, person=b"play")

    def pixel(self, call: Call, trace: bool = False) -> Understood:
        """The event of a URL, or of a small POST of one event; raises for no input."""
        if reason := not_counted(call.method, call.headers):
            return _not_counted(reason, trace)
        reached = self.callers.reached(call.headers, call.peer)
        caller = self.callers.caller_of(call.headers, reached.address)
        extra = body_parameters(call) if call.method == "POST" else NO_PARAMETERS
        if extra is None:
            return Understood(Outcome.REJECTED, "malformed")
        name, dialect = self.dialect_of(call, extra)
        if is_cut(call, dialect):
            return Understood(Outcome.REJECTED, "malformed")
        reading = read(call, dialect, extra)
        if root_of(call.path) == "c":
            if reading.words.get("tracked") or reading.unreadable("tracked"):
                return _not_counted(TRACKED, trace)
            if not reading.unreadable("event"):
                reading.words.setdefault("event", "click")
        return self._understood(call, caller, reached, name, dialect, reading, trace)

    def events(self, call: Call, raws: Sequence[Mapping[str, Any]]) -> list[Understood]:
        """Canonical events of a caller with a token, each by itself; raises for no input.

        An event among many names its device itself, since the headers are those of the server that sends it.
        """
        reached = self.callers.reached(call.headers, call.peer)
        caller = self.callers.caller_of(call.headers, reached.address)
        call = replace(call, laps=UNTIMED)  # a call of many events has no stages of its own
        dialect = self.dialects["native"]
        if caller.trusted:
            caller = replace(caller, device_from="query")
        return [
            self._understood(call, caller, reached, "native", dialect, canonical(raw, dialect), False)
            for raw in raws
        ]

    def sourced(
        self, source: str, caller: Caller, dialect: Dialect, reading: Reading, received_ms: int
    ) -> Understood:
        """An event of a source, whose fields are read; raises for no input.

        Args:
            source: the name of the source.
            caller: the caller whose rights the source has.
            reading: the event's fields; without an id, the event gets one as a tag's call does.
        """
        call = Call("POST", "", "", {}, b"", "", received_ms)
        understood = self._understood(call, caller, _NOWHERE, f"source/{source}", dialect, reading, False)
        understood.sender = f"source/{source}"
        return understood

    def dialect_of(self, call: Call, extra: BodyParameters = NO_PARAMETERS) -> tuple[str, Dialect]:
        """The name and dialect that the path names, else the parameter `d`, else our own."""
        if call.path == "/p" and extra is NO_PARAMETERS and "d=" not in call.query:
            return "native", self.dialects["native"]
        parts = call.path.split(";", 1)[0].strip("/").split("/")
        named = parts[1] if len(parts) > 1 and parts[0] in ("p", "b", "c") else extra.get("d")
        if not named and "d=" in call.query and "&d=" in f"&{call.query}":
            named = decoded(parameters(call.query).get("d", ""))
        for spelling in (named, named.lower()):
            if spelling in self.dialects:
                return spelling, self.dialects[spelling]
        return "native", self.dialects["native"]

    def _understood(
        self,
        call: Call,
        caller: Caller,
        reached: Reached,
        name: str,
        dialect: Dialect,
        reading: Reading,
        trace: bool,
    ) -> Understood:
        words = reading.words
        for word, actions in reading.cleaned.items():
            for how in actions:
                self.on_cleaning(name, word, how)
        call.laps.end("clean")
        unread = not reading.readable and reading.unreadable(*CLAIMS)
        listener_device = device(
            caller, reached, call.headers, words, dialect.device_from, dialect.masked, unread
        )
        if listener_device.ignored:
            self.on_cleaning(name, "ip", "claim_ignored")
        if "country" in words and not caller.trusted:
            self.on_cleaning(name, "country", "claim_ignored")
        if caller.refused:
            self.on_cleaning(name, "token", "refused")
        if not call.headers.get("user-agent", "").isascii():
            self.on_cleaning(name, "user_agent", "unreadable")
        call.laps.end("device")
        if is_double(listener_device.user_agent):
            return _not_counted("watch", trace)
        consent = self.policy.decide(signals_of(call, reading, caller))
        if consent.unknown_sections:
            self.on_cleaning(name, "gpp_sid", "unknown_section")
        call.laps.end("consent")
        verdict = self.judge.verdict_on(listener_device)
        call.laps.end("invalid_traffic")
        event: dict[str, Any] = {
            "received_at": call.received_ms,
            "event_id": "",
            "event": words.get("event", ""),
        }
        rule = self._identify(event, call, name, reading)
        outcome, reason, wrong = Outcome.STORED, "", ""
        ids = {word: words[word] for word in _IDS if word in words}
        if refusal := self._refusal(reading, caller, ids):
            outcome, (reason, wrong) = Outcome.REJECTED, refusal
        if "play_id" in words and dialect.play_names_listener:
            self._hide_listener(words, consent)
            ids = {word: words[word] for word in _IDS if word in words}
        self._fill(event, call, words, caller, ids)
        event |= _judged(consent, verdict, listener_device)
        if consent.is_given:
            self._add_pseudonyms(event, words, listener_device)
        understood = Understood(outcome, reason, wrong, event, _kafka_key(event), consent.reason)
        understood.sender, understood.keeps_play = _sender(caller, name), not dialect.play_names_listener
        understood.laps = call.laps
        understood.claimant = claimant_of(listener_device, call, dialect.device_from)
        call.laps.end("hash")
        if reading.cleaned:
            understood.unreplaced = any("unreplaced" in actions for actions in reading.cleaned.values())
        if trace:
            understood.trace = tracing.trace_of(understood, reading, listener_device, consent, verdict, rule)
        return understood

    def _identify(self, event: dict[str, Any], call: Call, dialect: str, reading: Reading) -> str:
        """Set the event's id, and return the rule that made it. A call's own id comes first, then a hash of
        its query if the query differs from call to call, then a new id.
        """
        call_id = reading.words.get("event_id")
        if isinstance(call_id, str):
            event["event_id"] = call_id
            return "call"
        if not reading.words.keys().isdisjoint(PER_FIRE):
            hasher = self._hasher.copy()
            kind = (reading.words.get("event"), reading.words.get("type"))  # a dialect's case determines them
            hasher.update(_encode((readable(call.path), dialect, kind, sorted(reading.word_texts))))
            event["event_id"] = hasher.hexdigest()
            return "query"
        event["event_id"] = uuid.uuid4().hex
        self.on_cleaning(dialect, "event_id", "unidentified")
        return "new"

    def _hide_listener(self, words: dict[str, Any], consent: Consent) -> None:
        """Hash an id of a play that contains its listener's id. Without consent the event has no such id."""
        play = words.pop("play_id")
        if consent.is_given:
            hasher = self._plays.copy()
            hasher.update(play.encode())
            words["play_id"] = hasher.hexdigest()

    def _refusal(self, reading: Reading, caller: Caller, ids: Mapping[str, str]) -> tuple[str, str] | None:
        """The refusal of an event as (reason, field), in the order of the flow's own reasons; None if it is
        accepted.
        """
        words = reading.words
        placement, campaign = words.get("placement_id"), words.get("campaign_id")
        signed = self._signed(words, placement, campaign)
        changed = not signed and "signature" in words and self.signatures.has_key_of(words["signature"])
        if changed and max(len(placement or ""), len(campaign or "")) <= LONGEST_ID:
            return self._unsigned(placement)  # for any caller
        if len(words.get("event_id", "")) > LONGEST_ID:
            return INVALID, "event_id"
        event = words.get("event", "")
        if not event:
            return INVALID, "event"
        if event not in CODES:
            return UNKNOWN_EVENT, "event"
        for word, value in ids.items():
            if len(value) > LONGEST_ID:
                return INVALID, word
        if reading.wrong:
            return INVALID, reading.wrong
        for word in () if reading.readable else ("placement_id", "campaign_id"):
            if reading.unreadable(word):
                return INVALID, word
        if event == "conversion":
            if words.get("type") not in CONVERSION_TYPES:
                return INVALID, "conversion.type"
            if len(words.get("order_id", "")) > LONGEST_ID:
                return INVALID, "conversion.order_id"
        elif placement is None:
            return INVALID, "placement_id"
        if caller.campaigns and campaign not in caller.campaigns:
            return UNSIGNED, "campaign_id"
        if self._may_make_a_row(caller, placement, campaign, signed):
            return None
        return self._unsigned(placement)

    def _unsigned(self, placement: str | None) -> tuple[str, str]:
        is_planned = self.placements == "planned" and placement is not None and self.planned(placement, None)
        return UNSIGNED, "campaign_id" if is_planned else "placement_id"

    def _may_make_a_row(
        self, caller: Caller, placement: str | None, campaign: str | None, signed: bool
    ) -> bool:
        if self.placements == "any":
            return True
        writes, by_plan = "write" in caller.rights, self.placements == "planned"
        if writes and not (by_plan and caller.campaigns and placement):
            return True
        if by_plan and self.planned(placement, campaign):
            return True
        # With plans a signature helps only a token of some campaigns, whose placement may be another's.
        return signed and (writes or not by_plan)

    def _signed(self, words: Mapping[str, Any], placement: str | None, campaign: str | None) -> bool:
        signature = words.get("signature")
        return signature is not None and self.signatures.passes(signature, placement, campaign, words)

    def _fill(
        self,
        event: dict[str, Any],
        call: Call,
        words: Mapping[str, Any],
        caller: Caller,
        ids: Mapping[str, str],
    ) -> None:
        """Fill in the fields that stand in the call itself, with its `ids`."""
        event["ts"] = words.get("ts") or call.received_ms
        event |= ids
        for word in ("playhead_ms", "duration_ms", "content_category"):
            if word in words:
                event[word] = words[word]
        if words.get("basis") in BASES:
            event["basis"] = words["basis"]
        if "landing_url" in words and event["event"] in ("click", "conversion"):
            event["landing_url"] = without_query(words["landing_url"])
        if event["event"] == "conversion":
            conversion = {"type": words.get("type")}
            for word in ("order_id", "value", "currency"):
                if word in words:
                    conversion[word] = words[word]
            if "write" not in caller.rights or words.get("claimed") is True:
                # Anybody who reads the page can send another order and value.
                conversion["claimed"] = True
            event["conversion"] = conversion

    def _add_pseudonyms(
        self, event: dict[str, Any], words: Mapping[str, Any], listener_device: Device
    ) -> None:
        listener = words.get("listener_id") or words.get("ifa")
        event |= self.pseudonyms.of_listener(listener, listener_device)
        if event["event"] == "conversion" and (before := self.pseudonyms.previous(listener, listener_device)):
            event["previous"] = before
        client = words.get("ga_client_id")
        if isinstance(client, str) and len(client) <= 64:
            event["ga_client_id"] = client


def _not_counted(reason: str, trace: bool) -> Understood:
    steps = tracing.not_counted_trace(reason) if trace else None
    return Understood(Outcome.NOT_COUNTED, reason, trace=steps)


def _sender(caller: Caller, dialect: str) -> str:
    """The sender of a call, by names of the operator's or ours."""
    if caller.network:
        return f"network/{caller.name}"
    return f"token/{caller.name}" if caller.name else f"dialect/{dialect}"


def _judged(consent: Consent, verdict: Verdict, listener_device: Device) -> dict[str, Any]:
    fields: dict[str, Any] = {"consent": consent.is_given, "device_basis": listener_device.basis}
    if listener_device.basis == "transport":
        fields["device_confirmed"] = True
    if verdict.reason:
        fields["invalid_traffic"] = verdict.reason
    if verdict.app:
        fields["app"] = verdict.app[:LONGEST_ID]
    return fields


def _kafka_key(event: Mapping[str, Any]) -> bytes:
    """The Kafka key of an event: the same for all pixels of a play, and for a conversion and its retries,
    whatever the consent of each.
    """
    if event["event"] == "conversion":
        order = event["conversion"].get("order_id")
        return str(order or event["event_id"]).encode()
    return str(event.get("play_id") or event.get(names.LISTENER) or event["event_id"]).encode()
