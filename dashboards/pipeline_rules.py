"""Freshness of the numbers, and the alerts of the pipeline itself.

A pipeline that stands still raises one alert: a process that is down, or a failing Redis, explains a stall,
and a stalled pipeline does not lag as well. Freshness is judged by the exporter's numbers, which traders see.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dashboards.rules import (
    FLOW_JOB,
    PLACEMENTS_JOB,
    Alert,
    Group,
    Record,
    duration,
    moment,
    number,
    shown,
    utc_time,
)
from flows import metrics as m

FLUSH_ENDS: Final = timedelta(minutes=2)
"""Time without a write after which alerts on placements end. From `FLUSH_STALE` on they stand still, which
bridges a restart. When they end, an alert of the pipeline inhibits the message that they are resolved.
"""
FLUSH_LATE: Final = timedelta(seconds=90)
"""The age of the last write from which failing flushes count as an outage, though others may succeed."""
WATERMARK_OLD: Final = timedelta(minutes=5)
"""A healthy watermark is 10 s behind, on a quiet topic 60 s."""
UNJUDGED_LONG: Final = timedelta(minutes=3)
"""Time without judging after which alerts on placements end. It is longer than `AudiopixelDeliveryNotJudged`
waits, so that this alert inhibits the message that they are resolved.
"""
BRIDGE: Final = timedelta(minutes=2)
"""The time for which a number counts on after a failed scrape, so that one failed scrape neither ends an
alert nor restarts its time. It is no longer than `AudiopixelPipelineDown` waits.
"""
MIN_OTHER_VALUES: Final = 4
"""Orders in an hour up to which a server's value that differs from the tag's is a slip."""
OTHER_VALUES_SHARE: Final = 0.05
"""Share of the confirmed orders up to which such a difference is a slip."""
MIN_MESSAGES: Final = 20
"""The fewest usual messages of half an hour at which zero is no chance (1 in 10⁸)."""

FRESH: Final = "instance:audiopixel_fresh:bool"
"""1 for each exporter with fresh numbers; absent once the flow has not judged them for `UNJUDGED_LONG`."""
FLUSH_AGE: Final = "pipeline:audiopixel_flush_age_seconds:min"
WATERMARK_AGE: Final = "pipeline:audiopixel_watermark_age_seconds:min"
MOVES: Final = "pipeline:audiopixel_watermark:changes5m"
DOWN: Final = "pipeline:audiopixel_down:count"
REDIS: Final = "pipeline:audiopixel_redis_failing:max"
HOLD_AGE: Final = "pipeline:audiopixel_hold_age_seconds:max"
RECEIVED: Final = "pipeline:audiopixel_received:rate10m"
REJECTED: Final = "pipeline:audiopixel_rejected:ratio_rate10m"
SKIPPED: Final = "instance:audiopixel_skipped_messages:max1d"
SKIPPED_BEFORE: Final = "instance:audiopixel_skipped_messages:last1d"
"""The latest number of the day before; 0 of a process that had no sample then."""


def bridged(name: str) -> str:
    """A gauge's series, bridged over a failed scrape or a restart of the exporter."""
    return f"last_over_time({name}[{duration(BRIDGE)}])"


_WATERMARK: Final = f"max({m.EXPORTER_WATERMARK.name})"
# Another program may answer at a target, so a target without our metrics is unreachable, too.
_UNREACHABLE: Final = f"""min by (job) (up{{job=~"{FLOW_JOB}|{PLACEMENTS_JOB}"}}) == 0
or absent({m.BUILD.name}{{job="{FLOW_JOB}"}})
or absent({m.EXPORTER_UP.name}{{job="{PLACEMENTS_JOB}"}})"""
_STALE_S: Final = int(m.FLUSH_STALE_S)
_FLUSH_ENDS_S: Final = int(FLUSH_ENDS.total_seconds())
_FLUSH_LATE_S: Final = int(FLUSH_LATE.total_seconds())
_WATERMARK_OLD_S: Final = int(WATERMARK_OLD.total_seconds())
_UNJUDGED_LONG_S: Final = int(UNJUDGED_LONG.total_seconds())

