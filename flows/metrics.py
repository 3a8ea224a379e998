"""Every metric, defined once: name, kind, unit, labels and help. Instruments, the README's table, queries and
alerts derive from these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "audiopixel_"


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric. `name` is whole, with its unit, and `_total` on a counter."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.name.startswith(PREFIX), self.name
        assert (self.kind == "counter") == self.name.endswith("_total"), self.name


def _d(
    name: str, kind: Literal["counter", "gauge", "histogram", "info"], text: str, *labels: str
) -> Definition:
    return Definition(PREFIX + name, kind, text, labels)


RECEIVED = _d("received_total", "counter", "Messages read from the source, without marks.", "partition")
MARKS = _d("marks_total", "counter", "Marks of collectors read from the source: no pixels.", "partition")
ACCEPTED = _d("accepted_total", "counter", "Pixels that count, invalid traffic included.", "partition")
REPEATED = _d("repeated_total", "counter", "Pixels that had counted before.", "partition")
REJECTED = _d("rejected_total", "counter", "Messages that went to the dead letters.", "partition", "reason")
INVALID_TRAFFIC = _d(
    "invalid_traffic_total",
    "counter",
    "Accepted pixels kept out of every other number.",
    "partition",
    "reason",
)
CLOCK_SKEWED = _d(
    "clock_skewed_total", "counter", "Pixels whose clock was off by more than five minutes.", "partition"
)
LOW_MARK = _d(
    "partition_low_mark_timestamp_seconds",
    "gauge",
    "The least low mark that the partition's time waits for; 0: it waits for no collector.",
    "partition",
)
HOLDS_EVICTED = _d(
    "holds_evicted_total", "counter", "Collectors not waited for, since there were too many.", "partition"
)
LAG = _d("consumer_lag_messages", "gauge", "Messages in the partition that have not been read.", "partition")
PARTITION_WATERMARK = _d(
    "partition_watermark_timestamp_seconds",
    "gauge",
    "Event time the partition's log has got to.",
    "partition",
)
WATERMARK = _d(
    "watermark_timestamp_seconds", "gauge", "Event time of the whole flow: the least over partitions."
)
LAST_FLUSH = _d("last_flush_timestamp_seconds", "gauge", "When rows were last written to Redis.")
EVENT_TO_REDIS = _d("event_to_redis_seconds", "histogram", "From a pixel's receipt until Redis shows it.")
FLUSH_DURATION = _d("flush_duration_seconds", "histogram", "Writing one tick's rows to Redis.")
FLUSHED_ROWS = _d("flushed_rows_total", "counter", "Rows written to Redis.")
PENDING_ROWS = _d("redis_pending_rows", "gauge", "Changed rows that Redis has not taken yet.")
REDIS_ERRORS = _d(
    "redis_errors_total", "counter", "Flushes that Redis did not take, to be retried.", "reason"
)
KAFKA_ERRORS = _d(
    "kafka_errors_total", "counter", "Errors of the Kafka client that it recovers from.", "partition"
)
SKIPPED = _d(
    "skipped_messages_total",
    "counter",
    "Messages lost to retention before they were read, skipped by choice.",
    "partition",
)
STATE_PLAYS = _d("state_plays", "gauge", "Plays and events remembered.", "shard")
STATE_BYTES = _d("state_bytes", "gauge", "Memory of the remembered plays.", "shard")
STATE_ROWS = _d("state_rows", "gauge", "Rows kept.", "shard")
STATE_TOUCHES = _d("state_touches", "gauge", "Touches kept for attribution.", "shard")
DROPPED_TOUCHES = _d(
    "state_dropped_touches",
    "gauge",
    "Touches given up because their listener has more than are kept.",
    "shard",
)
CAPPED_DECISIONS = _d(
    "state_capped_decisions",
    "gauge",
    "Decisions on conversions that a cap on touches may have changed.",
    "shard",
)
BUILD = _d("build_info", "info", "What is running.", "version", "python", "bytewax")

PIPELINE: Final = (
    RECEIVED,
    MARKS,
    ACCEPTED,
    REPEATED,
    REJECTED,
    INVALID_TRAFFIC,
    CLOCK_SKEWED,
    LAG,
    PARTITION_WATERMARK,
    LOW_MARK,
    HOLDS_EVICTED,
    WATERMARK,
    LAST_FLUSH,
    EVENT_TO_REDIS,
    FLUSH_DURATION,
    FLUSHED_ROWS,
    PENDING_ROWS,
    REDIS_ERRORS,
    KAFKA_ERRORS,
    SKIPPED,
    STATE_PLAYS,
    STATE_BYTES,
    STATE_ROWS,
    STATE_TOUCHES,
    DROPPED_TOUCHES,
    CAPPED_DECISIONS,
    BUILD,
)

PLACEMENT_IMPRESSIONS = _d(
    "placement_impressions_total", "counter", "Impressions of the flight.", "placement"
)
PLACEMENT_STARTS = _d("placement_starts_total", "counter", "Plays of the flight that started.", "placement")
PLACEMENT_COMPLETES = _d(
    "placement_completes_total", "counter", "Started plays of the flight that completed.", "placement"
)
PLACEMENT_FIRST_QUARTILES = _d(
    "placement_first_quartiles_total",
    "counter",
    "Started plays of the flight that reached a quarter.",
    "placement",
)
PLACEMENT_MIDPOINTS = _d(
    "placement_midpoints_total", "counter", "Started plays of the flight that reached the half.", "placement"
)
PLACEMENT_THIRD_QUARTILES = _d(
    "placement_third_quartiles_total",
    "counter",
    "Started plays of the flight that reached three quarters.",
    "placement",
)
PLACEMENT_CLICKS = _d("placement_clicks_total", "counter", "Clicks of the flight.", "placement")
PLACEMENT_ERRORS = _d("placement_errors_total", "counter", "Player errors of the flight.", "placement")
PLACEMENT_INVALID = _d(
    "placement_invalid_traffic_total", "counter", "Pixels kept out of every other number.", "placement"
)
PLACEMENT_REPEATED = _d("placement_repeated_total", "counter", "Pixels that had counted before.", "placement")
PLACEMENT_TOO_LATE = _d(
    "placement_too_late_total", "counter", "Pixels that came after their minute was final.", "placement"
)
PLACEMENT_CONVERSIONS = _d(
    "placement_conversions_total",
    "counter",
    "Conversions of the flight credited to it.",
    "placement",
)
PLACEMENT_CONVERSION_VALUE = _d(
    "placement_conversion_value",
    "gauge",
    "Value of the conversions of the flight credited to it, in its plan's currency; a refund makes it fall.",
    "placement",
)
PLACEMENT_BLOCKED = _d(
    "placement_blocked_impressions_total",
    "counter",
    "Impressions since its first pixel in content that its plan blocks.",
    "placement",
)
PLACEMENT_COMPLETION_1H = _d(
    "placement_completion_1h_ratio", "gauge", "Completes by starts of the last hour.", "placement"
)
PLACEMENT_MATURE_5M = _d(
    "placement_mature_completion_5m_ratio",
    "gauge",
    "Completes by starts of the last five minutes, without the youngest, which cannot have completed yet.",
    "placement",
)
PLACEMENT_MATURE_1H = _d(
    "placement_mature_completion_1h_ratio",
    "gauge",
    "Completes by starts of the last hour, without the youngest, which cannot have completed yet.",
    "placement",
)
PLACEMENT_REACH = _d(
    "placement_reach_listeners", "gauge", "Distinct consenting listeners of the flight.", "placement"
)
PLACEMENT_REACH_1H = _d(
    "placement_reach_1h_listeners", "gauge", "Distinct consenting listeners of the last hour.", "placement"
)
PLACEMENT_FREQUENCY = _d(
    "placement_frequency_plays", "gauge", "Plays of the flight by listener of its reach.", "placement"
)
PLACEMENT_CONSENT = _d(
    "placement_consent_coverage_ratio",
    "gauge",
    "Pixels since its first with consent, by all of them.",
    "placement",
)
PLACEMENT_TARGET_COMPLETION = _d(
    "placement_target_completion_ratio", "gauge", "Completion rate that its plan wants.", "placement"
)
PLACEMENT_BOOKED = _d(
    "placement_delivery_booked_impressions", "gauge", "Impressions that its plan has booked.", "placement"
)
PLACEMENT_EXPECTED = _d(
    "placement_delivery_expected_impressions",
    "gauge",
    "Impressions that its plan's delivery curve wants by now.",
    "placement",
)
PLACEMENT_INDICATOR = _d(
    "placement_delivery_indicator_ratio",
    "gauge",
    "Delivered by expected impressions: 1 is on plan; absent while nothing is to be delivered.",
    "placement",
)
PLACEMENT_PROJECTED = _d(
    "placement_delivery_projected_impressions",
    "gauge",
    "Impressions at the end of the flight at the last hour's rate.",
    "placement",
)
PLACEMENT_DELIVERED = _d(
    "placement_delivery_delivered_impressions",
    "gauge",
    "Impressions of the flight up to its plan's end.",
    "placement",
)
PLACEMENT_REQUIRED = _d(
    "placement_delivery_required_impressions_per_second",
    "gauge",
    "Impressions a second of unpaused time that are still needed; absent while none are.",
    "placement",
)
PLACEMENT_CPA = _d(
    "placement_cost_per_acquisition",
    "gauge",
    "Price of the delivered impressions by the flight's conversions, in its currency; absent while none.",
    "placement",
)
PLACEMENT_STATE = _d(
    "placement_delivery_state",
    "gauge",
    "1 for the state that its delivery is in; the others are absent.",
    "placement",
    "state",
)
PLACEMENT_INFO = _d(
    "placement_info",
    "info",
    "What a placement belongs to, to join on.",
    "placement",
    "campaign",
    "platform",
    "station",
    "podcast",
    "program",
)

PLACEMENT: Final = (
    PLACEMENT_IMPRESSIONS,
    PLACEMENT_STARTS,
    PLACEMENT_FIRST_QUARTILES,
    PLACEMENT_MIDPOINTS,
    PLACEMENT_THIRD_QUARTILES,
    PLACEMENT_COMPLETES,
    PLACEMENT_CLICKS,
    PLACEMENT_ERRORS,
    PLACEMENT_INVALID,
    PLACEMENT_REPEATED,
    PLACEMENT_TOO_LATE,
    PLACEMENT_CONVERSIONS,
    PLACEMENT_BLOCKED,
    PLACEMENT_COMPLETION_1H,
    PLACEMENT_MATURE_5M,
    PLACEMENT_MATURE_1H,
    PLACEMENT_REACH,
    PLACEMENT_REACH_1H,
    PLACEMENT_FREQUENCY,
    PLACEMENT_CONSENT,
    PLACEMENT_CONVERSION_VALUE,
    PLACEMENT_TARGET_COMPLETION,
    PLACEMENT_BOOKED,
    PLACEMENT_DELIVERED,
    PLACEMENT_EXPECTED,
    PLACEMENT_INDICATOR,
    PLACEMENT_PROJECTED,
    PLACEMENT_REQUIRED,
    PLACEMENT_CPA,
    PLACEMENT_STATE,
    PLACEMENT_INFO,
)
"""The exporter's metrics of each placement; beyond its cap, counters are summed as placement `other`."""

