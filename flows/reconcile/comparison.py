"""Comparison of published numbers with the log: every difference, by row or minute and field.

`flows.reconcile.fields` defines how each field is compared. An absent count is 0; any other absent field is a
null. Reach must be equal up to 1,000, where the flow is exact. A greater reach must lie within four standard
errors of its sketch (specification 2.3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from flows.reconcile.accounts import Accounts
from flows.reconcile.beyond_cap import Other
from flows.reconcile.capped import unlike, within
from flows.reconcile.erased import beyond
from flows.reconcile.fields import (
    ACCOUNTS,
    CLASSES,
    LABELS,
    ROW,
    SCOPES,
    WINDOWS,
    How,
)
from flows.reconcile.forgotten import begun
from flows.reconcile.live import changed_plan, unjudged
from flows.reconcile.pacing import (
    JUDGED,
    QUIET,
    STILL,
    Counts,
    Figures,
    Own,
    Planned,
    fields,
    paced,
    together,
)
from flows.reconcile.redis_reading import hash_of, hashes_of, index_of, positions_of, watermark_of
from flows.reconcile.report import Comparison, Difference
from flows.reconcile.rules import ms
from flows.reconcile.truth import Key, Recomputation, RowMoments, Truth
from flows.reconcile.values import (
    as_shown,
    decimal_of,
    moment_of,
    ratio,
    same,
    wrong_of,
)
from flows.reconcile.windows import COUNTS, NOTHING, of_moment, of_platform, of_windows, own_of, reach_unit

_ROWS_A_CALL: Final = 1000
_ROWS_AT_ONCE: Final = 20_000
_MINUTE_MS: Final = 60_000


def compare(
    recomputation: Recomputation,
    redis_client: Any,
    namespace: str = "audiopixel:v1",
    without: Collection[str] = (),
) -> Comparison:
    """Compare a recomputation with all that is in Redis.

    Args:
        redis_client: redis-py's, of a node or a cluster, decoding responses or not.
        without: metrics (bare names, such as `conversions` or `unattributed`) that are not compared.
    """
    comparison = Comparison()
    comparison.differences = sorted(
        _Comparer(recomputation, redis_client, namespace, without, comparison).all()
    )
    if comparison.differences and recomputation.erased:
        recomputation.erase(False)
        with_erased = Comparison()
        whole = {
            (difference.scope, difference.id, difference.metric): difference
            for difference in _Comparer(recomputation, redis_client, namespace, without, with_erased).all()
        }
        recomputation.erase(True)
        comparison.differences, bounded = beyond(comparison.differences, whole)
        comparison.bounded = bounded
    if comparison.differences and recomputation.capped:

        def compare_again() -> list[Difference]:
            return list(_Comparer(recomputation, redis_client, namespace, without, Comparison()).all())

        comparison.differences, comparison.moved = within(
            comparison.differences, recomputation, compare_again
        )
        if "conversions" not in without:
            comparison.differences += unlike(recomputation, redis_client, namespace)
    return comparison


def differences(
    recomputation: Recomputation,
    redis_client: Any,
    namespace: str = "audiopixel:v1",
    without: Collection[str] = (),
) -> list[Difference]:
    """All differences of `compare`, sorted."""
    return compare(recomputation, redis_client, namespace, without).differences


class _Comparer:
    """Compares the rows of all scopes, then the accounts."""

    def __init__(
        self,
        recomputation: Recomputation,
        client: Any,
        namespace: str,
        without: Collection[str],
        comparison: Comparison,
    ) -> None:
        self._truth, self._client, self._namespace = recomputation, client, namespace
        recomputation.begin_anew(begun(recomputation, client, namespace))
        self._without, self._compared, self._comparison = without, comparison.compared, comparison
        self._meta = self._hash(f"{namespace}:meta")
        self._watermark_ms = watermark_of(self._meta, recomputation.end_ms)
        rows_ms = moment_of(self._meta.get("rows_as_of_ms"))  # while rows wait that only time has changed
        now_ms = self._watermark_ms if rows_ms is None else rows_ms
        self._now = now_ms - now_ms % _MINUTE_MS
        self._at_now: dict[Key, Truth] = {}
        self._last = recomputation.last_minute()
        self._replayed = recomputation.is_replayed(positions_of(client, namespace)[0])
        published_ms = moment_of(self._meta.get("counted_since_ms"))
        own_ms = recomputation.counted_since_ms
        # A live flow's moment is by its broker's timestamps, which no file has.
        self._since_ms = own_ms if self._replayed or published_ms is None else published_ms
        self._parts: dict[str, list[Figures]] = {}
        self._late: dict[str, int] | None = None
        self._other = Other("", {})
        self._beyond = (0, 0)

    def all(self) -> Iterator[Difference]:
        for scope in SCOPES:
            yield from self._scope(scope)
        accounts = Accounts(self._truth, self._client, self._namespace, self._without, self._compared)
        yield from accounts.all(self._beyond)

    def _hash(self, key: str) -> dict[str, str]:
        return hash_of(self._client, key)

    # Rows

    def _scope(self, scope: str) -> Iterator[Difference]:
        expected = set(self._truth.names(scope))
        indexed = index_of(self._client, f"{self._namespace}:index:{scope}")
        names = sorted(expected | indexed)
        self._other = Other(scope, self._hash(f"{self._namespace}:other:{{{scope}}}"))
        for start in range(0, len(names), _ROWS_AT_ONCE):
            block = names[start : start + _ROWS_AT_ONCE]
            rows = dict(zip(block, self._rows(scope, block), strict=True))
            moments = [self._moments_of(scope, name, row) for name, row in rows.items() if name in expected]
            old = [
                moments_of_row._replace(at_ms=self._now, reached_ms=self._now)
                for moments_of_row in moments
                if min(moments_of_row.at_ms, moments_of_row.reached_ms) < self._now
            ]
            self._at_now = dict(self._truth.rows(old))
            for key, truth in self._truth.rows(moments):
                yield from self._row(key, truth, rows[key[1]], key[1] in indexed)
            for name in block:
                if name not in expected:
                    yield Difference(scope, name, "row", "", "present")
        yield from self._other.differences(self._without, self._compared)
        least, most = self._beyond
        self._beyond = least + self._other.open, most + self._other.open + self._other.ended

    def _rows(self, scope: str, names: Sequence[str]) -> Iterator[dict[str, str]]:
        for start in range(0, len(names), _ROWS_A_CALL):
            block = names[start : start + _ROWS_A_CALL]
            yield from hashes_of(self._client, [f"{self._namespace}:{scope}:{{{name}}}" for name in block])

    def _moments_of(self, scope: str, name: str, row: Mapping[str, str]) -> RowMoments:
        times = [moment_of((row or self._other.row).get(of)) for of in ("as_of_ms", "reach_as_of_ms")]
        return RowMoments(scope, name, *(self._truth.end_ms if time is None else time for time in times))

    def _row(self, key: Key, truth: Truth, row: Mapping[str, str], indexed: bool) -> Iterator[Difference]:
        if not row:
            list(self._paced(key, truth, row))  # its campaign has its part of it
            ended = self._ended(truth)
            if self._planned(key) or not (ended or self._other.row):
                yield Difference(*key, "row", "present", "")
            else:
                self._other.add(truth, ended)
            return
        if not indexed:
            yield Difference(*key, "index", "present", "")
        self._comparison.rows += 1
        expected = dict(self._expected(key, truth, row))
        for name in ROW.keys() | row.keys():
            if name.partition(".")[2] in self._without or name in self._without:
                continue
            how, actual = ROW.get(name), row.get(name)
            if how is None:
                yield Difference(*key, name, "no such field", actual or "")
                continue
            self._compared[how] += 1
            if name in COUNTS:
                count = COUNTS[name]
                want: Any = truth.windows.get(count.metric, NOTHING)[count.window]
                if count.millionths:
                    want = Decimal(want) / 1_000_000
                if not same(Decimal(want), Decimal(0) if actual is None else decimal_of(actual)):
                    yield Difference(*key, name, as_shown(want), actual or "")
            elif how is How.VERSION:
                if actual is None:
                    yield Difference(*key, name, "present", "")
            elif name in expected and (wrong := wrong_of(expected[name], actual)) is not None:
                yield Difference(*key, name, wrong, actual or "")
            elif name not in expected and actual is not None:
                yield Difference(*key, name, "", actual)

    def _expected(self, key: Key, truth: Truth, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        """The expected fields of a row, without its counts and versions: None (absent), a text, a number, or
        (least, greatest).
        """
        scope, name = key
        yield from self._times(key, truth, row)
        if scope == "placement":
            labels = list(self._truth.labels.get(name, (None,) * len(LABELS)))
            plan = self._truth.rules.plans.get(name)
            labels[0] = labels[0] or (None if plan is None else plan.campaign)
            yield from zip(LABELS, labels, strict=True)
        planned = self._truth.rules.plans.get(name) if scope == "placement" else None
        since = truth.since_ms if planned is None else planned.start_ms // _MINUTE_MS * _MINUTE_MS
        yield "flight.since_ms", None if since is None else Decimal(since)
        yield "impression_basis", self._truth.bases.get(key)
        yield "conversion_currency", self._truth.currencies.get(key)
        yield from self._paced(key, truth, row)
        if scope == "campaign":
            yield from self._campaign(name, truth, row)
        own = own_of(row)
        if scope == "platform":
            yield from of_platform(truth, own)
        yield "flight.consent_coverage", ratio(own["flight.consented"], own["flight.pixels"])
        yield "reach_unit", reach_unit(truth)
        yield from of_windows(truth, own)

    def _paced(self, key: Key, truth: Truth, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        scope, name = key
        figures = None
        if scope == "placement" and name in self._truth.rules.plans:
            plan = self._truth.rules.plans[name]
            if plan.end_ms is None:
                return
            windows = [
                (
                    truth.windows.get("impressions", NOTHING)[place],
                    Fraction(truth.windows.get("conversions", NOTHING)[place], 1_000_000),
                    Fraction(truth.windows.get("conversion_value", NOTHING)[place], 1_000_000),
                )
                for place in range(len(WINDOWS))
            ]
            at_ms, currency = (
                moment_of(row.get("as_of_ms")) or self._truth.end_ms,
                self._truth.currencies.get(key),
            )
            # Only a live flow detects lost messages.
            gap_ms = 0 if self._replayed else moment_of(row.get("delivery.gap_ms")) or 0
            end = decimal_of(row.get("delivery.projected") or "")
            projected = None if end is None else Fraction(end)
            blocked = truth.windows.get("blocked_impressions", NOTHING)[-1]
            lately = self._lately(name, at_ms, row)
            context = windows, currency, self._since_ms, gap_ms, Own(projected, blocked, lately)
            figures = paced(
                plan, self._counts(name, plan, row), at_ms, self._truth.rules.thresholds, *context
            )
            campaign = plan.campaign or self._truth.labels.get(name, (None,))[0]
            if campaign:
                self._parts.setdefault(campaign, []).append(figures)
        elif scope == "campaign" and name in self._parts:
            figures = together(self._parts[name], self._truth.rules.thresholds)
        # The alerted state depends on when the numbers were fresh, which no log shows.
        if figures is not None and scope == "placement":
            alerted = row.get("delivery.alerted_state")
            is_earlier_state = (
                alerted in (*STILL, *JUDGED) and alerted not in QUIET and alerted != row.get("delivery.state")
            )
            yield "delivery.alerted_state", alerted if is_earlier_state else None
        latest_ms = max(moment_of(row.get("as_of_ms")) or 0, self._watermark_ms)
        flushed_ms = moment_of(self._meta.get("flushed_ms")) or 0
        waiting = dict(unjudged(row, figures is not None, self._replayed, max(latest_ms, flushed_ms)))
        yield from waiting.items()
        if figures is not None:
            yield from fields(figures, WINDOWS).items()
            if waiting["delivery.judged"] == "0" and figures.states[0] in JUDGED:
                yield "delivery.state", frozenset(JUDGED)  # the earlier state
            projected_text = row.get("delivery.projected")
            yield "delivery.projected", projected_text if figures.judged else None
            yield "delivery.since_ms", (figures.began_ms, latest_ms)
            yield from changed_plan(row, scope == "placement", latest_ms)

    def _lately(self, name: str, at_ms: int, row: Mapping[str, str]) -> int | None:
        """The impressions of a flight that the flow may have counted since its state must have held: those of
        minutes since then, and of the minutes that were open. None if the plan changed meanwhile, or the row
        is not of the watermark's minute.
        """
        rules, changed_ms = self._truth.rules, moment_of(row.get("delivery.plan_changed_ms"))
        since_ms = self._now - rules.thresholds.hold_ms - _MINUTE_MS
        if at_ms - at_ms % _MINUTE_MS != self._now or (changed_ms is not None and changed_ms >= since_ms):
            return None
        if self._late is None:
            self._late = self._truth.lately(since_ms - ms(rules.allowed_lateness))
        return self._late.get(name, 0)

    def _counts(self, name: str, plan: Planned, row: Mapping[str, str]) -> Counts:
        """The counts of a planned placement, without those that the flow cannot have: its plan came too late,
        or no counts are split where its balance ends.
        """
        counts, reason = Counts(*self._truth.parted.get(name, (0, 0))), row.get("delivery.unknown_reason")
        later = plan.until_ms is not None and plan.until_ms > self._since_ms
        if reason == "late_plan":
            counts = counts._replace(whole=None)
        elif reason == "until" and later and not self._replayed:
            counts = counts._replace(behind=None)
        elif later and reason is None and not self._replayed and not _counted(row):
            counts = counts._replace(whole=None)
        unknown = reason in ("late_plan", "until")
        self._comparison.undelivered += unknown
        return counts

    def _times(self, key: Key, truth: Truth, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        at_ms = moment_of(row.get("as_of_ms"))
        whole = self._replayed and (self._planned(key) or not self._ended(truth))
        if at_ms is None or not self._may_be_of(key, at_ms, truth, row, whole):
            at_ms = self._watermark_ms
        yield "as_of_ms", at_ms
        if truth.latest_ms is None and row.get("final_through_ms") is None:  # a plan's row, without a pixel
            yield from (("reach_as_of_ms", None), ("final_through_ms", None))
            return
        reached_ms = moment_of(row.get("reach_as_of_ms"))
        if reached_ms is None or whole or not self._may_wait(key, reached_ms, at_ms, truth, row):
            reached_ms = at_ms
        yield "reach_as_of_ms", reached_ms
        yield (
            "final_through_ms",
            self._final(at_ms, reached_ms, whole, moment_of(row.get("final_through_ms"))),
        )

    def _final(self, at_ms: int, reached_ms: int, whole: bool, published_ms: int | None) -> int:
        """The end of the final minutes. By default these are the minutes that the lateness has closed. At the
        log's end they are all minutes of the row's shard, so the end is any minute up to the log's last.
        """
        minute = at_ms - at_ms % _MINUTE_MS
        last = max(minute, self._last) + _MINUTE_MS
        if published_ms is not None and published_ms % _MINUTE_MS == 0 and minute < published_ms <= last:
            return published_ms
        closed_ms = max(0, reached_ms - ms(self._truth.rules.allowed_lateness))
        return last if whole else closed_ms - closed_ms % _MINUTE_MS

    def _ended(self, truth: Truth) -> bool:
        """True if a row without a plan has ended, by its last pixel."""
        latest_ms = truth.latest_ms
        return latest_ms is not None and latest_ms + ms(self._truth.rules.row_ttl) <= self._watermark_ms

    def _planned(self, key: Key) -> bool:
        """True if a row has a plan, and so no end."""
        return key in self._truth.rules.planned

    def _may_be_of(self, key: Key, at_ms: int, truth: Truth, row: Mapping[str, str], whole: bool) -> bool:
        """True if a row may have the age that it shows, since its values would still be the same. A planned
        row is written every minute, and every row at a log's end (`whole`).
        """
        if whole:
            return at_ms == self._watermark_ms
        if not at_ms < self._now:
            return at_ms <= self._watermark_ms
        return not self._placed(key) and self._agrees(key, truth, row)

    def _may_wait(self, key: Key, reached_ms: int, at_ms: int, truth: Truth, row: Mapping[str, str]) -> bool:
        """True if a row's counts may be older than its delivery. A planned placement's may, while they are
        still the same.
        """
        if reached_ms >= at_ms or not self._placed(key):
            return reached_ms == at_ms
        return reached_ms >= self._now or self._agrees(key, truth, row)

    def _placed(self, key: Key) -> bool:
        return key[0] == "placement" and self._planned(key)

    def _agrees(self, key: Key, truth: Truth, row: Mapping[str, str]) -> bool:
        own = own_of(row)
        return of_moment(truth, own) == of_moment(self._at_now[key], own)

    def _campaign(self, name: str, truth: Truth, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        counts = self._truth.campaigns.get(name, {})
        listened = any(
            counts[f"frequency.{exposure_class}.{metric}"]
            for exposure_class in CLASSES
            for metric in ("listeners", "conversions")
        )
        reached = Decimal(0)
        for exposure_class in reversed(CLASSES):
            begun = decimal_of(row.get(f"frequency.{exposure_class}.listeners") or "0") or Decimal(0)
            reached += begun
            for metric in ("listeners", "conversions"):
                field_name = f"frequency.{exposure_class}.{metric}"
                want = Decimal(str(counts[field_name]))
                yield field_name, want if listened or row.get(field_name) is not None else None
            converted = decimal_of(row.get(f"frequency.{exposure_class}.conversions") or "0") or Decimal(0)
            yield f"frequency.{exposure_class}.conversion_rate", ratio(converted, reached)
        for account in ACCOUNTS:
            field_name = f"flight.conversions_{account}"
            want = Decimal(counts[field_name])
            yield field_name, want if want or row.get(field_name) is not None else None


def _counted(row: Mapping[str, str]) -> bool:
    """True if a planned row shows by its cost that the flight was counted, or has no price, and so never a
    cost.
    """
    by_cost = ("flight.cost_per_acquisition", "flight.return_on_ad_spend")
    return "delivery.cpm" not in row or any(row.get(name) is not None for name in by_cost)
