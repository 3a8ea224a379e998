"""Prometheus rules as values: recording rules, alerts, groups of them, and their YAML.

The rules are in the modules `*_rules`, the receivers in `dashboards.routing`, and the remedy of each alert in
docs/runbook.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

import yaml

DOCS: Final = "https://docs.invalid"
"""A placeholder for the address of the documents; `linked` replaces it by the installation's."""
RUNBOOK: Final = f"{DOCS}/runbook.md"
"""The address of docs/runbook.md, whose headings are the names of the alerts."""

FLOW_JOB: Final = "audiopixel-flow"
"""Scrape job of the flow's workers."""
PLACEMENTS_JOB: Final = "audiopixel-placements"
"""Scrape job of the exporter's `/metrics/placements`."""
EXPORTER_JOB: Final = "audiopixel-exporter"
"""Scrape job of the exporter's own `/metrics`."""
COLLECTOR_JOB: Final = "audiopixel-collector"
"""Scrape job of the collectors."""
EXPORT_JOB: Final = "audiopixel-export"
"""Scrape job of the exports."""
ARCHIVE_JOB: Final = "audiopixel-archive"
"""Scrape job of the process that writes the archive."""

Area = Literal["delivery", "safety", "tags", "pipeline"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that rules and dashboards share with the flow: `AUDIOPIXEL_UNDER`, `AUDIOPIXEL_OVER`."""

    under: float = 0.90
    over: float = 1.10


USUAL: Final = Limits()
"""The settings' defaults."""


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule. `name` is `level:metric:operations`; the level names the labels of the result."""

    name: str
    expr: str

    def to_yaml(self, grafana: str = "") -> dict[str, Any]:
        """The value as in a rule file."""
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert.

    Attributes:
        area: `delivery` is judged on fresh numbers and inhibited by the pipeline's alerts; nothing inhibits
            `safety` and `tags`.
        description: the text with the numbers, a Go template.
        sustained: the time for which it must hold before it fires.
        labels: the labels besides severity and area.
        board: the uid of the dashboard that shows it.
    """

    name: str
    expr: str
    severity: Literal["critical", "warning"]
    area: Area
    summary: str
    description: str
    sustained: timedelta = timedelta(0)
    labels: dict[str, str] = field(default_factory=dict)
    board: str = "audiopixel-pipeline"

    def to_yaml(self, grafana: str = "") -> dict[str, Any]:
        """The alert as in a rule file, with the address of `board` if Grafana's root is known."""
        chosen = "?var-placement={{ $labels.placement | urlquery }}" if "placement" in self.board else ""
        dashboard = {"dashboard_url": f"{grafana.rstrip('/')}/d/{self.board}{chosen}"} if grafana else {}
        return {
            "alert": self.name,
            "expr": self.expr,
            **({"for": duration(self.sustained)} if self.sustained else {}),
            "labels": {"severity": self.severity, "area": self.area, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOK}#{self.name.lower()}",
                **dashboard,
            },
        }


@dataclass(frozen=True, slots=True)
class Group:
    """Rules evaluated one after the other, so that a rule sees what those before it have recorded.

    `interval` None: the server's.
    """

    name: str
    rules: tuple[Record | Alert, ...]
    interval: timedelta | None = None

    def to_yaml(self, grafana: str = "") -> dict[str, Any]:
        """The value as in a rule file."""
        interval = {"interval": duration(self.interval)} if self.interval else {}
        return {"name": self.name, **interval, "rules": [rule.to_yaml(grafana) for rule in self.rules]}


def rule_file(groups: tuple[Group, ...], docs: str = "", grafana: str = "") -> str:
    """The rule file of these groups.

    Args:
        docs: address of the documents, to which alerts link; empty: alerts link to none.
        grafana: root of a Grafana that has the dashboards; empty: alerts link to none.
    """
    return to_text(linked(_groups(groups, grafana), docs))