CAMPAIGN_BOOKED = _d(
    "campaign_delivery_booked_impressions", "gauge", "Impressions that its plans have booked.", "campaign"
)
CAMPAIGN_DELIVERED = _d(
    "campaign_delivery_delivered_impressions",
    "gauge",
    "Impressions of its planned placements' flights up to their ends.",
    "campaign",
)
CAMPAIGN_EXPECTED = _d(
    "campaign_delivery_expected_impressions", "gauge", "Impressions that its plans want by now.", "campaign"
)
CAMPAIGN_INDICATOR = _d(
    "campaign_delivery_indicator_ratio",
    "gauge",
    "Delivered by expected impressions: 1 is on plan; absent while nothing is to be delivered.",
    "campaign",
)
CAMPAIGN_PROJECTED = _d(
    "campaign_delivery_projected_impressions",
    "gauge",
    "Impressions at the end of its flights at the last hour's rate.",
    "campaign",
)
CAMPAIGN_REQUIRED = _d(
    "campaign_delivery_required_impressions_per_second",
    "gauge",
    "Impressions a second that its placements need together now; absent while none are.",
    "campaign",
)
CAMPAIGN_STATE = _d(
    "campaign_delivery_state",
    "gauge",
    "1 for the state that its delivery is in; the others are absent.",
    "campaign",
    "state",
)

