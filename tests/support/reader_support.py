"""A reader of the exporter for tests of other things than read access, and a collector's door for tags."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.collector import tag_answers
from flows.collector.call import Call
from flows.collector.doors import Doors
from flows.collector.from_settings import understanding_of
from flows.settings import Settings, load

SECRET: Final = "only-for-tests"
SHA256: Final = sha256(SECRET.encode()).hexdigest()
READER: Final = f"reader.{SECRET}"
"""A token that an exporter with `READ_TOKENS` takes."""
READ_TOKENS: Final = {"reader": {"sha256": SHA256, "read_all": True, "rights": ["metrics", "read", "tag"]}}
READ_ENVIRONMENT: Final = {"AUDIOPIXEL_READ_TOKENS": json.dumps(READ_TOKENS)}
SIGNED_IN: Final = {"authorization": f"Bearer {READER}"}
TAG_TOKEN: Final = f"desk.{SECRET}"


def signed_in(app: Starlette) -> ASGIApp:
    """The application, whose every request is of the reader of the token that it has made."""
    if (token := app.state.access.created_token) is None:
        return app

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not {name for name, _ in scope["headers"]} & {b"authorization"}:
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", f"Bearer {token}".encode())]}
        await app(scope, receive, send)

    return called


@contextmanager
def tag_door(rights: tuple[str, ...] = ("tag",), **collector: Any) -> Iterator[dict[str, str]]:
    """The door of a collector that has these settings, and those of an exporter that asks it."""
    tokens = {"desk": {"sha256": SHA256, "rights": list(rights)}}
    doors = doors_of(load(**collector, collect_key="a key of the edge", collect_tokens=tokens))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = asyncio.run(doors.answer(Call("POST", self.path, "", headers, body, "127.0.0.1", 0)))
            self.send_response(answer.status)
            for header in answer.headers:
                self.send_header(*header)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {"collect_url": f"http://127.0.0.1:{server.server_port}", "collect_token": TAG_TOKEN}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def doors_of(settings: Settings) -> Doors:
    """The doors of a collector without a store, for calls that store nothing."""
    understanding = understanding_of(settings)
    nowhere: Any = None
    return Doors(understanding, nowhere, tags=partial(tag_answers.answer, settings, understanding))
