"""Beacons of a real browser, from a page of another origin: each arrives, and says what it said."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

import pytest
from browser_support import CHROMIUM, MISSING, Browser, chromium
from door_support import until
from served_support import Served, serving
from test_doors import Kept

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
CALL: Final = {"e": "start", "pl": "breakfast-uk", "cm": "spring", "p": "play-1"}
QUERY: Final = "e=start&pl=breakfast-uk&cm=spring&p=play-1"
EVENT: Final = {
    "event": "start",
    "placement_id": "breakfast-uk",
    "campaign_id": "spring",
    "play_id": "play-1",
}
BEACONS: Final = {
    "a form": "navigator.sendBeacon(DOOR, new URLSearchParams(CALL))",
    "a text": "navigator.sendBeacon(DOOR, new URLSearchParams(CALL).toString())",
    "a text of JSON": "navigator.sendBeacon(DOOR, JSON.stringify(CALL))",
    "a blob of JSON": "navigator.sendBeacon(DOOR, new Blob([JSON.stringify(CALL)],"
    " {type: 'application/json'}))",
    "FormData": "navigator.sendBeacon(DOOR + '?' + QUERY, (() => {"
    "const form = new FormData(); form.append('x', 'e=click&pl=other'); return form})())",
    "nothing": "navigator.sendBeacon(DOOR + '?' + QUERY)",
    "JSON with credentials": "fetch(DOOR, {method: 'POST', credentials: 'include', keepalive: true,"
    " body: JSON.stringify(CALL), headers: {'Content-Type': 'application/json'}})"
    ".then(answer => answer.ok)",
    "a GET with credentials": "fetch(DOOR + '?' + QUERY, {credentials: 'include'}).then(answer => answer.ok)",
    "a GET": "fetch(DOOR + '?' + QUERY).then(answer => answer.ok)",
    "an image": "new Promise(done => {const image = new Image(); image.onload = () => done(true);"
    " image.src = DOOR + '?' + QUERY})",
    "a frame without an origin": "(document.body.append(Object.assign(document.createElement('iframe'),"
    " {sandbox: 'allow-scripts', srcdoc: `<script>navigator.sendBeacon('${DOOR}', new Blob(["
    "JSON.stringify(${JSON.stringify(CALL)})], {type: 'application/json'}))<` + '/script>'})), true)",
}


class _Page(BaseHTTPRequestHandler):
    """A page of some site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>shop</title><body>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def site() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Browser, Served]]:
    """A browser on a page of a site, and doors of another origin."""
    with serving() as served, site() as address, chromium() as browser:
        browser.open(address)
        browser.until("document.title === 'shop'")
        browser.js(
            f"window.CALL = {json.dumps(CALL)}; window.QUERY = {json.dumps(QUERY)};"
            f" window.DOOR = 'http://127.0.0.1:{served.port}/p'"
        )
        yield browser, served


def received(served: Served) -> list[dict[str, str]]:
    """The fields of what has arrived, as far as a beacon says them."""
    book = served.books.setdefault(f"127.0.0.1:{served.port}", Kept()).events
    until(lambda: book)
    return [{name: one.event.get(name, "") for name in EVENT} for one in book]


@pytest.mark.parametrize("how", BEACONS)
def test_a_beacon_from_another_origin_arrives(shop: tuple[Browser, Served], how: str) -> None:
    browser, served = shop
    served.books.clear()
    assert browser.js(BEACONS[how]) is True
    assert received(served) == [EVENT]


def test_the_ping_of_a_link_counts_by_its_query(shop: tuple[Browser, Served]) -> None:
    browser, served = shop
    served.books.clear()
    browser.js(
        "(link => {link.id = 'ping'; link.href = '#there'; link.ping = DOOR + '?' + QUERY;"
        " link.textContent = 'there'; document.body.append(link)})(document.createElement('a'))"
    )
    browser.click("#ping")
    assert received(served) == [EVENT]


def test_a_foreign_script_cannot_read_an_answer_with_credentials(
    shop: tuple[Browser, Served],
) -> None:
    browser, _ = shop
    asked = "fetch(DOOR.replace('/p', '/debug/p?e=start'), {credentials: 'include'})"
    assert browser.js(f"{asked}.then(() => 'read', () => 'refused')") == "refused"
