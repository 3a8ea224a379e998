"""The alerts about placements and campaigns, and the recording rules that they use.

The alerts are judged on records that exist while the numbers are fresh (`pipeline_rules.FRESH`), so a
pipeline that stands still raises no under-delivery. While a placement is not judged, as during a silence of
its feed, no alert of it begins, and a firing alert goes on. Brand safety is the exception: a counted breach
is a breach, however late. States, indicators and their thresholds come from the flow. The alerts show what
Redis has, without differences that may be chance.

An alert has the labels placement and campaign. Its text has platform and station, which are those of the
latest pixel. As labels they would begin another alert, with another waiting time, whenever the placement runs
elsewhere.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dashboards.pipeline_rules import FRESH, bridged
from dashboards.rules import USUAL, Alert, Group, Limits, Record, moment, number, shown
from flows import metrics as m

SUSTAINED: Final = timedelta(0)
"""The time for which a delivery state must hold before an alert fires: none, since the flow waits itself."""
SILENT: Final = timedelta(minutes=5)
"""The time for which a silence of half an hour must last on before an alert fires."""
MIN_STARTS: Final = 50
"""The fewest starts in a window whose completion rate is judged."""
MIN_DUE: Final = 20
"""The fewest impressions due in half an hour at which zero delivered is no chance (1 in 10⁸)."""
SURE: Final = 3
"""Standard errors by which a count of impressions must miss the due impressions; one count in a thousand does
by chance. From 900 due impressions on, the flow's own threshold of a tenth of them is the greater one.
"""
MIN_CONVERSIONS: Final = 10
"""The fewest usual conversions of six hours at which zero is no chance (1 in 10⁴)."""
HISTORY_EVERY: Final = timedelta(minutes=5)
KNOWN: Final = 66
"""The fewest of the 72 samples of six hours that must exist before zero conversions count as zero."""

INFO: Final = "placement:audiopixel_info:group"
INDICATOR: Final = "placement:audiopixel_delivery_indicator:max"
STATE: Final = "placement:audiopixel_delivery_state:max"
DELIVERED: Final = "placement:audiopixel_delivery_delivered:max"
EXPECTED: Final = "placement:audiopixel_delivery_expected:max"
STAKE_END: Final = "placement:audiopixel_delivery_at_stake_end:max"
SHORT_COST: Final = "placement:audiopixel_delivery_short_cost:max"
UNJUDGED: Final = "placement:audiopixel_delivery_unjudged:max"
"""1, or the time since when (epoch s), for each placement that is not judged. No placement is judged while
the flow writes nothing.
"""
STARTS: Final = {
    "5m": "placement:audiopixel_starts:increase5m",
    "1h": "placement:audiopixel_starts:increase1h",
}
RATE: Final = {
    "5m": "placement:audiopixel_mature_completion_5m:max",
    "1h": "placement:audiopixel_mature_completion_1h:max",
}
USUAL_RATE: Final = "placement:audiopixel_mature_completion_1h:avg1d"
BLOCKED: Final = "placement:audiopixel_blocked_impressions:max"
CONVERSIONS: Final = "campaign:audiopixel_conversions:rate10m"
IMPRESSIONS: Final = "campaign:audiopixel_impressions:rate10m"

_BOARD: Final = "audiopixel-placement"
_FRESH: Final = f"and on (job, instance) {FRESH}"
_NAMED: Final = f"* on (placement) group_left (campaign) {INFO}"
_NAME: Final = (
    f"{shown('$labels.placement')}{{{{ with $labels.campaign }}}} of campaign {shown('.')}{{{{ end }}}}"
)


def _where(*labels: str) -> str:
    latest = f"topk(1, {m.PLACEMENT_INFO.name}{{placement=%q}})"
    label_texts = "".join(
        f"{{{{ with .Labels.{label} }}}} Latest {label}: {shown('.')}.{{{{ end }}}}" for label in labels
    )
    return f"{{{{ range printf `{latest}` $labels.placement | query }}}}{label_texts}{{{{ end }}}}"


_WHERE: Final = _where("platform", "station")


def _own(definition: m.Definition) -> str:
    # Rounded: `humanize` prints half an impression as 500m.
    return number(f"round({bridged(f'{definition.name}{{placement=%q}}')})", "placement")


def _percent(ratio: str) -> str:
    # Templates cannot multiply, and `humanizePercentage` prints 3.049%.
    return f"{number(f'100 * {ratio}{{placement=%q}}', 'placement', 'printf `%.1f`')} %"


_CURRENCY: Final = (
    f"{{{{ range printf `topk(1, {m.PLACEMENT_INFO.name}{{placement=%q}})` $labels.placement | query }}}}"
    f"{shown('.Labels.currency')}{{{{ end }}}}"
)
_WORTH: Final = (
    f"{{{{ with printf `{SHORT_COST}{{placement=%q}}` $labels.placement | query }}}}, worth "
    f"{{{{ . | first | value | printf `%.2f` }}}} {_CURRENCY}{{{{ end }}}}"
)
_BY_THE_END: Final = (
    f"{{{{ with printf `{STAKE_END}{{placement=%q}}` $labels.placement | query }}}}"
    f"{{{{ if gt (. | first | value) 0.0 }}}}, {{{{ . | first | value | printf `%.2f` }}}} {_CURRENCY} "
    "at stake{{ end }}{{ end }}"
)
_DELIVERED: Final = (
    f"Delivered: {_own(m.PLACEMENT['delivery.delivered'])} of {_own(m.PLACEMENT['delivery.expected'])} "
    f"impressions due by now, of {_own(m.PLACEMENT['delivery.booked'])} booked."
)
_MISSING: Final = bridged(f"{m.PLACEMENT['delivery.short_by'].name}{{placement=%q}}")


def _short(template: str) -> str:
    """Template text: `template` with the missing impressions for its `{}`, where they are known."""
    filled = template.format("{{ . | first | value | humanize }}")
    return f"{{{{ with printf `round({_MISSING})` $labels.placement | query }}}}{filled}{{{{ end }}}}"


_SHORT: Final = _short(f" Short by {{}} impressions{_WORTH.replace('{', '{{').replace('}', '}}')}.")
_SINCE: Final = moment(
    bridged(f"{m.PLACEMENT['delivery.since_ms'].name}{{placement=%q}}"), "placement", " Since {}."
)
_ENDS: Final = moment(
    bridged(f"{m.PLACEMENT['delivery.end_ms'].name}{{placement=%q}}"), "placement", " The flight ends {}."
)
_PROJECTED: Final = bridged(f"{m.PLACEMENT['delivery.projected'].name}{{placement=%q}}")
_HEADED: Final = (
    f"{{{{ with printf `round({_PROJECTED})` $labels.placement | query }}}} At the last hour's rate it ends "
    f"with {{{{ . | first | value | humanize }}}} impressions{_BY_THE_END}.{{{{ end }}}}"
)
_REQUIRED: Final = bridged(f"{m.PLACEMENT['delivery.required_rate'].name}{{placement=%q}}")
_NEEDED: Final = f"round(3600 * {_REQUIRED})"
_NEEDS: Final = (
    f"{{{{ with printf `{_NEEDED}` $labels.placement | query }}}} It now needs "
    "{{ . | first | value | humanize }} impressions an hour.{{ end }}"
)


def _by_placement(name: str) -> str:
    return f"max by (placement) ({bridged(name)} {_FRESH})"


_STATES: Final = "max by (placement, state)"
_CAME: Final = f"max by (placement) (increase({m.PLACEMENT['flight.impressions'].name}[30m]))"

RECORDS: Final = (
    Record(
        INFO, f"group by (placement, campaign) (topk by (placement) (1, {bridged(m.PLACEMENT_INFO.name)}))"
    ),
    Record(INDICATOR, _by_placement(m.PLACEMENT["delivery.indicator"].name)),
    Record(
        UNJUDGED,
        f"""max by (placement) ({bridged(m.PLACEMENT["delivery.unjudged_since_ms"].name)})
