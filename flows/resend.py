"""Dead letters back to a door: the event of a letter is sent again, under the same event id.

The door checks the event as any call, so an event that is still wrong makes another letter. A letter has no
listener and no app, so the event is sent without them. An event must not count twice, under another id or
label, or without other fields that it had. An event of which the letter has only a part is therefore not
sent.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from connectors.http_client import CallFailed, HttpClient, retry_after
from flows.collector.cleaner import event_name, present
from flows.errors import UNREADABLE, AudiopixelError, UsageError
from flows.model.catalogue.fields import SIGNED, UNSIGNED_FIELDS
from flows.model.dimensions import WITHOUT_APPS
from flows.model.events import INVALID, MALFORMED, MAX_ID, MAX_MESSAGE_BYTES, TOO_LATE, absent
from flows.model.ticks import DAY_MS, MINUTE_MS
from flows.model.times import rfc3339_ms
from flows.rejected import Letter

MAX_EVENTS: Final = 500
MAX_BYTES: Final = 900_000
"""The greatest number of events in one call, and of their bytes. A door takes 1 MiB."""
TRIES: Final = 5
LONGEST_PAUSE_S: Final = 10.0
ANSWER: Final = timedelta(seconds=10)
_HEADER: Final = re.compile("[ -~]+")
# Reasons for which a letter is not sent.
MALFORMED_WORDS: Final = "malformed: its letter holds nothing of it"
FORGED: Final = "unsigned: it may be forged, --sender NAME sends those of a sender that you know"
CONVERSION: Final = "a conversion: its letter holds no listener to credit, --conversions sends it"
NO_ID: Final = "no event id: it could count twice"
NO_TIME: Final = "no time that can be read"
JUDGED: Final = "invalid traffic: its letter no longer holds why"
FINAL: Final = "too late: its minute is final"
CUT: Final = "an id or a landing URL that was too long: its letter holds its begin alone"
LOST: Final = "a field that its letter does not hold"
CHANGED: Final = "an id or a label that a door would read as another"
AHEAD: Final = "dated ahead of the flow's watermark: it could count at each sending"
OLD: Final = "over a day old: the door's time of receipt would change its date"
TOO_LARGE: Final = "too large for a pixel"
NO_DOOR: Final = (
    "letters of doors take the doors' address (--to or AUDIOPIXEL_COLLECT_URL) and AUDIOPIXEL_COLLECT_TOKEN; "
    "--sender source/NAME sends those of a source alone"
)
UNSIGNED: Final = "unsigned"
"""The reason of a letter whose call had no signature."""
_IDS: Final = ("event_id", "play_id", "episode", *WITHOUT_APPS)
_HELD: Final = frozenset(_IDS) | {
    "event", "received_at", "playhead_ms", "duration_ms", "basis", "content_category", "landing_url",
    "conversion",
}  # fmt: skip
"""Fields that letters have. Other fields identify the listener, and are never in a letter."""
_OF_NO_USE: Final = frozenset({"consent", "app"})
"""`consent`, which has no effect without a listener, and `app`, which a door accepts from no caller."""
_MARGIN_MS: Final = 10 * MINUTE_MS
"""A letter that would be a day old within this time is not sent, since the way to a door takes time."""
SETTABLE: Final = ("event", *UNSIGNED_FIELDS, *SIGNED)
"""The fields that `--set` may correct when letters are sent again."""


class ExtraLetters(NamedTuple):
    """The letters that are sent only on request.

    Attributes:
        conversions: whether to send conversions, which can be credited to no listener.
        unsigned: whether to send letters of calls without a signature, which may be forged.
    """

    conversions: bool = False
    unsigned: bool = False


NO_EXTRA_LETTERS: Final = ExtraLetters()


@dataclass
class ResendResult:
    """The outcome of sending letters again.

    Attributes:
        accepted: the number of events that the door accepted.
        refused: the number of events that the door rejected again, by reason and field.
        not_sent: the number of letters that cannot be sent, by reason.
        expired: the number of sources' letters whose message is no longer in its topic, by topic.
    """

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    not_sent: Counter[str] = field(default_factory=Counter)
    expired: Counter[str] = field(default_factory=Counter)

    def account(self) -> str:
        """The account in words: every letter was taken, rejected again, or not sent."""
        refused, not_sent = self.refused.total(), self.not_sent.total() + self.expired.total()
        letters = self.accepted + refused + not_sent
        parts = f"taken {self.accepted:,} + rejected again {refused:,} + not sent {not_sent:,}"
        return f"letters {letters:,} = {parts}"


class _Result(msgspec.Struct):
    outcome: str
    reason: str | None = None
    field: str | None = None


class _Results(msgspec.Struct):
    results: list[_Result]


@dataclass
class Door:
    """A collector's door for events. No proxy is used and no redirect is followed, since either would get the
    token.

    Args:
        url: the address of the doors, without a path.
        token: `NAME.SECRET` of a caller that may `write`.

    Raises:
        UsageError: the address or the token has another form.
    """

    url: str
    token: str
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if _HEADER.fullmatch(self.token) is None:
            raise UsageError("AUDIOPIXEL_COLLECT_TOKEN takes NAME.SECRET, in ASCII and on one line")
        try:
            self._client = HttpClient(f"{self.url.rstrip('/')}/v1/events", ANSWER)
        except ValueError:
            raise UsageError(
                "the address of the doors takes http://HOST:PORT or https://HOST, without a user: --to URL"
            ) from None

    def send(self, events: Sequence[Mapping[str, Any]]) -> list[_Result]:
        """Send events; returns the result of each.

        Raises:
            AudiopixelError: the door does not answer, or refuses the token.
        """
        body, trouble = _encoded(events), ""
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
        for _ in range(TRIES):
            pause_s = 1.0
            try:
                answer = self._client.post(body, headers)
                if answer.status == 200:
                    results = msgspec.json.decode(answer.body, type=_Results).results
                    if len(results) == len(events):
                        return results
                    trouble = f"{len(results)} results of {len(events)} events"
                elif answer.status in (429, 503):
                    trouble = f"status {answer.status}"
                    if (after := retry_after(answer.headers.get("retry-after"), time.time())) is not None:
                        pause_s = min(after.total_seconds(), LONGEST_PAUSE_S)
                else:
                    raise AudiopixelError(_refusal(answer.status))
            except CallFailed as error:
                trouble = str(error)
            except UNREADABLE as error:
                trouble = f"an answer that is no collector's: {error}"
            self.sleep(pause_s)
        raise AudiopixelError(f"the doors at {self.url} take no events ({trouble}): is a collector running?")


def _refusal(status: int) -> str:
    if status == 401:
        return (
            "the door does not accept this token, or it may not write: AUDIOPIXEL_COLLECT_TOKEN takes "
            "NAME.SECRET of one of the collector's tokens"
        )
    return f"the door answered with status {status}: is this the address of a collector?"


def resend(
    letters: Iterable[Letter],
    door: Door | None,
    watermark_ms: int,
    lateness_ms: int,
    changes: Mapping[str, str] | None = None,
    resent: ResendResult | None = None,
    allowed: ExtraLetters = NO_EXTRA_LETTERS,
    now_ms: int = 0,
) -> ResendResult:
    """Send again the letters that can be sent.

    Args:
        door: the door; with None every letter must be one that is not sent.
        watermark_ms: the flow's watermark, epoch ms, by which events of final minutes would be too late; 0 if
            unknown.
        changes: corrected values by field.
        resent: the result to which letters are added, also if an error ends the call.
        allowed: the letters that are sent on request.
        now_ms: the time by the clock, epoch ms; with 0 no letter is too old.

    Raises:
        AudiopixelError: of the door. Events that it had accepted count; to send them again does no harm.
        UsageError: a letter can be sent, and there is no door.
    """
    resent = ResendResult() if resent is None else resent
    events = _events(letters, watermark_ms, lateness_ms, changes or {}, resent, allowed, now_ms)
    for call_events in _calls(events):
        if door is None:
            raise UsageError(NO_DOOR)
        for result in door.send(call_events):
            if result.outcome == "accepted":
                resent.accepted += 1
            else:
                resent.refused[": ".join(filter(None, (result.reason, result.field)))] += 1
    return resent


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def _calls(events: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Group events into calls that a door takes, in order."""
    call_events, size = list[dict[str, Any]](), 0
    for event in events:
        event_bytes = len(_encoded(event)) + 2
        if call_events and (len(call_events) == MAX_EVENTS or size + event_bytes > MAX_BYTES):
            yield call_events
            call_events, size = [], 0
        call_events.append(event)
        size += event_bytes
    if call_events:
        yield call_events


