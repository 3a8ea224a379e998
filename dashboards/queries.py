"""Queries: PromQL over the metrics of `flows.metrics`, with Grafana's variables.

Every selector takes the dashboard's `job` and `instance`, those of placements its `campaign` or `placement`.
If several exporters show one Redis, a placement's number is the greatest of theirs.
"""

from __future__ import annotations

from typing import Final

from flows import metrics as m

MATCH: Final = 'job=~"$job", instance=~"$instance"'
CAMPAIGN: Final = 'campaign=~"$campaign"'
CHOSEN: Final = f'{CAMPAIGN}, platform=~"$platform", station=~"$station"'
"""Matchers for a placement's info series."""
ONE_PLACEMENT: Final = 'placement="$placement"'
FIRING: Final = 'alertstate="firing"'
RUNNING: Final = 'state=~"under|warming_up|at_risk|over|on_track"'
"""States of a delivery about which something can be done: a flight that has ended keeps its indicator."""


def select(definition: m.Definition, *matchers: str, suffix: str = "") -> str:
    """A selector of the dashboard's jobs and instances.

    Args:
        suffix: the suffix of the metric's name, for the parts of a histogram.
    """
    return f"{definition.name}{suffix}{{{', '.join((MATCH, *matchers))}}}"


def per_second(definition: m.Definition, *matchers: str, by: str = "") -> str:
    """Rate of a counter, summed, by labels if any."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({select(definition, *matchers)}[$__rate_interval]))"


def quantile(definition: m.Definition, q: float, by: str = "") -> str:
    """Quantile of a histogram, by one of its labels; absent where nothing was observed."""
    buckets = f"rate({select(definition, suffix='_bucket')}[$__rate_interval])"
    return f"histogram_quantile({q}, sum by (le{f', {by}' if by else ''}) ({buckets})) >= 0"  # drops NaN


def mean(definition: m.Definition, by: str) -> str:
    """Mean of a histogram, by one of its labels; absent where nothing was observed."""
    total, count = (
        f"sum by ({by}) (rate({select(definition, suffix=suffix)}[$__rate_interval]))"
        for suffix in ("_sum", "_count")
    )
    return f"{total} / ({count} > 0)"


def age(definition: m.Definition, by: str = "") -> str:
    """Seconds since the latest timestamp, by labels if any. An unknown timestamp, 0, is left out."""
    grouped = f" by ({by})" if by else ""
    return f"time() - max{grouped} ({select(definition)} > 0)"


def share(part: m.Definition, whole: m.Definition) -> str:
    """The rate of `part` divided by the rate of `whole`; 0 as long as `part` has no series."""
    whole_rate = per_second(whole)
    return f"({per_second(part)} or 0 * {whole_rate}) / ({whole_rate} > 0)"


def chosen(definition: m.Definition) -> str:
    """The chosen placement's value."""
    return f"max({select(definition, ONE_PLACEMENT)})"


def of_campaign(expr: str) -> str:
    """Only the chosen placements, by campaign, platform and station; `expr` has the label `placement`."""
    return f"{expr} and on (placement) {select(m.PLACEMENT_INFO, CHOSEN)}"


def by_placement(definition: m.Definition) -> str:
    """A value by placement, of the chosen campaigns."""
    return of_campaign(f"max by (placement) ({select(definition)})")


_DELIVERED: Final = (
    m.PLACEMENT["delivery.delivered"],
    m.PLACEMENT["flight.impressions"],
    m.PLACEMENT["delivery.booked"],
)


def delivered() -> str:
    """Impressions that count for the chosen placement's plan; without a plan, all."""
    planned, every, booked = map(chosen, _DELIVERED)
    return f"{planned} or ({every} unless {booked})"


def delivered_by_placement() -> str:
    """As `delivered`, by placement, of the chosen campaigns."""
    planned, every, booked = (f"max by (placement) ({select(count)})" for count in _DELIVERED)
    return of_campaign(f"({planned} or ({every} unless {booked}))")


def by_campaign(definition: m.Definition, by: str = "campaign") -> str:
    """A value of the chosen campaigns, by their names."""
    return f"max by ({by}) ({select(definition, CAMPAIGN)})"


def running(definition: m.Definition) -> str:
    """A value by placement that still delivers, of the chosen campaigns."""
    return f"{by_placement(definition)} and on (placement) {select(m.PLACEMENT_STATE, RUNNING)}"


def short() -> str:
    """Impressions due and not delivered, by placement that still delivers, of the chosen placements."""
    return running(m.PLACEMENT["delivery.short_by"])


def short_cost() -> str:
    """The price of `short`, in the plan's currency."""
    return running(m.PLACEMENT["delivery.at_stake"])


def campaigns_short() -> str:
    """As `short`, by campaign."""
    short_by = by_campaign(m.CAMPAIGN["delivery.short_by"])
    return f"{short_by} and on (campaign) {select(m.CAMPAIGN_STATE, CAMPAIGN, RUNNING)}"


def ends_in(definition: m.Definition, by: str) -> str:
    """Seconds until the flights end, negative after the end."""
    selected = by_placement(definition) if by == "placement" else by_campaign(definition)
    return f"({selected}) - time()"


def an_hour(expr: str) -> str:
    """A rate a second as one an hour."""
    return f"3600 * ({expr})"


def yesterday(definition: m.Definition) -> str:
    """The rate of a counter of the chosen placements a day before, summed."""
    rate = f"sum by (placement) (rate({select(definition)}[$__rate_interval] offset 1d))"
    return f"sum({of_campaign(rate)})"


def completion_by_placement(least: int) -> str:
    """Mature completion rate of the last hour, by placement of the chosen campaigns with so many starts."""
    starts = f"max by (placement) (increase({select(m.PLACEMENT['flight.starts'])}[1h])) >= {least}"
    return f"{by_placement(m.PLACEMENT['1h.mature_completion_rate'])} and on (placement) {starts}"


def states(*matchers: str) -> str:
    """1 by placement and the state that it is in, of the chosen campaigns."""
    return of_campaign(f"max by (placement, state) ({select(m.PLACEMENT_STATE, *matchers)})")


def count_in(state: str) -> str:
    """The number of judged placements of the chosen campaigns in a state; empty without an exporter."""
    matcher = f'state="{state}"'
    judged = f"{states(matcher)} unless on (placement) {select(m.PLACEMENT['delivery.unjudged_since_ms'])}"
    return f"count({judged}) or 0 * max({select(m.EXPORTER_UP)})"


def names() -> str:
    """1 by placement with its labels, of the chosen campaigns."""
    labels = "placement, campaign, platform, station, currency"
    return f"max by ({labels}) ({select(m.PLACEMENT_INFO, CHOSEN)})"


def completion() -> str:
    """Mature completion rate of the chosen campaigns' last hour, placements weighed by their starts; absent
    without a start.
    """
    rate = f"max by (placement) ({select(m.PLACEMENT['1h.mature_completion_rate'])})"
    starts = f"max by (placement) (increase({select(m.PLACEMENT['flight.starts'])}[1h]))"
    weights = of_campaign(f"({starts} and {rate})")
    return f"sum({of_campaign(f'({rate} * {starts})')}) / (sum({weights}) > 0)"


def firing(*matchers: str) -> str:
    """Firing alerts, whose series have neither job nor instance."""
    return f"ALERTS{{{', '.join((FIRING, *matchers))}}}"


def firing_since() -> str:
    """Epoch seconds since when each firing alert holds."""
    labels = "alertname, placement, campaign, severity"
    return f"max by ({labels}) (ALERTS_FOR_STATE and ignoring (alertstate) {firing()})"
