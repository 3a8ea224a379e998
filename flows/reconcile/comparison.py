"""The comparison of published numbers with the log: every difference, by row or minute and field.

`flows.reconcile.fields` says how each field is compared. A count that is absent counts as 0; any other field
that is absent is a null. Reach must be equal up to 1,000, where the flow is exact, and beyond that lie within
four standard errors of its sketch (specification 2.3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from flows.reconcile.accounts import Accounts
from flows.reconcile.erased import beyond
from flows.reconcile.fields import (
    ACCOUNTS,
    AGES_S,
    CLASSES,
    DELAYS_S,
    DERIVED_RATES,
    LABELS,
    MINUTE_METRICS,
    PLATFORM_SHARES,
    QUANTILES,
    ROW,
    SCOPES,
    SIDE_WINDOWS,
    SIDES,
    WHOLE_METRICS,
    WINDOWS,
    How,
)
from flows.reconcile.other import Other
from flows.reconcile.pacing import Figures, fields, paced, together
from flows.reconcile.report import Comparison, Difference
from flows.reconcile.rules import ms
from flows.reconcile.truth import Key, Recomputation, Seen, Truth
from flows.reconcile.values import (
    EXACT_REACH,
    REACH_TOLERANCE,
    as_shown,
    decimal_of,
    moment_of,
    quantile,
    ratio,
    same,
    text_of,
    texts_of,
    within,
    wrong_of,
)

_ROWS_A_CALL: Final = 1000
_ROWS_AT_ONCE: Final = 20_000
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS


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
    comparison.found = sorted(_Comparer(recomputation, redis_client, namespace, without, comparison).all())
    if comparison.found and recomputation.erased:
        recomputation.erase(False)
        kept = Comparison()
        whole = {
            (one.scope, one.id, one.metric): one
            for one in _Comparer(recomputation, redis_client, namespace, without, kept).all()
        }
        recomputation.erase(True)
        comparison.found, bounded = beyond(comparison.found, whole)
        comparison.bounded = bounded
    return comparison


def differences(
    recomputation: Recomputation,
    redis_client: Any,
    namespace: str = "audiopixel:v1",
    without: Collection[str] = (),
) -> list[Difference]:
    """All differences of `compare`, sorted."""
    return compare(recomputation, redis_client, namespace, without).found


class _Count(NamedTuple):
    """A field that is a sum of a window."""

    window: int
    metric: str
    millionths: bool


def _counts() -> dict[str, _Count]:
    found = {}
    for place, window in enumerate(WINDOWS):
        for metric in MINUTE_METRICS:
            millionths = metric.startswith("conversions")
            found[f"{window}.{metric}"] = _Count(place, metric, millionths)
        if window in SIDE_WINDOWS:
            found |= {f"{window}.{metric}": _Count(place, metric, False) for metric in SIDES}
    return found | {f"flight.{metric}": _Count(3, metric, False) for metric in WHOLE_METRICS}


_COUNTS: Final = _counts()
_NOTHING: Final = (0, 0, 0, 0)


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
        self._without, self._compared, self._comparison = without, comparison.compared, comparison
        self._meta = self._hash(f"{namespace}:meta")
        told = decimal_of(self._meta.get("watermark_ms", ""))
        self._watermark_ms = recomputation.end_ms if told is None else int(told)
        self._last = recomputation.last_minute()
        self._parts: dict[str, list[Figures]] = {}
        self._other = Other("", {})
        self._beyond = (0, 0)

    def all(self) -> Iterator[Difference]:
        for scope in SCOPES:
            yield from self._scope(scope)
        accounts = Accounts(self._truth, self._client, self._namespace, self._without, self._compared)
        yield from accounts.all(self._beyond)

    def _hash(self, key: str) -> dict[str, str]:
        return texts_of(self._client.hgetall(key))

    # Rows

    def _scope(self, scope: str) -> Iterator[Difference]:
        expected = set(self._truth.names(scope))
        indexed = {text_of(name) for name in self._client.zrange(f"{self._namespace}:index:{scope}", 0, -1)}
        names = sorted(expected | indexed)
        self._other = Other(scope, self._hash(f"{self._namespace}:other:{{{scope}}}"))
        for start in range(0, len(names), _ROWS_AT_ONCE):
            some = names[start : start + _ROWS_AT_ONCE]
            rows = dict(zip(some, self._rows(scope, some), strict=True))
            seen = [self._seen(scope, name, row) for name, row in rows.items() if name in expected]
            for key, truth in self._truth.rows(seen):
                yield from self._row(key, truth, rows[key[1]], key[1] in indexed)
            for name in some:
                if name not in expected:
                    yield Difference(scope, name, "row", "", "present")
        yield from self._other.differences(self._without, self._compared)
        least, most = self._beyond
        self._beyond = least + self._other.open, most + self._other.open + self._other.ended

    def _rows(self, scope: str, names: Sequence[str]) -> Iterator[dict[str, str]]:
        for start in range(0, len(names), _ROWS_A_CALL):
            pipeline = self._client.pipeline(transaction=False)
            for name in names[start : start + _ROWS_A_CALL]:
                pipeline.hgetall(f"{self._namespace}:{scope}:{{{name}}}")
            yield from map(texts_of, pipeline.execute())

    def _seen(self, scope: str, name: str, row: Mapping[str, str]) -> Seen:
        times = [moment_of((row or self._other.row).get(of)) for of in ("as_of_ms", "reach_as_of_ms")]
        return Seen(scope, name, *(self._truth.end_ms if time is None else time for time in times))

    def _row(self, key: Key, truth: Truth, row: Mapping[str, str], indexed: bool) -> Iterator[Difference]:
        if not row:
            list(self._paced(key, truth, row))  # its campaign has its part of it
            latest_ms = truth.latest_ms
            ended = latest_ms is not None and latest_ms + ms(self._truth.rules.row_ttl) <= self._watermark_ms
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
            if name in _COUNTS:
                count = _COUNTS[name]
                want: Any = truth.windows.get(count.metric, _NOTHING)[count.window]
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
        own = {metric: decimal_of(row.get(metric) or "0") or Decimal(0) for metric in _DIVIDED}
        if scope == "platform":
            yield from _of_platform(truth, own)
        yield "flight.consent_coverage", ratio(own["flight.consented"], own["flight.pixels"])
        people, homes = (truth.windows.get(metric, _NOTHING) for metric in ("reach", "household_reach"))
        unit = "listener" if people[3] else "household" if homes[3] else None
        yield "reach_unit", unit
        for place, window in enumerate(WINDOWS):
            reach = people[place]
            plays = truth.windows.get("consented_plays", _NOTHING)[place]
            tolerance = REACH_TOLERANCE if reach > EXACT_REACH else Decimal(0)
            unknown = own["flight.consented"] and not people[3]
            yield f"{window}.reach", None if unknown else (reach * (1 - tolerance), reach * (1 + tolerance))
            if reach:
                yield f"{window}.frequency", within(max(plays, reach) / Decimal(reach), tolerance)
            for metric, (part, whole) in DERIVED_RATES.items():
                if metric == "conversion_rate" and unit == "household":
                    whole = "household_reach"
                if f"{window}.{metric}" in ROW:
                    yield f"{window}.{metric}", ratio(own[f"{window}.{part}"], own[f"{window}.{whole}"])
            if window in SIDE_WINDOWS:
                confirmed, sent = (own[f"{window}.{name}"] for name in ("confirmed_plays", "deliveries"))
                yield f"{window}.play_through", ratio(confirmed, sent) if confirmed else None
                spread = REACH_TOLERANCE if homes[place] > EXACT_REACH else Decimal(0)
                bounds = (homes[place] * (1 - spread), homes[place] * (1 + spread))
                yield f"{window}.household_reach", bounds if homes[place] else None
            ages = [truth.windows.get(f"age_{at}", _NOTHING)[place] for at in range(len(AGES_S))]
            for metric, percent in QUANTILES.items():
                yield f"{window}.{metric}", quantile(ages, percent, AGES_S)
        for window, (starts, completes) in zip(WINDOWS, truth.mature, strict=False):
            yield f"{window}.mature_completion_rate", ratio(Decimal(completes), Decimal(starts))

    def _paced(self, key: Key, truth: Truth, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        scope, name = key
        figures = None
        if scope == "placement" and name in self._truth.rules.plans:
            plan = self._truth.rules.plans[name]
            if plan.end_ms is None:
                return
            windows = [
                (
                    truth.windows.get("impressions", _NOTHING)[place],
                    Fraction(truth.windows.get("conversions", _NOTHING)[place], 1_000_000),
                    Fraction(truth.windows.get("conversion_value", _NOTHING)[place], 1_000_000),
                )
                for place in range(len(WINDOWS))
            ]
            at_ms, currency = (
                moment_of(row.get("as_of_ms")) or self._truth.end_ms,
                self._truth.currencies.get(key),
            )
            delivered = self._truth.delivered.get(name, 0)
            figures = paced(plan, delivered, at_ms, self._truth.rules.thresholds, windows, currency)
            campaign = plan.campaign or self._truth.labels.get(name, (None,))[0]
            if campaign:
                self._parts.setdefault(campaign, []).append(figures)
        elif scope == "campaign" and name in self._parts:
            figures = together(self._parts[name], self._truth.rules.thresholds)
        if figures is not None and row.get("delivery.delivered") is None and "delivery.booked" in row:
            # The plan came too late for the flow to know what was delivered, and it says nothing of that.
            yield from ((name, row.get(name)) for name in fields(figures, WINDOWS))
            yield from (("delivery.projected", None), ("delivery.since_ms", row.get("delivery.since_ms")))
        elif figures is not None:
            yield from fields(figures, WINDOWS).items()
            told = row.get("delivery.projected")
            yield "delivery.projected", told if figures.judged else None
            latest_ms = max(moment_of(row.get("as_of_ms")) or 0, self._watermark_ms)
            yield "delivery.since_ms", (figures.since_ms, latest_ms)

    def _times(self, key: Key, truth: Truth, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        at_ms = moment_of(row.get("as_of_ms"))
        end_ms = self._watermark_ms
        if at_ms is None or not self._may_be_of(key, at_ms):
            at_ms = end_ms
        yield "as_of_ms", at_ms
        if truth.latest_ms is None and row.get("final_through_ms") is None:  # a plan's, without a pixel
            yield from (("reach_as_of_ms", None), ("final_through_ms", None))
            return
        yield "reach_as_of_ms", (min(at_ms, max(0, at_ms - 10_000)), at_ms)
        open_from = at_ms - ms(self._truth.rules.allowed_lateness)
        latest = max(at_ms - at_ms % _MINUTE_MS, self._last)
        yield "final_through_ms", (open_from - open_from % _MINUTE_MS, latest + _MINUTE_MS)

    def _planned(self, key: Key) -> bool:
        """True if a row has a plan, and so no end."""
        plans = self._truth.rules.plans
        return key[1] in {"placement": plans, "campaign": {of.campaign for of in plans.values()}}.get(
            key[0], ()
        )

    def _may_be_of(self, key: Key, at_ms: int) -> bool:
        """True if a row may be as old as it says: nothing has come into a window or left it since. A planned
        one is written every minute.
        """
        minute, now = at_ms - at_ms % _MINUTE_MS, self._watermark_ms - self._watermark_ms % _MINUTE_MS
        if at_ms > self._watermark_ms:
            return False
        if minute == now:
            return True
        planned = key[0] == "placement" and key[1] in self._truth.rules.plans
        heard = self._truth.heard_between
        came_or_left_5m = heard(key, minute - 5 * _MINUTE_MS, now + _MINUTE_MS)
        return not (planned or came_or_left_5m or heard(key, minute - _HOUR_MS, now - _HOUR_MS))

    def _campaign(self, name: str, truth: Truth, row: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        counts = self._truth.campaigns.get(name, {})
        listened = any(
            counts[f"frequency.{of}.{metric}"] for of in CLASSES for metric in ("listeners", "conversions")
        )
        reached = Decimal(0)
        for of in reversed(CLASSES):
            begun = decimal_of(row.get(f"frequency.{of}.listeners") or "0") or Decimal(0)
            reached += begun
            for metric in ("listeners", "conversions"):
                field_name = f"frequency.{of}.{metric}"
                want = Decimal(str(counts[field_name]))
                yield field_name, want if listened or row.get(field_name) is not None else None
            converted = decimal_of(row.get(f"frequency.{of}.conversions") or "0") or Decimal(0)
            yield f"frequency.{of}.conversion_rate", ratio(converted, reached)
        for account in ACCOUNTS:
            field_name = f"flight.conversions_{account}"
            want = Decimal(counts[field_name])
            yield field_name, want if want or row.get(field_name) is not None else None


def _of_platform(truth: Truth, own: Mapping[str, Decimal]) -> Iterator[tuple[str, Any]]:
    """The expected shares of a platform's plays, and its median delay."""
    for window in SIDE_WINDOWS:
        started = own[f"{window}.starts"] + own[f"{window}.unlinked_starts"]
        plays = max(own[f"{window}.impressions"], started)
        for metric, parts in PLATFORM_SHARES.items():
            told = sum((own[f"{window}.{part}"] for part in parts), Decimal(0))
            yield f"{window}.{metric}", ratio(min(told, plays), plays)
        known = Decimal(truth.windows.get("consented_plays", _NOTHING)[WINDOWS.index(window)])
        yield f"{window}.listener_share", ratio(min(known, plays), plays)
        yield f"{window}.play_id_share", ratio(own[f"{window}.starts"], started)
    delays = [truth.windows.get(f"delay_{at}", _NOTHING)[3] for at in range(len(DELAYS_S))]
    yield "flight.delay_p50_seconds", quantile(delays, 50, DELAYS_S)


_OF_PLATFORM: Final = tuple(part for parts in PLATFORM_SHARES.values() for part in parts)
_DIVIDED: Final = (
    *(f"{window}.{name}" for window in SIDE_WINDOWS for name in ("impressions", *_OF_PLATFORM)),
    *("flight.consented", "flight.pixels"),
    *(f"{window}.{name}" for window in WINDOWS for pair in DERIVED_RATES.values() for name in pair),
    *(f"{window}.{name}" for window in SIDE_WINDOWS for name in ("confirmed_plays", "deliveries")),
    *(f"{window}.household_reach" for window in WINDOWS),
)
