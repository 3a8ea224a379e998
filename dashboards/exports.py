"""The row of the dashboard *Pipeline* about exports: messages sent to other systems, and those that wait."""

from __future__ import annotations

from typing import Final

from dashboards import queries as q
from dashboards.layout import Row
from dashboards.panels import Query, lines
from flows import process_metrics as m

EXPORTS: Final = Row(
    "Exports",
    6,
    6,
    [
        lines(
            "Acknowledged by other systems",
            "Messages that each export's target has acknowledged.",
            "cps",
            [Query(q.per_second(m.EXPORT_SENT, by="export"), "{{export}}")],
            alert="AudiopixelExportStuck",
        ),
        lines(
            "Waiting for exports",
            "Messages in Kafka that each export has not read.",
            "short",
            [Query(f"sum by (export) ({q.select(m.EXPORT_LAG)})", "{{export}}")],
            alert="AudiopixelExportStuck",
        ),
        lines(
            "Tries that failed",
            "They are repeated, by export and reason.",
            "cps",
            [Query(q.per_second(m.EXPORT_RETRIED, by="export, reason"), "{{export}}: {{reason}}")],
            alert="AudiopixelExportStuck",
        ),
        lines(
            "Dead letters and left out",
            "Dead letters: the target refused the message for good. Left out: the message is not for it.",
            "cps",
            [
                Query(q.per_second(m.EXPORT_DEAD, by="export, reason"), "{{export}} dead: {{reason}}"),
                Query(q.per_second(m.EXPORT_LEFT_OUT, by="export, reason"), "{{export}} out: {{reason}}"),
            ],
            alert="AudiopixelExportDeadLetters",
        ),
    ],
)