or max by (placement) (
  {m.PLACEMENT_STATE.name}
  and on (job, instance) {m.EXPORTER_UNJUDGED.name}{{reason="down"}}
)""",
    ),
    Record(DELIVERED, _by_placement(m.PLACEMENT["delivery.delivered"].name)),
    Record(EXPECTED, _by_placement(m.PLACEMENT["delivery.expected"].name)),
    Record(SHORT_COST, _by_placement(m.PLACEMENT["delivery.at_stake"].name)),
    Record(STAKE_END, _by_placement(m.PLACEMENT["delivery.at_stake_end"].name)),
    # A state that a placement has left is not bridged: it has one state at a time.
    Record(
        STATE,
        f"""{_STATES} ({m.PLACEMENT_STATE.name} {_FRESH})
or (
  {_STATES} ({bridged(m.PLACEMENT_STATE.name)} {_FRESH})
  unless on (placement) {m.PLACEMENT_STATE.name}
)""",
    ),
    *(
        Record(name, f"max by (placement) (increase({m.PLACEMENT['flight.starts'].name}[{window}]))")
        for window, name in STARTS.items()
    ),
    *(
        Record(RATE[window], f"{_by_placement(rate.name)} and {STARTS[window]} >= {MIN_STARTS}")
        for window, rate in (
            ("5m", m.PLACEMENT["5m.mature_completion_rate"]),
            ("1h", m.PLACEMENT["1h.mature_completion_rate"]),
        )
    ),
    # Absent at 0: few placements have any, so a query can read a day of it.
    Record(BLOCKED, f"max by (placement) ({bridged(m.PLACEMENT['flight.blocked_impressions'].name)}) > 0"),
)

HISTORY: Final = (
    Record(USUAL_RATE, f"avg_over_time({RATE['1h']}[1d:10m] offset 1h)"),
    *(
        Record(
            name,
            f"sum by (campaign) (max by (placement) (rate({counter.name}[10m])) "
            f'* on (placement) group_left (campaign) {INFO}{{campaign!=""}})',
        )
        for name, counter in (
            (CONVERSIONS, m.PLACEMENT["flight.conversions"]),
            (IMPRESSIONS, m.PLACEMENT["flight.impressions"]),
        )
    ),
)
"""Records over hours and days, evaluated every `HISTORY_EVERY`: they read a day of every placement's samples.
"""

# The same hours of yesterday, since nights have few conversions; a quarter of the last day if those hours
# have too few samples.
_USUAL_CONVERSIONS: Final = f"""(
  6 * 3600 * avg_over_time({CONVERSIONS}[6h] offset 1d)
  and count_over_time({CONVERSIONS}[6h] offset 1d) >= {KNOWN}
  or {int(HISTORY_EVERY.total_seconds())} * sum_over_time({CONVERSIONS}[1d] offset 6h) / 4
)"""
_KNOWN_BLOCKED: Final = f"last_over_time({BLOCKED}[1d] offset 15m)"


def _judged(name: str, value: str, *conditions: str, labels: str = "") -> str:
    """The expression of an alert: `value` where the conditions hold. A firing alert goes on for a placement
    that is not judged, since its end would be taken for good news.

    Args:
        labels: matchers of the alert's own labels, if it has any.
    """
    firing = f'ALERTS{{alertname="{name}", alertstate="firing"{labels}}}'
    condition_lines = "\n  ".join(conditions)
    return f"""(
  {value}
  {condition_lines}
  unless on (placement) {UNJUDGED}
  or {value}
  and on (placement) {UNJUDGED}
  and on (placement) {firing}
)
{_NAMED}"""


def _completion_dropped(window: str) -> Alert:
    rate, starts = RATE[window], STARTS[window]
    # Among thousands of placements some miss by two or three standard errors at every moment, by chance.
    errors = f"5 * sqrt(clamp_min({USUAL_RATE} * (1 - {USUAL_RATE}), 0.05) / {starts})"
    return Alert(
        "AudiopixelCompletionRateDropped",
        _judged(
            "AudiopixelCompletionRateDropped",
            rate,
            f"and ({rate} < 0.8 * {USUAL_RATE})",
            f"and ({USUAL_RATE} - {rate} > {errors})",
            labels=f', window="{window}"',
        ),
        "warning",
        "delivery",
        f"{_NAME} has a completion rate of {_percent(rate)}, usually {_percent(USUAL_RATE)}",
        f"Of the plays that started in the last {window}, {_percent(rate)} were completed; the average of "
        f"the last day is {_percent(USUAL_RATE)}. The youngest plays are left out: they cannot have been "
        f"completed yet. {number(f'round({starts}{{placement=%q}})', 'placement')} plays started.{_WHERE}",
        labels={"window": window},
        board=_BOARD,
    )


_FIXED_ALERTS: Final = (
    Alert(
        "AudiopixelConversionsMissing",
        f"""{_USUAL_CONVERSIONS} >= {MIN_CONVERSIONS}