RECORDS: Final = (
    Record(
        FRESH,
        f"""{bridged(m.EXPORTER_UP.name)} == 1
and on (job, instance) (time() - {bridged(m.EXPORTER_LAST_FLUSH.name)} <= {_FLUSH_ENDS_S})
and on (job, instance) (time() - {bridged(m.EXPORTER_WATERMARK.name)} <= {_WATERMARK_OLD_S})
unless on (job, instance) (time() - (
  {m.EXPORTER_UNJUDGED.name}
  or {bridged(m.EXPORTER_UNJUDGED.name)} unless on (job, instance) {m.EXPORTER_UP.name}
) > {_UNJUDGED_LONG_S})""",
    ),
    Record(FLUSH_AGE, f"time() - max({m.EXPORTER_LAST_FLUSH.name})"),
    Record(WATERMARK_AGE, f"time() - {_WATERMARK}"),
    # Changes, not growth: a log that is counted again sets the watermark back, and moves on.
    Record(MOVES, f"max(changes({m.EXPORTER_WATERMARK.name}[{duration(WATERMARK_OLD)}]))"),
    Record(DOWN, f"count({_UNREACHABLE})"),
    Record(
        REDIS,
        f"""sum(increase({m.REDIS_ERRORS.name}[2m])) > 0 and on () ({FLUSH_AGE} > {_FLUSH_LATE_S})
or 1 - max({bridged(m.EXPORTER_UP.name)}) > 0""",
    ),
    Record(HOLD_AGE, f"time() - min({m.HOLD_SINCE.name})"),
    Record(RECEIVED, f"sum(rate({m.RECEIVED.name}[10m]))"),
    Record(REJECTED, f"sum(rate({m.REJECTED.name}[10m])) / {RECEIVED}"),
    Record(SKIPPED, f"max_over_time({m.SKIPPED.name}[1d])"),
    Record(SKIPPED_BEFORE, f"last_over_time({m.SKIPPED.name}[1d] offset 1d) or 0 * {SKIPPED}"),
)

_AGE: Final = "{{ . | first | value | humanizeDuration }}"
_AGES: Final = (
    f"{{{{ with query `{FLUSH_AGE}` }}}}Redis was last written {_AGE} ago.{{{{ else }}}}The time of the "
    f"last write to Redis is unknown.{{{{ end }}}}{{{{ with query `{WATERMARK_AGE}` }}}} Its numbers are "
    f"{_AGE} old."
    "{{ end }}"
)
_REJECTED_SHARE: Final = f"{number(f'100 * {REJECTED}', form='printf `%.1f`')} %"
_HELD: Final = f"{HOLD_AGE} > {_WATERMARK_OLD_S}"
BLINDING: Final = (
    "AudiopixelPipelineDown",
    "AudiopixelPipelineStalled",
    "AudiopixelPipelineLagging",
    "AudiopixelInputSilent",
    "AudiopixelPipelineRejecting",
    "AudiopixelRedisFailing",
    "AudiopixelCollectorHold",
)
"""Alerts under which delivery cannot be judged."""
NOT_JUDGED: Final = "AudiopixelDeliveryNotJudged"
FEED_SILENT: Final = "AudiopixelFeedSilent"
_BLIND: Final = f'alertname=~"{"|".join(BLINDING)}"'
_FIRING_BLIND: Final = f'ALERTS{{alertstate="firing", {_BLIND}}}'


def _count(expr: str) -> str:
    return number(f"round({expr})")


_WAITING: Final = (
    f"{_count(f'sum({m.LAG.name})')} messages are waiting in Kafka; the flow reads "
    f"{_count(f'sum(rate({m.RECEIVED.name}[5m]))')} a second."
)


_OTHER_VALUES: Final = f'sum(increase({m.CONFIRMED.name}{{value="other"}}[1h]))'


def _of_job(expr: str) -> str:
    return f"printf `{expr}` $labels.job"


_REACHED: Final = (
    f"{{{{ with {_of_job('count(up{job=%q})')} | query }}}}Prometheus reaches "
    f"{number('sum(up{job=%q})', 'job')} of {number('count(up{job=%q})', 'job')} instances"
    f"{{{{ if {_of_job('min(up{job=%q}) == 1')} | query }}}}, but finds no audiopixel metrics there"
    f"{{{{ end }}}}.{{{{ range {_of_job('up{job=%q} == 0')} | query }}}}"
    f" {shown('.Labels.instance')} does not answer.{{{{ end }}}}"
    "{{ else }}Prometheus has no job of this name.{{ end }}"
)


def _top_reason(template: str) -> str:
    """Template text: `template` for the most frequent reason of the last ten minutes' rejections."""
    most = f"topk(1, round(sum by (reason) (increase({m.REJECTED.name}[10m]))))"
    return f"{{{{ range query `{most}` }}}}{template}{{{{ end }}}}"


_UNJUDGED: Final = _count(
    f"count(max by (placement) ({m.PLACEMENT['delivery.unjudged_since_ms'].name})) or vector(0)"
)

