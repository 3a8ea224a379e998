"""Dead letters back to a door: what a letter holds is called once more, under the same event id.

The door checks it as any call, so that a mistake which is still there makes another letter. Nothing counts
twice, since ids are the same. A letter holds no listener, so that what it becomes has no reach.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from connectors.http_client import CallFailed, HttpClient, retry_after
from flows.errors import UNREADABLE, AudiopixelError, UsageError
from flows.model.dimensions import NAMES
from flows.model.events import MALFORMED, MAX_ID, TOO_LATE
from flows.model.ticks import DAY_MS, MINUTE_MS
from flows.rejected import Letter

MAX_EVENTS: Final = 500
MAX_BYTES: Final = 900_000
"""Events of one call, and bytes of them: a door takes 1 MiB."""
TRIES: Final = 5
LONGEST_PAUSE_S: Final = 10.0
ANSWER: Final = timedelta(seconds=10)
_HEADER: Final = re.compile("[ -~]+")
MALFORMED_WORDS: Final = "malformed: its letter holds nothing of it"
NO_ID: Final = "no event id: it could count twice"
NO_TIME: Final = "no time that can be read"
JUDGED: Final = "invalid traffic: its letter no longer holds why"
FINAL: Final = "too late: its minute is final"
CUT: Final = "an id or a landing URL that was too long: its letter holds its begin alone"
_IDS: Final = ("event_id", "play_id", "episode", *NAMES)
SETTABLE: Final = ("event", "placement_id", "campaign_id", "creative_id", "platform", "station", "podcast")
"""Fields that may be set right while letters are sent again."""


@dataclass
class Resent:
    """The outcome of sending letters again.

    Attributes:
        taken: accepted by the door.
        refused: rejected by it once more, by reason and field.
        kept: not sent, by the reason why they cannot be.
    """

    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def account(self) -> str:
        """The sum that holds."""
        refused, kept = self.refused.total(), self.kept.total()
        letters = self.taken + refused + kept
        return f"letters {letters:,} = taken {self.taken:,} + rejected again {refused:,} + not sent {kept:,}"


class _Result(msgspec.Struct):
    outcome: str
    reason: str | None = None
    field: str | None = None


class _Results(msgspec.Struct):
    results: list[_Result]


@dataclass
class Door:
    """A collector's door for events. It is called without a proxy, and no redirect is followed: either would
    be shown the token.

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
        """Send events; the result of each.

        Raises:
            AudiopixelError: the door does not answer, or does not take the token.
        """
        body, said = _encoded(events), ""
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
        for _ in range(TRIES):
            pause_s = 1.0
            try:
                answer = self._client.post(body, headers)
                if answer.status == 200:
                    results = msgspec.json.decode(answer.body, type=_Results).results
                    if len(results) == len(events):
                        return results
                    said = f"{len(results)} results of {len(events)} events"
                elif answer.status in (429, 503):
                    said = f"status {answer.status}"
                    if (after := retry_after(answer.headers.get("retry-after"), time.time())) is not None:
                        pause_s = min(after.total_seconds(), LONGEST_PAUSE_S)
                else:
                    raise AudiopixelError(_refusal(answer.status))
            except CallFailed as error:
                said = str(error)
            except UNREADABLE as error:
                said = f"an answer that is no collector's: {error}"
            self.sleep(pause_s)
        raise AudiopixelError(f"the doors at {self.url} take no events ({said}): is a collector running?")


def _refusal(status: int) -> str:
    if status == 401:
        return (
            "the door does not know this token, or it may not write: AUDIOPIXEL_COLLECT_TOKEN takes "
            "NAME.SECRET of one of the collector's tokens"
        )
    return f"the door answered with status {status}: is this the address of a collector?"


def resend(
    letters: Iterable[Letter],
    door: Door,
    watermark_ms: int,
    lateness_ms: int,
    changes: Mapping[str, str] | None = None,
    resent: Resent | None = None,
) -> Resent:
    """Send again what can be sent.

    Args:
        watermark_ms: the flow's: what is final by it would be too late.
        changes: values that fields get before.
        resent: is counted in, also where this ends early.

    Raises:
        AudiopixelError: by the door; what it had taken by then stays taken, and may be sent again.
    """
    resent = Resent() if resent is None else resent
    events = _events(letters, watermark_ms, lateness_ms, changes or {}, resent)
    for some in _calls(events):
        for result in door.send(some):
            if result.outcome == "accepted":
                resent.taken += 1
            else:
                resent.refused[": ".join(filter(None, (result.reason, result.field)))] += 1
    return resent


def _encoded(what: object) -> bytes:
    return json.dumps(what).encode()


def _calls(events: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Events as calls that a door takes, in their order."""
    some, size = list[dict[str, Any]](), 0
    for event in events:
        more = len(_encoded(event)) + 2
        if some and (len(some) == MAX_EVENTS or size + more > MAX_BYTES):
            yield some
            some, size = [], 0
        some.append(event)
        size += more
    if some:
        yield some


def _events(
    letters: Iterable[Letter],
    watermark_ms: int,
    lateness_ms: int,
    changes: Mapping[str, str],
    resent: Resent,
) -> Iterator[dict[str, Any]]:
    for letter in letters:
        event = event_of(letter, changes)
        why = _unsendable(letter, event)
        if not why and (event["ts"] // MINUTE_MS + 1) * MINUTE_MS + lateness_ms <= watermark_ms:
            why = FINAL
        if why:
            resent.kept[why] += 1
        else:
            yield event


def event_of(letter: Letter, changes: Mapping[str, str]) -> dict[str, Any]:
    """The canonical event that a letter holds, its time in epoch ms, 0 where none can be read."""
    event = {name: value for name, value in letter.event.items() if not name.startswith("utm_")}
    told = {name: value for name, value in letter.event.items() if name.startswith("utm_")}
    if told and isinstance(event.get("landing_url"), str):
        event["landing_url"] += f"?{urlencode(told)}"
    at_ms, received_ms = _epoch_ms(event.get("ts")), _epoch_ms(event.pop("received_at", None))
    if received_ms:  # as the flow clamps it; by a later receipt it would be of another minute
        at_ms = max(received_ms - DAY_MS, min(at_ms or received_ms, received_ms + MINUTE_MS))
    event["ts"] = at_ms
    return event | dict(changes)


def _unsendable(letter: Letter, event: Mapping[str, Any]) -> str:
    if letter.reason == MALFORMED:
        return MALFORMED_WORDS
    if letter.reason == TOO_LATE:
        return FINAL
    if "invalid_traffic" in event:
        return JUDGED
    if not letter.event_id:
        return NO_ID
    conversion = event.get("conversion")
    order = conversion.get("order_id") if isinstance(conversion, dict) else None
    landing = [letter.event[name] for name in letter.event if name.startswith(("landing_url", "utm_"))]
    # So long a text may have been cut by its letter: what is left may be another's.
    if any(isinstance(one, str) and len(one) >= MAX_ID for one in (order, *map(event.get, _IDS), *landing)):
        return CUT
    return "" if event["ts"] else NO_TIME


def _epoch_ms(value: object) -> int:
    if isinstance(value, bool):
        return 0
    if isinstance(value, int | float):
        return int(value) if 0 < value < 1 << 53 else 0
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return 0
    return int(moment.timestamp() * 1000) if moment.tzinfo is not None and moment.year >= 1970 else 0
