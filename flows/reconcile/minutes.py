"""The files of a replay against the log: its final minutes, and its late pixels."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from flows.errors import AudiopixelError
from flows.reconcile.capped import within
from flows.reconcile.fields import CLIENTS, DERIVED_RATES, MINUTE, MINUTE_METRICS, How
from flows.reconcile.logs import READ_ERRORS, open_log
from flows.reconcile.report import Difference
from flows.reconcile.truth import Number, Recomputation
from flows.reconcile.values import decimal_of, ratio, wrong_of


def late_letters(rejected_file: Path) -> list[tuple[str, int, str, int]]:
    """(source partition, line, event, event time) of each dead letter in a `rejected.ndjson` that came too
    late.

    Raises:
        AudiopixelError: the file cannot be read, or a line is no dead letter.
    """
    found: list[tuple[str, int, str, int]] = []
    for number, letter in _documents(rejected_file, "a dead letter of replay --out"):
        try:
            if letter["reason"] == "too_late":
                event = letter["event"]
                late = letter["partition"], letter["offset"], event["event"], event["ts"]
                if tuple(map(type, late)) != (str, int, str, int) or max(late[1], late[3]) >= 1 << 63:
                    raise TypeError
                found.append(late)
        except (KeyError, TypeError):
            raise _not_one(rejected_file, number, "a dead letter of replay --out") from None
    return found


def _documents(path: Path, what: str) -> Iterator[tuple[int, Any]]:
    try:
        with open_log(path) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError):
                    raise _not_one(path, number, what) from None
    except READ_ERRORS as error:
        raise AudiopixelError(f"{path}: cannot be read: {error}") from None


def _not_one(path: Path, number: int, what: str) -> AudiopixelError:
    return AudiopixelError(f"{path}:{number}: is not {what}: is it the right file?")


def minute_differences(
    recomputation: Recomputation, minutes_file: Path, without: Collection[str] = ()
) -> list[Difference]:
    """All differences between a recomputation and the final minutes of a `minutes.ndjson`, sorted.

    Of several `final` lines of a minute the last one holds; a minute of zeros may be absent.

    Raises:
        AudiopixelError: the file cannot be read, or a line is no minute.
    """
    final: dict[tuple[str, int], dict[str, Any]] = {}
    for number, minute in _documents(minutes_file, "a minute of replay --out"):
        try:
            if minute["state"] == "final":
                final[minute["placement_id"], minute["minute_ms"]] = minute
        except (KeyError, TypeError):
            raise _not_one(minutes_file, number, "a minute of replay --out") from None
    found = _compared(recomputation, final, without)
    if found and recomputation.capped:
        found, _ = within(found, recomputation, lambda: _compared(recomputation, final, without))
    return sorted(found)


def _compared(
    recomputation: Recomputation, final: Mapping[tuple[str, int], dict[str, Any]], without: Collection[str]
) -> list[Difference]:
    found: list[Difference] = []
    for key in recomputation.minutes.keys() | final.keys():
        expected, actual = recomputation.minutes.get(key, {}), final.get(key, {})
        of = "minute", f"{key[0]}|{key[1]}"
        for metric in (*MINUTE_METRICS, *CLIENTS):
            want, got = expected.get(metric, 0), actual.get(metric)
            if metric not in without and _differs(want, got):
                found.append(Difference(*of, metric, str(want), _text(got)))
        beside = _beside(actual) if actual else ()
        found += (Difference(*of, name, *told) for name, *told in beside if name not in without)
    return found


def _beside(minute: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(field, expected, actual) of each fault outside the counts. Rates are checked by the minute's own
    counts, versions by their kind; unknown fields are faults.
    """
    for name in minute.keys() - MINUTE.keys():
        yield name, "no such field", _text(minute[name])
    for name, how in MINUTE.items():
        got = minute.get(name)
        if how is How.VERSION:
            told = isinstance(got, str) if name == "methodology" else type(got) is int and got >= 0
            if not told or got == "":
                yield name, "present", _text(got)
        elif how is How.DERIVED:
            parts = [_number(minute.get(of)) or Decimal(0) for of in DERIVED_RATES[name]]
            wrong = wrong_of(ratio(*parts), None if got is None else str(_number(got)))
            if wrong is not None:
                yield name, wrong, _text(got)


def _text(got: Any) -> str:
    return "" if got is None else str(got)


def _differs(want: Number, got: Any) -> bool:
    number = Decimal(0) if got is None else _number(got)
    return number is None or number != Decimal(str(want))


def _number(got: Any) -> Decimal | None:
    """A number of JSON, or money as text; None for anything else."""
    number = Decimal(str(got)) if type(got) in (int, float) else decimal_of(got) if type(got) is str else None
    return number if number is not None and number.is_finite() else None
