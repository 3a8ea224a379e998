"""Comparison of published rows with the log: every difference, by row and field.

`flows.reconcile.fields` defines how each field is compared. An absent count is 0, and any other absent field
is a null. Reach must be equal up to 1,000, where the flow is exact. A greater reach must lie within four
standard errors of its sketch (specification 2.3).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from flows.reconcile.accounts import Accounts
from flows.reconcile.beyond_cap import BeyondCap
from flows.reconcile.bounds import unexplained_by_caps, unexplained_by_erasure
from flows.reconcile.fields import ACCOUNTS, CLASSES, LABELS, ROW, SCOPES, WINDOWS, Check
from flows.reconcile.live import plan_change_fields, unjudged_fields
from flows.reconcile.pacing import (
    JUDGED,
    QUIET,
    STILL,
    Counts,
    Figures,
    Planned,
    RowFacts,
    campaign_figures,
    delivery_fields,
    placement_figures,
)
from flows.reconcile.redis_reading import hash_of, hashes_of, index_of, positions_of, watermark_of
from flows.reconcile.report import Comparison, Difference
from flows.reconcile.rules import ms
from flows.reconcile.truth import Key, Recomputation, RowMoments, Truth
from flows.reconcile.values import as_shown, decimal_of, moment_of, ratio, wrong_of
from flows.reconcile.windows import (
    COUNTS,
    NOTHING,
    divisor_fields,
    moment_figures,
    platform_fields,
    reach_unit,
    window_fields,
)

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
        redis_client: a client of redis-py, of a node or a cluster, whether it decodes responses or not.
        without: names of metrics that are not compared, without their windows (`conversions`).
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
        comparison.differences, comparison.erased_fields = unexplained_by_erasure(
            comparison.differences, whole
        )
    comparison.differences, comparison.capped_fields = unexplained_by_caps(
        comparison.differences, recomputation.capped
    )
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
        recomputation.restart_rows(_restarted_rows(recomputation, client, namespace))
        self._without, self._compared, self._comparison = without, comparison.compared, comparison
        self._meta = self._hash(f"{namespace}:meta")
        self._watermark_ms = watermark_of(self._meta, recomputation.end_ms)
        # Only present while rows that time alone has changed are not published.
        rows_ms = moment_of(self._meta.get("rows_as_of_ms"))
        now_ms = self._watermark_ms if rows_ms is None else rows_ms
        self._now = now_ms - now_ms % _MINUTE_MS
        self._truth_now: dict[Key, Truth] = {}
        self._last = recomputation.last_minute()
        self._replayed = recomputation.is_replayed(positions_of(client, namespace)[0])
        published_ms = moment_of(self._meta.get("counted_since_ms"))
        replay_ms = recomputation.counted_since_ms
        # A live flow's moment depends on the broker's timestamps, which no file has.
        self._since_ms = replay_ms if self._replayed or published_ms is None else published_ms
        self._parts: dict[str, list[Figures]] = {}
        self._recent_impressions: dict[str, int] | None = None
        self._beyond_cap = BeyondCap("", {})
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
        self._beyond_cap = BeyondCap(scope, self._hash(f"{self._namespace}:other:{{{scope}}}"))
        for start in range(0, len(names), _ROWS_AT_ONCE):
            block = names[start : start + _ROWS_AT_ONCE]
            rows = dict(zip(block, self._rows(scope, block), strict=True))
            moments = [self._moments_of(scope, name, row) for name, row in rows.items() if name in expected]
            old = [
                row_moments._replace(at_ms=self._now, reached_ms=self._now)
                for row_moments in moments
                if min(row_moments.at_ms, row_moments.reached_ms) < self._now
            ]
            self._truth_now = dict(self._truth.rows(old))
            for key, truth in self._truth.rows(moments):
                yield from self._row(key, truth, rows[key[1]], key[1] in indexed)
            for name in block:
                if name not in expected:
                    yield Difference(scope, name, "row", "", "present")
        yield from self._beyond_cap.differences(self._without, self._compared)
        least, most = self._beyond
        other = self._beyond_cap
        self._beyond = least + other.open, most + other.open + other.ended

    def _rows(self, scope: str, names: Sequence[str]) -> Iterator[dict[str, str]]:
        for start in range(0, len(names), _ROWS_A_CALL):
            block = names[start : start + _ROWS_A_CALL]
            yield from hashes_of(self._client, [f"{self._namespace}:{scope}:{{{name}}}" for name in block])

    def _moments_of(self, scope: str, name: str, row: Mapping[str, str]) -> RowMoments:
        shown = row or self._beyond_cap.row
        times_ms = [moment_of(shown.get(field)) for field in ("as_of_ms", "reach_as_of_ms")]
        return RowMoments(
            scope, name, *(self._truth.end_ms if at_ms is None else at_ms for at_ms in times_ms)
        )

    def _row(self, key: Key, truth: Truth, row: Mapping[str, str], indexed: bool) -> Iterator[Difference]:
        if not row:
            list(self._delivery(key, truth, row))  # adds the placement's figures to its campaign
            ended = self._ended(truth)
            if self._planned(key) or not (ended or self._beyond_cap.row):
                yield Difference(*key, "row", "present", "")
            else:
                self._beyond_cap.add(truth, ended)
            return
        if not indexed:
            yield Difference(*key, "index", "present", "")
        self._comparison.rows += 1
        expected = dict(self._expected(key, truth, row))
        for name in ROW.keys() | row.keys():
            if name.partition(".")[2] in self._without or name in self._without:
                continue
            check, actual = ROW.get(name), row.get(name)
            if check is None:
                yield Difference(*key, name, "no such field", actual or "")
                continue
            self._compared[check] += 1
            if name in COUNTS:
                count = COUNTS[name]
                want: Any = truth.windows.get(count.metric, NOTHING)[count.window]
                if count.millionths:
                    want = Decimal(want) / 1_000_000
                if Decimal(want) != (Decimal(0) if actual is None else decimal_of(actual)):
                    yield Difference(*key, name, as_shown(want), actual or "")
            elif check is Check.VERSION:
                if actual is None:
                    yield Difference(*key, name, "present", "")
            elif name in expected and (wrong := wrong_of(expected[name], actual)) is not None:
                yield Difference(*key, name, wrong, actual or "")
            elif name not in expected and actual is not None:
                yield Difference(*key, name, "", actual)

    def _expected(self, key: Key, truth: Truth, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        """The expected fields of a row, without its counts and versions. An expectation is a value that
        `wrong_of` takes.
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
        yield from self._delivery(key, truth, row)
        if scope == "campaign":
            yield from self._campaign(name, row)
        divisors = divisor_fields(row)
        if scope == "platform":
            yield from platform_fields(truth, divisors)
        yield "flight.consent_coverage", ratio(divisors["flight.consented"], divisors["flight.pixels"])
        yield "reach_unit", reach_unit(truth)
        yield from window_fields(truth, divisors)

    def _delivery(self, key: Key, truth: Truth, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
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
            at_ms = moment_of(row.get("as_of_ms")) or self._truth.end_ms
            # Only a live flow detects lost messages.
            gap_ms = 0 if self._replayed else moment_of(row.get("delivery.gap_ms")) or 0
            shown = decimal_of(row.get("delivery.projected") or "")
            projected = None if shown is None else Fraction(shown)
            blocked = truth.windows.get("blocked_impressions", NOTHING)[-1]
            facts = RowFacts(projected, blocked, self._impressions_since_hold(name, at_ms, row))
            context = windows, self._truth.currencies.get(key), self._since_ms, gap_ms, facts
            figures = placement_figures(
                plan, self._counts(name, plan, row), at_ms, self._truth.rules.thresholds, *context
            )
            campaign = plan.campaign or self._truth.labels.get(name, (None,))[0]
            if campaign:
                self._parts.setdefault(campaign, []).append(figures)
        elif scope == "campaign" and name in self._parts:
            figures = campaign_figures(self._parts[name], self._truth.rules.thresholds)
        # The alerted state depends on the times at which the numbers were fresh. No log has these times.
        if figures is not None and scope == "placement":
            alerted = row.get("delivery.alerted_state")
            is_earlier_state = (
                alerted in (*STILL, *JUDGED) and alerted not in QUIET and alerted != row.get("delivery.state")
            )
            yield "delivery.alerted_state", alerted if is_earlier_state else None
        latest_ms = max(moment_of(row.get("as_of_ms")) or 0, self._watermark_ms)
        flushed_ms = moment_of(self._meta.get("flushed_ms")) or 0
        unjudged = dict(unjudged_fields(row, figures is not None, self._replayed, max(latest_ms, flushed_ms)))
        yield from unjudged.items()
        if figures is not None:
            yield from delivery_fields(figures, WINDOWS).items()
            if unjudged["delivery.judged"] == "0" and figures.states[0] in JUDGED:
                yield "delivery.state", frozenset(JUDGED)  # the row holds its earlier state
            projected_text = row.get("delivery.projected")
            yield "delivery.projected", projected_text if figures.judged else None
            yield "delivery.since_ms", (figures.began_ms, latest_ms)
            yield from plan_change_fields(row, scope == "placement", latest_ms)

    def _impressions_since_hold(self, name: str, at_ms: int, row: Mapping[str, str]) -> int | None:
        """The impressions of a flight that may have been counted since its state must have held.

        These are the impressions of the minutes since then, and of the minutes that were open then. None if
        the plan changed meanwhile, or the row is not of the watermark's minute.
        """
        rules, changed_ms = self._truth.rules, moment_of(row.get("delivery.plan_changed_ms"))
        since_ms = self._now - rules.thresholds.hold_ms - _MINUTE_MS
        if at_ms - at_ms % _MINUTE_MS != self._now or (changed_ms is not None and changed_ms >= since_ms):
            return None
        if self._recent_impressions is None:
            from_ms = since_ms - ms(rules.allowed_lateness)
            self._recent_impressions = self._truth.flight_impressions_since(from_ms)
        return self._recent_impressions.get(name, 0)

    def _counts(self, name: str, plan: Planned, row: Mapping[str, str]) -> Counts:
        """The counts of a planned placement, without counts that the flow cannot have: the plan came too
        late, or the flow does not split counts at the moment of the balance.
        """
        counts = Counts(*self._truth.flight_impressions.get(name, (0, 0)))
        reason = row.get("delivery.unknown_reason")
        later = plan.until_ms is not None and plan.until_ms > self._since_ms
        if reason == "late_plan":
            counts = counts._replace(whole=None)
        elif reason == "until" and later and not self._replayed:
            counts = counts._replace(after_balance=None)
        elif later and reason is None and not self._replayed and not _was_counted(row):
            counts = counts._replace(whole=None)
        self._comparison.unknown_deliveries += reason in ("late_plan", "until")
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
        """The end of the final minutes, epoch ms. While the log goes on, the allowed lateness makes minutes
        final. At the end of the log all minutes of the row's shard are final, so the end may be any minute up
        to the last of the log.
        """
        minute = at_ms - at_ms % _MINUTE_MS
        last = max(minute, self._last) + _MINUTE_MS
        if published_ms is not None and published_ms % _MINUTE_MS == 0 and minute < published_ms <= last:
            return published_ms
        closed_ms = max(0, reached_ms - ms(self._truth.rules.allowed_lateness))
        return last if whole else closed_ms - closed_ms % _MINUTE_MS

    def _ended(self, truth: Truth) -> bool:
        """True if a row without a plan has ended, by the time of its last pixel."""
        latest_ms = truth.latest_ms
        return latest_ms is not None and latest_ms + ms(self._truth.rules.row_ttl) <= self._watermark_ms

    def _planned(self, key: Key) -> bool:
        """True if a row has a plan, and therefore does not end."""
        return key in self._truth.rules.planned

    def _may_be_of(self, key: Key, at_ms: int, truth: Truth, row: Mapping[str, str], whole: bool) -> bool:
        """True if a row may be of the moment `at_ms` that it shows: its values at the watermark would be the
        same. A planned row is written every minute, and every row at the end of a log (`whole`).
        """
        if whole:
            return at_ms == self._watermark_ms
        if not at_ms < self._now:
            return at_ms <= self._watermark_ms
        return not self._is_planned_placement(key) and self._agrees(key, truth, row)

    def _may_wait(self, key: Key, reached_ms: int, at_ms: int, truth: Truth, row: Mapping[str, str]) -> bool:
        """True if a row's counts may be of the moment `reached_ms`, and its delivery of `at_ms`. The counts
        of a planned placement may be older while they are still the same.
        """
        if reached_ms >= at_ms or not self._is_planned_placement(key):
            return reached_ms == at_ms
        return reached_ms >= self._now or self._agrees(key, truth, row)

    def _is_planned_placement(self, key: Key) -> bool:
        return key[0] == "placement" and self._planned(key)

    def _agrees(self, key: Key, truth: Truth, row: Mapping[str, str]) -> bool:
        """True if a row's values are the same at its own moment and at the watermark."""
        divisors = divisor_fields(row)
        return moment_figures(truth, divisors) == moment_figures(self._truth_now[key], divisors)

    def _campaign(self, name: str, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        """The expected frequency and accounts of a campaign."""
        counts = self._truth.campaigns.get(name, {})
        listened = any(
            counts[f"frequency.{exposure_class}.{metric}"]
            for exposure_class in CLASSES
            for metric in ("listeners", "conversions")
        )
        reached = Decimal(0)
        for exposure_class in reversed(CLASSES):
            reached += decimal_of(row.get(f"frequency.{exposure_class}.listeners") or "0") or Decimal(0)
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


def _restarted_rows(truth: Recomputation, client: Any, namespace: str) -> dict[Key, int]:
    """Rows that the flow dropped after `row_memory`, to the minute from which each counts, in epoch ms.

    A row is dropped if it has ended and its next pixel comes later than `row_memory`. Whether it has ended
    depends on the length of the log that one cut covers. After such a silence a row may therefore have
    started again or not, and its `flight.since_ms` shows which. The flow judges the silence by its watermark,
    which is ahead of a pixel's minute by up to the allowed lateness.
    """
    rules = truth.rules
    minutes_by_row = {}
    silences = truth.silences(rules.row_memory - rules.allowed_lateness - timedelta(minutes=1))
    for (scope, name), minutes in silences.items():
        since_ms = moment_of(hash_of(client, f"{namespace}:{scope}:{{{name}}}").get("flight.since_ms"))
        before = 0 if since_ms is None else bisect_right(minutes, since_ms)
        if before and (scope, name) not in rules.planned:
            minutes_by_row[scope, name] = minutes[before - 1]
    return minutes_by_row


def _was_counted(row: Mapping[str, str]) -> bool:
    """True if a planned row shows by its cost that the flow counted the flight, or has no price and so no
    cost.
    """
    by_cost = ("flight.cost_per_acquisition", "flight.return_on_ad_spend")
    return "delivery.cpm" not in row or any(row.get(name) is not None for name in by_cost)
