"""The alerts about the archive: messages that it does not have yet, messages that it will never have, and
objects that cannot be read.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dashboards.rules import ARCHIVE_JOB, Alert, Group, number, shown
from flows import process_metrics as m

BEHIND: Final = timedelta(minutes=30)
"""A healthy archive is `AUDIOPIXEL_ARCHIVE_INTERVAL` behind, 15 minutes at most."""
_UP: Final = f'up{{job="{ARCHIVE_JOB}"}}'
_AGE: Final = f"time() - min by (instance) ({m.ARCHIVE_THROUGH.name})"
_LAG: Final = number(f"sum({m.ARCHIVE_LAG.name})")

ALERTS: Final = (
    Alert(
        "AudiopixelArchiveBehind",
        # A process that has opened no partition waits for its store, or for Kafka.
        f"{_AGE} > {BEHIND.total_seconds():.0f} or {_UP} == 0 "
        f"or ({_UP} == 1 unless on (instance) {m.ARCHIVE_THROUGH.name})",
        "warning",
        "pipeline",
        f"The archive, {shown('$labels.instance')}, is down or far behind the topic",
        f"Its process does not answer, or {BEHIND.total_seconds() / 60:.0f} minutes of messages are not in "
        f"the archive. {_LAG} messages that it knows of wait in Kafka. They are lost to the archive if Kafka "
        "deletes them before it has read them.",
        timedelta(minutes=5),
    ),
    Alert(
        "AudiopixelArchiveGap",
        f"max by (instance, partition) ({m.ARCHIVE_MISSING.name}) > 0",
        "critical",
        "pipeline",
        f"The archive lacks messages of {shown('$labels.partition')}",
        "Kafka had deleted {{ $value | printf `%.0f` }} messages before the archive read them. A count that "
        "begins from the archive is without them.",
    ),
    Alert(
        "AudiopixelArchiveDamaged",
        f"max by (instance) ({m.ARCHIVE_UNREADABLE.name}) > 0",
        "critical",
        "pipeline",
        f"The archive, {shown('$labels.instance')}, has objects that cannot be read",
        "{{ $value | printf `%.0f` }} segments or parts of its manifest are damaged or missing. Forgotten "
        "people are not removed from them, and a count that begins from the archive stops there.",
    ),
)

ARCHIVE: Final = Group("audiopixel-archive", ALERTS)
