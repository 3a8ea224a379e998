"""The trace of a call, as the checker of tags shows it. A trace holds no raw id, address or user agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flows.collector import pseudonyms as names
from flows.collector.call import Outcome, Understood
from flows.collector.callers import Device
from flows.collector.consent import WORDS as CONSENT_WORDS
from flows.collector.consent import Consent
from flows.collector.invalid_traffic import Verdict
from flows.collector.reading import Reading

LOOKED_FOR: Final = (
    *("event", "placement_id", "campaign_id", "creative_id", "play_id", "listener_id", "ifa"),
    *("gdpr", "gdpr_consent", "ts", "cachebuster", "signature"),
)
"""Words that a good tag has; the checker warns of each that is missing."""


def trace_of(
    understood: Understood, reading: Reading, device: Device, consent: Consent, verdict: Verdict, rule: str
) -> dict[str, Any]:
    """The trace of one event, as values of JSON.

    Args:
        rule: the rule that made the event's id: `call`, `query` or `new`.
    """
    stored = understood.outcome is Outcome.STORED
    return {
        "outcome": understood.outcome.value,
        "reason": understood.reason or None,
        "wrong": understood.wrong or None,
        "event": _shown(understood.event) if stored else None,
        "fields": _fields(reading),
        "consent": {
            "result": consent.is_given,
            "reason": consent.reason,
            "words": CONSENT_WORDS[consent.reason],
        },
        "invalid_traffic": {"rule": verdict.reason or None, "list": verdict.list or None},
        "address": {"from": device.source, "grade": device.grade, "basis": device.basis},
        "event_id": {"rule": rule},
        "identity": {"once_by": _once_by(understood.event)},
        "kafka_key_from": _key_from(understood.event),
        "missing": _missing(understood.event, consent),
    }


def not_counted_trace(reason: str) -> dict[str, Any]:
    """The trace of a call that is not counted, with its reason."""
    return {
        "outcome": Outcome.NOT_COUNTED.value,
        "reason": reason,
        "wrong": None,
        "event": None,
        "fields": {},
        "consent": None,
        "invalid_traffic": {"rule": None, "list": None},
        "address": None,
        "event_id": None,
        "identity": {"once_by": []},
        "kafka_key_from": None,
        "missing": {"reach": [], "completion": [], "attribution": []},
    }


def _shown(event: Mapping[str, Any]) -> dict[str, Any]:
    """A canonical event with its pseudonyms shortened."""
    shown = {name: value for name, value in event.items() if name not in ("previous", "ga_client_id")}
    return shown | {name: names.shortened(event[name]) for name in names.FIELDS if name in event}


def _fields(reading: Reading) -> dict[str, Any]:
    shown_fields: dict[str, dict[str, Any]] = {
        word: {"from": parameter, "state": state, "cleaned": list(reading.cleaned.get(word, ()))}
        for word, (parameter, state) in sorted(reading.states.items())
    }
    for word in LOOKED_FOR:
        if word not in shown_fields and word not in reading.words:
            shown_fields[word] = {"from": None, "state": "absent", "cleaned": []}
    return shown_fields


def _once_by(event: Mapping[str, Any]) -> list[str]:
    """The fields by which an event counts once."""
    if event["event"] == "conversion":
        last = "conversion.order_id" if "order_id" in event["conversion"] else "event_id"
        return ["campaign_id", *(["conversion.type"] if last != "event_id" else []), last]
    if "play_id" not in event:
        return ["placement_id", "event_id"]
    return ["placement_id", "play_id", "event", *(["playhead_ms"] if event["event"] == "progress" else [])]


def _key_from(event: Mapping[str, Any]) -> str:
    if event["event"] == "conversion":
        return "conversion.order_id" if "order_id" in event["conversion"] else "event_id"
    return next((name for name in ("play_id", names.LISTENER) if name in event), "event_id")


def _missing(event: Mapping[str, Any], consent: Consent) -> dict[str, list[str]]:
    """By number, the fields that it lacks in this event."""
    joined = any(name in event for name in names.FIELDS)
    return {
        "reach": _lacking(names.LISTENER in event, consent, "listener_id"),
        "completion": [] if "play_id" in event else ["play_id"],
        "attribution": _lacking(joined, consent, "listener_id, client_id or household_id"),
    }


def _lacking(is_present: bool, consent: Consent, missing_fields: str) -> list[str]:
    return [] if is_present else [missing_fields if consent.is_given else "consent"]
