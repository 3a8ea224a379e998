"""Runs a door over inputs made by seed, and reports the smallest harmful part of a harmful batch."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final, Protocol, TypeVar

import structlog
from structlog.typing import EventDict

AT_ONCE: Final = 250
TRIES: Final = 300
"""Runs that shrinking may take."""

_Kind = TypeVar("_Kind")
Input = tuple[bytes, ...]
"""The parts of one input, such as a call's line, headers and body; shrinking cuts each of them."""


class Door(Protocol):
    """An entrance of the product. Every try of a failing batch opens a new one, so that a batch fails by
    itself.
    """

    def make(self, rng: Random) -> Input:
        """Make a hostile input."""
        ...

    def run(self, inputs: Sequence[Input]) -> Counter[str]:
        """Put inputs to the door; returns how many had which outcome.

        Raises:
            Exception: any at all is a defect: of the product, or AssertionError where something is not
                accounted for or not escaped.
        """
        ...

    def close(self) -> None:
        """Close its resources."""
        ...


Opened = Callable[[Path], Door]
"""Opens a door over an empty directory."""


class Harm(Exception):
    """A defect: which door and seed, the shrunk inputs, and what they did."""

    def __init__(self, door: str, seed: str, inputs: Sequence[Input], error: Exception) -> None:
        lines = [f"{door}, seed {seed}: {type(error).__name__}: {error}"]
        lines += [f"  {one!r}"[:4_000] for one in inputs]
        super().__init__("\n".join(lines))


def fuzz(name: str, opened: Opened, seed: int, inputs: int, first: int = 0) -> Iterator[Counter[str]]:
    """Try inputs from the batch `first` on, a batch at a time; yields each batch's outcomes. A batch depends
    on its own seed alone.

    Raises:
        Harm: the first that does some.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory, _quiet():
        path = Path(directory)
        door = opened(path)
        try:
            for number in range(first, -(-inputs // AT_ONCE)):
                seeded = f"{seed}/{number}"
                rng = Random(f"{name}/{seeded}")
                made = [door.make(rng) for _ in range(min(AT_ONCE, inputs - number * AT_ONCE))]
                try:
                    yield door.run(made)
                except Exception as error:
                    raise Harm(name, seeded, *_shrunk(opened, path, made, error)) from error
        finally:
            door.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, no log line is written, and one with a traceback is an error."""
    before = structlog.get_config()
    structlog.configure(processors=[_no_traceback])
    try:
        yield
    finally:
        structlog.configure(**before)


def _no_traceback(_: object, __: str, said: EventDict) -> EventDict:
    assert not said.get("exc_info"), f"a traceback is logged: {said}"
    raise structlog.DropEvent


def _shrunk(
    opened: Opened, path: Path, inputs: list[Input], error: Exception
) -> tuple[list[Input], Exception]:
    """The least inputs found that do the same kind of harm, and the harm."""
    found, tries = error, 0

    def harms(some: Sequence[Input]) -> bool:
        nonlocal found, tries
        tries += 1
        if tries > TRIES:
            return False
        door = opened(path / f"try-{tries}")
        try:
            door.run(some)
        except Exception as now:
            if type(now) is not type(error):
                return False
            found = now
            return True
        finally:
            door.close()
        return False

    inputs = _less(inputs, harms)
    for place, one in enumerate(inputs):
        for number in range(len(one)):

            def harms_with(body: list[int], place: int = place, number: int = number) -> bool:
                return harms(_with(inputs, place, number, body))

            inputs[:] = _with(inputs, place, number, _less([*inputs[place][number]], harms_with))
    return inputs, found


def _with(inputs: Sequence[Input], place: int, number: int, body: Sequence[int]) -> list[Input]:
    """Inputs of which one has another part."""
    parts = inputs[place]
    changed = (*parts[:number], bytes(body), *parts[number + 1 :])
    return [*inputs[:place], changed, *inputs[place + 1 :]]


def _less(items: list[_Kind], harms: Callable[[list[_Kind]], bool]) -> list[_Kind]:
    """Leave out ever smaller runs of `items` while the rest does harm."""
    size = max(1, len(items) // 2)
    while True:
        at = 0
        while at < len(items):
            rest = items[:at] + items[at + size :]
            if len(rest) < len(items) and harms(rest):
                items = rest
            else:
                at += size
        if size == 1:
            return items
        size //= 2