CAMPAIGN: Final = (
    CAMPAIGN_BOOKED,
    CAMPAIGN_DELIVERED,
    CAMPAIGN_EXPECTED,
    CAMPAIGN_INDICATOR,
    CAMPAIGN_PROJECTED,
    CAMPAIGN_REQUIRED,
    CAMPAIGN_STATE,
)
"""The exporter's metrics of each campaign with a planned placement."""

EXPORTER_UP = _d(
    "exporter_up",
    "gauge",
    "Whether Redis answered the latest read; if not, all numbers are of the last that did.",
)
EXPORTER_READ = _d("exporter_read_timestamp_seconds", "gauge", "When the rows shown were read from Redis.")
EXPORTER_WATERMARK = _d("exporter_watermark_timestamp_seconds", "gauge", "Event time of the rows shown.")
EXPORTER_LAST_FLUSH = _d(
    "exporter_last_flush_timestamp_seconds", "gauge", "When the flow last wrote to Redis."
)
EXPORTER_CUT = _d(
    "exporter_cut_placements", "gauge", "Placements beyond the cap, shown only as part of other."
)
EXPORTER_RENDER = _d(
    "exporter_render_seconds", "histogram", "Rendering the placements, reading Redis not included."
)
EXPORTER_REFRESH = _d(
    "exporter_refresh_seconds", "histogram", "Waiting for a snapshot of Redis, once a scrape."
)

