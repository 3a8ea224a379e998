"""The metrics of processes other than the flow and the exporter, such as collectors and exports."""

from __future__ import annotations

from typing import Final

from flows.definition import Definition as Definition
from flows.definition import Metrics

COLLECT: Final = Metrics()
"""The metrics of a collector, one set a process."""

COLLECT_EVENTS = COLLECT.counter("collect_events_total", "Events of calls, by their outcome.", "outcome")
COLLECT_ACKNOWLEDGED = COLLECT.counter("collect_acknowledged_total", "Events that Kafka has acknowledged.")
COLLECT_REJECTED = COLLECT.counter(
    "collect_rejected_total", "Events that are no pixels, by reason.", "reason"
)
COLLECT_UNSENT = COLLECT.counter(
    "collect_letters_unsent_total",
    "Rejected events without a dead letter: beyond 100 a second and reason, or not taken by Kafka.",
)
COLLECT_SENDERS = COLLECT.counter(
    "collect_sender_events_total",
    "Events by sender, which is a token, a known network or a dialect; understood or rejected.",
    "sender",
    "outcome",
)
COLLECT_TORN = COLLECT.counter("collect_torn_total", "Damaged records that were cut off the spool.")
COLLECT_REFUSED = COLLECT.counter(
    "collect_refused_total", "Events that were not stored, by reason.", "reason"
)
COLLECT_NOT_COUNTED = COLLECT.counter(
    "collect_not_counted_total", "Calls that report no listening, by reason.", "reason"
)
COLLECT_CONSENT = COLLECT.counter(
    "collect_consent_total", "Pixels by the reason of the decision on consent.", "reason"
)
COLLECT_INVALID = COLLECT.counter(
    "collect_invalid_traffic_total", "Pixels judged to be invalid traffic, by reason.", "reason"
)
COLLECT_ANSWERS = COLLECT.counter("collect_answers_total", "Calls answered, by status.", "status")
COLLECT_CLEANED = COLLECT.counter(
    "collect_cleaned_total",
    "Values that the cleaner corrected or took as absent, such as unreplaced macros.",
    "dialect",
    "parameter",
    "how",
)
COLLECT_STAGE = COLLECT.histogram(
    "collect_stage_seconds",
    "Time that a stage of a call takes, of one call in 64: `parse clean device consent invalid_traffic hash "
    "encode`, and `durable`, which waits for Kafka or the disk.",
    "stage",
)
COLLECT_READY = COLLECT.gauge("collect_ready", "1: a balancer may send calls here; 0: it may not.")
COLLECT_CLOCK = COLLECT.gauge(
    "collect_clock_offset_seconds",
    "Seconds by which the collector's clock is ahead of another clock: of its machine (`wall`), or of the "
    "brokers (`brokers`), if the topic has the brokers' times.",
    "witness",
)
COLLECT_OLDEST = COLLECT.gauge(
    "collect_oldest_resting_seconds", "Age of the oldest event on the spool; 0: the spool is empty."
)
COLLECT_RESTING = COLLECT.gauge("collect_resting_events", "Events on the spool.")
COLLECT_SPOOL_FULL = COLLECT.gauge("collect_spool_full_ratio", "Share of the spool that is in use.")
COLLECT_LOW = COLLECT.gauge(
    "collect_low_mark_timestamp_seconds", "Receipt of the oldest event that is not in the log."
)

EXPORT: Final = Metrics("export")
"""The metrics of `audiopixel export`, by the name of the export."""

EXPORT_SENT = EXPORT.counter("export_sent_total", "Messages that the target has acknowledged.")
EXPORT_RETRIED = EXPORT.counter("export_retried_total", "Attempts that failed and are repeated.", "reason")
EXPORT_DEAD = EXPORT.counter("export_dead_total", "Messages that became dead letters.", "reason")
EXPORT_LEFT_OUT = EXPORT.counter(
    "export_left_out_total", "Messages that are not for the target, by reason.", "reason"
)
EXPORT_WAITING = EXPORT.gauge(
    "export_waiting", "Calls that the target refused and that wait for another attempt."
)
EXPORT_LAG = EXPORT.gauge("export_lag_messages", "Messages that the export has not read.", "partition")

SOURCE: Final = Metrics()
"""The metrics of live sources, one set a process."""

SOURCE_MESSAGES = SOURCE.counter(
    "source_messages_total",
    "Messages read from a source's topic, by outcome: `pixels`, `not_ours`, `rejected`.",
    "source",
    "outcome",
)
SOURCE_REJECTED = SOURCE.counter(
    "source_rejected_total", "Messages of a source that are dead letters, by reason.", "source", "reason"
)
SOURCE_LAG = SOURCE.gauge(
    "source_lag_messages", "Messages of a source's topic that have not been read.", "source"
)
SOURCE_WAITING = SOURCE.gauge(
    "source_waiting_partitions",
    "Partitions of a source's topic that wait for a schema that its registry has not answered for.",
    "source",
)
SOURCE_LOW_MARK = SOURCE.gauge(
    "source_low_mark_timestamp_seconds",
    "Receipt of the oldest message that a source may still write: the flow's time waits for it.",
    "source",
)

ARCHIVE: Final = Metrics()
"""The metrics of `audiopixel archive`, one set a process."""

ARCHIVE_MESSAGES = ARCHIVE.counter(
    "archive_messages_total", "Messages taken into the archive by this process.", "partition"
)
ARCHIVE_RETRIED = ARCHIVE.counter(
    "archive_retried_total", "Calls that the archive's store did not answer, and that are repeated."
)
ARCHIVE_THROUGH = ARCHIVE.gauge(
    "archive_through_timestamp_seconds",
    "The archive has all messages before this time, by the broker's timestamps.",
    "partition",
)
ARCHIVE_OFFSET = ARCHIVE.gauge(
    "archive_offset", "Offset after the last segment that the manifest lists.", "partition"
)
ARCHIVE_LAG = ARCHIVE.gauge("archive_lag_messages", "Messages that the archive has not read.", "partition")
ARCHIVE_MISSING = ARCHIVE.gauge(
    "archive_missing_messages",
    "Messages that Kafka had deleted before they were read, among those of the newest part of the manifest.",
    "partition",
)
ARCHIVE_UNREADABLE = ARCHIVE.gauge(
    "archive_unreadable_objects",
    "Segments and parts of the manifest that the last removal of forgotten people could not read.",
)
ARCHIVE_FORGOTTEN = ARCHIVE.gauge(
    "archive_forgotten_timestamp_seconds",
    "The archive has no line of anybody who was forgotten before this time.",
)
