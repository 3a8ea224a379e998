"""Prometheus and Alertmanager on one machine with everything on loopback: what they are to read.

The rules are those of dashboards/generated, but for how long a state must hold: `audiopixel demo` shows in
seconds what takes a trader's plan minutes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from dashboards import delivery_rules, pipeline_rules
from dashboards.routing import alertmanager
from dashboards.rules import EXPORTER_JOB, FLOW_JOB, PLACEMENTS_JOB, rule_file, to_text

HOST: Final = "127.0.0.1"


def files(flow: int, exporter: int, manager: int, sustained: timedelta) -> dict[str, str]:
    """Content by file name; prometheus.yml finds rules.yml beside it.

    Args:
        flow, exporter, manager: ports of the flow's metrics, of the exporter, of Alertmanager.
        sustained: how long a state of under- or over-delivery must hold; whole seconds.
    """

    def scrape(job: str, port: int, path: str = "/metrics") -> dict[str, Any]:
        return {"job_name": job, "metrics_path": path, "static_configs": _at(port)}

    prometheus = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            scrape(FLOW_JOB, flow),
            scrape(PLACEMENTS_JOB, exporter, "/metrics/placements"),
            scrape(EXPORTER_JOB, exporter),
        ],
        "alerting": {"alertmanagers": [{"static_configs": _at(manager)}]},
    }
    return {
        "prometheus.yml": to_text(prometheus),
        "rules.yml": rule_file((pipeline_rules.PIPELINE, *delivery_rules.groups(sustained))),
        "alertmanager.yml": alertmanager(),
    }


def _at(port: int) -> list[dict[str, Any]]:
    return [{"targets": [f"{HOST}:{port}"]}]
