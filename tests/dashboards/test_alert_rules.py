"""The alert rules: well-formed, documented, and telling exactly the stories beside this file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_support import GENERATED, promtool

from dashboards.delivery_rules import groups
from dashboards.pipeline_rules import PIPELINE
from dashboards.routing import BLINDING
from dashboards.rules import Alert, Record
from flows import metrics

HERE = Path(__file__).parent
RULES = [rule for group in (PIPELINE, *groups()) for rule in group.rules]
ALERTS = {rule.name: rule for rule in RULES if isinstance(rule, Alert)}
RECORDS = {rule.name: rule for rule in RULES if isinstance(rule, Record)}
STORIES: list[dict[str, Any]] = [
    test for path in sorted(HERE.glob("*_stories.yml")) for test in yaml.safe_load(path.read_text())["tests"]
]
DEFINED = (*metrics.PIPELINE, *metrics.PLACEMENT, *metrics.CAMPAIGN, *metrics.EXPORTER)
NAMES = {definition.name for definition in DEFINED}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_runbook_entry_of_its_name(name: str) -> None:
    url = ALERTS[name].to_yaml()["annotations"]["runbook_url"]
    page, anchor = url.split("#")
    runbook = (HERE.parents[1] / "docs" / page.rsplit("/", 1)[1]).read_text()
    headings = [title.lower() for title in re.findall(r"^#+ (\w+)$", runbook, re.MULTILINE)]
    assert headings.count(anchor) == 1


def test_the_runbook_has_no_entry_of_an_alert_that_is_gone() -> None:
    runbook = (HERE.parents[1] / "docs" / "runbook.md").read_text()
    assert set(re.findall(r"^### (Audiopixel\w+)$", runbook, re.MULTILINE)) == set(ALERTS)


def test_records_are_named_by_level_metric_and_operations() -> None:
    for name in RECORDS:
        assert re.fullmatch(r"(instance|pipeline|placement|campaign):audiopixel_[a-z0-9_]+:[a-z0-9_]+", name)


def test_alerts_are_camel_case_with_severity_area_and_numbers() -> None:
    for name, alert in ALERTS.items():
        assert re.fullmatch(r"Audiopixel([A-Z][a-z]+)+", name)
        assert alert.severity in ("critical", "warning")
        assert "{{" in alert.description, f"{name} tells no number"


def test_every_metric_in_a_rule_is_defined_or_recorded() -> None:
    for rule in RULES:
        texts = [rule.expr, rule.description] if isinstance(rule, Alert) else [rule.expr]
        for text in texts:
            for name in re.findall(r"(?<![:\w])(?:\w+:)?audiopixel_\w+(?::\w+)?", text):
                assert name in NAMES | set(RECORDS), (rule.name, name)


def test_what_blinds_are_alerts_of_the_pipeline() -> None:
    assert {ALERTS[name].area for name in BLINDING} == {"pipeline"}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_told_of_in_a_story_with_its_words(name: str) -> None:
    told = [
        expected
        for story in STORIES
        for case in story.get("alert_rule_test", [])
        if case["alertname"] == name
        for expected in case["exp_alerts"]
    ]
    assert told
    assert {alert["exp_labels"]["severity"] for alert in told} == {ALERTS[name].severity}


@pytest.mark.debian
def test_promtool_finds_no_fault_in_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(GENERATED / "rules.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.debian
@pytest.mark.parametrize("area", ["delivery", "campaign", "pipeline"])
def test_the_rules_tell_the_stories(area: str) -> None:
    done = promtool("test", "rules", str(HERE / f"{area}_stories.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.debian
@pytest.mark.parametrize(
    ("area", "rule", "fault"),
    [
        ("pipeline", " and on (job, instance) instance:audiopixel_fresh:bool", ""),
        ("pipeline", "unless on () pipeline:audiopixel_down:count", ""),
        ("pipeline", "unless on () pipeline:audiopixel_redis_failing:max", ""),
        ("pipeline", "seconds:min > 120", "seconds:min > 7200"),
        ("pipeline", "seconds:min > 90", "seconds:min >= 0"),
        ("pipeline", "changes5m == 0", "changes5m >= 0"),
        ("pipeline", 'or absent(audiopixel_build_info{job="audiopixel-flow"})', ""),
        ("pipeline", 'or absent(audiopixel_exporter_up{job="audiopixel-placements"})', ""),
        ("pipeline", "increase(audiopixel_received_total[30m])", "increase(audiopixel_received_total[3h])"),
        ("campaign", "[1h] offset 23h30m", "[6h]"),
        ("pipeline", "ratio_rate10m > 0.05", "ratio_rate10m > 0.01"),
        ("pipeline", "[10m])) > 100", "[10m])) > 1"),
        ("delivery", "for: 10m", "for: 5m"),
        ("delivery", 'state="under"', 'state=~"under|at_risk"'),
        ("delivery", "[30m])) >= 20", "[30m])) >= 1"),
        ("delivery", "under|at_risk|on_track", "under|at_risk|on_track|complete"),
        ("delivery", "> 5 * sqrt", "> 0 * sqrt"),
        ("delivery", "< 0.8 *", "< 0.95 *"),
        ("delivery", "< 0.8 *", "< 0.65 *"),
        ("campaign", "> 0.5 * avg", "> -1 * avg"),
        ("delivery", ":max > 0 unless", ":max > 9 unless"),
        ("campaign", ">= 10", ">= 1"),
        ("campaign", "[6h]) == 0", "[6h]) >= 0"),
    ],
)
def test_a_fault_put_into_a_rule_spoils_a_story(area: str, rule: str, fault: str, tmp_path: Path) -> None:
    rules = (GENERATED / "rules.yml").read_text()
    assert rule in rules
    place = tmp_path / "dashboards" / "generated"
    place.mkdir(parents=True)
    (place / "rules.yml").write_text(rules.replace(rule, fault))
    here = tmp_path / "tests" / "dashboards"
    here.mkdir(parents=True)
    shutil.copy(HERE / f"{area}_stories.yml", here)
    done = promtool("test", "rules", f"{area}_stories.yml", cwd=here)
    assert "FAILED" in done.stdout + done.stderr
