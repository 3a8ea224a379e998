"""The last calls and the outcome of each, for the live page and for senders that may see their own verdicts.

Under load the calls are a sample. A sort is an outcome with its reason; calls with a signed debug value are a
sort of their own. A collector keeps `A_SECOND` events of a sort in a second, and `OF_A_SORT` in all. A flood
of one sort therefore neither hides the others nor takes time.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Final

from flows.collector.call import UNKNOWN_SENDER, Call, Outcome, Understood
from flows.collector.callers import Caller
from flows.collector.dialects import Dialect
from flows.collector.query import decoded, parameters
from flows.collector.signatures import DEBUG, Signatures
from flows.collector.unread import unread_names
from flows.model.events import CODES, UNKNOWN_EVENT
from flows.model.last_call import MAX_CALLS, MAX_LETTERS, MAX_UNREAD, LastCall
from flows.shown import cut

A_SECOND: Final = 5
"""The greatest number of events of a sort that are kept in a second."""
OF_A_SORT: Final = 25
"""The greatest number of events of a sort that are kept in all."""
MOST_STORED: Final = 50
"""The greatest number of shown calls that are stored, or have a debug value."""
MAX_SORTS: Final = 64
REFUSED: Final = "refused"
LONGEST_VALUE: Final = 128
"""The greatest length of a debug value, still encoded."""
HEADER: Final = "x-audiopixel"
FORWARDED: Final = ("x-forwarded-for", "forwarded", "via", "x-real-ip", "x-device-ip", "cf-connecting-ip")
"""Headers of proxies. A call with one of them does not come from a program of this machine."""
_DEBUG_IN: Final = f"{DEBUG}="
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,31}", re.ASCII)
"""The form of a shown parameter name or unknown event: no e-mail address, no address, no number."""


def has_debug_value(call: Call, signatures: Signatures) -> bool:
    """True if a call carries a valid debug value."""
    if _DEBUG_IN not in call.query:
        return False
    value = parameters(call.query).get(DEBUG, "")
    return len(value) <= LONGEST_VALUE and signatures.may_debug(decoded(value), call.received_ms / 1000)


def is_local(call: Call) -> bool:
    """True if a program of this machine calls, and no proxy stands between."""
    return (call.peer.startswith("127.") or call.peer == "::1") and call.headers.keys().isdisjoint(FORWARDED)


def is_trusted(result: Understood, caller: Callable[[], Caller]) -> bool:
    """True if the operator has listed the caller: by the event's sender, or by a look-up if none was read."""
    if result.sender == UNKNOWN_SENDER:
        return caller().trusted
    return result.sender.startswith(("token/", "network/"))


def words_of(result: Understood, stored: bool) -> str:
    """The verdict for the header: `rejected; unknown_event; event=impresion`. The text is ASCII. Besides our
    own names it has the event's, if that looks like a name.
    """
    if result.outcome is Outcome.STORED:
        if not stored:
            return REFUSED
        rule = result.event.get("invalid_traffic")
        return "; ".join(
            ["stored", *([f"invalid_traffic={rule}"] if rule else []), f"consent={result.consent or 'none'}"]
        )
    parts = [result.outcome.value, result.reason]
    if result.reason == UNKNOWN_EVENT:
        event, meant = _event_names(result)
        parts += ([f"event={event}"] if event else ["event"]) + ([f"meant={meant}"] if meant else [])
    elif result.wrong:
        parts.append(result.wrong)
    return "; ".join(part for part in parts if part)


class LastCalls:
    """Keeps the last calls of a process.

    Attributes:
        events: the number of events that were taken, kept or not.
        changes: the number of events that were kept.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self.events = self.changes = 0
        self._second = -1
        self._taken: dict[str, int] = {}
        self._alike: dict[str, int] = {}
        self._calls_by_sort: dict[str, deque[LastCall]] = {}

    def take(
        self,
        call: Call,
        understood: Sequence[Understood],
        stored: bool,
        is_debug: bool,
        dialect_of: Callable[[Call], tuple[str, Dialect]],
    ) -> None:
        """Take the events of a call.

        Args:
            stored: whether the events that count are durable.
            is_debug: whether the call carries a valid debug value.
            dialect_of: the dialect of a call.
        """
        second = int(self._clock_s())
        if second != self._second:
            self._second, self._taken = second, {}
        self.events += len(understood)
        for result in understood:
            outcome = str(result.outcome) if stored or result.outcome is not Outcome.STORED else REFUSED
            sort = DEBUG if is_debug else f"{outcome}/{result.reason}"
            count = self._taken.get(sort, 0)
            if count >= A_SECOND:
                self._alike[sort] = self._alike.get(sort, 0) + 1
                continue
            if sort not in self._calls_by_sort and len(self._calls_by_sort) >= MAX_SORTS:
                continue
            self._taken[sort] = count + 1
            self.changes += 1
            calls = self._calls_by_sort.setdefault(sort, deque(maxlen=OF_A_SORT))
            calls.append(_last_call(call, result, outcome, dialect_of, self._alike.pop(sort, 0)))

    def shown(self) -> list[LastCall]:
        """At most `MAX_CALLS` calls, the latest first; at most half of them stored or with a debug value."""
        stored_calls: list[LastCall] = []
        other_calls: list[LastCall] = []
        for sort, calls in list(self._calls_by_sort.items()):
            (stored_calls if sort == DEBUG or sort.startswith("stored/") else other_calls).extend(calls)
        latest = [*_latest(stored_calls, MOST_STORED), *_latest(other_calls, MAX_CALLS - MOST_STORED)]
        return _latest(latest, MAX_CALLS)


def _latest(calls: list[LastCall], most: int) -> list[LastCall]:
    return sorted(calls, key=lambda call: -call.at_ms)[:most]


def _last_call(
    call: Call,
    result: Understood,
    outcome: str,
    dialect_of: Callable[[Call], tuple[str, Dialect]],
    alike: int,
) -> LastCall:
    """An event without any identity: our names, and the names of tags and parameters."""
    event, meant = _event_names(result)
    return LastCall(
        call.received_ms,
        outcome,
        reason=result.reason,
        field=result.wrong,
        event=event,
        meant=meant,
        placement=cut(str(result.event.get("placement_id", "")), MAX_LETTERS),
        campaign=cut(str(result.event.get("campaign_id", "")), MAX_LETTERS),
        sender=cut(result.sender, MAX_LETTERS),
        consent=result.consent,
        invalid_traffic=str(result.event.get("invalid_traffic", "")),
        unread=tuple(islice(_unread(call, dialect_of), MAX_UNREAD)),
        alike=alike,
    )


def _event_names(result: Understood) -> tuple[str, str]:
    """The event's name if it looks like a name; for an unknown event also the nearest known name."""
    event = str(result.event.get("event", ""))
    name = event if _NAME.fullmatch(event) else ""
    near = get_close_matches(name.lower(), CODES, 1) if name and name not in CODES else []
    return name, near[0] if near else ""


def _unread(call: Call, dialect_of: Callable[[Call], tuple[str, Dialect]]) -> Iterator[str]:
    if not call.query or len(call.query) > 4_096:
        return
    _, dialect = dialect_of(call)
    names = dict.fromkeys(part.partition("=")[0] for part in re.split(f"[{dialect.separators}]", call.query))
    yield from (name for name in unread_names(dialect, islice(names, 64)) if _NAME.fullmatch(name))
