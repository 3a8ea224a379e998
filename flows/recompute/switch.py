"""A switch: asked for in Redis, made by the two flows, confirmed by reading all rows back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from connectors.redis import Client, read_rows, scan_index, server_clock
from flows.errors import StateError
from flows.model.dimensions import SCOPES
from flows.model.freshness import FLUSH_STALE_S
from flows.model.redis_keys import beside, row_key, switch_key
from flows.publish import Standing, ask, standing
from flows.recompute.sides import Side, side_of

PATIENCE_S: Final = 60.0
"""Time in which the flow beside has to take the rows, and as much again to write them."""
POLL_S: Final = 0.25
BEHIND_MS: Final = 60_000
"""The most that the watermark of the flow beside may be behind."""
_TAKEN_S: Final = 2.0
"""Time behind a request that was taken back in which a flow may still have followed it."""


class Turned(NamedTuple):
    """The end of a switch.

    Attributes:
        done: whether the flow that was beside serves, and every row was read back under its generation.
        generation: of `meta` now.
        rows: rows that were read back.
        why: what is not as it should be; empty where it is done.
    """

    done: bool
    generation: int
    rows: int
    why: str


def turn(
    client: Client,
    namespace: str,
    name: str,
    patience_s: float = PATIENCE_S,
    said: Callable[[str], None] = lambda _: None,
) -> Turned:
    """Ask the second flow of a name to serve, and wait until readers have its rows.

    Args:
        said: called with what is waited for.

    Raises:
        StateError: it may not serve. AudiopixelError: one of both has never written.
        ConnectError: Redis does not serve.
    """
    _refuse(client, namespace, name)
    at = beside(namespace, name)
    wanted_rows = {scope: _there(client, at, scope) for scope in SCOPES}
    wanted = standing(client, namespace).generation + 1
    said("waiting for the flow beside to take the rows")
    found = _asked(client, namespace, name, wanted, patience_s)
    if found.generation < wanted:
        return Turned(False, found.shown, 0, "the flow beside has not taken the rows: nothing has changed")
    said("waiting until all rows are written")
    deadline_s, why, rows = time.monotonic() + patience_s, "", 0
    while time.monotonic() < deadline_s:
        found = standing(client, namespace)
        if found.generation > wanted:
            return Turned(False, found.shown, 0, "the flow that served has taken the rows back")
        if found.shown == wanted:
            rows, missing, other = _read_back(client, namespace, wanted, wanted_rows)
            if not missing and not other:
                return Turned(True, wanted, rows, "")
            why = f"{missing} rows are missing, and {other} are of another generation"
        else:
            why = "the flow that has taken the rows has not written all of them"
        time.sleep(POLL_S)
    return Turned(False, found.shown, rows, why)


def _refuse(client: Client, namespace: str, name: str) -> None:
    serving, other = side_of(client, namespace), side_of(client, beside(namespace, name))
    now_ms, _ = server_clock(client, switch_key(namespace), "name")
    if now_ms - other.flushed_ms > FLUSH_STALE_S * 1000:
        raise StateError(f"the flow of {other.namespace} has written nothing for 30 s: start it first")
    if other.reason in ("catching_up", "starting"):
        raise StateError(f"the flow of {other.namespace} is not live yet ({other.reason}): wait until it is")
    if _behind(serving, other) > BEHIND_MS:
        raise StateError(
            f"the flow of {other.namespace} is {_behind(serving, other) // 1000} s behind the one that "
            "serves: wait until it has caught up"
        )


def _behind(serving: Side, other: Side) -> int:
    return serving.watermark_ms - other.watermark_ms


def _asked(client: Client, namespace: str, name: str, wanted: int, patience_s: float) -> Standing:
    """Ask until the rows are taken; who waits no longer takes the request back."""
    deadline_s = time.monotonic() + patience_s
    try:
        while time.monotonic() < deadline_s:
            ask(client, namespace, name, wanted)
            time.sleep(POLL_S)
            if (found := standing(client, namespace)).generation >= wanted:
                return found
    except BaseException:
        ask(client, namespace, name, wanted, 0)
        raise
    ask(client, namespace, name, wanted, 0)
    time.sleep(_TAKEN_S)
    return standing(client, namespace)


def _there(client: Client, namespace: str, scope: str) -> list[str]:
    """Names that have a row: an index outlives its rows."""
    names = scan_index(client, f"{namespace}:index:{scope}")
    rows = read_rows(client, [row_key(namespace, scope, name) for name in names], ["generation"])
    return [name for name, row in zip(names, rows, strict=True) if row]


def _read_back(
    client: Client, namespace: str, generation: int, wanted: dict[str, list[str]]
) -> tuple[int, int, int]:
    """Rows that were read, those of `wanted` that are missing, and those of another generation."""
    read = missing = other = 0
    for scope, names in wanted.items():
        every = list({*names, *_there(client, namespace, scope)})
        keys = [row_key(namespace, scope, name) for name in every]
        for row in read_rows(client, keys, ["generation"]):
            of = row.get("generation")
            read += of == str(generation)
            missing += of is None
            other += of not in (None, str(generation))
    return read, missing, other
