"""Every metric, defined once: name, kind, unit, labels, help, and the field of a row that it shows.

Instruments, the exporter, the README's table, queries and alerts derive from these. Alerts also take the age
of a flush above which nothing is judged from here.
"""

from __future__ import annotations

from typing import Final

from flows.definition import Definition as Definition
from flows.definition import Metrics
from flows.model.catalogue.fields import LABELS
from flows.model.freshness import FLUSH_STALE_S as FLUSH_STALE_S

PIPELINE: Final = Metrics()
"""The metrics of the flow, one set a process."""

RECEIVED = PIPELINE.counter("received_total", "Messages read from the source, without marks.", "partition")
MARKS = PIPELINE.counter("marks_total", "Marks of collectors read from the source: no pixels.", "partition")
ACCEPTED = PIPELINE.counter("accepted_total", "Pixels that count, invalid traffic included.", "partition")
REPEATED = PIPELINE.counter("repeated_total", "Pixels that had counted before.", "partition")
REJECTED = PIPELINE.counter(
    "rejected_total", "Messages that went to the dead letters.", "partition", "reason"
)
INVALID_TRAFFIC = PIPELINE.counter(
    "invalid_traffic_total", "Accepted pixels kept out of every other number.", "partition", "reason"
)
CLOCK_SKEWED = PIPELINE.counter(
    "clock_skewed_total", "Pixels whose clock was off by more than five minutes.", "partition"
)
UNKNOWN_LABELS = PIPELINE.counter(
    "unknown_labels_total", "Pixels with a label that no plan lists, as absent.", "partition", "dimension"
)
LAG = PIPELINE.gauge(
    "consumer_lag_messages", "Messages in the partition that have not been read.", "partition"
)
PARTITION_WATERMARK = PIPELINE.gauge(
    "partition_watermark_timestamp_seconds", "Event time the partition's log has got to.", "partition"
)
LOW_MARK = PIPELINE.gauge(
    "partition_low_mark_timestamp_seconds",
    "The least low mark that the partition's time waits for; 0: it waits for no collector.",
    "partition",
)
HELD_PIXELS = PIPELINE.gauge(
    "partition_held_pixels",
    "Pixels that came while the partition's time waits for a collector: what state keeps beyond its usual.",
    "partition",
)
HOLDS_RELEASED = PIPELINE.counter(
    "holds_released_total",
    "Holds that ended since more pixels came than AUDIOPIXEL_MAX_STATE allows.",
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
    "holds_evicted_total", "Collectors not waited for, since there were too many.", "partition"
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
    "kafka_errors_total", "Errors of the Kafka client that it recovers from.", "partition"
)
SKIPPED = PIPELINE.counter(
    "skipped_messages_total",
    "Messages lost to retention before they were read, skipped by choice.",
    "partition",
)
SAVES = PIPELINE.counter("saves_total", "Saves committed: all state at a cut, on the disk.")
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
    "Touches given up because their listener or household has more than are kept.",
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

PLACEMENT: Final = Metrics("placement")
"""The exporter's metrics of each placement; beyond its cap, counters are summed as placement `other`."""

