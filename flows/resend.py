"""Dead letters back to a door: the event of a letter is sent again, under the same event id.

The door checks it as any call, so a mistake that is still there makes another letter. A letter holds no
listener and no app, so neither does the event that is sent. Otherwise an event never counts twice, under
another id or label, or with less than it had: an event that the letter holds only in part is not sent.
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
"""The limits of one call: its events, and their bytes. A door takes 1 MiB."""
TRIES: Final = 5
LONGEST_PAUSE_S: Final = 10.0
ANSWER: Final = timedelta(seconds=10)
_HEADER: Final = re.compile("[ -~]+")
MALFORMED_WORDS: Final = "malformed: its letter holds nothing of it"
UNSIGNED: Final = "unsigned"
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
_IDS: Final = ("event_id", "play_id", "episode", *WITHOUT_APPS)
_HELD: Final = frozenset(_IDS) | {
    "event", "received_at", "playhead_ms", "duration_ms", "basis", "content_category", "landing_url",
    "conversion",
}  # fmt: skip
"""Fields that letters hold. Other fields that may be wrong identify the listener, and are never in a
letter.
"""
_OF_NO_USE: Final = frozenset({"consent", "app"})
"""Fields that change nothing without a listener, and an app that a door takes from no caller."""
_MARGIN_MS: Final = 10 * MINUTE_MS
"""The time that a letter has to reach a door before it is a day old."""
SETTABLE: Final = ("event", *UNSIGNED_FIELDS, *SIGNED)
"""Fields that may be corrected while letters are sent again."""


class Allowed(NamedTuple):
    """Letters that are sent only on demand.

    Attributes:
        conversions: those of conversions, though they can be credited to no listener.
        unsigned: those of calls without a signature, though they may be forged.
    """

    conversions: bool = False
    unsigned: bool = False


NOTHING_MORE: Final = Allowed()


@dataclass
class Resent:
    """The outcome of sending letters again.

    Attributes:
        accepted: by the door.
        refused: rejected by it once more, by reason and field.
        not_sent: by the reason why they cannot be.
        expired: letters of sources whose message is in its topic no more, by topic.
    """

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    not_sent: Counter[str] = field(default_factory=Counter)
    expired: Counter[str] = field(default_factory=Counter)

    def account(self) -> str:
        """The sum that must hold."""
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
    """A collector's door for events. The door is called without a proxy, and no redirect is followed: either
    would get the token.

    Args:
        url: of the doors, without a path.
        token: `NAME.SECRET` of a caller that may `write`.

    Raises:
        UsageError: the address or the token is none.
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
            AudiopixelError: the door does not answer, or does not take the token.
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
    resent: Resent | None = None,
    allowed: Allowed = NOTHING_MORE,
    now_ms: int = 0,
) -> Resent:
    """Send again the letters that can be sent.

    Args:
        door: None without a door, so that no letter may need one.
        watermark_ms: the flow's: events of minutes that are final by it would be too late. 0 without
            a flow's watermark.
        changes: values that fields get before.
        resent: is counted in, also where this ends early.
        allowed: letters that are sent, too.
        now_ms: the time by the clock; with 0 nothing is a day old.

    Raises:
        AudiopixelError: by the door; what it had taken by then stays taken, and may be sent again.
        UsageError: a letter needs a door.
    """
    resent = Resent() if resent is None else resent
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
        more = len(_encoded(event)) + 2
        if call_events and (len(call_events) == MAX_EVENTS or size + more > MAX_BYTES):
            yield call_events
            call_events, size = [], 0
        call_events.append(event)
        size += more
    if call_events:
        yield call_events


def _events(
    letters: Iterable[Letter],
    watermark_ms: int,
    lateness_ms: int,
    changes: Mapping[str, str],
    resent: Resent,
    allowed: Allowed = NOTHING_MORE,
    now_ms: int = 0,
) -> Iterator[dict[str, Any]]:
    for letter in letters:
        event = event_of(letter, changes)
        why = _unsendable(letter, event, changes) or _forbidden(letter, event, allowed)
        if not why and (event["ts"] // MINUTE_MS + 1) * MINUTE_MS + lateness_ms <= watermark_ms:
            why = FINAL
        if not why and not letter.taken_ms and event["ts"] > (watermark_ms or now_ms) + MINUTE_MS:
            why = AHEAD
        if not why and event["ts"] < now_ms - DAY_MS + _MARGIN_MS:
            why = OLD
        if why:
            resent.not_sent[why] += 1
        else:
            yield event


def event_of(letter: Letter, changes: Mapping[str, str]) -> dict[str, Any]:
    """The canonical event of a letter, with its time in epoch ms, or 0 if it has no readable one."""
    event = {name: value for name, value in letter.event.items() if not name.startswith("utm_")}
    utm_parameters = {name: value for name, value in letter.event.items() if name.startswith("utm_")}
    if utm_parameters and isinstance(event.get("landing_url"), str):
        event["landing_url"] += f"?{urlencode(utm_parameters)}"
    at_ms, received_ms = _epoch_ms(event.get("ts")), _epoch_ms(event.pop("received_at", None))
    if letter.taken_ms and (at_ms or received_ms):  # a letter's time is the latest possible receipt
        received_ms = min(received_ms or letter.taken_ms, letter.taken_ms)
    if received_ms:  # clamped as the flow does; a later receipt would change its minute
        at_ms = max(received_ms - DAY_MS, min(at_ms or received_ms, received_ms + MINUTE_MS))
    event["ts"] = at_ms
    return event | dict(changes)


def _forbidden(letter: Letter, event: Mapping[str, Any], allowed: Allowed) -> str:
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
    # A text of this length may have been cut by its letter, and the rest may be another's id.
    if any(isinstance(one, str) and len(one) >= MAX_ID for one in (*texts, *landing)):
        return CUT
    if not all(map(_stays, texts)) or absent(letter.event_id):
        return CHANGED
    if not event["ts"]:
        return NO_TIME
    return TOO_LARGE if len(_encoded(event)) > MAX_MESSAGE_BYTES else ""


def _is_lost(letter: Letter, event: Mapping[str, Any]) -> bool:
    """True if the wrong field is one that letters hold, and its event has none."""
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
    """True if a door takes a text as the flow does: unchanged, or both as absent."""
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
