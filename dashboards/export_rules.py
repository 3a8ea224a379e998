"""The alerts about exports: messages that other systems do not get now, and those that they never get."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dashboards.rules import EXPORT_JOB, Alert, Group, number, shown
from flows import process_metrics as m

_UP: Final = f'up{{job="{EXPORT_JOB}"}}'
_SENT: Final = f"sum by (export) (increase({m.EXPORT_SENT.name}[15m]))"
_WAITING: Final = f"sum by (export) ({m.EXPORT_WAITING.name})"
_DEAD_TOTAL: Final = m.EXPORT_DEAD.name
# A reason's series begins with its first dead letters, which `increase` alone does not count.
_DEAD: Final = f"""sum by (export) (
  increase({_DEAD_TOTAL}[1h]) and last_over_time({_DEAD_TOTAL}[15m] offset 1h)
  or {_DEAD_TOTAL} unless last_over_time({_DEAD_TOTAL}[15m] offset 1h)
)"""
_WAIT: Final = number(f"sum({m.EXPORT_LAG.name}{{export=%q}})", "export")
_SENT_OF_HOUR: Final = number(
    f"sum(increase({m.EXPORT_SENT.name}{{export=%q}}[1h]))", "export", "printf `%.0f`"
)

ALERTS: Final = (
    Alert(
        "AudiopixelExportDown",
        f"{_UP} == 0",
        "warning",
        "pipeline",
        f"The process of an export, {shown('$labels.instance')}, is down or not scraped",
        f"Prometheus reaches {number(f'sum({_UP})')} of {number(f'count({_UP})')} processes of exports. "
        "While one is down its target receives nothing, and no other alert covers that. What is not sent "
        "waits in Kafka as long as its topics keep it.",
        timedelta(minutes=5),
    ),
    Alert(
        "AudiopixelExportStuck",
        f"{_WAITING} > 0 unless {_SENT} > 0",
        "warning",
        "pipeline",
        f"The export {shown('$labels.export')} reaches its target no more",
        "In fifteen minutes its target took nothing. It turned {{ $value | printf `%.0f` }} calls away that "
        f"wait for another try, and behind them {_WAIT} messages wait in Kafka. Nothing is lost before the "
        "age of AUDIOPIXEL_EXPORT_GIVE_UP.",
        timedelta(minutes=15),
    ),
    Alert(
        "AudiopixelExportDeadLetters",
        f"{_DEAD} > 0",
        "warning",
        "pipeline",
        f"The target of the export {shown('$labels.export')} refused "
        "{{ $value | printf `%.0f` }} messages in an hour",
        "They are in the dead letters of the exports, each with its reason, and are not sent again. "
        f"Of the hour's messages {_SENT_OF_HOUR} were taken.",
        timedelta(minutes=1),
    ),
)

EXPORTS: Final = Group("audiopixel-exports", ALERTS)
