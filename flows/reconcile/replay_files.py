"""The files of a replay: its final minutes against the log, and its dead letters of late pixels."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from connectors.files import unpacked
from connectors.wrapping import READ_ERRORS
from flows.errors import AudiopixelError
from flows.reconcile.bounds import unexplained_by_caps
from flows.reconcile.fields import CLIENTS, DERIVED_RATES, MINUTE, MINUTE_METRICS, Check
from flows.reconcile.report import Difference
from flows.reconcile.truth import Number, Recomputation
from flows.reconcile.values import decimal_of, ratio, wrong_of


def late_letters(rejected_file: Path) -> list[tuple[str, int, str, int]]:
    """(source partition, line, event, event time in ms) of the late pixels in a `rejected.ndjson`.

    Raises:
        AudiopixelError: the file cannot be read, or a line is no dead letter.
    """
    letters: list[tuple[str, int, str, int]] = []
    for number, letter in _documents(rejected_file, "a dead letter of replay --out"):
        try:
            if letter["reason"] == "too_late":
                event = letter["event"]
                late = letter["partition"], letter["offset"], event["event"], event["ts"]
                if tuple(map(type, late)) != (str, int, str, int) or max(late[1], late[3]) >= 1 << 63:
                    raise TypeError
                letters.append(late)
        except (KeyError, TypeError):
            raise _wrong_kind(rejected_file, number, "a dead letter of replay --out") from None
    return letters


def _documents(path: Path, kind: str) -> Iterator[tuple[int, Any]]:
    try:
        with unpacked(str(path)) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError):
                    raise _wrong_kind(path, number, kind) from None
    except READ_ERRORS as error:
        raise AudiopixelError(f"{path}: cannot be read: {error}") from None


def _wrong_kind(path: Path, number: int, kind: str) -> AudiopixelError:
    return AudiopixelError(f"{path}:{number}: is not {kind}: is it the right file?")


def minute_differences(
    recomputation: Recomputation, minutes_file: Path, without: Collection[str] = ()
) -> list[Difference]:
    """All differences between a recomputation and the final minutes of a `minutes.ndjson`, sorted.

    If a minute has several `final` lines, the last one counts. A minute of zeros may be absent.

    Raises:
        AudiopixelError: the file cannot be read, or a line is no minute.
    """
    final: dict[tuple[str, int], dict[str, Any]] = {}
    for number, minute in _documents(minutes_file, "a minute of replay --out"):
        try:
            if minute["state"] == "final":
                final[minute["placement_id"], minute["minute_ms"]] = minute
        except (KeyError, TypeError):
            raise _wrong_kind(minutes_file, number, "a minute of replay --out") from None
    differences = _compared(recomputation, final, without)
    differences, _ = unexplained_by_caps(differences, recomputation.capped)
    return sorted(differences)


def _compared(
    recomputation: Recomputation, final: Mapping[tuple[str, int], dict[str, Any]], without: Collection[str]
) -> list[Difference]:
    differences: list[Difference] = []
    for key in recomputation.minutes.keys() | final.keys():
        expected, actual = recomputation.minutes.get(key, {}), final.get(key, {})
        minute_id = "minute", f"{key[0]}|{key[1]}"
        for metric in (*MINUTE_METRICS, *CLIENTS):
            want, published = expected.get(metric, 0), actual.get(metric)
            if metric not in without and _differs(want, published):
                differences.append(Difference(*minute_id, metric, str(want), _text(published)))
        faults = _faults_outside_counts(actual) if actual else ()
        differences += (
            Difference(*minute_id, name, *values) for name, *values in faults if name not in without
        )
    return differences


def _faults_outside_counts(minute: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(field, expected, actual) of each fault of a minute outside of its counts. Rates are checked by the
    minute's own counts, and versions by their type. An unknown field is a fault.
    """
    for name in minute.keys() - MINUTE.keys():
        yield name, "no such field", _text(minute[name])
    for name, check in MINUTE.items():
        published = minute.get(name)
        if check is Check.VERSION:
            is_valid = type(published) is int and published >= 0
            if name == "methodology":
                is_valid = isinstance(published, str) and published != ""
            if not is_valid:
                yield name, "present", _text(published)
        elif check is Check.DERIVED:
            parts = [_number(minute.get(part)) or Decimal(0) for part in DERIVED_RATES[name]]
            wrong = wrong_of(ratio(*parts), None if published is None else str(_number(published)))
            if wrong is not None:
                yield name, wrong, _text(published)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _differs(want: Number, value: Any) -> bool:
    number = Decimal(0) if value is None else _number(value)
    return number is None or number != Decimal(str(want))


def _number(value: Any) -> Decimal | None:
    """The number of a JSON number, or of money as text; None for any other value."""
    number = decimal_of(value) if type(value) is str else None
    if type(value) in (int, float):
        number = Decimal(str(value))
    return number if number is not None and number.is_finite() else None