and max_over_time({CONVERSIONS}[6h]) == 0
and count_over_time({CONVERSIONS}[6h]) >= {KNOWN}
and avg_over_time({IMPRESSIONS}[6h]) > 0.5 * avg_over_time({IMPRESSIONS}[1d] offset 6h)
and on () max({FRESH})""",
        "warning",
        "delivery",
        f"Campaign {shown('$labels.campaign')} has had no conversions for six hours",
        "About {{ $value | printf `%.0f` }} are usual in that time, and its impressions continue. Lost "
        "conversions do not come back: check the advertiser's page now.",
        board="audiopixel-trading-desk",
    ),
    Alert(
        "AudiopixelBrandSafetyBreach",
        # The earlier count is at least fifteen minutes old, and older if the exporter was away then.
        f"""({BLOCKED} - {_KNOWN_BLOCKED} > 0 or {BLOCKED} unless {_KNOWN_BLOCKED})
{_NAMED}""",
        "critical",
        "safety",
        f"{_NAME} ran in content that its plan blocks",
        "{{ $value | printf `%.0f` }} new impressions in blocked content categories within fifteen minutes, "
        f"{_own(m.PLACEMENT['flight.blocked_impressions'])} in all. Stop the placement at the ad server "
        f"first.{_where('platform', 'station', 'podcast', 'program')}",
        board=_BOARD,
    ),
)
"""Alerts that no setting changes."""


def alerts(sustained: timedelta = SUSTAINED, limits: Limits = USUAL) -> tuple[Alert, ...]:
    """The alerts.

    Args:
        sustained: the time for which a state of under- or over-delivery must hold.
        limits: a placement that goes on with its booking complete is over above `limits.over`.
    """
    return (
        Alert(
            "AudiopixelUnderDelivery",
            _judged(
                "AudiopixelUnderDelivery",
                INDICATOR,
                f'and on (placement) {STATE}{{state="under"}}',
                f"unless on (placement) ({EXPECTED} - {DELIVERED} <= {SURE} * sqrt({EXPECTED}))",
            ),
            "warning",
            "delivery",
            f"{_NAME} has delivered {_percent(INDICATOR)} of what is due{_short(', {} impressions short')}",
            f"{_DELIVERED}{_SHORT}{_SINCE}{_ENDS}{_HEADED}{_NEEDS}{_WHERE}",
            sustained,
            board=_BOARD,
        ),
        Alert(
            "AudiopixelNotDelivering",
            # Both halves: a raised plan, too, makes impressions due, but in one half alone.
            _judged(
                "AudiopixelNotDelivering",
                f"delta({EXPECTED}[30m])",
                f"and on (placement) (delta({EXPECTED}[15m]) >= {MIN_DUE // 2})",
                f"and on (placement) (delta({EXPECTED}[15m] offset 15m) >= {MIN_DUE // 2})",
                f'and on (placement) {STATE}{{state=~"under|warming_up|at_risk|on_track"}}',
                f"unless on (placement) {_CAME} > 0",
            ),
            "critical",
            "delivery",
            f"{_NAME} has delivered nothing for 30 minutes",
            f"{{{{ $value | printf `%.0f` }}}} impressions were due in that time. "
            f"{_DELIVERED}{_SHORT}{_ENDS}{_NEEDS}{_WHERE}",
            SILENT,
            board=_BOARD,
        ),
        Alert(
            "AudiopixelOverDelivery",
            # A placement with all booked impressions is `complete`, and runs on for nothing.
            _judged(
                "AudiopixelOverDelivery",
                INDICATOR,
                f"""and on (placement) (
    {STATE}{{state="over"}}
    or {STATE}{{state="complete"}}
      and on (placement) ({INDICATOR} > {limits.over:g})
      and on (placement) ({DELIVERED} > min_over_time({DELIVERED}[10m]))
  )""",
                f"unless on (placement) ({DELIVERED} - {EXPECTED} <= {SURE} * sqrt({DELIVERED}))",
            ),
            "warning",
            "delivery",
            f"{_NAME} has delivered {_percent(INDICATOR)} of what is due",
            f"{_DELIVERED}{_SINCE}{_ENDS}{_HEADED} Impressions beyond the booking are not paid for.{_WHERE}",
            sustained,
            board=_BOARD,
        ),
        _completion_dropped("5m"),
        _completion_dropped("1h"),
        *_FIXED_ALERTS,
    )


def groups(sustained: timedelta = SUSTAINED, limits: Limits = USUAL) -> tuple[Group, ...]:
    """The groups of rules; arguments as of `alerts`."""
    return (
        Group("audiopixel-delivery", (*RECORDS, *alerts(sustained, limits))),
        Group("audiopixel-history", HISTORY, HISTORY_EVERY),
    )
