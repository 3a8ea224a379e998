"""The doors and their answers. A server that speaks RSGI passes each call to `Doors`.

- `GET` and `POST` of `/p`, `/p/<dialect>`, `/b/<dialect>`: the GIF, whatever became of the pixel, and its
  verdict for those who may see it; 503 if it could not be stored.
- `GET /c?u=URL`: 302 to a signed or listed target, 400 to another.
- `POST /v1/events`: a result for each event, all stored or 503; needs a token that may write.
- `POST /v1/tags`: signed tags for the fields of a form; needs a token that may tag.
- `GET /debug/p`: how the call was understood; stores nothing; needs a token that may debug.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from flows.collector.body import OBJECT, Number
from flows.collector.call import Call, Outcome, Understood
from flows.collector.callers import ADDRESS_HEADERS, Caller, household_part, is_public
from flows.collector.last_calls import HEADER, LastCalls, has_debug_value, is_local, is_trusted, words_of
from flows.collector.query import decoded, parameters, root_of, target_of
from flows.collector.store import Store
from flows.collector.tag_question import Question, question_of
from flows.collector.understand import UNSIGNED, Understanding
from flows.errors import UNREADABLE, AudiopixelError
from flows.model.catalogue.limits import (
    MAX_BODY_BYTES,
    MAX_EVENTS,
    MAX_HEADERS,
    MAX_LINE_BYTES,
    MAX_PIXEL_BYTES,
)

GIF: Final = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
RETRY_AFTER_S: Final = 2
_T = TypeVar("_T")
Headers = list[tuple[str, str]]
EventsCallback = Callable[[Sequence[Understood]], None]
TagAnswers = Callable[[Question], dict[str, Any]]
_OPEN: Final[Headers] = [
    ("access-control-allow-origin", "*"),
    ("vary", "origin"),
    ("cache-control", "no-store, no-cache, must-revalidate, private"),
    ("cross-origin-resource-policy", "cross-origin"),
    ("x-content-type-options", "nosniff"),
]
_ORIGIN: Final = re.compile(r"null|[a-z][a-z0-9+.-]{0,30}://[^\s/?#@]{1,260}", re.IGNORECASE)
IMAGE: Final[Headers] = [("content-type", "image/gif"), *_OPEN]
_JSON: Final[Headers] = [("content-type", "application/json"), *_OPEN]
_PREFLIGHT: Final[Headers] = [
    *_OPEN,
    ("access-control-allow-methods", "GET, POST, OPTIONS"),
    ("access-control-allow-headers", "content-type, authorization"),
    ("access-control-max-age", "86400"),
]


class Answer(NamedTuple):
    """The answer to a call."""

    status: int
    headers: Headers
    body: bytes = b""


UNREAD: Final = Understood(Outcome.REJECTED, "malformed")
"""The outcome of a call that is not read."""
NO_TARGET: Final = Understood(Outcome.REJECTED, UNSIGNED, "u")
"""A click whose target the operator has neither signed nor listed."""
NOT_FOUND: Final = Answer(404, _OPEN)
BAD_ADDRESS: Final = Answer(
    400, [("content-type", "text/plain"), *_OPEN], b"a header with an address has bytes beyond ASCII\n"
)
TOO_LARGE: Final = Answer(413, _OPEN)
TOO_LONG: Final = Answer(431, _OPEN)
REFUSED: Final = Answer(503, [*_OPEN, ("retry-after", str(RETRY_AFTER_S))])
TOO_MANY: Final = Answer(429, [*_OPEN, ("retry-after", str(RETRY_AFTER_S))])
FORBIDDEN: Final = Answer(401, [*_OPEN, ("www-authenticate", "Bearer")])


def _ignore(understood: Sequence[Understood]) -> None:
    pass


@dataclass
class Doors:
    """Answers calls.

    Args:
        understanding: turns calls into events.
        store: makes events durable.
        on_events: receives the events of each call before they are stored, for counts and dead letters.
        calls_per_caller: the greatest number of calls a second from one address; 0 for no cap.
        undecided: whether it is still unknown which placements may make a row.
        calls_in_hand: the greatest number of calls at a time; further calls are refused before any work.
        tags: the answer to a question about tags; raises `AudiopixelError`.
        last: keeps the last calls for the live page.
    """

    understanding: Understanding
    store: Store
    on_events: EventsCallback = field(default=_ignore)
    calls_per_caller: int = 0
    undecided: Callable[[], bool] = field(default=lambda: False)
    calls_in_hand: int = 2_000
    tags: TagAnswers | None = None
    last: LastCalls = field(default_factory=LastCalls)
    _in_hand: int = 0
    _second: int = 0
    _calls: dict[bytes, int] = field(default_factory=dict)

    async def answer(self, call: Call) -> Answer:
        """Answer one call; raises for no input. `call.received_ms` is by the lane's clock."""
        self._in_hand += 1
        try:
            return _with_origin(await self._answer(call), call)
        finally:
            self._in_hand -= 1

    async def _answer(self, call: Call) -> Answer:
        if call.method == "OPTIONS":
            return Answer(204, _PREFLIGHT)
        if call.path.startswith("/debug/p") and call.method == "GET":
            return self._too_big(call) or _bad_address(call) or self._debug(call)
        if call.path == "/v1/tags" and call.method == "POST" and self.tags is not None:
            return self._too_big(call) or _bad_address(call) or self._tags(call, self.tags)
        door = self._door(root_of(call.path), call)
        if door is None:
            return NOT_FOUND
        if self._in_hand > self.calls_in_hand:  # a call that waits too long is stored, and answered 503
            self.store.refuse(1, "busy")
            return (self._redirect(call) if door == self._click else None) or REFUSED
        if refusal := self._too_big(call):
            await self._keep([UNREAD], call)
            return refusal
        if fault := _bad_address(call):
            await self._keep([UNREAD], call)
            return (self._redirect(call) if door == self._click else None) or fault
        if self._too_many(call):
            self.store.refuse(1, "calls")
            return (self._redirect(call) if door == self._click else None) or TOO_MANY
        return await door(call)

    async def unread(self, call: Call, status: int) -> Answer:
        """Answer a call whose body was too long, too slow or not whole; a call of a door counts as an event.

        Args:
            status: the status of the answer.
        """
        if self._door(root_of(call.path), call) is not None:
            await self._keep([UNREAD], call)
        return _with_origin(Answer(status, [*_OPEN, ("connection", "close")]), call)

    def _door(self, root: str, call: Call) -> Callable[[Call], Awaitable[Answer]] | None:
        if root in ("p", "b") and call.method in ("GET", "HEAD", "POST"):
            return self._pixel
        if root == "c" and call.method in ("GET", "HEAD"):
            return self._click
        return self._events if call.path == "/v1/events" and call.method == "POST" else None

    def _too_big(self, call: Call) -> Answer | None:
        if len(call.path) + len(call.query) > MAX_LINE_BYTES or len(call.headers) > MAX_HEADERS:
            return TOO_LONG
        return TOO_LARGE if len(call.body) > MAX_BODY_BYTES else None

    def _too_many(self, call: Call) -> bool:
        """True if an address calls more often than it may in this second.

        An address that no listener can have belongs to a proxy, which all listeners may share. A caller with
        a known token may call as often as it likes.
        """
        if not self.calls_per_caller:
            return False
        second = call.received_ms // 1000
        if second != self._second:
            self._second, self._calls = second, {}
        address = self.understanding.callers.transport(call.headers, call.peer)
        if address is None or not is_public(address):
            return False
        caller_key = household_part(address)
        calls = self._calls[caller_key] = self._calls.get(caller_key, 0) + 1
        return calls > self.calls_per_caller and not self._caller(call).trusted

    async def _pixel(self, call: Call) -> Answer:
        if call.method == "POST" and call.body.lstrip()[:1] == b"[":
            return await self._events(call)
        if len(call.body) > MAX_PIXEL_BYTES:
            await self._keep([UNREAD], call)
            return TOO_LARGE
        understood = self.understanding.pixel(call)
        is_debug = has_debug_value(call, self.understanding.signatures)
        stored = await self._keep([understood], call, is_debug)
        answer = Answer(200, IMAGE, b"" if call.method == "HEAD" else GIF) if stored else REFUSED
        return self._with_verdict(answer, call, understood, stored, is_debug)

    async def _click(self, call: Call) -> Answer:
        """Redirect a click, for the listener's sake also a click that cannot be stored."""
        if (redirect := self._redirect(call)) is None:
            await self._keep([NO_TARGET], call)
            return Answer(
                400, [("content-type", "text/plain"), *_OPEN], b"the target is neither signed nor listed\n"
            )
        understood = self.understanding.pixel(call)
        is_debug = has_debug_value(call, self.understanding.signatures)
        stored = await self._keep([understood], call, is_debug)
        return self._with_verdict(redirect, call, understood, stored, is_debug)

    def _with_verdict(
        self, answer: Answer, call: Call, understood: Understood, stored: bool, is_debug: bool
    ) -> Answer:
        """An answer with the verdict, for callers that may see it."""
        if not (is_debug or is_local(call) or is_trusted(understood, partial(self._caller, call))):
            return answer
        verdict = (HEADER, words_of(understood, stored))
        return Answer(answer.status, [*answer.headers, verdict], answer.body)

    def _redirect(self, call: Call) -> Answer | None:
        """The redirection to the target of a click; None for a target that is not allowed."""
        words = parameters(call.query)
        target, signature = target_of(words.get("u", "")), decoded(words.get("s", ""))
        if not self.understanding.signatures.may_lead_to(target, signature):
            return None
        return Answer(302, [("location", target), *_OPEN])

    async def _events(self, call: Call) -> Answer:
        caller = self._caller(call)
        if "write" not in caller.rights:
            await self._keep([UNREAD], call)
            return FORBIDDEN
        raws = _events_of(call.body)
        if raws is None or not any(raw is not None for raw in raws) or len(raws) > MAX_EVENTS:
            await self._keep([UNREAD], call)
            return _error(f"takes one event, an array or NDJSON, of at most {MAX_EVENTS} events")
        read = iter(self.understanding.events(call, [raw for raw in raws if raw is not None]))
        understood = [UNREAD if raw is None else next(read) for raw in raws]
        if not await self._keep(understood, call):
            return REFUSED
        results = [
            {"outcome": "accepted"}
            if result.outcome is Outcome.STORED
            else {"outcome": result.outcome.value, "reason": result.reason, "field": result.wrong}
            for result in understood
        ]
        return Answer(200, _JSON, msgspec.json.encode({"results": results}))

    def _tags(self, call: Call, tags: TagAnswers) -> Answer:
        caller = self._caller(call)
        if "tag" not in caller.rights:
            return FORBIDDEN
        if len(call.body) > MAX_PIXEL_BYTES:
            return TOO_LARGE
        try:
            question = question_of(msgspec.json.decode(call.body, type=dict[str, str]))
        except UNREADABLE as error:
            return _error(f"takes a JSON object of texts: {error}")
        if caller.campaigns and question.signs and question.fields.get("campaign") not in caller.campaigns:
            return FORBIDDEN
        try:
            tag_answer = tags(question)
        except AudiopixelError as error:
            return _error(str(error))
        return Answer(200, _JSON, msgspec.json.encode(tag_answer))

    def _debug(self, call: Call) -> Answer:
        if "debug" not in self._caller(call).rights:
            return FORBIDDEN
        debugged = Call(
            "GET",
            call.path.removeprefix("/debug"),
            call.query,
            {name: value for name, value in call.headers.items() if name != "authorization"},
            b"",
            call.peer,
            call.received_ms,
        )
        understood = self.understanding.pixel(debugged, trace=True)
        trace = understood.trace or {"outcome": understood.outcome.value, "reason": understood.reason}
        return Answer(200, _JSON, msgspec.json.encode(trace))

    async def _keep(self, understood: Sequence[Understood], call: Call, is_debug: bool = False) -> bool:
        if self.undecided() and any(
            result.reason == UNSIGNED and result is not NO_TARGET for result in understood
        ):
            self.store.refuse(len(understood), "plans")
            self.last.take(call, understood, False, is_debug, self.understanding.dialect_of)
            return False
        self.on_events(understood)
        stored = await self.store.keep(understood, call.received_ms)
        self.last.take(call, understood, stored, is_debug, self.understanding.dialect_of)
        return stored

    def _caller(self, call: Call) -> Caller:
        callers = self.understanding.callers
        return callers.caller_of(call.headers, callers.transport(call.headers, call.peer))


