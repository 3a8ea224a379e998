"""The published accounts against those of the log: `meta`, and the ledger of each source partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from flows.reconcile.fields import META, PARTITION, Check
from flows.reconcile.live import keyed_fields, silent_fields
from flows.reconcile.redis_reading import hash_of, positions_of, watermark_of
from flows.reconcile.report import Difference
from flows.reconcile.truth import Key, Recomputation
from flows.reconcile.values import decimal_of, moment_of, wrong_of

_SUMMED: Final = tuple(
    name for name, check in PARTITION.items() if check is Check.EXACT and name != "position"
)
_EXACT_NAMES: Final = 1_000
"""The number of names beyond a cap up to which the flow counts them exactly."""
_MINUTE_MS: Final = 60_000
_JUDGED_MS: Final = 300_000
"""The greatest age of numbers by which delivery is judged."""
UNJUDGED: Final = ("catching_up", "switching", "starting", "collector", "stalled", "lagging", "rejecting")
"""The reasons for which delivery is not judged."""


class Accounts:
    """Compares `meta` and the partitions' ledgers.

    Args:
        without: names of fields that are not compared.
        compared: the number of compared fields by `Check`, which the comparison adds to.
    """

    def __init__(
        self,
        truth: Recomputation,
        client: Any,
        namespace: str,
        without: Collection[str],
        compared: Counter[str],
    ) -> None:
        self._truth, self._client, self._namespace = truth, client, namespace
        self._without, self._compared = without, compared
        self._meta = self._hash(f"{namespace}:meta")
        self._watermark_ms = watermark_of(self._meta, truth.end_ms)

    def all(self, beyond: tuple[int, int]) -> Iterator[Difference]:
        """Every difference of the accounts. `beyond` has the least and the greatest number of names beyond a
        cap.
        """
        yield from self._account(beyond)
        yield from self._partitions()

    def _hash(self, key: str) -> dict[str, str]:
        return hash_of(self._client, key)

    def _account(self, beyond: tuple[int, int]) -> Iterator[Difference]:
        truth, totals = self._truth, self._truth.totals
        expected: dict[str, Any] = {
            "conversions_accepted": totals["conversions"],
            "conversions_attributed": totals["conversions"] - totals["unattributed"],
            "unattributed": totals["unattributed"],
            "conversions_pending": 0,
            "conversions_noisy_household": totals["noisy_household"],
            # The flow estimates a greater number.
            "rows_beyond_cap": beyond if beyond[1] <= _EXACT_NAMES else (1, 10 * beyond[1]),
            # A mark of a collector advances the watermark, even after all pixels of a file.
            "watermark_ms": self._watermarks(
                max([truth.end_ms, *truth.watermarks.values()]), min(truth.watermarks.values(), default=0)
            ),
            "counted_since_ms": self._counted_since(),
        }
        yield from self._fields(("meta", ""), self._meta, META, expected | self._judged())

    def _judged(self) -> dict[str, Any]:
        """The expected fields on whether delivery is judged. Older numbers than `_JUDGED_MS` are not judged.
        Unjudged delivery has a reason and its time. A hold has a collector.
        """
        flushed_ms, judged_text = moment_of(self._meta.get("flushed_ms")) or 0, self._meta.get("judged")
        old = flushed_ms - self._watermark_ms > _JUDGED_MS
        return {
            "judged": "0" if old else frozenset("01"),
            "unjudged_since_ms": (1, flushed_ms) if judged_text == "0" else None,
            "unjudged_reason": frozenset(UNJUDGED) if judged_text == "0" else None,
            "held_since_ms": (1, flushed_ms) if self._meta.get("held_by") else None,
            "held_why": frozenset(("drain", "clock")) if self._meta.get("held_by") else None,
            "rows_as_of_ms": (0, self._watermark_ms - 1) if self._meta.get("rows_as_of_ms") else None,
            **keyed_fields(self._meta),
            **silent_fields(
                self._meta, self._truth.is_replayed(positions_of(self._client, self._namespace)[0])
            ),
        }

    def _counted_since(self) -> int | tuple[int, int]:
        """The moment since which a replay counts, or the bounds of a live flow's moment. The log does not
        show the broker's timestamps and the flow's first offset, on which a live flow's moment depends.
        """
        if self._truth.is_replayed(positions_of(self._client, self._namespace)[0]):
            return self._truth.counted_since_ms
        return 0, moment_of(self._meta.get("flushed_ms")) or 0

    def _watermarks(self, end_ms: int, least_ms: int) -> tuple[int, int]:
        """The bounds of a watermark: from the log's, to that of a flow that ran on after the log's end."""
        flushed_ms = moment_of(self._meta.get("flushed_ms")) or 0
        return min(end_ms, least_ms), max(end_ms, flushed_ms + _MINUTE_MS)

    def _partitions(self) -> Iterator[Difference]:
        truth = self._truth
        names, readable = positions_of(self._client, self._namespace)
        if not readable:
            yield Difference("positions", "", "row", "present", "unreadable")
        ledgers, watermarks = truth.ledger, truth.watermarks
        rows = {name: self._hash(f"{self._namespace}:partition:{{{name}}}") for name in {*names, *ledgers}}
        if names and not ledgers.keys() & set(names):  # the files are copies of a topic's partitions
            topic_rows = [row for name, row in rows.items() if name in names]
            rows = {"*": {field: _sum([row.get(field, "0") for row in topic_rows]) for field in _SUMMED}}
            rows["*"] |= {field: topic_rows[0].get(field, "") for field in PARTITION.keys() - set(_SUMMED)}
            ledgers, watermarks = {"*": truth.totals}, {"*": min(truth.watermarks.values(), default=0)}
        for name, account in sorted(ledgers.items()):
            if not rows.get(name) and not account["received"] + account["marks"]:
                continue  # a file without a line may have no account
            expected: dict[str, Any] = {field: account.get(field, 0) for field in _SUMMED}
            expected["position"] = None if name == "*" else account["received"] + account["marks"]
            expected["watermark_ms"] = self._watermarks(watermarks[name], watermarks[name])
            # The watermark of the flow is the least one, and another partition may have been far behind.
            least_ms = watermarks[name] if len(truth.ledger) == 1 else 0
            expected["as_of_ms"] = (min(least_ms, self._watermark_ms), self._watermark_ms)
            if name == "*":
                del expected["position"]
            yield from self._fields(("partition", name), rows.get(name, {}), PARTITION, expected)

    def _fields(
        self, key: Key, row: Mapping[str, str], checks: Mapping[str, Check], expected: Mapping[str, Any]
    ) -> Iterator[Difference]:
        for name in checks.keys() | row.keys():
            if name in self._without:
                continue
            actual = row.get(name)
            if name not in checks:
                yield Difference(*key, name, "no such field", actual or "")
                continue
            self._compared[checks[name]] += 1
            if checks[name] is Check.VERSION:
                if actual is None:
                    yield Difference(*key, name, "present", "")
            elif name in expected:
                want = expected[name]
                if checks[name] not in (Check.DERIVED, Check.LIVE):
                    want = want if isinstance(want, tuple) else Decimal(want)
                    actual = "0" if actual is None else actual
                wrong = wrong_of(want, actual)
                if wrong is not None:
                    yield Difference(*key, name, wrong, actual or "")


def _sum(counts: Sequence[str]) -> str:
    """The sum of counts; a text that is no number is returned instead."""
    total = Decimal(0)
    for text in counts:
        if (count := decimal_of(text)) is None:
            return text
        total += count
    return str(total)