def _events(
    letters: Iterable[Letter],
    watermark_ms: int,
    lateness_ms: int,
    changes: Mapping[str, str],
    resent: ResendResult,
    allowed: ExtraLetters = NO_EXTRA_LETTERS,
    now_ms: int = 0,
) -> Iterator[dict[str, Any]]:
    for letter in letters:
        event = event_of(letter, changes)
        reason = _unsendable(letter, event, changes) or _forbidden(letter, event, allowed)
        if not reason and (event["ts"] // MINUTE_MS + 1) * MINUTE_MS + lateness_ms <= watermark_ms:
            reason = FINAL
        if not reason and not letter.taken_ms and event["ts"] > (watermark_ms or now_ms) + MINUTE_MS:
            reason = AHEAD
        if not reason and event["ts"] < now_ms - DAY_MS + _MARGIN_MS:
            reason = OLD
        if reason:
            resent.not_sent[reason] += 1
        else:
            yield event


def event_of(letter: Letter, changes: Mapping[str, str]) -> dict[str, Any]:
    """The canonical event of a letter, with its time in epoch ms, or 0 if its time cannot be read."""
    event = {name: value for name, value in letter.event.items() if not name.startswith("utm_")}
    utm_parameters = {name: value for name, value in letter.event.items() if name.startswith("utm_")}
    if utm_parameters and isinstance(event.get("landing_url"), str):
        event["landing_url"] += f"?{urlencode(utm_parameters)}"
    at_ms, received_ms = _epoch_ms(event.get("ts")), _epoch_ms(event.pop("received_at", None))
    if letter.taken_ms and (at_ms or received_ms):  # the event was received before its letter
        received_ms = min(received_ms or letter.taken_ms, letter.taken_ms)
    if received_ms:  # clamped as the flow does it; the later receipt at the door would change the minute
        at_ms = max(received_ms - DAY_MS, min(at_ms or received_ms, received_ms + MINUTE_MS))
    event["ts"] = at_ms
    return event | dict(changes)


def _forbidden(letter: Letter, event: Mapping[str, Any], allowed: ExtraLetters) -> str:
    if not allowed.conversions and event_name(str(event.get("event")).strip())[0] == "conversion":
        return CONVERSION
    return FORGED if letter.reason == UNSIGNED and not allowed.unsigned else ""


def _unsendable(letter: Letter, event: Mapping[str, Any], changes: Mapping[str, str]) -> str:
    if letter.reason == MALFORMED:
        return MALFORMED_WORDS
    if letter.reason == TOO_LATE:
        return FINAL
    if "invalid_traffic" in event:
        return JUDGED
    if not letter.event_id:
        return NO_ID
    if set(letter.withheld) - changes.keys() - _OF_NO_USE or _is_lost(letter, event):
        return LOST
    conversion = event.get("conversion")
    order = conversion.get("order_id") if isinstance(conversion, dict) else None
    texts = [event[name] for name in (*_IDS, "basis") if name in event] + [order or ""]
    landing = [letter.event[name] for name in letter.event if name.startswith(("landing_url", "utm_"))]
    # The letter may have cut a text of this length, and the cut text may be the id of another.
    if any(isinstance(text, str) and len(text) >= MAX_ID for text in (*texts, *landing)):
        return CUT
    if not all(map(_stays, texts)) or absent(letter.event_id):
        return CHANGED
    if not event["ts"]:
        return NO_TIME
    return TOO_LARGE if len(_encoded(event)) > MAX_MESSAGE_BYTES else ""


def _is_lost(letter: Letter, event: Mapping[str, Any]) -> bool:
    """True if the wrong field is one that letters have, and this letter's event does not have it."""
    if letter.reason != INVALID:
        return False
    name, _, inner = letter.field.partition(".")
    if name not in _HELD:
        return False
    value = event.get(name)
    if inner:
        value = value.get(inner) if isinstance(value, dict) else None
    return value is None


def _stays(text: object) -> bool:
    """True if a door leaves a text unchanged, or takes it as absent as the flow does."""
    if not isinstance(text, str):
        return False
    taken_text = present(text)[0]
    return taken_text == text or (taken_text is None and absent(text))


def _epoch_ms(value: object) -> int:
    if isinstance(value, bool):
        return 0
    if isinstance(value, int | float):
        return int(value) if 0 < value < 1 << 53 else 0
    return max(0, rfc3339_ms(str(value)) or 0)
