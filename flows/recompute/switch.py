"""Requests a switch in Redis, which the two flows carry out, and confirms it by reading all rows back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from connectors.redis import Client, read_rows, scan_index, server_clock
from flows.errors import StateError
from flows.model.dimensions import SCOPES
from flows.model.freshness import FLUSH_STALE_S
from flows.model.redis_keys import recomputation_namespace, row_key, switch_key
from flows.publish import Standing, ask, standing
from flows.recompute.comparison_sides import Side, side_of

PATIENCE_S: Final = 60.0
"""The time in which the second flow must take the rows, and again the time in which it must write them."""
POLL_S: Final = 0.25
BEHIND_MS: Final = 60_000
"""The greatest time by which the second flow's watermark may be behind the serving flow's."""
_TAKEN_S: Final = 2.0
"""The time after a withdrawal of the request in which a flow may still follow the request."""


class SwitchResult(NamedTuple):
    """The result of a switch.

    Attributes:
        done: whether the second flow serves, and every row was read back with its generation.
        generation: the present generation of `meta`.
        rows: the number of rows that were read back.
        why: the fault; empty if `done`.
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
    report: Callable[[str], None] = lambda _: None,
) -> SwitchResult:
    """Request that a recomputation's flow serves, and wait until readers have its rows.

    Args:
        name: the recomputation's name.
        report: receives a line before each wait.

    Raises:
        StateError: the flow may not serve yet.
        AudiopixelError: one of the two flows has never written.
        ConnectError: Redis does not answer.
    """
    _refuse(client, namespace, name)
    beside_rows = recomputation_namespace(namespace, name)
    wanted_rows = {scope: _row_ids(client, beside_rows, scope) for scope in SCOPES}
    wanted = standing(client, namespace).generation + 1
    report("waiting for the flow beside to take the rows")
    present = _request_rows(client, namespace, name, wanted, patience_s)
    if present.generation < wanted:
        return SwitchResult(
            False, present.shown, 0, "the flow beside has not taken the rows: nothing has changed"
        )
    report("waiting until all rows are written")
    deadline_s, why, rows = time.monotonic() + patience_s, "", 0
    while time.monotonic() < deadline_s:
        present = standing(client, namespace)
        if present.generation > wanted:
            return SwitchResult(False, present.shown, 0, "the flow that served has taken the rows back")
        if present.shown == wanted:
            rows, missing, differing = _read_back(client, namespace, wanted, wanted_rows)
            if not missing and not differing:
                return SwitchResult(True, wanted, rows, "")
            why = f"{missing} rows are missing, and {differing} are of another generation"
        else:
            why = "the flow that has taken the rows has not written all of them"
        time.sleep(POLL_S)
    return SwitchResult(False, present.shown, rows, why)


def _refuse(client: Client, namespace: str, name: str) -> None:
    serving, second = side_of(client, namespace), side_of(client, recomputation_namespace(namespace, name))
    now_ms, _ = server_clock(client, switch_key(namespace), "name")
    if now_ms - second.flushed_ms > FLUSH_STALE_S * 1000:
        raise StateError(f"the flow of {second.namespace} has written nothing for 30 s: start it first")
    if second.reason in ("catching_up", "starting"):
        raise StateError(
            f"the flow of {second.namespace} is not live yet ({second.reason}): wait until it is"
        )
    if _behind(serving, second) > BEHIND_MS:
        raise StateError(
            f"the flow of {second.namespace} is {_behind(serving, second) // 1000} s behind the one that "
            "serves: wait until it has caught up"
        )


def _behind(serving: Side, second: Side) -> int:
    return serving.watermark_ms - second.watermark_ms


def _request_rows(client: Client, namespace: str, name: str, wanted: int, patience_s: float) -> Standing:
    """Repeat the request until the second flow takes the rows. Withdraw it after `patience_s`, or at an
    interrupt.
    """
    deadline_s = time.monotonic() + patience_s
    try:
        while time.monotonic() < deadline_s:
            ask(client, namespace, name, wanted)
            time.sleep(POLL_S)
            if (present := standing(client, namespace)).generation >= wanted:
                return present
    except BaseException:
        ask(client, namespace, name, wanted, 0)
        raise
    ask(client, namespace, name, wanted, 0)
    time.sleep(_TAKEN_S)
    return standing(client, namespace)


def _row_ids(client: Client, namespace: str, scope: str) -> list[str]:
    """The names that have a row. An index may have more names, since it outlives rows."""
    names = scan_index(client, f"{namespace}:index:{scope}")
    rows = read_rows(client, [row_key(namespace, scope, name) for name in names], ["generation"])
    return [name for name, row in zip(names, rows, strict=True) if row]


def _read_back(
    client: Client, namespace: str, generation: int, wanted: dict[str, list[str]]
) -> tuple[int, int, int]:
    """The numbers of rows of a generation, of missing rows of `wanted`, and of rows of another generation."""
    read = missing = differing = 0
    for scope, names in wanted.items():
        every = list({*names, *_row_ids(client, namespace, scope)})
        keys = [row_key(namespace, scope, name) for name in every]
        for row in read_rows(client, keys, ["generation"]):
            generation_text = row.get("generation")
            read += generation_text == str(generation)
            missing += generation_text is None
            differing += generation_text not in (None, str(generation))
    return read, missing, differing