EXPORTER: Final = (
    EXPORTER_UP,
    EXPORTER_READ,
    EXPORTER_WATERMARK,
    EXPORTER_LAST_FLUSH,
    EXPORTER_CUT,
    EXPORTER_RENDER,
    EXPORTER_REFRESH,
)
"""The exporter about itself: the last two on its `/metrics`, the others beside the placements."""

COLLECT_EVENTS = _d(
    "collect_events_total", "counter", "Events that called, by what became of them.", "outcome"
)
COLLECT_ACKNOWLEDGED = _d("collect_acknowledged_total", "counter", "Events that Kafka has acknowledged.")
COLLECT_REJECTED = _d("collect_rejected_total", "counter", "Events that are no pixels, by reason.", "reason")
COLLECT_ANSWERS = _d("collect_answers_total", "counter", "Calls answered, by status.", "status")
COLLECT_CLEANED = _d(
    "collect_cleaned_total",
    "counter",
    "Values that the cleaner mended or found to be nothing, unreplaced macros among them.",
    "dialect",
    "parameter",
    "how",
)
COLLECT_RESTING = _d("collect_resting_events", "gauge", "Events on the spool.")
COLLECT_SPOOL_BYTES = _d("collect_spool_bytes", "gauge", "Bytes of the spool.")
COLLECT_SPOOL_FULL = _d("collect_spool_full_ratio", "gauge", "Share of the spool that is in use.")
COLLECT_LOW = _d(
    "collect_low_mark_timestamp_seconds", "gauge", "Receipt of the oldest event that is not in the log."
)

COLLECT: Final = (
    COLLECT_EVENTS,
    COLLECT_ACKNOWLEDGED,
    COLLECT_REJECTED,
    COLLECT_ANSWERS,
    COLLECT_CLEANED,
    COLLECT_RESTING,
    COLLECT_SPOOL_BYTES,
    COLLECT_SPOOL_FULL,
    COLLECT_LOW,
)
"""The collector's, one set a process."""