PLACEMENT_IMPRESSIONS = PLACEMENT.counter(
    "placement_impressions_total", "Impressions of the flight.", field="flight.impressions"
)
PLACEMENT_STARTS = PLACEMENT.counter(
    "placement_starts_total", "Plays of the flight that started.", field="flight.starts"
)
PLACEMENT_FIRST_QUARTILES = PLACEMENT.counter(
    "placement_first_quartiles_total",
    "Started plays of the flight that reached a quarter.",
    field="flight.first_quartiles",
)
PLACEMENT_MIDPOINTS = PLACEMENT.counter(
    "placement_midpoints_total", "Started plays of the flight that reached half.", field="flight.midpoints"
)
PLACEMENT_THIRD_QUARTILES = PLACEMENT.counter(
    "placement_third_quartiles_total",
    "Started plays of the flight that reached three quarters.",
    field="flight.third_quartiles",
)
PLACEMENT_COMPLETES = PLACEMENT.counter(
    "placement_completes_total", "Started plays of the flight that completed.", field="flight.completes"
)
PLACEMENT_CLICKS = PLACEMENT.counter("placement_clicks_total", "Clicks of the flight.", field="flight.clicks")
PLACEMENT_ERRORS = PLACEMENT.counter(
    "placement_errors_total", "Player errors of the flight.", field="flight.errors"
)
PLACEMENT_INVALID = PLACEMENT.counter(
    "placement_invalid_traffic_total",
    "Pixels kept out of every other number.",
    field="flight.invalid_traffic",
)
PLACEMENT_REPEATED = PLACEMENT.counter(
    "placement_repeated_total", "Pixels that had counted before.", field="flight.repeated"
)
PLACEMENT_TOO_LATE = PLACEMENT.counter(
    "placement_too_late_total", "Pixels that came after their minute was final.", field="flight.too_late"
)
PLACEMENT_CONVERSIONS = PLACEMENT.counter(
    "placement_conversions_total", "Conversions of the flight credited to it.", field="flight.conversions"
)
PLACEMENT_BY_HOUSEHOLD = PLACEMENT.counter(
    "placement_conversions_by_household_total",
    "Those of them that a touch of their household joins, for their own listener has none.",
    field="flight.conversions_by_household",
)
PLACEMENT_CLAIMED = PLACEMENT.counter(
    "placement_conversions_claimed_total",
    "Conversions of the flight credited to it that public tags have sent.",
    field="flight.conversions_claimed",
)
PLACEMENT_CONFIRMED = PLACEMENT.counter(
    "placement_conversions_confirmed_total",
    "Those of them that a server has confirmed.",
    field="flight.conversions_confirmed",
)
PLACEMENT_DOWNLOADS, PLACEMENT_DELIVERIES = (
    tuple(
        PLACEMENT.counter(
            f"placement_{what}_{window}_total",
            f"{what.capitalize()} of the flight, once a client by the IAB's {words}; of final minutes.",
            field=f"flight.{what}_{window}",
        )
        for window, words in (
            ("calendar", "calendar day"),
            ("first_touch", "first-touch window"),
            ("last_touch", "last-touch window"),
        )
    )
    for what in ("downloads", "deliveries")
)
PLACEMENT_BLOCKED = PLACEMENT.counter(
    "placement_blocked_impressions_total",
    "Impressions since its first pixel in content that its plan blocks.",
    field="flight.blocked_impressions",
)
PLACEMENT_MATURE_5M = PLACEMENT.gauge(
    "placement_mature_completion_5m_ratio",
    "Completes by starts of the last five minutes, without the youngest, which cannot have completed yet.",
    field="5m.mature_completion_rate",
)
PLACEMENT_MATURE_1H = PLACEMENT.gauge(
    "placement_mature_completion_1h_ratio",
    "Completes by starts of the last hour, without the youngest, which cannot have completed yet.",
    field="1h.mature_completion_rate",
)
PLACEMENT_REACH = PLACEMENT.gauge(
    "placement_reach_listeners", "Distinct consenting listeners of the flight.", field="flight.reach"
)
PLACEMENT_HOUSEHOLDS = PLACEMENT.gauge(
    "placement_reach_households",
    "Distinct consenting households of the flight.",
    field="flight.household_reach",
)
PLACEMENT_REACH_1H = PLACEMENT.gauge(
    "placement_reach_1h_listeners", "Distinct consenting listeners of the last hour.", field="1h.reach"
)
PLACEMENT_FREQUENCY = PLACEMENT.gauge(
    "placement_frequency_plays", "Plays of the flight by listener of its reach.", field="flight.frequency"
)
PLACEMENT_CONSENT = PLACEMENT.gauge(
    "placement_consent_coverage_ratio",
    "Pixels since its first with consent, by all of them.",
    field="flight.consent_coverage",
)
PLACEMENT_CONVERSION_VALUE = PLACEMENT.gauge(
    "placement_conversion_value",
    "Value of the conversions of the flight credited to it, in its row's currency, claimed values apart; a "
    "refund makes it fall.",
    field="flight.conversion_value",
)
PLACEMENT_CONVERSION_VALUE_CLAIMED = PLACEMENT.gauge(
    "placement_conversion_value_claimed",
    "The same of values that public tags have told: whoever reads the page can tell another one.",
    field="flight.conversion_value_claimed",
)
PLACEMENT_TARGET_COMPLETION = PLACEMENT.gauge(
    "placement_target_completion_ratio",
    "Completion rate that its plan wants.",
    field="delivery.target_completion_rate",
)
PLACEMENT_BOOKED = PLACEMENT.gauge(
    "placement_delivery_booked_impressions", "Impressions that its plan has booked.", field="delivery.booked"
)
PLACEMENT_DELIVERED = PLACEMENT.gauge(
    "placement_delivery_delivered_impressions",
    "Impressions of the flight up to its plan's end.",
    field="delivery.delivered",
)
PLACEMENT_EXPECTED = PLACEMENT.gauge(
    "placement_delivery_expected_impressions",
    "Impressions that its plan's delivery curve wants by now.",
    field="delivery.expected",
)
PLACEMENT_INDICATOR = PLACEMENT.gauge(
    "placement_delivery_indicator_ratio",
    "Delivered by expected impressions: 1 is on plan; absent while nothing is to be delivered.",
    field="delivery.indicator",
)
PLACEMENT_PROJECTED = PLACEMENT.gauge(
    "placement_delivery_projected_impressions",
    "Impressions at the end of the flight at the last hour's rate.",
    field="delivery.projected",
)
PLACEMENT_REQUIRED = PLACEMENT.gauge(
    "placement_delivery_required_impressions_per_second",
    "Impressions a second of unpaused time that are still needed; absent while none are.",
    field="delivery.required_rate",
)
PLACEMENT_SHORT = PLACEMENT.gauge(
    "placement_delivery_short_impressions",
    "Impressions that are due and not delivered: 0 where it is ahead, absent while it is not judged.",
    field="delivery.short_by",
)
PLACEMENT_STAKE = PLACEMENT.gauge(
    "placement_delivery_at_stake",
    "Price of the impressions that are due and not delivered, in its plan's currency.",
    field="delivery.at_stake",
)
PLACEMENT_STAKE_END = PLACEMENT.gauge(
    "placement_delivery_at_stake_end",
    "Price of the booked impressions that its projection lacks at the flight's end, in its plan's currency.",
    field="delivery.at_stake_end",
)
PLACEMENT_SINCE = PLACEMENT.gauge(
    "placement_delivery_since_timestamp_seconds",
    "Event time at which the state of its delivery began.",
    field="delivery.since_ms",
)
PLACEMENT_UNJUDGED = PLACEMENT.gauge(
    "placement_delivery_unjudged_since_timestamp_seconds",
    "Since when its delivery is not judged, as while its feed is silent; absent while it is judged.",
    field="delivery.unjudged_since_ms",
)
PLACEMENT_COUNTED_SINCE = PLACEMENT.gauge(
    "placement_counted_since_timestamp_seconds",
    "From when its flight is counted: its plan's start, or when the deployment began to count.",
    field="flight.counted_since_ms",
)
PLACEMENT_BEFORE = PLACEMENT.gauge(
    "placement_delivered_before_impressions",
    "Its plan's opening balance: impressions that were delivered before they were counted.",
    field="delivery.delivered_before",
)
PLACEMENT_GAP = PLACEMENT.gauge(
    "placement_delivery_gap_seconds",
    "Unpaused time of its flight of which neither its balance nor the counts say anything.",
    field="delivery.gap_ms",
)
PLACEMENT_END = PLACEMENT.gauge(
    "placement_flight_end_timestamp_seconds", "When the flight of its plan ends.", field="delivery.end_ms"
)
PLACEMENT_CPM = PLACEMENT.gauge(
    "placement_cpm", "Price of a thousand impressions, in its plan's currency.", field="delivery.cpm"
)
PLACEMENT_COST = PLACEMENT.gauge(
    "placement_cost",
    "Price of the delivered impressions of the flight, in its plan's currency.",
    field="flight.cost",
)
PLACEMENT_STATE = PLACEMENT.gauge(
    "placement_delivery_state", "1 for the state that its delivery is in; the others are absent.", "state"
)
PLACEMENT_INFO = PLACEMENT.info(
    "placement_info",
    "What a placement belongs to, to join on.",
    *(label.removesuffix("_id") for label in LABELS),
    *("currency", "basis"),
)

