"""The choices of one installation, and the rules that follow from them; without Grafana's packages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from dashboards import (
    archive_rules,
    collector_rules,
    delivery_rules,
    export_rules,
    pipeline_rules,
    source_rules,
)
from dashboards.rules import USUAL, Group, Limits, prometheus_rule, rule_file

GENERATED: Final = Path(__file__).parent / "generated"
BOARDS: Final = ("trading-desk", "placement", "pipeline", "collector")
"""The names of the dashboards' files, without `.json`."""


@dataclass(frozen=True, slots=True)
class Site:
    """The choices of one installation.

    Attributes:
        docs: address of the documents to which alerts and panels link; empty: no links.
        grafana: root of a Grafana with the dashboards, to which alerts link; empty: no links.
        limits: the pacing limits of the flow's settings.
        sustained: the time for which a state of under- or over-delivery must hold.
    """

    docs: str = ""
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
            source_rules.SOURCES,
            archive_rules.ARCHIVE,
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
"""The site of the committed files."""
