"""Compares the numbers of two namespaces, by placement and field.

Two live flows write at different moments. Rows are compared if both sides are at one watermark and no row is
newer than its `meta`. Otherwise the calendar days that are final on both sides are compared, since a final
day never changes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from connectors.redis import Client, read_rows, scan_index
from flows.errors import AudiopixelError
from flows.model.dimensions import SCOPES
from flows.model.redis_keys import day_key, methodology_key, row_key
from flows.publish import number_of
from flows.recompute.comparison_sides import Side, moment, side_of

TRIES: Final = 10
TRY_S: Final = 0.3
MAX_DAYS: Final = 62
"""The greatest number of compared days, which is the number that Redis has."""
SETTLES_MS: Final = 120_000
"""The event time after a day's finality by which Redis has it. The flow writes final days once a minute."""
LONGEST_TEXT: Final = 2_000
_OF_VERSION: Final = frozenset(("generation", "fence", "rev", "updated_ms", "delivery.alerted_state"))
_NONE: Final = Decimal()


class Move(NamedTuple):
    """A value that differs.

    Attributes:
        day: the ISO date of a final day; empty for the row.
        was, now: the texts in Redis of the serving and of the second side; None for an absent value.
        by: the subjects of the differing texts of methods by which the value is counted.
    """

    placement: str
    field: str
    day: str
    was: str | None
    now: str | None
    by: tuple[str, ...]

    @property
    def difference(self) -> Decimal | None:
        """`now` less `was`, with 0 for an absent value; None if one of them is no number."""
        was, now = _number(self.was), _number(self.now)
        return None if was is None or now is None else now - was

    @property
    def relative(self) -> float | None:
        """The difference divided by `was`; None if `was` is 0, or one of them is no number."""
        was, difference = _number(self.was), self.difference
        return None if difference is None or not was else float(difference / was)

    @property
    def size(self) -> tuple[float, Decimal]:
        """The key by which moves are sorted: the difference by the greater value, then the difference."""
        difference = self.difference
        if difference is None:
            return 1.0, _NONE
        most = max(abs(_number(self.was) or _NONE), abs(_number(self.now) or _NONE))
        return (float(abs(difference) / most) if most else 0.0), abs(difference)


@dataclass
class Difference:
    """A comparison.

    Attributes:
        days: the compared final days; empty if rows at one watermark were compared.
        values: the number of compared values.
        left_out: the number of days of placements that were not compared, since a side has them of an
            earlier generation.
        methods: both texts of each subject whose texts differ; None for an absent text.
    """

    serving: Side
    second: Side
    days: Sequence[date] = ()
    placements: int = 0
    values: int = 0
    left_out: int = 0
    moves: list[Move] = field(default_factory=list)
    methods: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)


def difference(client: Client, serving: str, second: str, zone: ZoneInfo) -> Difference:
    """The values that differ between two namespaces.

    Args:
        zone: the time zone of calendar days.

    Raises:
        AudiopixelError: the namespaces cannot be compared.
        ConnectError: Redis does not answer.
    """
    for _ in range(TRIES):
        comparison = Difference(side_of(client, serving), side_of(client, second))
        if comparison.serving.watermark_ms == comparison.second.watermark_ms > 0:
            rows = [_rows(client, side) for side in (comparison.serving, comparison.second)]
            if rows[0] is not None and rows[1] is not None:
                return _of_rows(client, comparison, rows[0], rows[1])
        time.sleep(TRY_S)
    return _of_days(client, comparison, zone)


def _rows(client: Client, side: Side) -> dict[str, dict[str, str]] | None:
    """The placements' rows of a side at its version; None if the side has moved on meanwhile."""
    names = scan_index(client, f"{side.namespace}:index:{SCOPES[0]}")
    rows = read_rows(client, [row_key(side.namespace, SCOPES[0], name) for name in names])
    rows_by_name = {name: row for name, row in zip(names, rows, strict=True) if row}
    versions = (
        tuple(number_of(row, name) for name in ("generation", "fence", "rev"))
        for row in rows_by_name.values()
    )
    if any(version > side.version for version in versions):
        return None
    if side_of(client, side.namespace).watermark_ms != side.watermark_ms:
        return None
    return {
        name: row for name, row in rows_by_name.items() if number_of(row, "generation") == side.generation
    }


def _of_rows(
    client: Client,
    comparison: Difference,
    serving: Mapping[str, Mapping[str, str]],
    second: Mapping[str, Mapping[str, str]],
) -> Difference:
    comparison.methods, metrics = _methods(client, comparison)
    for name in sorted(serving.keys() | second.keys()):
        comparison.placements += 1
        _compare(comparison, metrics, name, "", serving.get(name, {}), second.get(name, {}))
    return _sorted(comparison)


