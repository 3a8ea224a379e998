"""The alerts about sources: partitions of a foreign topic that are not read."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dashboards.rules import Alert, Group, number, shown
from flows import process_metrics as m

_WAITING: Final = f"max by (source) ({m.SOURCE_WAITING.name})"
_LAG: Final = number(f"max({m.SOURCE_LAG.name}{{source=%q}})", "source")
_BEHIND: Final = number(f"time() - min({m.SOURCE_LOW_MARK.name}{{source=%q}})", "source", "humanizeDuration")

ALERTS: Final = (
    Alert(
        "AudiopixelSourceAwaitsSchema",
        f"{_WAITING} > 0",
        "warning",
        "pipeline",
        "{{ $value | printf `%.0f` }} partitions of the source "
        f"{shown('$labels.source')} wait for a schema",
        "They have a message whose schema the registry has not answered for. The other partitions go on, and "
        f"nothing is lost while the topic keeps its messages. Windows wait for what was not read: {_BEHIND} "
        f"so far. In the partitions that are read, {_LAG} messages wait.",
        timedelta(minutes=2),
    ),
)

SOURCES: Final = Group("audiopixel-sources", ALERTS)
