"""Every metric in Prometheus: name, kind, unit, labels, help, and the field of a row that it shows.

The metrics of rows are declared in the catalogue; `PLACEMENT["flight.starts"]` is the metric that shows this
field. This module defines the others. Instruments, the exporter, queries and alerts use these definitions.
Alerts also use `FLUSH_STALE_S`, the age of a flush above which no delivery is judged.
"""

from __future__ import annotations

from typing import Final

from flows.definition import Definition as Definition
from flows.definition import Metrics
from flows.model.catalogue.fields import LABELS
from flows.model.catalogue.metrics import METRICS
from flows.model.freshness import FLUSH_STALE_S as FLUSH_STALE_S

PIPELINE: Final = Metrics()
"""The metrics of the flow, one set a process."""

RECEIVED = PIPELINE.counter("received_total", "Messages read from the source, without marks.", "partition")
MARKS = PIPELINE.counter("marks_total", "Marks of collectors read from the source: no pixels.", "partition")
ACCEPTED = PIPELINE.counter("accepted_total", "Pixels that count, invalid traffic included.", "partition")
REPEATED = PIPELINE.counter("repeated_total", "Pixels that had counted before.", "partition")
REJECTED = PIPELINE.counter("rejected_total", "Messages that became dead letters.", "partition", "reason")
INVALID_TRAFFIC = PIPELINE.counter(
    "invalid_traffic_total", "Accepted pixels kept out of every other number.", "partition", "reason"
)
CLOCK_SKEWED = PIPELINE.counter(
    "clock_skewed_total", "Pixels whose clock was off by more than five minutes.", "partition"
)
UNKNOWN_LABELS = PIPELINE.counter(
    "unknown_labels_total",
    "Pixels with a label that no plan lists, which count without it.",
    "partition",
    "dimension",
)
LAG = PIPELINE.gauge(
    "consumer_lag_messages", "Messages in the partition that have not been read.", "partition"
)
PARTITION_WATERMARK = PIPELINE.gauge(
    "partition_watermark_timestamp_seconds", "Event time that the partition's log has reached.", "partition"
)
LOW_MARK = PIPELINE.gauge(
    "partition_low_mark_timestamp_seconds",
    "The least low mark that the partition's time waits for; 0: it waits for no collector.",
    "partition",
)
HELD_PIXELS = PIPELINE.gauge(
    "partition_held_pixels",
    "Pixels that came while the partition's time waits for a collector, and that state holds additionally.",
    "partition",
)
HOLDS_RELEASED = PIPELINE.counter(
    "holds_released_total",
    "Holds that ended because more pixels came than AUDIOPIXEL_MAX_STATE allows.",
    "partition",
)
HOLD_SINCE = PIPELINE.gauge(
    "hold_since_timestamp_seconds",
    "Receipt of the oldest event that this collector still has, while the flow's time waits for it; absent "
    "while there is no hold. Why: `drain`, pixels that it has stored are not in the log yet; `clock`, its "
    "clock is wrong.",
    "collector",
    "why",
)
WRONG_CLOCKS = PIPELINE.gauge(
    "partition_wrong_clocks",
    "Collectors whose clock differs from the log's by over a minute; after five minutes they are not waited "
    "for.",
    "partition",
)
FEED_SILENT_SINCE = PIPELINE.gauge(
    "feed_silent_since_seconds",
    "Last pixel, epoch s, of this unit of the feed, while it is silent: a source partition, a platform or a "
    "sender. Of the 50 with the most money an hour.",
    "kind",
    "unit",
)
CLONED = PIPELINE.gauge(
    "collector_cloned",
    "1 for a collector's spool directory in whose name two processes write, which was copied; absent else.",
    "directory",
)
HOLDS_EVICTED = PIPELINE.counter(
    "holds_evicted_total", "Collectors that are not waited for, since there were too many.", "partition"
)
WATERMARK = PIPELINE.gauge(
    "watermark_timestamp_seconds", "Event time of the whole flow: the least over partitions."
)
LAST_FLUSH = PIPELINE.gauge("last_flush_timestamp_seconds", "When rows were last written to Redis.")
EVENT_TO_REDIS = PIPELINE.histogram("event_to_redis_seconds", "From a pixel's receipt until Redis shows it.")
FLUSH_DURATION = PIPELINE.histogram("flush_duration_seconds", "Writing one tick's rows to Redis.")
FLUSHED_ROWS = PIPELINE.counter("flushed_rows_total", "Rows written to Redis.")
PENDING_ROWS = PIPELINE.gauge("redis_pending_rows", "Changed rows that Redis has not taken yet.")
REDIS_ERRORS = PIPELINE.counter(
    "redis_errors_total", "Flushes that Redis did not take, to be retried.", "reason"
)
KAFKA_ERRORS = PIPELINE.counter(
    "kafka_errors_total", "Errors of the Kafka client from which it recovers.", "partition"
)
SKIPPED = PIPELINE.counter(
    "skipped_messages_total",
    "Messages that Kafka deleted before they were read, and that the settings allow to skip.",
    "partition",
)
SAVE_PAUSE = PIPELINE.counter(
    "save_pause_seconds_total", "Time for which the flow stood still to copy what a save needs."
)
SAVE_WAITS = PIPELINE.counter(
    "save_waits_seconds_total",
    "Time for which the flow waited for a save, two of which were under way: for a disk, or an output.",
)
STATE_PLAYS = PIPELINE.gauge("state_plays", "Plays and events remembered.", "shard")
STATE_BYTES = PIPELINE.gauge("state_bytes", "Memory of the remembered plays.", "shard")
STATE_ROWS = PIPELINE.gauge("state_rows", "Rows kept.", "shard")
STATE_HOME_TOUCHES = PIPELINE.gauge(
    "state_household_touches", "Touches kept under their households.", "shard"
)
STATE_TOUCHES = PIPELINE.gauge("state_touches", "Touches kept for attribution.", "shard")
STATE_CLIENTS = PIPELINE.gauge(
    "state_clients", "Keys of clients and contents kept for the windows of the IAB.", "shard"
)
DROPPED_TOUCHES = PIPELINE.gauge(
    "state_dropped_touches",
    "Touches dropped because their listener or household has more than are stored.",
    "shard",
)
CAPPED_DECISIONS = PIPELINE.gauge(
    "state_capped_decisions", "Decisions on conversions that a cap on touches may have changed.", "shard"
)
STATE_CLAIMS = PIPELINE.gauge(
    "state_claims", "Credits of public tags' conversions kept, which a server's may confirm."
)
CONFIRMED = PIPELINE.counter(
    "conversions_confirmed_total",
    "Conversions of public tags that a server has confirmed: with the same value, another, or one where the "
    "tag had none.",
    "value",
)
BUILD = PIPELINE.info("build_info", "What is running.", "version", "python", "bytewax")


