"""Whether the numbers are fresh, and the alerts of the pipeline itself.

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
WATERMARK_OLD: Final = timedelta(minutes=5)
"""A healthy watermark is 10 s behind, on a quiet topic 60 s."""

FRESH: Final = "instance:audiopixel_fresh:bool"
"""1 by exporter, absent unless its numbers are fresh."""
FLUSH_AGE: Final = "pipeline:audiopixel_flush_age_seconds:min"
WATERMARK_AGE: Final = "pipeline:audiopixel_watermark_age_seconds:min"
DOWN: Final = "pipeline:audiopixel_down:count"
REDIS: Final = "pipeline:audiopixel_redis_failing:max"
REJECTED: Final = "pipeline:audiopixel_rejected:ratio_rate10m"

_WATERMARK: Final = f"max({m.EXPORTER_WATERMARK.name})"
_BEFORE: Final = f"max({m.EXPORTER_WATERMARK.name} offset {duration(WATERMARK_OLD)})"
_UNREACHABLE: Final = f"""min by (job) (up{{job=~"{FLOW_JOB}|{PLACEMENTS_JOB}"}}) == 0
or absent(up{{job="{FLOW_JOB}"}})
or absent(up{{job="{PLACEMENTS_JOB}"}})"""
_FLUSH_OLD_S: Final = int(FLUSH_OLD.total_seconds())
_WATERMARK_OLD_S: Final = int(WATERMARK_OLD.total_seconds())

RECORDS: Final = (
    Record(
        FRESH,
        f"""{m.EXPORTER_UP.name} == 1
and on (job, instance) (time() - {m.EXPORTER_LAST_FLUSH.name} <= {_FLUSH_OLD_S})
and on (job, instance) (time() - {m.EXPORTER_WATERMARK.name} <= {_WATERMARK_OLD_S})""",
    ),
    Record(FLUSH_AGE, f"time() - max({m.EXPORTER_LAST_FLUSH.name})"),
    Record(WATERMARK_AGE, f"time() - {_WATERMARK}"),
    Record(DOWN, f"count({_UNREACHABLE})"),
    Record(REDIS, f"sum(increase({m.REDIS_ERRORS.name}[2m])) > 0 or 1 - max({m.EXPORTER_UP.name}) > 0"),
    Record(REJECTED, f"sum(rate({m.REJECTED.name}[10m])) / sum(rate({m.RECEIVED.name}[10m]))"),
)

_AGES: Final = (
    f"Redis was last written {number(FLUSH_AGE, form='humanizeDuration')} ago; its numbers are of "
    f"{number(WATERMARK_AGE, form='humanizeDuration')} ago."
)

_REJECTED_SHARE: Final = f"{number(f'100 * {REJECTED}', form='printf `%.1f`')} %"


def _count(expr: str) -> str:
    return number(f"round({expr})")


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
        "{{ $labels.job }} cannot be scraped",
        f"Prometheus reaches no, or not every, instance of {{{{ $labels.job }}}}. {_AGES}",
        timedelta(minutes=2),
    ),
    Alert(
        "AudiopixelPipelineStalled",
        f"""(
  {FLUSH_AGE} > {_FLUSH_OLD_S}
  or ({WATERMARK_AGE} > {_WATERMARK_OLD_S} and on () ({_WATERMARK} <= {_BEFORE}))
  or (max({m.EXPORTER_UP.name}) == 1 unless on () {_WATERMARK})
)
unless on () {DOWN}
unless on () {REDIS}""",
        "critical",
        "pipeline",
        "The pipeline stands still",
        f"Processes run, and the numbers do not move. {_AGES} "
        f"{number(f'sum({m.LAG.name})')} messages wait in Kafka.",
        timedelta(minutes=1),
    ),
    Alert(
        "AudiopixelPipelineLagging",
        f"""{WATERMARK_AGE} > {_WATERMARK_OLD_S}
and on () ({_WATERMARK} > {_BEFORE})
and on () ({FLUSH_AGE} <= {_FLUSH_OLD_S})
unless on () {DOWN}
unless on () {REDIS}""",
        "warning",
        "pipeline",
        "The pipeline is {{ $value | humanizeDuration }} behind",
        f"The numbers are of {{{{ $value | humanizeDuration }}}} ago, and move. "
        f"{number(f'sum({m.LAG.name})')} messages wait in Kafka; "
        f"{number(f'sum(rate({m.RECEIVED.name}[5m]))')} a second are read.",
        timedelta(minutes=5),
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
        "AudiopixelRedisFailing",
        REDIS,
        "critical",
        "pipeline",
        "Redis does not take or give numbers",
        f"{number(f'sum(increase({m.REDIS_ERRORS.name}[2m]))')} flushes failed in two minutes, "
        f"{number(f'sum({m.PENDING_ROWS.name})')} rows wait; the exporter reads Redis: "
        f"{number(f'max({m.EXPORTER_UP.name})')} (1 is yes). {_AGES}",
        timedelta(minutes=3),
    ),
    Alert(
        "AudiopixelExporterTruncating",
        f"max({m.EXPORTER_CUT.name}) > 0",
        "warning",
        "pipeline",
        "{{ $value }} placements have no series of their own",
        "The exporter is at its cap: {{ $value }} placements are summed as `other`, and no alert watches "
        "them.",
        timedelta(minutes=10),
    ),
)

PIPELINE: Final = Group("audiopixel-pipeline", (*RECORDS, *ALERTS))
