"""Dead letters back to a door: what a letter holds is called once more, under the same event id.

The door checks it as any call, so that a mistake which is still there makes another letter. Nothing counts
twice, since ids are the same. A letter holds no listener, so that what it becomes has no reach.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from flows.errors import AudiopixelError, UsageError
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
MALFORMED_WORDS: Final = "malformed: its letter holds nothing of it"
NO_ID: Final = "no event id: it could count twice"
NO_TIME: Final = "no time that can be read"
JUDGED: Final = "invalid traffic: its letter no longer holds why"
FINAL: Final = "too late: its minute is final"
CUT: Final = "an id that was too long: its letter holds its begin alone"
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


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would take the token with it, to whatever address."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class Door:
    """A collector's door for events.

    Args:
        url: of the doors, without a path.
        token: `NAME.SECRET` of a caller that may `write`.
    """

    url: str
    token: str
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UsageError("the address of the doors takes http:// or https://: --to URL")

    def send(self, events: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
        """Send events; the result of each.

        Raises:
            AudiopixelError: the door does not answer, or does not take the token.
        """
        opener = urllib.request.build_opener(_NoRedirect)
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/v1/events",
            _encoded(events),
            {"content-type": "application/json", "authorization": f"Bearer {self.token}"},
        )
        said = ""
        for _ in range(TRIES):
            try:
                with opener.open(request, timeout=ANSWER.total_seconds()) as answer:
                    results: list[Mapping[str, Any]] = json.load(answer)["results"]
                    return results
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503):
                    raise AudiopixelError(_refusal(error.code)) from None
                said, wait = f"status {error.code}", error.headers.get("retry-after", "1")
                self.sleep(min(float(wait) if wait.isdigit() else 1.0, LONGEST_PAUSE_S))
            except (OSError, ValueError, KeyError) as error:
                said = str(getattr(error, "reason", error))
                self.sleep(1.0)
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
) -> Resent:
    """Send again what can be sent.

    Args:
        watermark_ms: the flow's: what is final by it would be too late.
        changes: values that fields get before.

    Raises:
        AudiopixelError: by the door; what it had taken by then stays taken, and may be sent again.
    """
    resent = Resent()
    events = _events(letters, watermark_ms, lateness_ms, changes or {}, resent)
    for some in _calls(events):
        for result in door.send(some):
            if result.get("outcome") == "accepted":
                resent.taken += 1
            else:
                words = (str(result.get(name) or "") for name in ("reason", "field"))
                resent.refused[": ".join(filter(None, words))] += 1
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
    # So long an id may have been cut by its letter: what is left may be another's.
    if any(isinstance(one, str) and len(one) >= MAX_ID for one in (order, *map(event.get, _IDS))):
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
