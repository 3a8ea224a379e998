"""Freshness of the numbers, and the alerts of the pipeline itself.

A pipeline that stands still raises one alert: what is down explains what is stalled, a failing Redis too,
and what is stalled does not also lag. Freshness is judged by the exporter, which shows what traders see.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dashboards.rules import FLOW_JOB, PLACEMENTS_JOB, Alert, Group, Record, duration, number
from flows import metrics as m

FLUSH_OLD: Final = timedelta(minutes=2)
"""A healthy flow writes to Redis every second."""
FLUSH_LATE: Final = timedelta(seconds=90)
"""From when on flushes that fail are not made good by those that succeed."""
WATERMARK_OLD: Final = timedelta(minutes=5)
"""A healthy watermark is 10 s behind, on a quiet topic 60 s."""
KEPT: Final = timedelta(minutes=2)
"""For how long a number still counts that a scrape did not bring: no longer than `AudiopixelPipelineDown`
waits, so that no single scrape that fails takes back an alert, or begins its time anew.
"""
LEAST_MESSAGES: Final = 20
"""Usual in half an hour, of which none is no chance (1 in 10⁸)."""

FRESH: Final = "instance:audiopixel_fresh:bool"
"""1 by exporter, absent unless its numbers are fresh."""
FLUSH_AGE: Final = "pipeline:audiopixel_flush_age_seconds:min"
WATERMARK_AGE: Final = "pipeline:audiopixel_watermark_age_seconds:min"
MOVES: Final = "pipeline:audiopixel_watermark:changes5m"
DOWN: Final = "pipeline:audiopixel_down:count"
REDIS: Final = "pipeline:audiopixel_redis_failing:max"
RECEIVED: Final = "pipeline:audiopixel_received:rate10m"
REJECTED: Final = "pipeline:audiopixel_rejected:ratio_rate10m"


def kept(name: str) -> str:
    """A gauge's series, over a scrape or a restart of the exporter in which it is missing."""
    return f"last_over_time({name}[{duration(KEPT)}])"


_WATERMARK: Final = f"max({m.EXPORTER_WATERMARK.name})"
# What answers at a target may be something else: no metric of ours is as bad as no answer.
_UNREACHABLE: Final = f"""min by (job) (up{{job=~"{FLOW_JOB}|{PLACEMENTS_JOB}"}}) == 0
or absent({m.BUILD.name}{{job="{FLOW_JOB}"}})
or absent({m.EXPORTER_UP.name}{{job="{PLACEMENTS_JOB}"}})"""
_FLUSH_OLD_S: Final = int(FLUSH_OLD.total_seconds())
_FLUSH_LATE_S: Final = int(FLUSH_LATE.total_seconds())
_WATERMARK_OLD_S: Final = int(WATERMARK_OLD.total_seconds())

RECORDS: Final = (
    Record(
        FRESH,
        f"""{kept(m.EXPORTER_UP.name)} == 1
and on (job, instance) (time() - {kept(m.EXPORTER_LAST_FLUSH.name)} <= {_FLUSH_OLD_S})
and on (job, instance) (time() - {kept(m.EXPORTER_WATERMARK.name)} <= {_WATERMARK_OLD_S})""",
    ),
    Record(FLUSH_AGE, f"time() - max({m.EXPORTER_LAST_FLUSH.name})"),
    Record(WATERMARK_AGE, f"time() - {_WATERMARK}"),
    # Not whether it is greater: a log that is counted anew sets it back, and moves on.
    Record(MOVES, f"max(changes({m.EXPORTER_WATERMARK.name}[{duration(WATERMARK_OLD)}]))"),
    Record(DOWN, f"count({_UNREACHABLE})"),
    Record(
        REDIS,
        f"""sum(increase({m.REDIS_ERRORS.name}[2m])) > 0 and on () ({FLUSH_AGE} > {_FLUSH_LATE_S})
or 1 - max({m.EXPORTER_UP.name}) > 0""",
    ),
    Record(RECEIVED, f"sum(rate({m.RECEIVED.name}[10m]))"),
    Record(REJECTED, f"sum(rate({m.REJECTED.name}[10m])) / {RECEIVED}"),
)

_AGES: Final = (
    f"Redis was last written {number(FLUSH_AGE, form='humanizeDuration')} ago; its numbers are of "
    f"{number(WATERMARK_AGE, form='humanizeDuration')} ago."
)
_REJECTED_SHARE: Final = f"{number(f'100 * {REJECTED}', form='printf `%.1f`')} %"


def _count(expr: str) -> str:
    return number(f"round({expr})")


_WAITING: Final = (
    f"{_count(f'sum({m.LAG.name})')} messages wait in Kafka, of which "
    f"{_count(f'sum(rate({m.RECEIVED.name}[5m]))')} a second are read."
)


def _of_job(expr: str) -> str:
    return f"printf `{expr}` $labels.job"


_REACHED: Final = (
    f"{{{{ with {_of_job('count(up{job=%q})')} | query }}}}Prometheus reaches "
    f"{number('sum(up{job=%q})', 'job')} of {number('count(up{job=%q})', 'job')} instances"
    f"{{{{ if {_of_job('min(up{job=%q}) == 1')} | query }}}}, and finds nothing of audiopixel's there"
    "{{ end }}.{{ else }}Prometheus has no job of this name.{{ end }}"
)


