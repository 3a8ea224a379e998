"""The alerts about placements and campaigns, and what they are made of.

Each is judged on records that exist while the numbers are fresh (`pipeline_rules.FRESH`): a pipeline that
stands still gives no under-delivery. The exception is brand safety: a breach that was counted is one,
however late. States, indicators and their thresholds come from the flow: the alerts say what Redis says.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dashboards.pipeline_rules import FRESH
from dashboards.rules import Alert, Group, Record, number
from flows import metrics as m

SUSTAINED: Final = timedelta(minutes=10)
"""How long a delivery state must hold to be told."""
SILENT: Final = timedelta(minutes=5)
"""How long a silence of half an hour must last on to be told."""
LEAST_STARTS: Final = 50
"""In a window whose completion rate is judged."""
LEAST_DUE: Final = 20
"""Impressions due in half an hour, of which none is no chance (1 in 10⁸)."""
LEAST_CONVERSIONS: Final = 10
"""Usual in six hours, of which none is no chance (1 in 10⁴)."""

INFO: Final = "placement:audiopixel_info:group"
INDICATOR: Final = "placement:audiopixel_delivery_indicator:max"
STATE: Final = "placement:audiopixel_delivery_state:max"
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

_FRESH: Final = f"and on (job, instance) {FRESH}"
_NAMED: Final = f"* on (placement) group_left (campaign, platform, station) {INFO}"
_LABELS: Final = "placement, campaign, platform, station"
_WHO: Final = "{{ $labels.placement }} of campaign {{ $labels.campaign }}"


def _own(definition: m.Definition) -> str:
    # Whole: `humanize` calls half an impression 500m.
    return number(f"round({definition.name}{{placement=%q}})", "placement")


def _percent(ratio: str) -> str:
    # Templates cannot multiply, and `humanizePercentage` says 3.049%.
    return f"{number(f'100 * {ratio}{{placement=%q}}', 'placement', 'printf `%.1f`')} %"


_PACE: Final = (
    f"{_own(m.PLACEMENT_DELIVERED)} impressions delivered where {_own(m.PLACEMENT_EXPECTED)} are due by "
    f"now; at the last hour's rate it ends at {_own(m.PLACEMENT_PROJECTED)} of {_own(m.PLACEMENT_BOOKED)} "
    "booked."
)

RECORDS: Final = (
    Record(INFO, f"group by ({_LABELS}) (topk by (placement) (1, {m.PLACEMENT_INFO.name}))"),
    Record(INDICATOR, f"max by (placement) ({m.PLACEMENT_INDICATOR.name} {_FRESH})"),
    Record(STATE, f"max by (placement, state) ({m.PLACEMENT_STATE.name} {_FRESH})"),
    *(
        Record(name, f"max by (placement) (increase({m.PLACEMENT_STARTS.name}[{window}]))")
        for window, name in STARTS.items()
    ),
    *(
        Record(
            RATE[window], f"max by (placement) ({rate.name} {_FRESH}) and {STARTS[window]} >= {LEAST_STARTS}"
        )
        for window, rate in (("5m", m.PLACEMENT_MATURE_5M), ("1h", m.PLACEMENT_MATURE_1H))
    ),
    Record(BLOCKED, f"max by (placement) ({m.PLACEMENT_BLOCKED.name})"),
)

HISTORY: Final = (
    Record(USUAL_RATE, f"avg_over_time({RATE['1h']}[1d:10m] offset 1h)"),
    *(
        Record(
            name,
            f"sum by (campaign) (max by (placement) (rate({counter.name}[10m])) "
            f'* on (placement) group_left (campaign) {INFO}{{campaign!=""}})',
        )
        for name, counter in ((CONVERSIONS, m.PLACEMENT_CONVERSIONS), (IMPRESSIONS, m.PLACEMENT_IMPRESSIONS))
    ),
)
"""Of hours and days, every five minutes: a day of every placement's samples is too much to read at once."""