ALERTS: Final = (
    Alert(
        "AudiopixelPipelineDown",
        _UNREACHABLE,
        "critical",
        "pipeline",
        "{{ $labels.job }} is down or not scraped",
        f"{_REACHED} {_AGES}",
        timedelta(minutes=2),
    ),
    Alert(
        "AudiopixelPipelineStalled",
        f"""(
  {FLUSH_AGE} > {_STALE_S}
  or ({WATERMARK_AGE} > {_WATERMARK_OLD_S} and on () ({MOVES} == 0))
  or (max({m.EXPORTER_UP.name}) == 1 unless on () {_WATERMARK})
)
unless on () {DOWN}
unless on () {REDIS}
unless on () ({_HELD} and on () ({FLUSH_AGE} <= {_STALE_S}))""",
        "critical",
        "pipeline",
        "The pipeline has stalled",
        f"The processes are running, but the numbers are not changing. {_AGES} {_WAITING}",
        timedelta(minutes=1),
    ),
    Alert(
        "AudiopixelPipelineLagging",
        f"""{WATERMARK_AGE} > {_WATERMARK_OLD_S}
and on () ({MOVES} > 0)
and on () ({FLUSH_AGE} <= {_STALE_S})
unless on () {DOWN}
unless on () {REDIS}
unless on () ({_HELD})""",
        "warning",
        "pipeline",
        "The pipeline is {{ $value | humanizeDuration }} behind",
        f"The numbers are {{{{ $value | humanizeDuration }}}} old and are still being updated. {_WAITING}",
        timedelta(minutes=5),
    ),
    Alert(
        "AudiopixelCollectorHold",
        f"""{HOLD_AGE} > {_WATERMARK_OLD_S}
and on () ({WATERMARK_AGE} > {_WATERMARK_OLD_S})
and on () ({FLUSH_AGE} <= {_STALE_S})
unless on () {DOWN}
unless on () {REDIS}""",
        "warning",
        "pipeline",
        "The pipeline has waited {{ $value | humanizeDuration }} for a collector's pixels",
        "A collector still holds pixels that it received {{ $value | humanizeDuration }} ago. Flight and day "
        "totals are current; rolling windows and pacing stand still, and delivery is not judged. "
        f"It is the collector {{{{ range query `bottomk(1, {m.HOLD_SINCE.name})` }}}}"
        f"{shown('.Labels.collector')}{{{{ if eq .Labels.why `clock` }}}}, whose clock is wrong: after five "
        "minutes the pipeline waits for it no more{{ end }}{{ end }}.",
        timedelta(minutes=1),
    ),
    Alert(
        "AudiopixelInputSilent",
        f"""1800 * (
  min_over_time({RECEIVED}[1h] offset 23h30m)
  or avg_over_time({RECEIVED}[6h])
) >= {MIN_MESSAGES}
and on () ((sum(increase({m.RECEIVED.name}[30m])) or vector(0)) == 0)
and on () ({WATERMARK_AGE} <= {_WATERMARK_OLD_S})
unless on () {DOWN}""",
        "critical",
        "pipeline",
        "No pixel has arrived for 30 minutes",
        "About {{ $value | printf `%.0f` }} messages are usual in that time. The flow is healthy and reads "
        "the topic to its end, so nothing is being written to the topic. Check the collectors and producers. "
        "Delivery is not judged meanwhile.",
        timedelta(minutes=2),
    ),
    Alert(
        FEED_SILENT,
        # Bridged over a restart of the flow, which publishes its silences again with its first flush.
        f"min by (kind, unit) ({bridged(m.FEED_SILENT_SINCE.name)})",
        "critical",
        "pipeline",
        f"The {{{{ $labels.kind }}}} {shown('$labels.unit')} has been silent since {utc_time('$value')}",
        f"No pixel has come from the {{{{ $labels.kind }}}} {shown('$labels.unit')} since "
        f"{utc_time('$value')}, over twice as long as its longest gap in such an hour. The flow is healthy "
        f"and reads the topic to its end: this is the feed, not delivery. {_UNJUDGED} placements are not "
        "judged now, and their alerts wait. Check what sends its pixels. It ends with the next 20 of them.",
    ),
    Alert(
        "AudiopixelPipelineRejecting",
        f"{REJECTED} > 0.05 and on () (sum(increase({m.REJECTED.name}[10m])) > 100)",
        "warning",
        "pipeline",
        f"{_REJECTED_SHARE} of the last ten minutes' messages were rejected, most often as "
        f"{_top_reason('{{ .Labels.reason }}')}",
        f"{_count(f'sum(increase({m.REJECTED.name}[10m]))')} of "
        f"{_count(f'sum(increase({m.RECEIVED.name}[10m]))')} messages in ten minutes went to the dead-letter "
        f"topic, {_top_reason('{{ .Value | humanize }} of them as {{ .Labels.reason }}')}. Their ads ran but "
        "are missing from every number. Delivery is not judged meanwhile. The newest dead letters name the "
        "field that is wrong: ask its producer to fix it and send the pixels again.",
        timedelta(minutes=10),
    ),
    Alert(
        "AudiopixelMessagesLost",
        # Messages are skipped before a process's first scrape, which no rate and no increase sees. A later
        # process counts from 0: an increase sees it within a day, and then its number is the smaller.
        f"""sum(
  {SKIPPED} - {SKIPPED_BEFORE} > 0
  or increase({m.SKIPPED.name}[1d]) > 0
  or ({SKIPPED} < {SKIPPED_BEFORE}) > 0
)""",
        "warning",
        "pipeline",
        "{{ $value | printf `%.0f` }} messages were lost before the flow read them",
        "Kafka had deleted {{ $value | printf `%.0f` }} messages before the flow could read them, and the "
        "flow skipped them (AUDIOPIXEL_KAFKA_ON_LOST). Their ads ran and are missing from every number for "
        "good. This alert ends after a day.",
    ),
    Alert(
        "AudiopixelRedisFailing",
        REDIS,
        "critical",
        "pipeline",
        f"Redis {{{{ if query `max({m.EXPORTER_UP.name}) == 1` }}}}is rejecting writes{{{{ else }}}}is not "
        "answering{{ end }}",
        f"{_count(f'sum(increase({m.REDIS_ERRORS.name}[2m])) or vector(0)')} writes failed in two minutes "
        f"and {_count(f'sum({m.PENDING_ROWS.name})')} rows are waiting. The exporter "
        f"{{{{ if query `max({m.EXPORTER_UP.name}) == 1` }}}}can read Redis{{{{ else }}}}cannot read Redis"
        f"{{{{ end }}}}. {_AGES} Nothing is lost: the rows are written when Redis is back.",
        timedelta(minutes=3),
    ),
    Alert(
        "AudiopixelClaimedValuesDiffer",
        f"""{_OTHER_VALUES} > {MIN_OTHER_VALUES}
and {_OTHER_VALUES} > {OTHER_VALUES_SHARE} * sum(increase({m.CONFIRMED.name}[1h]))""",
        "warning",
        "pipeline",
        "Servers have corrected the value of {{ $value | printf `%.0f` }} orders in an hour",
        f"Public tags claimed another value for {{{{ $value | printf `%.0f` }}}} of "
        f"{_count(f'sum(increase({m.CONFIRMED.name}[1h]))')} orders that servers confirmed in the last hour. "
        "The numbers have the servers' values. Either a page's snippet sends another value than the shop's "
        "server, such as without tax, or somebody forges orders. Decisions with the rule `confirmed` name "
        "the orders and both values.",
        timedelta(minutes=5),
    ),
    Alert(
        "AudiopixelExporterTruncating",
        f"max({m.EXPORTER_CUT.name}) > 0",
        "warning",
        "pipeline",
        "{{ $value | printf `%.0f` }} placements have no series of their own",
        "The exporter has reached its cap. {{ $value | printf `%.0f` }} placements are summed as `other`, "
        "and only the brand-safety alert watches that sum.",
        timedelta(minutes=10),
    ),
    Alert(
        NOT_JUDGED,
        # The flow's own field has the exact moment. Only the pipeline's alerts cover a dead flow.
        f"""min({m.EXPORTER_UNJUDGED.name})
or min(ALERTS_FOR_STATE{{{_BLIND}}} and on (alertname) {_FIRING_BLIND})""",
        "warning",
        "delivery",
        f"Delivery has not been judged since {utc_time('$value')}",
        "Do not change bids, budgets or pacing by these numbers. The newest are of "
        f"{moment(f'max({bridged(m.EXPORTER_WATERMARK.name)})', absent='an unknown time')}. Cause:"
        f"{{{{ range query `group by (alertname) ({_FIRING_BLIND})` }}}} "
        f"{{{{ .Labels.alertname }}}},{{{{ end }}}}"
        f"{{{{ range query `group by (reason) ({m.EXPORTER_UNJUDGED.name})` }}}} the flow says "
        "{{ .Labels.reason }},{{ end }} operators are alerted. Alerts on single placements are held back "
        "until this one ends; brand-safety alerts are not.",
        timedelta(minutes=2),
        board="audiopixel-trading-desk",
    ),
)

PIPELINE: Final = Group("audiopixel-pipeline", (*RECORDS, *ALERTS))