def _of_days(client: Client, comparison: Difference, zone: ZoneInfo) -> Difference:
    """The comparison of final days."""
    comparison.days = _final_days(comparison.serving, comparison.second, zone)
    if not comparison.days:
        watermarks = (moment(side.watermark_ms) for side in (comparison.serving, comparison.second))
        raise AudiopixelError(
            f"nothing can be compared: the watermarks are {' and '.join(watermarks)}, and no calendar day is "
            "final on both sides yet"
        )
    comparison.methods, metrics = _methods(client, comparison)
    sides = comparison.serving, comparison.second
    names = {name for side in sides for name in scan_index(client, f"{side.namespace}:index:{SCOPES[0]}")}
    for name in sorted(names):
        comparison.placements += 1
        keys = [[day_key(side.namespace, name, day) for day in comparison.days] for side in sides]
        rows_of_sides = [read_rows(client, side_keys) for side_keys in keys]
        for day, was, now in zip(comparison.days, *rows_of_sides, strict=True):
            if any(
                row and number_of(row, "generation") != side.generation
                for row, side in zip((was, now), sides, strict=True)
            ):
                comparison.left_out += 1
                continue
            _compare(comparison, metrics, name, day.isoformat(), dict(_unfolded(was)), dict(_unfolded(now)))
    return _sorted(comparison)


def _final_days(serving: Side, second: Side, zone: ZoneInfo) -> list[date]:
    """The calendar days that both sides have counted whole, and that are final on both."""
    if not serving.counted_since_ms or not second.counted_since_ms:
        return []
    since_ms = max(serving.counted_since_ms, second.counted_since_ms)
    through_ms = min(side.watermark_ms - side.lateness_ms for side in (serving, second)) - SETTLES_MS
    day = datetime.fromtimestamp(since_ms / 1000, zone).date()
    last = datetime.fromtimestamp(max(0, through_ms) / 1000, zone).date()
    days = [day + timedelta(days=n) for n in range(1, max(1, (last - day).days))]
    return days[-MAX_DAYS:]


def _unfolded(row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The counts of a day; a count of a table is named `table.part`."""
    for name, text in row.items():
        if name in ("invalid_traffic", "bases", "sent"):
            for part, count in msgspec.json.decode(text, type=dict[str, Any]).items():
                yield f"{name}.{part}", str(count)
        else:
            yield name, text


def _compare(
    comparison: Difference,
    metrics: Mapping[str, tuple[str, ...]],
    name: str,
    day: str,
    was: Mapping[str, str],
    now: Mapping[str, str],
) -> None:
    every = tuple(subject for subject in comparison.methods if "." not in subject)
    for field_name in sorted(was.keys() | now.keys()):
        if field_name in _OF_VERSION or field_name.endswith("_ms"):
            continue
        comparison.values += 1
        before, after = was.get(field_name), now.get(field_name)
        if before == after or (not _number(before) and not _number(after) and None in (before, after)):
            continue  # a count of 0 is either written or absent
        metric = field_name.partition(".")[2] or field_name
        comparison.moves.append(Move(name, field_name, day, before, after, metrics.get(metric) or every))


def _sorted(comparison: Difference) -> Difference:
    comparison.moves.sort(key=lambda move: (*move.size, move.placement, move.field), reverse=True)
    return comparison


def _methods(
    client: Client, comparison: Difference
) -> tuple[dict[str, tuple[str | None, str | None]], dict[str, tuple[str, ...]]]:
    """The texts of methods that differ, by subject, and each metric's own subjects among them. A metric's
    own subject is named `metric.subject`.
    """
    if comparison.serving.methodology == comparison.second.methodology:
        return {}, {}
    texts = [_text(client, side) for side in (comparison.serving, comparison.second)]
    differing = {
        subject: (texts[0].get(subject), texts[1].get(subject))
        for subject in sorted(texts[0].keys() | texts[1].keys())
        if texts[0].get(subject) != texts[1].get(subject)
    }
    of_metrics: dict[str, tuple[str, ...]] = {}
    for subject in differing:
        metric, _, metric_subject = subject.partition(".")
        if metric_subject:
            of_metrics[metric] = (*of_metrics.get(metric, ()), subject)
    return differing, of_metrics


def _text(client: Client, side: Side) -> dict[str, str]:
    """The sentences of a side's methodology, by subject; the hash alone if Redis lacks them."""
    serving = side.namespace.partition(":recompute:")[0]
    (fields,) = read_rows(client, [methodology_key(serving, side.methodology)], ["text"])
    try:
        text = msgspec.json.decode(fields.get("text", ""), type=dict[str, Any])
        rules = {str(name): str(sentence)[:LONGEST_TEXT] for name, sentence in text["rules"].items()}
        for metric, sentences in text["metrics"].items():
            rules |= {f"{metric}.{name}": str(one)[:LONGEST_TEXT] for name, one in sentences.items()}
        return rules
    except (msgspec.MsgspecError, KeyError, AttributeError, TypeError):
        return {"hash": side.methodology}


def _number(text: str | None) -> Decimal | None:
    """The number of a text, 0 if it is absent. None if the text is no number."""
    if text is None:
        return _NONE
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