def _top_reason(said: str) -> str:
    """Template text: `said` of the most frequent reason of the last ten minutes' rejections."""
    most = f"topk(1, round(sum by (reason) (increase({m.REJECTED.name}[10m]))))"
    return f"{{{{ range query `{most}` }}}}{said}{{{{ end }}}}"


ALERTS: Final = (
    Alert(
        "AudiopixelPipelineDown",
        _UNREACHABLE,
        "critical",
        "pipeline",
        "{{ $labels.job }} is down, or is not scraped",
        f"{_REACHED} {_AGES}",
        timedelta(minutes=2),
    ),
    Alert(
        "AudiopixelPipelineStalled",
        f"""(
  {FLUSH_AGE} > {_FLUSH_OLD_S}
  or ({WATERMARK_AGE} > {_WATERMARK_OLD_S} and on () ({MOVES} == 0))
  or (max({m.EXPORTER_UP.name}) == 1 unless on () {_WATERMARK})
)
unless on () {DOWN}
unless on () {REDIS}""",
        "critical",
        "pipeline",
        "The pipeline stands still",
        f"Processes run, and the numbers do not move. {_AGES} {_WAITING}",
        timedelta(minutes=1),
    ),
    Alert(
        "AudiopixelPipelineLagging",
        f"""{WATERMARK_AGE} > {_WATERMARK_OLD_S}
and on () ({MOVES} > 0)
and on () ({FLUSH_AGE} <= {_FLUSH_OLD_S})
unless on () {DOWN}
unless on () {REDIS}""",
        "warning",
        "pipeline",
        "The pipeline is {{ $value | humanizeDuration }} behind",
        f"The numbers are of {{{{ $value | humanizeDuration }}}} ago, and move. {_WAITING}",
        timedelta(minutes=5),
    ),
    Alert(
        "AudiopixelInputSilent",
        f"""1800 * (
  min_over_time({RECEIVED}[1h] offset 23h30m)
  or avg_over_time({RECEIVED}[6h])
) >= {LEAST_MESSAGES}
and on () ((sum(increase({m.RECEIVED.name}[30m])) or vector(0)) == 0)
and on () ({WATERMARK_AGE} <= {_WATERMARK_OLD_S})
unless on () {DOWN}""",
        "critical",
        "pipeline",
        "No message has come for half an hour",
        "Some {{ $value | printf `%.0f` }} are usual at this time. The topic can be read to its end: nobody "
        "writes to it. Look at what sends the pixels; alerts on delivery are held back meanwhile.",
        timedelta(minutes=2),
    ),
    Alert(
        "AudiopixelPipelineRejecting",
        f"{REJECTED} > 0.05 and on () (sum(increase({m.REJECTED.name}[10m])) > 100)",
        "warning",
        "pipeline",
        f"{_REJECTED_SHARE} of the messages of the last ten minutes were rejected, most often as "
        f"{_top_reason('{{ .Labels.reason }}')}",
        f"{_count(f'sum(increase({m.REJECTED.name}[10m]))')} of "
        f"{_count(f'sum(increase({m.RECEIVED.name}[10m]))')} messages of the last ten minutes went to the "
        f"dead letters, {_top_reason('{{ .Value | humanize }} as {{ .Labels.reason }}')}. Their ads ran, and "
        "are missing from every number; alerts on delivery are held back meanwhile. Look in the newest dead "
        "letters for the field that is wrong, and have their producer mend it and send the pixels again.",
        timedelta(minutes=10),
    ),
    Alert(
        "AudiopixelMessagesLost",
        # They are skipped before the first scrape of a process, which no rate and no increase sees.
        f"""sum({m.SKIPPED.name}) > 0
!= (sum(last_over_time({m.SKIPPED.name}[1h] offset 1d)) or vector(0))""",
        "warning",
        "pipeline",
        "{{ $value | printf `%.0f` }} messages were lost before they were read",
        "Kafka had deleted {{ $value | printf `%.0f` }} messages when the flow came to read them, and it "
        "skipped them, as it was told to. Their ads ran, and are missing from every number for good. This is "
        "told for a day.",
    ),
    Alert(
        "AudiopixelRedisFailing",
        REDIS,
        "critical",
        "pipeline",
        "Redis does not take or give numbers",
        f"{_count(f'sum(increase({m.REDIS_ERRORS.name}[2m])) or vector(0)')} flushes failed in two minutes, "
        f"{_count(f'sum({m.PENDING_ROWS.name})')} rows wait; the exporter "
        f"{{{{ if query `max({m.EXPORTER_UP.name}) == 1` }}}}reads Redis{{{{ else }}}}cannot read Redis"
        f"{{{{ end }}}}. {_AGES}",
        timedelta(minutes=3),
    ),
    Alert(
        "AudiopixelExporterTruncating",
        f"max({m.EXPORTER_CUT.name}) > 0",
        "warning",
        "pipeline",
        "{{ $value | printf `%.0f` }} placements have no series of their own",
        "The exporter is at its cap: {{ $value | printf `%.0f` }} placements are summed as `other`, and of "
        "alerts only that on brand safety watches their sum.",
        timedelta(minutes=10),
    ),
)

PIPELINE: Final = Group("audiopixel-pipeline", (*RECORDS, *ALERTS))
