"""Hostile input at every door does no harm. `make fuzz` is the form of a night."""

from __future__ import annotations

import socket
from ast import literal_eval
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
from door_support import Collector, new_topic

from connectors.embedded import EmbeddedBroker
from fuzz.collector import BodyDoor, GetDoor, HeadersDoor
from fuzz.doors import DOORS
from fuzz.run import Harm, Input, fuzz

INPUTS = 10_000 // len(DOORS)
ALIKE = ("log", "shown")
"""Doors whose inputs all have one outcome."""


@pytest.mark.parametrize("name", DOORS)
def test_hostile_inputs_do_no_harm_and_are_counted(name: str) -> None:
    found = sum(fuzz(name, DOORS[name], 7, INPUTS), Counter[str]())
    assert found.total() >= INPUTS
    assert name in ALIKE or len(found) > 1, f"all inputs are {found}: that reaches little"


class Touchy:
    """A door that an exclamation mark breaks where another input has a question mark."""

    def __init__(self, _: Path) -> None:
        pass

    def make(self, rng: Random) -> Input:
        return bytes(rng.randrange(32, 64) for _ in range(20)), b"right"

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        all_of_it = b"".join(one[0] for one in inputs)
        if b"!" in all_of_it and b"?" in all_of_it:
            raise OSError("broken")
        return Counter(right=len(inputs))

    def close(self) -> None:
        pass


def test_the_smallest_harmful_set_of_inputs_is_reported() -> None:
    with pytest.raises(Harm) as harm:
        list(fuzz("touchy", Touchy, 1, 250))
    first, *inputs = str(harm.value).splitlines()
    assert first == "touchy, seed 1/0: OSError: broken"
    assert sum(len(literal_eval(one.strip())[0]) for one in inputs) == 2


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        yield server


def test_every_call_over_a_socket_is_in_the_ledger_without_server_faults(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    rng, statuses, sent = Random(7), Counter[int](), 0
    doors = [door(tmp_path / door.__name__) for door in (GetDoor, BodyDoor, HeadersDoor)]
    with Collector(tmp_path / "spool", broker.bootstrap, new_topic(broker)).start() as collector:
        for door in doors * 100:
            status = answer_of(collector.port, door.make(rng))
            statuses[status] += 1
            sent += 1
        assert collector.end() == 0
        ledger = collector.ledger()
    for door in doors:
        door.close()
    assert not {status for status in statuses if status >= 500}, statuses
    assert statuses[200] > sent / 4, statuses
    assert (
        ledger["calls"] == ledger["stored"] + ledger["not_counted"] + ledger["rejected"] + ledger["refused"]
    )
    assert ledger["calls"] >= statuses[200] / 2


def answer_of(port: int, one: Input) -> int:
    """The status of an input sent unchanged, as far as it is one request; 0 if the server hung up."""
    method, target, lines, body = (*one, b"", b"")[:4]
    first = b" ".join((method, target.translate(None, b"\0\r\n "), b"HTTP/1.1"))
    headers = b"".join(line.replace(b"\r", b"") + b"\r\n" for line in lines.split(b"\n") if line.strip())
    length = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        try:
            connection.sendall(first + b"\r\nhost: x\r\n" + headers + length + body)
            answer = connection.recv(64)
        except OSError:
            return 0
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
