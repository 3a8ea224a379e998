"""What was published against what the log says: every difference, by row or minute and metric.

A count that is absent counts as 0. Reach must be equal up to 1,000, where the flow is exact, and beyond that
lie within four standard errors of its sketch (specification 2.3).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from flows.errors import AudiopixelError
from flows.reconcile import MINUTE_METRICS, SCOPES, Number, Recomputation
from flows.reconcile_decode import READ_ERRORS, open_log
from flows.shown import shown

_EXACT_REACH: Final = 1000
_REACH_TOLERANCE: Final = 4 * 0.008
_ROWS_A_CALL: Final = 1000


@dataclass(frozen=True, order=True)
class Difference:
    """One number that is not what the log says.

    Attributes:
        scope, id: of the row; (`minute`, `<placement>|<minute in epoch ms>`) of a minute; (`meta`, "").
        metric: the field's name; `row` where a whole row is missing or too many, `index` for its entry there.
        expected, actual: as text; "" where there is none.
    """

    scope: str
    id: str
    metric: str
    expected: str
    actual: str


def differences(
    recomputation: Recomputation,
    redis_client: Any,
    namespace: str = "audiopixel:v1",
    without: Collection[str] = (),
) -> list[Difference]:
    """All differences between a recomputation and the rows in Redis, sorted.

    Args:
        redis_client: redis-py's, of a node or a cluster, decoding responses or not.
        without: metrics (bare names, such as `conversions` or `unattributed`) that are not compared.
    """
    found: list[Difference] = []
    for scope in SCOPES:
        expected = {name: row for (of, name), row in recomputation.flight.items() if of == scope}
        indexed = {_text(name) for name in redis_client.zrange(f"{namespace}:index:{scope}", 0, -1)}
        names = sorted(expected.keys() | indexed)
        for start in range(0, len(names), _ROWS_A_CALL):
            some = names[start : start + _ROWS_A_CALL]
            pipeline = redis_client.pipeline(transaction=False)
            for name in some:
                pipeline.hgetall(f"{namespace}:{scope}:{{{name}}}")
            for name, packed in zip(some, pipeline.execute(), strict=True):
                row = {_text(key): _text(value) for key, value in packed.items()}
                found += _row_differences(scope, name, expected.get(name), row, name in indexed, without)
    if "unattributed" not in without:
        actual = redis_client.hget(f"{namespace}:meta", "unattributed")
        want = recomputation.totals["unattributed"]
        if _differs("unattributed", want, actual and _text(actual)):
            found.append(Difference("meta", "", "unattributed", str(want), _text(actual or b"")))
    return sorted(found)


def _row_differences(
    scope: str,
    name: str,
    expected: Mapping[str, Number] | None,
    row: Mapping[str, str],
    indexed: bool,
    without: Collection[str],
) -> Iterable[Difference]:
    if expected is None:
        yield Difference(scope, name, "row", "", "present")
        return
    if not row:
        yield Difference(scope, name, "row", "present", "")
        return
    if not indexed:
        yield Difference(scope, name, "index", "present", "")
    for metric, want in expected.items():
        bare = metric.removeprefix("flight.")
        if bare not in without and _differs(bare, want, row.get(metric)):
            yield Difference(scope, name, metric, str(want), row.get(metric, ""))


def late_letters(rejected_file: Path) -> list[tuple[str, int]]:
    """(source partition, line) of what a `rejected.ndjson` says came too late.

    Raises:
        AudiopixelError: the file cannot be read, or a line is no dead letter.
    """
    found: list[tuple[str, int]] = []
    for number, letter in _documents(rejected_file, "a dead letter of replay --out"):
        try:
            if letter["reason"] == "too_late":
                found.append((letter["partition"], letter["offset"]))
        except (KeyError, TypeError):
            raise _not_one(rejected_file, number, "a dead letter of replay --out") from None
    return found


def _documents(path: Path, what: str) -> Iterator[tuple[int, Any]]:
    try:
        with open_log(path) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield number, json.loads(line)
                except ValueError:
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
    found = []
    for key in recomputation.minutes.keys() | final.keys():
        expected, actual = recomputation.minutes.get(key, {}), final.get(key, {})
        for metric in MINUTE_METRICS:
            want, got = expected.get(metric, 0), actual.get(metric)
            if metric not in without and _differs(metric, want, None if got is None else str(got)):
                shown = "" if got is None else str(got)
                found.append(Difference("minute", f"{key[0]}|{key[1]}", metric, str(want), shown))
    return sorted(found)


def _differs(metric: str, expected: Number, actual: str | None) -> bool:
    if not actual:
        return expected != 0
    try:
        got = Decimal(actual)
    except InvalidOperation:
        return True
    want = Decimal(str(expected))
    if metric == "reach" and want > _EXACT_REACH:
        return not abs(got - want) <= want * Decimal(str(_REACH_TOLERANCE))
    return got != want


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def format_differences(found: Sequence[Difference], limit: int = 50) -> str:
    """A table in plain text, at most `limit` differences and how many more there are; "" for none."""
    if not found:
        return ""
    head = ("scope", "id", "metric", "expected", "actual")
    rows = [
        head,
        *(tuple(map(shown, (d.scope, d.id, d.metric, d.expected, d.actual or "-"))) for d in found[:limit]),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if len(found) > limit:
        lines.append(f"… and {len(found) - limit:,} more")
    return "\n".join(lines)
