"""Prometheus and Alertmanager as the demo starts them, where they are installed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from connectors.alerting import PROGRAMS, Alertmanager, Prometheus, program
from connectors.ports import free_ports
from connectors.stream import ConnectError

installed = pytest.mark.skipif(
    any(program(name) is None for name in PROGRAMS),
    reason="needs apt-get install --no-install-recommends prometheus prometheus-alertmanager",
)
QUIET = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


@pytest.mark.debian
@installed
def test_an_alert_of_a_rule_fires_in_alertmanager_within_seconds(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    (tmp_path / "rules.yml").write_text(
        "groups: [{name: g, rules: [{alert: Up, expr: vector(1), labels: {who: us}}]}]"
    )
    (tmp_path / "prometheus.yml").write_text(
        "global: {evaluation_interval: 1s}\nrule_files: [rules.yml]\n"
        f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]}}\n"
    )
    (tmp_path / "alertmanager.yml").write_text(QUIET)
    with (
        Alertmanager(tmp_path / "alertmanager.yml", port) as alertmanager,
        Prometheus(tmp_path / "prometheus.yml"),
    ):
        assert alertmanager.url == f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while not (firing := alertmanager.firing()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert [alert["labels"] for alert in firing] == [{"alertname": "Up", "who": "us"}]
    with pytest.raises(ConnectError, match="does not answer"):
        alertmanager.firing()


@pytest.mark.debian
@installed
def test_a_silenced_alert_does_not_fire(tmp_path: Path) -> None:
    (tmp_path / "alertmanager.yml").write_text(QUIET)
    with Alertmanager(tmp_path / "alertmanager.yml") as alertmanager:

        def post(path: str, body: object) -> None:
            head = {"content-type": "application/json"}
            urlopen(Request(f"{alertmanager.url}/api/v2/{path}", json.dumps(body).encode(), head), timeout=5)

        matcher = {"name": "alertname", "value": "Quiet", "isRegex": False}
        post(
            "silences",
            {
                "matchers": [matcher],
                "startsAt": "2020-01-01T00:00:00Z",
                "endsAt": "2099-01-01T00:00:00Z",
                "createdBy": "us",
                "comment": "",
            },
        )
        post("alerts", [{"labels": {"alertname": name}} for name in ("Quiet", "Loud")])
        deadline = time.monotonic() + 10
        while (names := [alert["labels"]["alertname"] for alert in alertmanager.firing()]) != ["Loud"]:
            assert time.monotonic() < deadline, names
            time.sleep(0.1)


def test_a_refused_configuration_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "alertmanager.yml").write_text("receivers: []\n")
    with (
        pytest.raises(ConnectError, match=r"did not start|not installed"),
        Alertmanager(tmp_path / "alertmanager.yml"),
    ):
        pass


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program("prometheus") is None
    with pytest.raises(ConnectError, match="prometheus is not installed"), Prometheus(tmp_path):
        pass