def _error(words: str) -> Answer:
    return Answer(400, _JSON, msgspec.json.encode({"error": words}))


def _with_origin(answer: Answer, call: Call) -> Answer:
    """The answer with CORS headers for the page that sent a pixel. A browser that sends credentials along, as
    `sendBeacon` always does, requires the page's own origin and refuses `*`.

    Other doors answer with `*`, so that no other site can use the browser's password for a proxy in front of
    them.
    """
    origin = call.headers.get("origin")
    if origin is None or root_of(call.path) not in ("p", "b") or _ORIGIN.fullmatch(origin) is None:
        return answer
    cors = [("access-control-allow-origin", origin), ("access-control-allow-credentials", "true")]
    other_headers = [header for header in answer.headers if header[0] != "access-control-allow-origin"]
    return Answer(answer.status, cors + other_headers, answer.body)


def _bad_address(call: Call) -> Answer | None:
    """The answer to a call with a header of `ADDRESS_HEADERS` that cannot be read; None for other calls.

    If such an address were taken as missing, the call would escape the cap on calls and the rule of data
    centres.
    """
    for name in ADDRESS_HEADERS:
        if not call.headers.get(name, "").isascii():
            return BAD_ADDRESS
    return None


_ARRAY: Final = msgspec.json.Decoder(list[dict[str, Any]], float_hook=Number)


def _events_of(body: bytes) -> Sequence[Mapping[str, Any] | None] | None:
    """The events of a body, which is one object, an array, or an object a line. None for an array that cannot
    be read; an element of None for a line that cannot.
    """
    text = body.strip()
    if text[:1] == b"[":
        return _decoded(text, _ARRAY)
    if (event := _decoded(text, OBJECT)) is not None:  # one object may have several lines
        return [event]
    lines = (line for line in text.splitlines() if line.strip())
    return [_decoded(line, OBJECT) for line in islice(lines, MAX_EVENTS + 1)]


def _decoded(text: bytes, decoder: msgspec.json.Decoder[_T]) -> _T | None:
    try:
        return decoder.decode(text)
    except UNREADABLE:
        return None
