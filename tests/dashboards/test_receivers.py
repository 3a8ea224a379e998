"""The receivers that the documents show are ones that Alertmanager takes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_support import program

from dashboards.routing import alertmanager

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


def shown() -> dict[str, Any]:
    """The receivers of the documents."""
    found = re.search(r"```yaml\n(receivers:.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    receivers: dict[str, Any] = yaml.safe_load(found[1])
    return receivers


@pytest.mark.debian
def test_amtool_finds_no_fault_in_the_receivers_of_the_documents(tmp_path: Path) -> None:
    config = yaml.safe_load(alertmanager()) | shown()
    assert [one["name"] for one in config["receivers"]] == ["operators", "traders"]
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))
    amtool = program("amtool", "prometheus-alertmanager")
    done = subprocess.run([amtool, "check-config", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 receivers" in done.stdout


def template_alert(name: str, status: str) -> dict[str, Any]:
    """An alert as Alertmanager hands it to a template."""
    annotations = {
        "summary": f"{name} is down",
        "description": f"No {name}.",
        "runbook_url": f"http://r/{name}",
    }
    return {"status": status, "labels": {"severity": "critical", "job": name}, "annotations": annotations}


def rendered(text: str, *alerts: dict[str, Any], directory: Path) -> str:
    """A template's text of a group of alerts."""
    group = [one["annotations"] for one in alerts]
    common = {key: of for key, of in group[0].items() if all(one.get(key) == of for one in group)}
    data = {"status": "firing", "alerts": list(alerts), "commonLabels": {"severity": "critical"}}
    (directory / "data.json").write_text(json.dumps(data | {"commonAnnotations": common}))
    (directory / "none.tmpl").write_text("")
    files = ("--template.glob", str(directory / "none.tmpl"), "--template.data", str(directory / "data.json"))
    command = [program("amtool", "prometheus-alertmanager"), "template", "render", *files]
    done = subprocess.run([*command, f"--template.text={text}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.debian
def test_a_group_of_alerts_has_a_headline_and_names_resolved_ones(tmp_path: Path) -> None:
    """PagerDuty refuses an event without a headline, so that no engineer is paged."""
    operators, traders = shown()["receivers"]
    flow, exporter = template_alert("flow", "firing"), template_alert("exporter", "resolved")
    headlines = {
        "pagerduty": operators["pagerduty_configs"][0]["description"],
        "email": operators["email_configs"][0]["headers"]["Subject"].removeprefix("[{{ .Status }}] "),
        "slack": traders["slack_configs"][0]["title"],
    }
    for text in headlines.values():
        assert rendered(text, flow, directory=tmp_path) == "flow is down"
        assert rendered(text, exporter, flow, directory=tmp_path) == "flow is down (2 alerts)"
    said = rendered(traders["slack_configs"][0]["text"], flow, exporter, directory=tmp_path)
    assert [line.rstrip() for line in said.splitlines()] == [
        "• No flow. <http://r/flow|What to do>",
        "• Over: No exporter. <http://r/exporter|What to do>",
    ]
    del flow["annotations"]["runbook_url"]
    assert rendered(traders["slack_configs"][0]["text"], flow, directory=tmp_path) == "• No flow."
    details = operators["pagerduty_configs"][0]["details"]["text"]
    assert rendered(details, flow, exporter, directory=tmp_path) == "No flow. Over: No exporter."
