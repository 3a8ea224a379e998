"""Dead letters of a door and of the flow, and a real door behind HTTP that they are sent to again."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

from collector_support import HOME, NOW_MS, SECRET, call, understanding, usual

from flows.collector.call import Call, Outcome, Understood
from flows.collector.doors import Doors
from flows.collector.letters import letter
from flows.collector.store import Store
from flows.intake.dead_letters import explain
from flows.intake.dead_letters import letter as flow_letter
from flows.rejected import Letter, letter_of
from flows.resend import Door, ExtraLetters, ResendResult, resend

TOKEN = f"host.{SECRET}"
PIXEL = {
    "event_id": "e1",
    "event": "start",
    "placement_id": "breakfast-uk",
    "play_id": "play-1",
    "ts": NOW_MS,
}


@dataclass
class Kept:
    """A store that keeps all in memory."""

    events: list[Understood] = field(default_factory=list)
    full: int = 0

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        if self.full:
            self.full -= 1
            return False
        self.events += [one for one in understood if one.outcome is Outcome.STORED]
        return True


@contextmanager
def doors_of(kept: Kept) -> Iterator[str]:
    """A collector's doors on an HTTP server."""
    doors = Doors(understanding(placements="signed"), cast(Store, kept))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = asyncio.run(doors.answer(Call("POST", self.path, "", headers, body, HOME, NOW_MS)))
            self.send_response(answer.status)
            for header in (*answer.headers, ("content-length", str(len(answer.body)))):
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def of_the_door(placements: str = "signed", **parameters: Any) -> Letter:
    """The letter of a call that the door rejected."""
    found = understanding(placements=placements).pixel(call(usual(**parameters)))
    assert found.outcome is Outcome.REJECTED
    made = letter_of(letter("c1", found).value)
    assert made is not None
    return made


def of_the_flow(**changes: Any) -> Letter:
    raw = json.dumps(PIXEL | changes).encode()
    ((position, rejection),) = ((7, explain(raw)),)
    made = letter_of(flow_letter("audio-pixels/0", position, rejection)[1])
    assert made is not None
    return made


ALL = ExtraLetters(conversions=True, unsigned=True)


def sent(
    letters: list[Letter], url: str, watermark_ms: int = NOW_MS, allowed: ExtraLetters = ALL, **changes: str
) -> ResendResult:
    return resend(
        letters,
        Door(url, TOKEN, sleep=lambda _: None),
        watermark_ms=watermark_ms,
        lateness_ms=600_000,
        changes=changes,
        allowed=allowed,
    )
