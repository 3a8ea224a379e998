"""The alert rules are well-formed, documented, and fire exactly in the stories of this folder."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_support import GENERATED, promtool
from yaml_support import read_yaml

from dashboards.pipeline_rules import BLINDING, NOT_JUDGED
from dashboards.routing import alertmanager
from dashboards.rules import USUAL, Alert, Limits, Record
from dashboards.site import Site
from flows import metrics, process_metrics
from flows.settings.fields import Settings

HERE = Path(__file__).parent
RULES = [rule for group in Site().groups for rule in group.rules]
ALERTS = {rule.name: rule for rule in RULES if isinstance(rule, Alert)}
RECORDS = {rule.name: rule for rule in RULES if isinstance(rule, Record)}
FILES = {path.name: read_yaml(path.read_text()) for path in sorted(HERE.glob("*_stories.yml"))}
STORIES: list[dict[str, Any]] = [story for told in FILES.values() for story in told["tests"]]
DEFINED = (
    *(*metrics.PIPELINE, *metrics.PLACEMENT, *metrics.CAMPAIGN, *metrics.EXPORTER),
    *(*process_metrics.COLLECT, *metrics.TAGS, *process_metrics.EXPORT),
    *(*process_metrics.SOURCE, *process_metrics.ARCHIVE),
)
NAMES = {definition.name for definition in DEFINED}
INDICATOR = metrics.PLACEMENT["delivery.indicator"].name
BLOCKED = metrics.PLACEMENT["flight.blocked_impressions"].name
SKIPPED = metrics.SKIPPED.name
FEED = metrics.FEED_SILENT_SINCE.name
UNJUDGED = "placement:audiopixel_delivery_unjudged:max"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_runbook_entry_of_its_name(name: str) -> None:
    url = ALERTS[name].to_yaml()["annotations"]["runbook_url"]
    page, anchor = url.split("#")
    runbook = (HERE.parents[1] / "docs" / page.rsplit("/", 1)[1]).read_text()
    headings = [title.lower() for title in re.findall(r"^#+ (\w+)$", runbook, re.MULTILINE)]
    assert headings.count(anchor) == 1


def test_the_runbook_has_no_entry_of_a_removed_alert() -> None:
    runbook = (HERE.parents[1] / "docs" / "runbook.md").read_text()
    beside = (HERE.parents[1] / "deploy/kubernetes/monitors.yaml").read_text()
    there = set(ALERTS) | set(re.findall(r"- alert: (\w+)$", beside, re.MULTILINE))
    assert set(re.findall(r"^### (Audiopixel\w+)$", runbook, re.MULTILINE)) == there


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


def test_unjudged_delivery_alerts_traders_without_inhibition() -> None:
    assert ALERTS[NOT_JUDGED].area == "delivery"
    assert NOT_JUDGED not in BLINDING
    (rule, _) = read_yaml(alertmanager())["inhibit_rules"]
    assert rule["target_matchers"] == ['area="delivery"', f'alertname!="{NOT_JUDGED}"']


def test_links_and_thresholds_are_an_installations_own() -> None:
    site = Site("https://wiki.internal/audiopixel/", "https://grafana.internal/", Limits(0.8, 1.3))
    rules = read_yaml(site.rules)["groups"]
    alerts = {rule["alert"]: rule for group in rules for rule in group["rules"] if "alert" in rule}
    assert {alert["annotations"]["runbook_url"] for alert in alerts.values()} == {
        f"https://wiki.internal/audiopixel/runbook.md#{name.lower()}" for name in alerts
    }
    under = alerts["AudiopixelUnderDelivery"]["annotations"]["dashboard_url"]
    assert under == (
        "https://grafana.internal/d/audiopixel-placement?var-placement={{ $labels.placement | urlquery }}"
    )
    assert "indicator:max > 1.3)" in alerts["AudiopixelOverDelivery"]["expr"]
    assert "dashboard_url" not in (GENERATED / "rules.yml").read_text()
    assert (USUAL.under, USUAL.over) == (Settings().under, Settings().over)


def test_no_alert_and_no_panel_links_to_documents_without_an_address() -> None:
    for path in GENERATED.iterdir():
        text = path.read_text()
        assert "http" not in text, path.name
        assert "runbook_url" not in text, path.name


def test_blinding_alerts_belong_to_the_pipeline() -> None:
    assert {ALERTS[name].area for name in BLINDING} == {"pipeline"}


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_fires_in_a_story_with_its_severity(name: str) -> None:
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


def try_stories(rules: str, told: dict[str, Any], place: Path) -> subprocess.CompletedProcess[str]:
    """Try a file of stories by the groups of rules that it names: all of them would take twice the time."""
    groups = [group for group in read_yaml(rules)["groups"] if group["name"] in told["group_eval_order"]]
    (place / "rules.yml").write_text(yaml.safe_dump({"groups": groups}, allow_unicode=True))
    text = yaml.safe_dump({**told, "rule_files": ["rules.yml"]}, allow_unicode=True)
    (place / "story.yml").write_text(text)
    return promtool("test", "rules", "story.yml", cwd=place)


@pytest.mark.debian
@pytest.mark.parametrize("name", FILES)
def test_the_rules_tell_the_stories(name: str, tmp_path: Path) -> None:
    done = try_stories((GENERATED / "rules.yml").read_text(), FILES[name], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_group_of_rules_is_in_the_stories() -> None:
    named = {group for told in FILES.values() for group in told["group_eval_order"]}
    assert named == {group["name"] for group in read_yaml((GENERATED / "rules.yml").read_text())["groups"]}


@pytest.mark.debian
@pytest.mark.parametrize(
    ("story", "rule", "fault"),
    [
        ("a flow that hangs", " and on (job, instance) instance:audiopixel_fresh:bool", ""),
        ("a flow that died", "unless on () pipeline:audiopixel_down:count", ""),
        ("Redis is gone", "unless on () pipeline:audiopixel_redis_failing:max", ""),
        ("a flow that hangs", "seconds:min > 30", "seconds:min > 7200"),
        ("a flush that fails every ninety seconds", "seconds:min > 90", "seconds:min >= 0"),
        ("a log that is counted anew", "changes5m == 0", "changes5m >= 0"),
        ("what answers at both", 'or absent(audiopixel_build_info{job="audiopixel-flow"})', ""),
        ("what answers at both", 'or absent(audiopixel_exporter_up{job="audiopixel-placements"})', ""),
        ("a collector that keeps its pixels", "pipeline:audiopixel_hold_age_seconds:max > 300", "none > 300"),
        ("delivery that the flow itself", "min(audiopixel_exporter_delivery_unjudged", "min(audiopixel_none"),
        ("a flow that does not judge", "> 180", "> 18000"),
        ("a flow that does not judge", "or last_over_time(audiopixel_exporter_d", "or last_over_time(d"),
        ("a flow that does not judge", "unless on (job, instance) audiopixel_exporter_up", "unless none"),
        ("a collector that can store nothing", 'reason=~"store|clock|plans|busy"', 'reason=~"size"'),
        ("a spool that fills", "[15m], 3600) > 1", "[15m], 3600) > 9"),
        ("an export that dies", 'up{job="audiopixel-export"} == 0', "none == 0"),
        ("a vendor that replaces", "> 0.05", "> 0.5"),
        ("collectors that answer", "> 0.05", "> 0.01"),
        ("consent falls", "< 0.8 *", "< 0.4 *"),
        ("nobody sends pixels", "(audiopixel_received_total[30m])", "(audiopixel_received_total[3h])"),
        ("a station that sends nothing at night", "[1h] offset 23h30m", "[6h]"),
        ("a flow that is restarted behind a loss", f"max_over_time({SKIPPED}[1d])", SKIPPED),
        ("a loss of before", "[1d] offset 1d) or", "[1h] offset 1d) or"),
        ("a second loss", f"increase({SKIPPED}[1d]) > 0", "none"),
        ("a second loss", "max1d < instance:audiopixel_skipped_messages:last1d", "max1d < none"),
        ("one message in fifty", "ratio_rate10m > 0.05", "ratio_rate10m > 0.01"),
        ("one message in fifty", "[10m])) > 100", "[10m])) > 1"),
        ("a placement within the band", 'state="under"', 'state=~"under|at_risk"'),
        ("an exporter that is started again", f"last_over_time({INDICATOR}[2m])", INDICATOR),
        ("a state that was left", "unless on (placement) audiopixel_placement_delivery_state", "unless none"),
        ("what chance may do", "<= 3 * sqrt(placement:audiopixel_delivery_expected:max)", "< 0"),
        ("what chance may do", "<= 3 * sqrt(placement:audiopixel_delivery_delivered:max)", "< 0"),
        ("a placement that has all it booked", 'state="complete"', 'state="none"'),
        ("a placement that has all it booked", "> min_over_time(", ">= min_over_time("),
        ("a plan that was raised", "[15m]) >= 10", "[15m]) >= 0"),
        ("a plan that was raised", "[15m] offset 15m) >= 10", "[15m] offset 15m) >= 0"),
        ("nothing is told of a night", "at_risk|on_track", "at_risk|on_track|complete"),
        ("a quieter placement", "> 5 * sqrt", "> 0 * sqrt"),
        ("thirty per cent fewer", "< 0.8 *", "< 0.95 *"),
        ("thirty per cent fewer", "< 0.8 *", "< 0.65 *"),
        ("a campaign whose conversions cease", "> 0.5 * avg", "> -1 * avg"),
        ("a campaign whose conversions cease", ">= 10", ">= 1"),
        ("a campaign whose conversions cease", "[6h]) == 0", "[6h]) >= 0"),
        ("six hours of which five were not seen", "[6h]) >= 66", "[6h]) >= 1"),
        ("a night that is always without", "[6h] offset 1d) >= 66", "[6h] offset 1d) >= 6600"),
        ("a feed that falls silent", "last_over_time(audiopixel_feed_silent_since_seconds[2m])", FEED),
        ("of a placement whose feed is silent no", f"unless on (placement) {UNJUDGED}", "unless none"),
        (
            "a firing alert of another kind",
            'ALERTS{alertname="AudiopixelUnderDelivery"',
            'ALERTS{none=""',
        ),
        ("of a placement whose feed is silent the", f"unless on (placement) {UNJUDGED}", "unless none"),
        ("while a restarted flow writes nothing", 'unjudged_since_timestamp_seconds{reason="down"}', "none"),
        (
            "while a restarted flow writes nothing",
            "last_flush_timestamp_seconds[2m]) <= 120",
            "last_flush_timestamp_seconds[2m]) <= 30",
        ),
        ("one impression in blocked content", f"{BLOCKED}[2m])) > 0", f"{BLOCKED}[2m])) > 9"),
        (
            "an exporter that was away",
            "blocked_impressions:max[1d] offset",
            "blocked_impressions:max[1m] offset",
        ),
    ],
)
def test_a_fault_put_into_a_rule_spoils_a_story(story: str, rule: str, fault: str, tmp_path: Path) -> None:
    rules = (GENERATED / "rules.yml").read_text()
    assert rule in rules
    (told,) = (
        {**told, "tests": [one]}
        for told in FILES.values()
        for one in told["tests"]
        if one["name"].startswith(story)
    )
    done = try_stories(rules.replace(rule, fault), told, tmp_path)
    assert "FAILED" in done.stdout + done.stderr
    assert "parse error" not in done.stdout + done.stderr


@pytest.mark.debian
def test_an_alert_shows_an_id_and_obeys_nothing_in_it(tmp_path: Path) -> None:
    """Slack would call the channel, a mail show an image, a terminal turn the text behind."""
    hostile, shown = "<!channel>\u202e<img src=x>", "�!channel���img src=x�"
    (story,) = (one for one in STORIES if one["name"].startswith("one impression in blocked content"))
    text = yaml.safe_dump({**FILES["delivery_stories.yml"], "tests": [story]})
    told = read_yaml(text.replace('placement="p"', f'placement="{hostile}"'))
    for series in told["tests"][0]["input_series"]:
        series["series"] = series["series"].replace('station="s"', f'station="{hostile}"')
    (firing,) = told["tests"][0]["alert_rule_test"]
    labels, annotations = firing["exp_alerts"][0]["exp_labels"], firing["exp_alerts"][0]["exp_annotations"]
    labels["placement"] = hostile
    annotations["summary"] = annotations["summary"].replace("p of", f"{shown} of", 1)
    annotations["description"] = annotations["description"].replace("station: s.", f"station: {shown}.")
    done = try_stories((GENERATED / "rules.yml").read_text(), told, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
