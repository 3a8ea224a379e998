"""Calls that break off on the wire: each stores nothing, wherever it was cut and however it ended."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final, Literal, TypeVar

import pytest
from collector_support import PLAYER, SECRET
from hypothesis import given
from hypothesis import strategies as st
from served_support import Served, serving

_T = TypeVar("_T")
End = Literal["close", "half close", "reset"]
Form = Literal["length", "one chunk", "chunks of 5"]
FORMS: Final[tuple[Form, ...]] = ("length", "one chunk", "chunks of 5")
ENDS: Final[tuple[End, ...]] = ("close", "half close", "reset")
SALE: Final = b"e=conversion&ct=purchase&cm=c&o=ORDER-17&v=1234.50&cur=GBP"
BODIES: Final = {
    "form": ("/p", SALE),
    "json": ("/p", b'{"e":"conversion","ct":"purchase","cm":"c","o":"ORDER-17","v":"1234.50"} '),
    "query and form": ("/p?e=start&pl=breakfast-uk", b"p=play-1&l=listener-1"),
    "postback": ("/b/appsflyer", b"event_name=install&af_c_id=c&clickid=1"),
    "event": ("/v1/events", b'{"event_id":"1","event":"start","placement_id":"breakfast-uk"}'),
    "array": ("/v1/events", b'[{"event_id":"1","event":"start","placement_id":"a"}]\n'),
    "lines": ("/v1/events", b'{"event":"start","placement_id":"a"}\n{"event":"start","placement_id":"b"}\n'),
}
AT_ONCE: Final = 150
SEEN_S: Final = 0.05
"""Time in which the server reads what was sent before its sender is gone."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


def head(host: str, path: str, framing: bytes) -> bytes:
    line = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {PLAYER}\r\n"
    token = f"Authorization: Bearer host.{SECRET}\r\n"
    return (line + token).encode() + framing + b"\r\n\r\n"


CHUNKED: Final = b"Transfer-Encoding: chunked"


def chunks(parts: Sequence[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def framed(body: bytes, form: Form) -> tuple[bytes, bytes]:
    """The line of the head that says how a body is framed, and the body as it is sent."""
    if form == "length":
        return b"Content-Length: %d" % len(body), body
    size = len(body) if form == "one chunk" else 5
    return CHUNKED, chunks([body[at : at + size] for at in range(0, len(body), size)])


async def sent(port: int, data: bytes, end: End) -> bytes:
    """Send, and be gone; returns what is answered to one that still listens."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(SEEN_S)
    if end == "reset":
        one = writer.get_extra_info("socket")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return b""
    if end == "close":
        writer.close()
        return b""
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def results_of_all(jobs: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """The results of all, some at a time."""

    async def run() -> list[_T]:
        found: list[_T] = []
        for at in range(0, len(jobs), AT_ONCE):
            found += await asyncio.gather(*jobs[at : at + AT_ONCE])
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BODIES)
def test_a_truncated_body_is_malformed_and_stores_nothing(
    served: Served, name: str, form: Form, end: End
) -> None:
    path, body = BODIES[name]
    framing, wire = framed(body, form)
    before = head(host := served.new_book(), path, framing)
    answers = results_of_all([sent(served.port, before + wire[:cut], end) for cut in range(len(wire))])
    # Who resets a connection may take with him what was not read so far.
    found = served.outcomes(host, len(wire) if end != "reset" else 1)
    assert set(found) == {"malformed"}
    assert found.total() <= len(wire)
    if end == "half close":
        assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 400 Bad Request"}


@pytest.mark.parametrize("end", ["close", "half close"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BODIES)
def test_a_whole_body_counts_after_its_sender_disconnects(
    served: Served, name: str, form: Form, end: End
) -> None:
    path, body = BODIES[name]
    framing, wire = framed(body, form)
    before = head(host := served.new_book(), path, framing)
    results_of_all([sent(served.port, before + wire, end)])
    assert set(served.outcomes(host, 1)) == {"stored"}


@given(
    parts=st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6),
    end=st.sampled_from(ENDS[:2]),
    data=st.data(),
)
def test_no_bytes_in_no_chunks_count_before_their_last_chunk(
    served: Served, parts: list[bytes], end: End, data: st.DataObject
) -> None:
    wire = chunks(parts)
    cut = data.draw(st.integers(0, len(wire) - 1))
    before = head(host := served.new_book(), "/p?e=start&pl=breakfast-uk", CHUNKED)
    results_of_all([sent(served.port, before + wire[:cut], end)])
    assert served.outcomes(host, 1) == {"malformed": 1}


def test_a_body_with_trailers_is_not_taken_as_whole(served: Served) -> None:
    before = head(host := served.new_book(), "/p", CHUNKED)
    wire = chunks([SALE])[:-2] + b"X-Sum: 1\r\n\r\n"
    (answer,) = results_of_all([sent(served.port, before + wire, "half close")])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert served.outcomes(host, 1) == {"malformed": 1}
