"""The files in dashboards/generated, each made from its Python."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from dashboards import collector_rules, delivery_rules, export_rules, pipeline_rules
from dashboards.collector import collector
from dashboards.layout import to_json
from dashboards.pipeline import pipeline
from dashboards.placement import placement
from dashboards.routing import alertmanager
from dashboards.rules import DOCS, USUAL, Group, Limits, prometheus_rule, rule_file
from dashboards.trading_desk import trading_desk

GENERATED: Final = Path(__file__).parent / "generated"
BOARDS: Final = ("trading-desk", "placement", "pipeline", "collector")
"""Files of dashboards, without `.json`."""


@dataclass(frozen=True, slots=True)
class Site:
    """The choices of one installation.

    Attributes:
        docs: address of the documents that alerts and panels link to.
        grafana: root of a Grafana that has the dashboards, to which alerts link; empty: to none.
        sustained: how long a state of under- or over-delivery must hold.
    """

    docs: str = DOCS
    grafana: str = ""
    limits: Limits = USUAL
    sustained: timedelta = delivery_rules.SUSTAINED

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups of rules."""
        return (
            pipeline_rules.PIPELINE,
            collector_rules.COLLECTOR,
            export_rules.EXPORTS,
            *delivery_rules.groups(self.sustained, self.limits),
        )

    @property
    def rules(self) -> str:
        """The rule file."""
        return rule_file(self.groups, self.docs, self.grafana)

    @property
    def prometheus_rule(self) -> str:
        """The same rules as an object of Kubernetes, for the Prometheus Operator."""
        return prometheus_rule(self.groups, self.docs, self.grafana)


USUAL_SITE: Final = Site()
"""The files that are committed are of this one."""


def generated(site: Site = USUAL_SITE) -> dict[str, str]:
    """Content by file name."""
    boards = {
        "trading-desk": trading_desk(site.limits),
        "placement": placement(site.limits),
        "pipeline": pipeline(),
        "collector": collector(),
    }
    return {
        "rules.yml": site.rules,
        "prometheus-rule.yml": site.prometheus_rule,
        "alertmanager.yml": alertmanager(),
        **{f"{name}.json": to_json(board, site.docs) for name, board in boards.items()},
    }


def write(directory: Path = GENERATED, site: Site = USUAL_SITE) -> list[str]:
    """Write what differs; the names of the files written."""
    directory.mkdir(parents=True, exist_ok=True)
    names = stale(directory, site)
    contents = generated(site)
    for name in names:
        (directory / name).write_text(contents[name])
    return names


def stale(directory: Path = GENERATED, site: Site = USUAL_SITE) -> list[str]:
    """Names of the files that differ from what their Python makes, or are missing."""
    made = generated(site).items()
    return [
        name
        for name, text in made
        if not (directory / name).exists() or (directory / name).read_text() != text
    ]