def prometheus_rule(groups: tuple[Group, ...], docs: str = "", grafana: str = "") -> str:
    """The rules as the Prometheus Operator's object of Kubernetes. Takes the arguments of `rule_file`."""
    head = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "audiopixel"},
    }
    return to_text(linked({**head, "spec": _groups(groups, grafana)}, docs))


def _groups(groups: tuple[Group, ...], grafana: str) -> dict[str, Any]:
    return {"groups": [group.to_yaml(grafana) for group in groups]}


def linked(content: Any, docs: str) -> Any:
    """Content of a file whose links lead to `docs`; without an address, content without these links.

    There is no public default: its link would be a 404 for the person on call, or belong to whoever takes
    that name.
    """
    match content:
        case str():
            return content.replace(DOCS, docs.rstrip("/"))
        case dict():
            fields = {name: value for name, value in content.items() if docs or not _to_docs(value)}
            return {name: linked(value, docs) for name, value in fields.items()}
        case list():
            return [linked(item, docs) for item in content if docs or not _is_link_to_docs(item)]
        case _:
            return content


def _to_docs(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(DOCS)


def _is_link_to_docs(value: Any) -> bool:
    return isinstance(value, dict) and _to_docs(value.get("url"))


def duration(span: timedelta) -> str:
    """A duration in Prometheus's form: 90 s is `1m30s`."""
    seconds = int(span.total_seconds())
    parts = zip(("d", "h", "m", "s"), (86_400, 3_600, 60, 1), strict=True)
    text = ""
    for unit, size in parts:
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def number(expr: str, label: str = "", form: str = "humanize") -> str:
    """Template text: the present value of an expression, or `unknown`.

    Args:
        label: the label whose value in the alert replaces `%q` in the expression.
        form: a template function for the value.
    """
    query = f"printf `{expr}` $labels.{label}" if label else f"`{expr}`"
    value_text = f"{{{{ . | first | value | {form} }}}}"
    return f"{{{{ with {query} | query }}}}{value_text}{{{{ else }}}}unknown{{{{ end }}}}"


def moment(expr: str, label: str = "", template: str = "{}", absent: str = "") -> str:
    """Template text: `template` with a date and time in UTC, from an expression's value in epoch seconds;
    `absent` without a value.
    """
    query = f"printf `{expr}` $labels.{label}" if label else f"`{expr}`"
    filled = template.format(utc_time(". | first | value"))
    return f"{{{{ with {query} | query }}}}{filled}{{{{ else }}}}{absent}{{{{ end }}}}"


def listed(expr: str, template: str) -> str:
    """Template text: `template` of each series of an expression, between commas."""
    series_text = f"{{{{ if $i }}}}, {{{{ end }}}}{{{{ {template} }}}}"
    return f"{{{{ range $i, $each := query `{expr}` }}}}{series_text}{{{{ end }}}}"


def utc_time(seconds: str) -> str:
    """Template text: a value in epoch seconds as a date and time in UTC."""
    return f"{{{{ ({seconds} | toTime).UTC.Format `Mon 2 Jan 15:04 UTC` }}}}"


def shown(value: str) -> str:
    """Template text: a label that somebody else chose, without characters that a receiver would interpret.

    These are control and bidirectional characters, and the brackets of HTML and of Slack's `<!channel>` and
    `<address|text>`.
    """
    return f"{{{{ {value} | reReplaceAll `[\\p{{C}}\\p{{Zl}}\\p{{Zp}}<>]` `\N{REPLACEMENT CHARACTER}` }}}}"


class _Dumper(yaml.SafeDumper):
    """A dumper that writes long texts as blocks, so that a diff shows the changed line."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def to_text(content: dict[str, Any]) -> str:
    """YAML in the order of `content`, with a first line that names its source."""
    body = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1_000, allow_unicode=True)
    return f"# Generated by `python -m dashboards build`; do not edit.\n{body}"
