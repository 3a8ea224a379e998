"""The configuration of Prometheus and Alertmanager for one machine with everything on loopback.

The rules are those of dashboards/generated, but for the time for which a state must hold: `audiopixel demo`
shows in seconds what takes minutes with a trader's plan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from dashboards.routing import alertmanager
from dashboards.rules import COLLECTOR_JOB, EXPORTER_JOB, FLOW_JOB, PLACEMENTS_JOB, to_text
from dashboards.site import Site

HOST: Final = "127.0.0.1"


def files(
    flow: int, exporter: int, manager: int, site: Site, collector: int = 0, token_file: Path | None = None
) -> dict[str, str]:
    """Content by file name; prometheus.yml loads rules.yml from the same directory.

    Args:
        flow, exporter, manager: ports of the flow's metrics, of the exporter, of Alertmanager.
        collector: port of a collector's metrics; 0: no collector.
        token_file: a file with a read token of the exporter, `NAME.SECRET`, with the right `metrics`.
    """
    authorization: dict[str, Any] = {}
    if token_file is not None:
        authorization["authorization"] = {"credentials_file": str(token_file.absolute())}

    def scrape(job: str, port: int, path: str = "/metrics", **more: Any) -> dict[str, Any]:
        return {"job_name": job, "metrics_path": path, "static_configs": _targets(port), **more}

    prometheus = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            scrape(FLOW_JOB, flow),
            scrape(PLACEMENTS_JOB, exporter, "/metrics/placements", **authorization),
            scrape(EXPORTER_JOB, exporter, **authorization),
            *([scrape(COLLECTOR_JOB, collector)] if collector else []),
        ],
        "alerting": {"alertmanagers": [{"static_configs": _targets(manager)}]},
    }
    return {
        "prometheus.yml": to_text(prometheus),
        "rules.yml": site.rules,
        "alertmanager.yml": alertmanager(),
    }


def _targets(port: int) -> list[dict[str, Any]]:
    return [{"targets": [f"{HOST}:{port}"]}]
