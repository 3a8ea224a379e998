"""The layout of a dashboard: panels in rows of a grid, variables, links to the other dashboards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    Panel,
    RowPanel,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards.panels import DATASOURCE
from dashboards.pipeline_rules import FEED_SILENT, NOT_JUDGED
from dashboards.rules import linked
from flows import metrics as m

WIDTH: Final = 24
TAG: Final = "audiopixel"

ANNOTATIONS: Final = (
    (
        "Delivery not judged",
        f'ALERTS{{alertname="{NOT_JUDGED}", alertstate="firing"}}',
        "The numbers were old or incomplete.",
        "red",
    ),
    (
        "Feed silent",
        f'ALERTS{{alertname="{FEED_SILENT}", alertstate="firing"}}',
        "{{kind}} {{unit}}",
        "orange",
    ),
    (
        "Plan changed",
        " or ".join(
            f"changes({m.PLACEMENT[field].name}[2m]) > 0" for field in ("delivery.booked", "delivery.end_ms")
        ),
        "{{placement}}",
        "blue",
    ),
)
"""Marks over time in every dashboard: name, query, text, colour."""

Variable = Builder[VariableModel]


@dataclass(frozen=True, slots=True)
class Row:
    """Panels in a row under a heading. Panels beyond `WIDTH` go on below.

    Attributes:
        height: the height of every panel, in Grafana's units of 30 pixels.
        width: the width of every panel that is not `wide`, in 24ths of the page.
    """

    title: str
    height: int
    width: int
    panels: Sequence[Panel]


def wide(panel: Panel, width: int) -> Panel:
    """The panel, with a width of its own."""
    panel.grid_pos = GridPos(h=0, w=width, x=0, y=0)
    return panel


def variable(name: str, query: str, *, label: str = "", many: bool = True, all_value: str = ".+") -> Variable:
    """A variable that takes its values from Prometheus; with `many`, several or all of them."""
    query_variable = (
        dashboard.QueryVariable(name)
        .label(label or name.title())
        .query(query)
        .datasource(DATASOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    if many:
        current = VariableOption(selected=True, text=["All"], value=["$__all"])
        query_variable = query_variable.multi(True).include_all(True).all_value(all_value).current(current)
    return query_variable


def _variables(job_metric: str, more: Sequence[Variable]) -> list[Variable]:
    # Grafana resolves variables by their dependencies, in any order.
    return [
        *more,
        variable("instance", f'label_values({job_metric}{{job=~"$job"}}, instance)'),
        variable("job", f"label_values({job_metric}, job)"),
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
    ]


def board(
    uid: str,
    title: str,
    description: str,
    rows: Sequence[Row],
    *,
    job_metric: str,
    variables: Sequence[Variable] = (),
    since: str = "now-6h",
) -> Dashboard:
    """A dashboard of these rows.

    Args:
        job_metric: a metric of each job and instance that the dashboard shows.
        variables: the variables besides data source, job and instance.
        since: the begin of the time range shown first.
    """
    links = (
        dashboard.DashboardLink("audiopixel")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(False)
        .keep_time(True)
        .placement("")  # the default hides the links in a menu
    )
    dashboard_built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("30s")
        .timezone("browser")
        .variables(_variables(job_metric, variables))
        .annotations([_annotation(*annotation) for annotation in ANNOTATIONS])
        .link(links)
        .build()
    )
    dashboard_built.panels = _placed(rows)
    return dashboard_built


def _annotation(name: str, expr: str, text: str, color: str) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expr)
        .title_format(name)
        .text_format(text)
    )


def _placed(rows: Sequence[Row]) -> list[Panel | RowPanel]:
    placed: list[Panel | RowPanel] = []
    y = 0
    for row in rows:
        placed.append(
            RowPanel(
                title=row.title,
                id_val=len(placed) + 1,
                collapsed=False,
                grid_pos=GridPos(h=1, w=WIDTH, x=0, y=y),
                panels=[],
            )
        )
        y, x = y + 1, 0
        for panel in row.panels:
            width = panel.grid_pos.w if panel.grid_pos else row.width
            if x + width > WIDTH:
                x, y = 0, y + row.height
            panel.id_val = len(placed) + 1
            panel.grid_pos = GridPos(h=row.height, w=width, x=x, y=y)
            placed.append(panel)
            x += width
        y += row.height
    return placed


def to_json(built: Dashboard, docs: str = "") -> str:
    """The JSON of a dashboard for Grafana, with sorted keys, so that a diff shows the change alone.

    Args:
        docs: the address of the documents to which links lead; empty: no such links.
    """
    content = linked(json.loads(JSONEncoder().encode(built)), docs)
    return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
