"""Bugs to put into the flow, one by one: the simulation has to find each of them.

Each is a patch of one function, as small as a slip of the pen. Those with a letter and a number are defects
of the first outside review, put back. `found.json` says which seed found which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

Make = Callable[[Any], Any]
"""Makes the wrong function of the right one."""

_MUTATIONS: Final[dict[str, tuple[Any, str, Make]]] = {}


def mutation(of: Any, name: str) -> Callable[[Make], Make]:
    """Name a way to spoil a function."""

    def take(make: Make) -> Make:
        _MUTATIONS[make.__name__.replace("_", " ").strip()] = (of, name, make)
        return make

    return take


def mutations() -> dict[str, tuple[Any, str, Make]]:
    """All of them, by name."""
    for name in ("bugs_of_writing", "bugs_of_ticks", "bugs_of_state", "bugs_of_saves", "bugs_of_seams"):
        import_module(f"simulation.{name}")
    return _MUTATIONS


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Let the flow have that bug."""
    with spoiled(*mutations()[name]):
        yield


@contextmanager
def spoiled(of: Any, attribute: str, make: Make) -> Iterator[None]:
    """Let a class or a module have the wrong function."""
    if isinstance(of, type):  # a class may have it of another one
        of = next(one for one in of.__mro__ if attribute in one.__dict__)
    kept = of.__dict__[attribute]
    right = kept.fget if isinstance(kept, property) else getattr(kept, "__func__", kept)
    wrong = make(right)
    setattr(of, attribute, property(wrong) if isinstance(kept, property) else wrong)
    try:
        yield
    finally:
        setattr(of, attribute, kept)
