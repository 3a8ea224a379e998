"""Bugs of switches; `found_switches.json` says which seed of `simulation.switches` finds which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from connectors.redis.rows import RowStore
from flows.publish import redis_writer
from flows.publish.redis_writer import RedisWriter
from flows.publish.switching import Standing
from simulation import switches
from simulation.mutations import Make, spoiled

BUGS: Final[dict[str, tuple[Any, str, Make]]] = {}


def bug(of: Any, name: str) -> Callable[[Make], Make]:
    """Name a way to spoil a function."""

    def take(make: Make) -> Make:
        BUGS[make.__name__.replace("_", " ")] = (of, name, make)
        return make

    return take


@contextmanager
def with_bug(name: str) -> Iterator[None]:
    """Let both flows have that bug."""
    with spoiled(*BUGS[name]):
        yield


@bug(RowStore, "put_in_older")
def rows_are_overwritten_while_they_are_judged(_: Any) -> Any:
    return lambda *_: None


@bug(RedisWriter, "_end_strangers")
def rows_that_the_other_flow_left_stay(_: Any) -> Any:
    return lambda self, rev: None


@bug(redis_writer, "note_taken")
def the_place_of_the_flow_that_served_is_not_noted(_: Any) -> Any:
    return lambda *_: None


@bug(redis_writer, "write_fence_record")
def the_new_place_is_not_kept_on_the_disk(_: Any) -> Any:
    return lambda *_: None


@bug(Standing, "due")
def a_claim_without_an_answer_is_not_made_again(right: Any) -> Any:
    return lambda self, name, now_ms, taking: right(self, name, now_ms, 0)


@bug(switches, "seated")
def a_flow_starts_where_its_settings_name(_: Any) -> Any:
    return lambda settings: settings