CAMPAIGN: Final = Metrics("campaign")
"""The exporter's metrics of each campaign with a planned placement."""

CAMPAIGN_BOOKED = CAMPAIGN.gauge(
    "campaign_delivery_booked_impressions", "Impressions that its plans have booked.", field="delivery.booked"
)
CAMPAIGN_DELIVERED = CAMPAIGN.gauge(
    "campaign_delivery_delivered_impressions",
    "Impressions of its planned placements' flights up to their ends.",
    field="delivery.delivered",
)
CAMPAIGN_EXPECTED = CAMPAIGN.gauge(
    "campaign_delivery_expected_impressions",
    "Impressions that its plans want by now.",
    field="delivery.expected",
)
CAMPAIGN_INDICATOR = CAMPAIGN.gauge(
    "campaign_delivery_indicator_ratio",
    "Delivered by expected impressions: 1 is on plan; absent while nothing is to be delivered.",
    field="delivery.indicator",
)
CAMPAIGN_PROJECTED = CAMPAIGN.gauge(
    "campaign_delivery_projected_impressions",
    "Impressions at the end of its flights at the last hour's rate.",
    field="delivery.projected",
)
CAMPAIGN_REQUIRED = CAMPAIGN.gauge(
    "campaign_delivery_required_impressions_per_second",
    "Impressions a second that its placements need together now; absent while none are.",
    field="delivery.required_rate",
)
CAMPAIGN_SHORT = CAMPAIGN.gauge(
    "campaign_delivery_short_impressions",
    "Impressions that are due and not delivered: 0 where it is ahead, absent while it is not judged.",
    field="delivery.short_by",
)
CAMPAIGN_STAKE = CAMPAIGN.gauge(
    "campaign_delivery_at_stake",
    "Price of the impressions that its placements are short, in their plans' currency; absent where it has "
    "several.",
    field="delivery.at_stake",
)
CAMPAIGN_STAKE_END = CAMPAIGN.gauge(
    "campaign_delivery_at_stake_end",
    "Price of the booked impressions that its placements' projections lack, in their plans' currency.",
    field="delivery.at_stake_end",
)
CAMPAIGN_END = CAMPAIGN.gauge(
    "campaign_flight_end_timestamp_seconds",
    "When the last flight of its plans ends.",
    field="delivery.end_ms",
)
CAMPAIGN_STATE = CAMPAIGN.gauge(
    "campaign_delivery_state", "1 for the state that its delivery is in; the others are absent.", "state"
)

