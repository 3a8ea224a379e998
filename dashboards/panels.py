"""The kinds of panels: each shows its value, its unit, the values worth a look, and a link to read on.

A panel has no place yet: `dashboards.layout` numbers and places it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Final, Protocol, Self

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueTextMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    Panel,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.rules import RUNBOOK

DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
CONTRACTS: Final = RUNBOOK.replace("runbook.md", "contracts.md")
"""The address of the numbers' meanings."""

GREEN, AMBER, RED, BLUE, GREY, PLAIN = "green", "orange", "red", "blue", "gray", "text"
STATE_COLORS: Final[Mapping[str, str]] = {
    "under": RED,
    "at_risk": AMBER,
    "over": AMBER,
    "ended_short": RED,
    "on_track": GREEN,
    "complete": BLUE,
    "warming_up": GREY,
    "unknown_before": GREY,
    "ended_unknown": GREY,
    "paused": GREY,
    "not_started": GREY,
}
SEVERITY_COLORS: Final[Mapping[str, str]] = {"critical": RED, "warning": AMBER}
Steps = Sequence[tuple[float | None, str]]
"""Colours, each from its value on; the first value is None."""
NO_STEPS: Final[Steps] = ((None, PLAIN),)


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a panel; `legend` may contain labels, such as `{{placement}}`."""

    expr: str
    legend: str = ""


class _Builder(Protocol):
    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: DataSourceRef) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def thresholds(self, thresholds: dashboard.ThresholdsConfig) -> Self: ...
    def links(self, links: list[Any]) -> Self: ...
    def targets(self, targets: list[Any]) -> Self: ...
    def build(self) -> Panel: ...


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    shown = [Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(shown)


def _link(title: str, url: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url).target_blank(True)


def _targets(
    queries: Sequence[Query], *, instant: bool, as_table: bool = False
) -> list[prometheus.Dataquery]:
    targets = []
    for ref_id, query in zip(ascii_uppercase, queries, strict=False):
        target = prometheus.Dataquery().ref_id(ref_id).expr(query.expr).datasource(DATASOURCE)
        target = target.instant() if instant else target.range()
        target = target.format(PromQueryFormat.TABLE if as_table else PromQueryFormat.TIME_SERIES)
        targets.append(target.legend_format(query.legend) if query.legend else target)
    return targets


def _finished(
    panel: _Builder,
    title: str,
    description: str,
    unit: str,
    steps: Steps,
    alert: str | None,
    targets: list[Any],
) -> Panel:
    link = _link("What to do", f"{RUNBOOK}#{alert.lower()}") if alert else _link("What it means", CONTRACTS)
    return (
        panel.title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .thresholds(_thresholds(steps))
        .links([link])
        .targets(targets)
        .build()
    )


def number(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    steps: Steps = NO_STEPS,
    alert: str | None = None,
    named: bool = False,
) -> Panel:
    """A present value, coloured by `steps`.

    Args:
        alert: the alert about it, whose entry in the runbook it links to.
        named: show the legend instead of the value.
    """
    panel = (
        stat.Panel()
        .color_mode(BigValueColorMode.VALUE if steps == NO_STEPS else BigValueColorMode.BACKGROUND)
        .text_mode(BigValueTextMode.NAME if named else BigValueTextMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("–")
    )
    return _finished(panel, title, description, unit, steps, alert, _targets([query], instant=True))


def lines(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Query],
    *,
    steps: Steps = NO_STEPS,
    alert: str | None = None,
    least: float | None = 0,
) -> Panel:
    """Values over time, with lines where `steps` begin; the axis starts at `least`."""
    style = GraphThresholdsStyleMode.OFF if steps == NO_STEPS else GraphThresholdsStyleMode.DASHED
    panel = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(8)
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if least is not None:
        panel = panel.axis_soft_min(least)
    return _finished(panel, title, description, unit, steps, alert, _targets(queries, instant=False))


def bars(title: str, description: str, unit: str, queries: Sequence[Query]) -> Panel:
    """Present values as bars below each other, from zero."""
    panel = (
        bargauge.Panel()
        .orientation(VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .min(0)
    )
    return _finished(panel, title, description, unit, NO_STEPS, None, _targets(queries, instant=True))


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        field: a label, or `Value #A` for the value of query A.
        link: the address to which a click on a cell leads; it may contain Grafana's variables.
        steps: colours of its cells.
        colors: colours of its cells by their text, in which `_` is shown as a space.
    """

    title: str
    field: str
    unit: str = "string"
    steps: Steps = NO_STEPS
    link: str | None = None
    decimals: int | None = None
    colors: Mapping[str, str] | None = None


def rows(
    title: str,
    description: str,
    queries: Sequence[Query],
    columns: Sequence[Column],
    *,
    join: str | None = None,
    sort: str,
    descending: bool = False,
    alert: str | None = None,
) -> Panel:
    """A table of present values, one row by label set; only `columns` are shown, in their order.

    Args:
        join: the label by which rows of several queries become one row.
        sort: the title of the column by which the table is sorted.
    """
    panel = (
        table.Panel()
        .show_header(True)
        .filterable(True)
        .sort_by([common.TableSortByFieldState().display_name(sort).desc(descending)])
    )
    if join is not None:
        panel = panel.with_transformation(
            DataTransformerConfig(id_val="joinByField", options={"byField": join, "mode": "outer"})
        )
    names = {column.field: column.title for column in columns}
    panel = panel.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={
                "renameByName": names,
                "indexByName": {column.field: place for place, column in enumerate(columns)},
                "includeByName": dict.fromkeys(names, True),
            },
        )
    )
    for column in columns:
        panel = panel.override_by_name(column.title, _cell(column))
    targets = _targets(queries, instant=True, as_table=True)
    return _finished(panel, title, description, "short", NO_STEPS, alert, targets)


_COLORED: Final = {"type": "color-background", "mode": "basic"}


def mapped(colors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Grafana's value mappings of these texts."""
    options = {
        text: {"text": text.replace("_", " "), "color": color, "index": place}
        for place, (text, color) in enumerate(colors.items())
    }
    return [{"type": "value", "options": options}]


def _cell(column: Column) -> list[DynamicConfigValue]:
    properties: Mapping[str, Any] = {
        "unit": column.unit,
        **({"decimals": column.decimals} if column.decimals is not None else {}),
        **({"links": [{"title": "Open", "url": column.link}]} if column.link else {}),
        **({"custom.cellOptions": _COLORED, "mappings": mapped(column.colors)} if column.colors else {}),
        **(
            {
                "custom.cellOptions": _COLORED,
                "thresholds": {
                    "mode": "absolute",
                    "steps": [{"value": value, "color": color} for value, color in column.steps],
                },
            }
            if column.steps != NO_STEPS
            else {}
        ),
    }
    return [DynamicConfigValue(id_val=name, value=value) for name, value in properties.items()]
