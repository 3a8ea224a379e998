"""The receivers that the documents show are ones that Alertmanager takes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_support import program

from dashboards.routing import alertmanager

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.mark.debian
def test_amtool_finds_no_fault_in_the_receivers_of_the_documents(tmp_path: Path) -> None:
    shown = re.search(r"```yaml\n(receivers:.*?)```", DOCS.read_text(), re.DOTALL)
    assert shown
    config = yaml.safe_load(alertmanager()) | yaml.safe_load(shown[1])
    assert [one["name"] for one in config["receivers"]] == ["operators", "traders"]
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))
    amtool = program("amtool", "prometheus-alertmanager")
    done = subprocess.run([amtool, "check-config", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 receivers" in done.stdout