def _completion_dropped(window: str) -> Alert:
    rate, starts = RATE[window], STARTS[window]
    # Five standard errors: with thousands of placements, two or three are somebody's chance at every moment.
    return Alert(
        "AudiopixelCompletionRateDropped",
        f"""(
  {rate} < 0.8 * {USUAL_RATE}
  and ({USUAL_RATE} - {rate} > 5 * sqrt(clamp_min({USUAL_RATE} * (1 - {USUAL_RATE}), 0.05) / {starts}))
)
{_NAMED}""",
        "warning",
        "delivery",
        f"{_WHO} is heard to its end less than usual",
        f"{_percent(rate)} of the starts of the last {window} were heard to the end, without the youngest, "
        f"which cannot have been yet; usual of the last day is {_percent(USUAL_RATE)}. "
        f"{number(f'round({starts}{{placement=%q}})', 'placement')} starts.",
        labels={"window": window},
    )


def alerts(sustained: timedelta = SUSTAINED) -> tuple[Alert, ...]:
    """The alerts.

    Args:
        sustained: how long a state of under- or over-delivery must hold.
    """
    return (
        Alert(
            "AudiopixelUnderDelivery",
            f'({INDICATOR} and on (placement) {STATE}{{state="under"}})\n{_NAMED}',
            "warning",
            "delivery",
            f"{_WHO} has delivered {_percent(INDICATOR)} of what is due by now",
            _PACE,
            sustained,
        ),
        Alert(
            "AudiopixelNotDelivering",
            f"""(
  max by (placement) (delta({m.PLACEMENT_EXPECTED.name}[30m])) >= {LEAST_DUE}
  and on (placement) {STATE}{{state=~"under|at_risk|on_track"}}
  unless on (placement) max by (placement) (increase({m.PLACEMENT_IMPRESSIONS.name}[30m])) > 0
)
{_NAMED}""",
            "critical",
            "delivery",
            f"{_WHO} delivers nothing",
            "No impression in half an hour in which {{ $value | humanize }} were due; "
            f"{_own(m.PLACEMENT_DELIVERED)} of {_own(m.PLACEMENT_BOOKED)} booked are delivered.",
            SILENT,
        ),
        Alert(
            "AudiopixelOverDelivery",
            f'({INDICATOR} and on (placement) {STATE}{{state="over"}})\n{_NAMED}',
            "warning",
            "delivery",
            f"{_WHO} has delivered {_percent(INDICATOR)} of what is due by now",
            _PACE,
            sustained,
        ),
        _completion_dropped("5m"),
        _completion_dropped("1h"),
        Alert(
            "AudiopixelConversionsMissing",
            f"""avg_over_time({CONVERSIONS}[1d] offset 6h) * 6 * 3600 >= {LEAST_CONVERSIONS}
and max_over_time({CONVERSIONS}[6h]) == 0
and avg_over_time({IMPRESSIONS}[6h]) > 0.5 * avg_over_time({IMPRESSIONS}[1d] offset 6h)
and on () max({FRESH})""",
            "warning",
            "delivery",
            "Campaign {{ $labels.campaign }} has no conversions any more",
            "None in six hours, in which {{ printf `%.0f` $value }} were usual, and its impressions go on.",
        ),
        Alert(
            "AudiopixelBrandSafetyBreach",
            f"""({BLOCKED} - {BLOCKED} offset 15m > 0 or ({BLOCKED} > 0 unless {BLOCKED} offset 15m))
{_NAMED}""",
            "critical",
            "safety",
            f"{_WHO} ran in content that its plan blocks",
            "{{ $value | humanize }} impressions in blocked content categories in the last fifteen minutes, "
            f"{_own(m.PLACEMENT_BLOCKED)} in the flight.",
        ),
    )


def groups(sustained: timedelta = SUSTAINED) -> tuple[Group, ...]:
    """The groups of rules; `sustained` as of `alerts`."""
    return (
        Group("audiopixel-delivery", (*RECORDS, *alerts(sustained))),
        Group("audiopixel-history", HISTORY, timedelta(minutes=5)),
    )
