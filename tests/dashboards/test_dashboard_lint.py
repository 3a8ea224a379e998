"""The rules of Grafana's dashboard-linter, all 17, on the committed dashboards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import promql_parser as promql
import pytest
from prometheus_support import GENERATED

BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(GENERATED.glob("*.json"))}
Board = dict[str, Any]

INTERVAL = timedelta(seconds=37)
"""Stands for `$__rate_interval`: nobody writes it by hand."""

UNITS = {
    "locale",
    "dtdurations",
    "dateTimeFromNow",
    "none",
    "string",
    "short",
    "percentunit",
    "s",
    "bytes",
    "cps",
}
"""Of the units that the linter knows, those in use here."""

EXCLUDED = {
    "target-counter-agg-rule": (
        r"audiopixel_(placement_\w+|skipped_messages)_total",
        "counts of a flight: they are the number itself, and never begin anew with a process; and what a "
        "process skips before its first scrape, which no rate sees",
    ),
    "target-job-rule": ("ALERTS", "alerts are of placements and of the pipeline, not of a scraped process"),
    "target-instance-rule": ("ALERTS", "as target-job-rule"),
}
"""What a rule may complain of, as a pattern, and why."""


def panels(board: Board) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def variables(board: Board, kind: str) -> list[dict[str, Any]]:
    return [variable for variable in board["templating"]["list"] if variable["type"] == kind]


def parsed(text: str) -> promql.Expr:
    return promql.parse(text.replace("$__rate_interval", f"{INTERVAL.seconds}s"))


def nodes(expr: Any, parents: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Every node with those above it, the nearest last."""
    yield expr, parents
    children = [getattr(expr, name, None) for name in ("expr", "lhs", "rhs", "param", "vector_selector")]
    for child in (*children, *getattr(expr, "args", ())):
        if isinstance(child, promql.Expr):
            yield from nodes(child, (*parents, expr))


def targets(board: Board) -> Iterator[tuple[str, promql.Expr]]:
    for panel in panels(board):
        for target in panel["targets"]:
            yield panel["title"], parsed(target["expr"])


def selectors(board: Board) -> Iterator[tuple[str, promql.VectorSelector, tuple[Any, ...]]]:
    for title, expr in targets(board):
        for node, parents in nodes(expr):
            if isinstance(node, promql.VectorSelector):
                yield title, node, parents


def template_datasource(board: Board) -> Iterator[str]:
    found = [(item["name"], item["label"], item["query"]) for item in variables(board, "datasource")]
    if found != [("datasource", "Data source", "prometheus")]:
        yield f"datasource variables {found}"


def template(board: Board, name: str) -> Iterator[str]:
    (found,) = [item for item in board["templating"]["list"] if item["name"] == name] or [{}]
    wanted = {
        "type": "query",
        "label": name.title(),
        "multi": True,
        "allValue": ".+",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
    }
    for key, value in wanted.items():
        if found.get(key) != value:
            yield f"{name} has {key} {found.get(key)!r}"


def template_label_promql(board: Board) -> Iterator[str]:
    for item in variables(board, "query"):
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", item["query"])
        try:
            if match is None or not isinstance(parsed(match[1]), promql.VectorSelector):
                yield f"{item['name']} is no label_values(selector, label)"
        except ValueError as error:
            yield f"{item['name']}: {error}"


def template_on_time_change_reload(board: Board) -> Iterator[str]:
    for item in variables(board, "query"):
        if item["refresh"] != 2:
            yield f"{item['name']} has refresh {item['refresh']}"


def panel_datasource(board: Board) -> Iterator[str]:
    for panel in panels(board):
        for place in (panel, *panel["targets"]):
            if place["datasource"]["uid"] != "${datasource}":
                yield f"{panel['title']} asks {place['datasource']}"


def panel_title_description(board: Board) -> Iterator[str]:
    for panel in panels(board):
        if not panel["title"] or not panel["description"]:
            yield f"panel {panel['id']} has no title or no description"


def panel_units(board: Board) -> Iterator[str]:
    for panel in panels(board):
        config = panel["fieldConfig"]
        items = [item for override in config["overrides"] for item in override["properties"]]
        for unit in (config["defaults"]["unit"], *(item["value"] for item in items if item["id"] == "unit")):
            if unit not in UNITS:
                yield f"{panel['title']} has unit {unit!r}"


def panel_no_targets(board: Board) -> Iterator[str]:
    for panel in panels(board):
        if not panel["targets"]:
            yield f"{panel['title']} asks nothing"