def _of_rows(scope: str) -> Metrics:
    """The series of a scope's rows, as the catalogue declares them."""
    metrics = Metrics(scope)
    for metric in METRICS:
        for series in metric.series:
            if series.name.partition("_")[0] == scope:
                define = metrics.counter if series.name.endswith("_total") else metrics.gauge
                define(series.name, series.help, field=metric.field(series.window))
    return metrics


PLACEMENT: Final = _of_rows("placement")
"""The exporter's metrics of each placement. Beyond the cap, counters are summed as placement `other`."""

PLACEMENT_STATE = PLACEMENT.gauge(
    "placement_delivery_state", "1 for the delivery's present state; the others are absent.", "state"
)
PLACEMENT_INFO = PLACEMENT.info(
    "placement_info",
    "The labels of a placement, for joins.",
    *(label.removesuffix("_id") for label in LABELS),
    *("currency", "basis"),
)

CAMPAIGN: Final = _of_rows("campaign")
"""The exporter's metrics of each campaign with a planned placement."""

CAMPAIGN_STATE = CAMPAIGN.gauge(
    "campaign_delivery_state", "1 for the delivery's present state; the others are absent.", "state"
)

EXPORTER: Final = Metrics()
"""The exporter's metrics of itself: the last two at its `/metrics`, the others with the placements."""

EXPORTER_UP = EXPORTER.gauge(
    "exporter_up", "Whether Redis answered the latest read; if not, all numbers are those of the last answer."
)
EXPORTER_READ = EXPORTER.gauge("exporter_read_timestamp_seconds", "When the rows shown were read from Redis.")
EXPORTER_WATERMARK = EXPORTER.gauge("exporter_watermark_timestamp_seconds", "Event time of the rows shown.")
EXPORTER_LAST_FLUSH = EXPORTER.gauge(
    "exporter_last_flush_timestamp_seconds", "When the flow last wrote to Redis."
)
EXPORTER_UNJUDGED = EXPORTER.gauge(
    "exporter_delivery_unjudged_since_timestamp_seconds",
    "Since when delivery is not judged, by reason; absent while it is judged.",
    "reason",
)
EXPORTER_CUT = EXPORTER.gauge(
    "exporter_cut_placements", "Placements beyond the cap, shown only as part of other."
)
EXPORTER_RENDER = EXPORTER.histogram(
    "exporter_render_seconds", "Rendering the placements, reading Redis not included."
)
EXPORTER_REFRESH = EXPORTER.histogram(
    "exporter_refresh_seconds", "Waiting for a snapshot of Redis, once a scrape."
)
TAGS: Final = Metrics()
"""The exporter's metrics of tags, at its `/metrics`."""

SILENT_TAGS = TAGS.gauge(
    "silent_tags",
    "Placements whose signed tags have not fired for a day since they were built, or fire with macros that "
    "nobody replaces.",
    "why",
)

PLATFORM: Final = _of_rows("platform")
"""The exporter's metrics of the busiest platforms, at its `/metrics`: the shares of today's plays that carry
each fact.
"""

PLATFORM.gauge(
    "platform_unreplaced_macro_ratio",
    "Pixels with a macro that nobody replaced, by all pixels, since the collectors started.",
    field="unreplaced_share",
)
