"""Grafana's packages are an extra: without it dashboards are neither made nor pushed, and the rest works."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLAIN = """
import runpy, sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith("grafana_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
runpy.run_module("dashboards", run_name="__main__", alter_sys=True)
"""
"""`python -m dashboards` where neither package is installed."""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PLAIN, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "arguments", [["build", "--to", "DIR"], ["check"], ["push", "--token", "t"]], ids=str
)
def test_an_error_is_one_line_that_names_the_extra(arguments: list[str], tmp_path: Path) -> None:
    done = command(*(str(tmp_path) if one == "DIR" else one for one in arguments))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("is not installed: pip install 'audiopixel[dashboards]'\n")
    assert list(tmp_path.iterdir()) == []


def test_rules_for_one_machine_are_written(tmp_path: Path) -> None:
    done = command("local", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"prometheus.yml", "rules.yml", "alertmanager.yml"}


def test_the_development_extra_contains_both_grafana_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {one.partition(">=")[0] for one in extras["dashboards"]} == {
        "grafana-client",
        "grafana-foundation-sdk",
    }
    (own,) = (one for one in extras["dev"] if one.startswith("audiopixel["))
    assert "dashboards" in own.partition("[")[2].rstrip("]").split(",")