def target_logql(board: Board) -> Iterator[str]:
    for panel in panels(board):
        for target in panel["targets"]:
            if target["datasource"]["type"] != "prometheus":
                yield f"{panel['title']} asks {target['datasource']['type']}"


def target_promql(board: Board) -> Iterator[str]:
    for panel in panels(board):
        for target in panel["targets"]:
            try:
                parsed(target["expr"])
            except ValueError as error:
                yield f"{panel['title']}: {error}"


def target_rate_interval(board: Board) -> Iterator[str]:
    for title, expr in targets(board):
        for node, parents in nodes(expr):
            if isinstance(node, promql.MatrixSelector) and node.range != INTERVAL:
                call = parents[-1] if parents else None
                if isinstance(call, promql.Call) and call.func.name in ("rate", "irate"):
                    yield f"{title}: {call.prettify()}"


def target_matcher(board: Board, label: str) -> Iterator[str]:
    for title, selector, _ in selectors(board):
        found = [(m.op, m.value) for m in selector.matchers.matchers if m.name == label]
        if (promql.MatchOp.Re, f"${label}") not in found:
            yield f"{title}: {selector.prettify()}"


def target_counter_agg(board: Board) -> Iterator[str]:
    for title, selector, parents in selectors(board):
        if (selector.name or "").endswith("_total"):
            call = parents[-2] if len(parents) > 1 else None
            if not (isinstance(call, promql.Call) and call.func.name in ("rate", "irate", "increase")):
                yield f"{title}: {selector.name}"


def uneditable(board: Board) -> Iterator[str]:
    if board["editable"]:
        yield "it is editable"


RULES: dict[str, Callable[[Board], Iterator[str]]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": lambda board: template(board, "job"),
    "template-instance-rule": lambda board: template(board, "instance"),
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-logql-rule": target_logql,
    "target-logql-auto-rule": target_logql,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": lambda board: target_matcher(board, "job"),
    "target-instance-rule": lambda board: target_matcher(board, "instance"),
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable,
}


def complaints(rule: str, board: Board) -> list[str]:
    """The findings of a rule without excluded ones."""
    pattern, _ = EXCLUDED.get(rule, ("(?!)", ""))
    return [found for found in RULES[rule](board) if not re.search(rf": {pattern}", found)]


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("rule", RULES)
def test_the_linter_has_nothing_to_say(rule: str, name: str) -> None:
    assert complaints(rule, BOARDS[name]) == []


@pytest.mark.parametrize("rule", EXCLUDED)
def test_every_excluded_lint_rule_finds_something(rule: str) -> None:
    assert [found for board in BOARDS.values() for found in RULES[rule](board)]


FAULTS: dict[str, tuple[str, str]] = {
    "template-datasource-rule": ('"label": "Data source"', '"label": "Source"'),
    "template-job-rule": ('"label": "Job"', '"label": "The job"'),
    "template-instance-rule": ('"name": "instance"', '"name": "pod"'),
    "template-label-promql-rule": ("label_values(up,", "label_values(up{,"),
    "template-on-time-change-reload-rule": ('"refresh": 2', '"refresh": 1'),
    "panel-datasource-rule": ("${datasource}", "prometheus"),
    "panel-title-description-rule": ('"description": "Of', '"description": "", "was": "Of'),
    "panel-units-rule": ('"unit": "bytes"', '"unit": "octets"'),
    "panel-no-targets-rule": ('"targets": [', '"targets": [], "others": ['),
    "target-logql-rule": ('"type": "prometheus"', '"type": "loki"'),
    "target-logql-auto-rule": ('"type": "prometheus"', '"type": "loki"'),
    "target-promql-rule": ("sum (rate(", "sum (rate"),
    "target-rate-interval-rule": ("$__rate_interval", "5m"),
    "target-job-rule": ('job=~\\"$job\\"', 'job=\\"flow\\"'),
    "target-instance-rule": ('instance=~\\"$instance\\"', 'instance=\\"a\\"'),
    "target-counter-agg-rule": ("rate(audiopixel_received_total", "delta(audiopixel_received_total"),
    "uneditable-dashboard": ('"editable": false', '"editable": true'),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_fault_put_into_a_dashboard_is_found(rule: str) -> None:
    text = (GENERATED / "pipeline.json").read_text()
    right, wrong = FAULTS[rule]
    assert right in text
    assert complaints(rule, json.loads(text.replace(right, wrong)))
