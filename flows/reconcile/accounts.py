"""The accounts that were published, against those of the log: `meta`, and a ledger a source partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from flows.reconcile.fields import (
    META,
    PARTITION,
    How,
)
from flows.reconcile.live import keyed, silent
from flows.reconcile.redis_reading import hash_of, positions_of, watermark_of
from flows.reconcile.report import Difference
from flows.reconcile.truth import Key, Recomputation
from flows.reconcile.values import (
    decimal_of,
    moment_of,
    wrong_of,
)

_SUMMED: Final = tuple(name for name, how in PARTITION.items() if how is How.EXACT and name != "position")
_EXACT_NAMES: Final = 1_000
_MINUTE_MS: Final = 60_000
_JUDGED_MS: Final = 300_000
UNJUDGED: Final = ("catching_up", "switching", "starting", "collector", "stalled", "lagging", "rejecting")
"""The reasons for which delivery is not judged."""


class Accounts:
    """Compares `meta` and the partitions' ledgers; counts the compared fields in `compared`."""

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
        """Every difference of the accounts; `beyond` bounds the number of names beyond a cap."""
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
            # Exact to 1,000 names; beyond, the flow estimates.
            "rows_beyond_cap": beyond if beyond[1] <= _EXACT_NAMES else (1, 10 * beyond[1]),
            # A mark of a collector moves time, too, even after all pixels of a file.
            "watermark_ms": self._watermarks(
                max([truth.end_ms, *truth.watermarks.values()]), min(truth.watermarks.values(), default=0)
            ),
            "counted_since_ms": self._since(),
        }
        yield from self._fields(("meta", ""), self._meta, META, expected | self._judged())

    def _judged(self) -> dict[str, Any]:
        """The expected fields on whether delivery is judged. Numbers of more than five minutes ago are never
        judged. Unjudged delivery has a reason with its time; a hold has its collector.
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
            **keyed(self._meta),
            **silent(self._meta, self._truth.is_replayed(positions_of(self._client, self._namespace)[0])),
        }

    def _since(self) -> int | tuple[int, int]:
        """The moment since which a replay counts. A live flow's moment may be any: it follows from the
        broker's timestamps, and from where the flow began.
        """
        if self._truth.is_replayed(positions_of(self._client, self._namespace)[0]):
            return self._truth.counted_since_ms
        return 0, moment_of(self._meta.get("flushed_ms")) or 0

    def _watermarks(self, end_ms: int, least_ms: int) -> tuple[int, int]:
        """The bounds of a watermark: the log's, and that of a flow that ran on after its end, by time."""
        flushed = moment_of(self._meta.get("flushed_ms")) or 0
        return min(end_ms, least_ms), max(end_ms, flushed + _MINUTE_MS)

    def _partitions(self) -> Iterator[Difference]:
        truth = self._truth
        names, readable = positions_of(self._client, self._namespace)
        if not readable:
            yield Difference("positions", "", "row", "present", "unreadable")
        ledgers, watermarks = truth.ledger, truth.watermarks
        rows = {name: self._hash(f"{self._namespace}:partition:{{{name}}}") for name in {*names, *ledgers}}
        if names and not ledgers.keys() & set(names):  # files with the messages of a topic's partitions
            own_rows = [row for name, row in rows.items() if name in names]
            rows = {"*": {of: _sum([row.get(of, "0") for row in own_rows]) for of in _SUMMED}}
            rows["*"] |= {of: own_rows[0].get(of, "") for of in PARTITION.keys() - set(_SUMMED)}
            ledgers, watermarks = {"*": truth.totals}, {"*": min(truth.watermarks.values(), default=0)}
        for name, account in sorted(ledgers.items()):
            if not rows.get(name) and not account["received"] + account["marks"]:
                continue  # a file without a line may have no account
            expected: dict[str, Any] = {of: account.get(of, 0) for of in _SUMMED}
            expected["position"] = None if name == "*" else account["received"] + account["marks"]
            expected["watermark_ms"] = self._watermarks(watermarks[name], watermarks[name])
            # With several partitions the least one may have been far behind.
            least_ms = watermarks[name] if len(truth.ledger) == 1 else 0
            expected["as_of_ms"] = (min(least_ms, self._watermark_ms), self._watermark_ms)
            if name == "*":
                del expected["position"]
            yield from self._fields(("partition", name), rows.get(name, {}), PARTITION, expected)

    def _fields(
        self, key: Key, row: Mapping[str, str], how: Mapping[str, How], expected: Mapping[str, Any]
    ) -> Iterator[Difference]:
        for name in how.keys() | row.keys():
            if name in self._without:
                continue
            actual = row.get(name)
            if name not in how:
                yield Difference(*key, name, "no such field", actual or "")
                continue
            self._compared[how[name]] += 1
            if how[name] is How.VERSION:
                if actual is None:
                    yield Difference(*key, name, "present", "")
            elif name in expected:
                want = expected[name]
                if how[name] not in (How.DERIVED, How.LIVE):
                    want = want if isinstance(want, tuple) else Decimal(want)
                    actual = "0" if actual is None else actual
                wrong = wrong_of(want, actual)
                if wrong is not None:
                    yield Difference(*key, name, wrong, actual or "")


def _sum(counts: Sequence[str]) -> str:
    """Add counts up. If one is no number, it is returned."""
    total = Decimal(0)
    for text in counts:
        if (count := decimal_of(text)) is None:
            return text
        total += count
    return str(total)