BESIDE: Final = {scope: Metrics(scope) for scope in ("creative", "app")}
"""The exporter's metrics of each creative, and of each listening app, over all its placements."""

for _scope, _beside in BESIDE.items():
    for _name, _help in (
        ("impressions", "Impressions of the flight."),
        ("starts", "Plays of the flight that started."),
        ("completes", "Plays of the flight that were heard to the end, of those that started."),
        ("clicks", "Clicks of the flight."),
    ):
        _beside.counter(f"{_scope}_{_name}_total", _help, field=f"flight.{_name}")

EXPORTER: Final = Metrics()
"""The exporter's metrics of itself: the last two on its `/metrics`, the others with the placements."""

EXPORTER_UP = EXPORTER.gauge(
    "exporter_up", "Whether Redis answered the latest read; if not, all numbers are of the last that did."
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
EXPORTER_CUT_BESIDE = {
    scope: EXPORTER.gauge(
        f"exporter_cut_{scope}s", f"{scope.capitalize()}s beyond the cap, shown only as part of other."
    )
    for scope in BESIDE
}
EXPORTER_RENDER = EXPORTER.histogram(
    "exporter_render_seconds", "Rendering the placements, reading Redis not included."
)
EXPORTER_REFRESH = EXPORTER.histogram(
    "exporter_refresh_seconds", "Waiting for a snapshot of Redis, once a scrape."
)
TAGS: Final = Metrics()
"""The exporter's metrics of tags, on its `/metrics`."""

SILENT_TAGS = TAGS.gauge(
    "silent_tags",
    "Placements whose signed tags have not fired for a day since they were built, or fire with macros that "
    "nobody replaces.",
    "why",
)

PLATFORM: Final = Metrics("platform")
"""The exporter's metrics of the busiest platforms, on its `/metrics`: shares of today's plays that carry each
fact.
"""

for _name, _help, _field in (
    ("start", "Today's plays that started, by plays.", "1d.start_share"),
    ("first_quartile", "Today's plays that reached a quarter, by plays.", "1d.first_quartile_share"),
    ("midpoint", "Today's plays that reached half, by plays.", "1d.midpoint_share"),
    ("third_quartile", "Today's plays that reached three quarters, by plays.", "1d.third_quartile_share"),
    ("complete", "Today's plays that reached the end, by plays.", "1d.complete_share"),
    ("listener", "Today's plays of which a consenting listener is known, by plays.", "1d.listener_share"),
    ("play_id", "Today's starts with a play id, by all starts.", "1d.play_id_share"),
    ("consent", "Pixels since its first with consent, by all of them.", "flight.consent_coverage"),
    (
        "unreplaced_macro",
        "Pixels with a macro that nobody has replaced, by all, since the collectors started.",
        "unreplaced_share",
    ),
):
    PLATFORM.gauge(f"platform_{_name}_ratio", _help, field=_field)
PLATFORM_DELAY = PLATFORM.gauge(
    "platform_delay_median_seconds",
    "Median time from a pixel's event time to its receipt, since its first: the upper bound of its class.",
    field="flight.delay_p50_seconds",
)
