"""The dashboard *Pipeline*: whether the numbers can be trusted, and the part that is stuck if they cannot."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import queries as q
from dashboards.exports import EXPORTS
from dashboards.layout import Row, board
from dashboards.panels import AMBER, GREEN, RED, Column, Query, Steps, lines, number, rows
from dashboards.pipeline_rules import BLINDING
from dashboards.platforms import platforms
from dashboards.rules import EXPORTER_JOB, FLOW_JOB, PLACEMENTS_JOB
from flows import metrics as m

UID: Final = "audiopixel-pipeline"

_OURS: Final = f'job=~"{FLOW_JOB}|{PLACEMENTS_JOB}|{EXPORTER_JOB}"'
_UP: Final[Steps] = ((None, RED), (1, GREEN))
_WATERMARK: Final[Steps] = ((None, GREEN), (90, AMBER), (300, RED))
_FLUSH: Final[Steps] = ((None, GREEN), (10, AMBER), (120, RED))
_SHARE: Final[Steps] = ((None, GREEN), (0.02, AMBER), (0.05, RED))
_ANY: Final[Steps] = ((None, GREEN), (1, AMBER))

_NOW: Final = Row(
    "Now",
    4,
    4,
    [
        number(
            "Targets up",
            "Share of the known workers of the flow and exporters that Prometheus reaches.",
            "percentunit",
            Query(f"avg(up{{{q.MATCH}, {_OURS}}})"),
            steps=_UP,
            alert="AudiopixelPipelineDown",
        ),
        number(
            "Last write to Redis",
            "Age of the latest flush; a second is healthy.",
            "s",
            Query(q.age(m.EXPORTER_LAST_FLUSH)),
            steps=_FLUSH,
            alert="AudiopixelPipelineStalled",
        ),
        number(
            "Watermark",
            "How far event time is behind the clock: 10 s is healthy, on a quiet topic 60 s.",
            "s",
            Query(q.age(m.EXPORTER_WATERMARK)),
            steps=_WATERMARK,
            alert="AudiopixelPipelineLagging",
        ),
        number(
            "Messages waiting",
            "In all partitions, not read yet.",
            "short",
            Query(f"sum({q.select(m.LAG)})"),
            steps=((None, GREEN), (100_000, AMBER), (1_000_000, RED)),
            alert="AudiopixelPipelineLagging",
        ),
        number(
            "Rejected",
            "Share of the messages that go to the dead letters; empty while none come.",
            "percentunit",
            Query(q.share(m.REJECTED, m.RECEIVED)),
            steps=_SHARE,
            alert="AudiopixelPipelineRejecting",
        ),
        number(
            "Placements cut",
            "Beyond the exporter's cap, shown only as part of other.",
            "short",
            Query(f"max({q.select(m.EXPORTER_CUT)})"),
            steps=_ANY,
            alert="AudiopixelExporterTruncating",
        ),
    ],
)

_INPUT: Final = Row(
    "Input",
    8,
    8,
    [
        lines(
            "What became of the messages",
            "Each is accepted, repeated or rejected; invalid traffic is a part of what is accepted.",
            "cps",
            [
                Query(q.per_second(m.RECEIVED), "received"),
                Query(q.per_second(m.ACCEPTED), "accepted"),
                Query(q.per_second(m.REPEATED), "repeated"),
                Query(q.per_second(m.REJECTED), "rejected"),
                Query(q.per_second(m.INVALID_TRAFFIC), "invalid traffic"),
            ],
            alert="AudiopixelPipelineRejecting",
        ),
        lines(
            "Rejected, by reason",
            "What went to the dead letters, and pixels whose clock was off by more than five minutes.",
            "cps",
            [
                Query(q.per_second(m.REJECTED, by="reason"), "{{reason}}"),
                Query(q.per_second(m.CLOCK_SKEWED), "clock off (accepted)"),
            ],
            alert="AudiopixelPipelineRejecting",
        ),
        lines(
            "Received, by partition",
            "A partition far above the others is a key that is too hot.",
            "cps",
            [Query(q.per_second(m.RECEIVED, by="partition"), "{{partition}}")],
            alert="AudiopixelInputSilent",
        ),
        lines(
            "Messages waiting, by partition",
            "Not read yet. A partition in which they only grow is stuck.",
            "short",
            [Query(f"max by (partition) ({q.select(m.LAG)})", "{{partition}}")],
            alert="AudiopixelPipelineLagging",
        ),
        lines(
            "Watermark age, by partition",
            "The oldest watermark holds back final minutes; a partition that is not read does not advance.",
            "s",
            [Query(q.age(m.PARTITION_WATERMARK, "partition"), "{{partition}}")],
            alert="AudiopixelPipelineStalled",
        ),
        lines(
            "Errors of Kafka, and messages skipped",
            "Errors a second from which the client recovers, and the messages lost to retention before the "
            "flow read them, since its start.",
            "short",
            [
                Query(q.per_second(m.KAFKA_ERRORS), "errors a second"),
                # Not a rate: messages are skipped before the first scrape.
                Query(f"sum({q.select(m.SKIPPED)})", "skipped in all"),
            ],
            alert="AudiopixelMessagesLost",
        ),
    ],
)

_OUTPUT: Final = Row(
    "Output",
    8,
    8,
    [
        lines(
            "From a pixel's receipt until Redis shows it",
            "p50: half of the pixels are faster. p99: 99 of 100 are faster.",
            "s",
            [
                Query(q.quantile(m.EVENT_TO_REDIS, 0.5), "p50"),
                Query(q.quantile(m.EVENT_TO_REDIS, 0.99), "p99"),
            ],
            steps=((None, GREEN), (2, AMBER)),
            alert="AudiopixelPipelineLagging",
        ),
        lines(
            "A flush takes",
            "Writing one tick's rows to Redis; a second is the whole interval.",
            "s",
            [
                Query(q.quantile(m.FLUSH_DURATION, 0.5), "p50"),
                Query(q.quantile(m.FLUSH_DURATION, 0.99), "p99"),
            ],
            steps=((None, GREEN), (1, AMBER)),
            alert="AudiopixelRedisFailing",
        ),
        lines(
            "Rows written, and waiting",
            "Rows a second that Redis took, and changed rows that it has not taken yet.",
            "short",
            [
                Query(q.per_second(m.FLUSHED_ROWS), "written a second"),
                Query(f"sum({q.select(m.PENDING_ROWS)})", "waiting"),
            ],
            alert="AudiopixelRedisFailing",
        ),
        lines(
            "Errors of Redis",
            "Flushes a second that Redis refused, which are repeated; and 1 while the exporter can read.",
            "short",
            [
                Query(
                    f"{q.per_second(m.REDIS_ERRORS)} or 0 * max({q.select(m.PENDING_ROWS)})", "failed flushes"
                ),
                Query(f"min({q.select(m.EXPORTER_UP)})", "exporter reads"),
            ],
            alert="AudiopixelRedisFailing",
        ),
        lines(
            "A scrape of the placements takes",
            "99 of 100 scrapes are faster: the time to render, and the time to read Redis.",
            "s",
            [
                Query(q.quantile(m.EXPORTER_RENDER, 0.99), "render"),
                Query(q.quantile(m.EXPORTER_REFRESH, 0.99), "read"),
            ],
            steps=((None, GREEN), (1, AMBER)),
        ),
        lines(
            "Age of what the exporter read",
            "It reads Redis at every scrape.",
            "s",
            [Query(q.age(m.EXPORTER_READ), "age")],
            alert="AudiopixelRedisFailing",
        ),
    ],
)

_STATE: Final = Row(
    "State",
    8,
    6,
    [
        lines(
            "Plays and touches remembered",
            "Plays for half an hour behind the watermark, touches as long as they may be credited.",
            "short",
            [
                Query(f"sum({q.select(m.STATE_PLAYS)})", "plays"),
                Query(f"sum({q.select(m.STATE_TOUCHES)})", "touches"),
                Query(f"sum({q.select(m.DROPPED_TOUCHES)})", "touches given up"),
                Query(f"sum({q.select(m.CAPPED_DECISIONS)})", "conversions that it may have changed"),
            ],
        ),
        lines(
            "Memory of plays",
            "Of all shards; a few tens of bytes a play.",
            "bytes",
            [Query(f"sum({q.select(m.STATE_BYTES)})", "plays")],
        ),
        lines(
            "Rows kept",
            "Of placements and their roll-ups.",
            "short",
            [Query(f"sum({q.select(m.STATE_ROWS)})", "rows")],
        ),
        lines(
            "The flow's own clock",
            "Age of its watermark and of its last write. While it reads pixels again that Redis already has, "
            "the first falls, and the second grows.",
            "s",
            [Query(q.age(m.WATERMARK), "watermark age"), Query(q.age(m.LAST_FLUSH), "last flush ago")],
            alert="AudiopixelPipelineStalled",
        ),
    ],
)

_RUNS: Final = Row(
    "What runs",
    6,
    12,
    [
        rows(
            "Versions",
            "Of each worker of the flow.",
            [Query(q.select(m.BUILD))],
            [
                Column("Worker", "instance"),
                Column("audiopixel", "version"),
                Column("Bytewax", "bytewax"),
                Column("Python", "python"),
            ],
            sort="Worker",
        ),
        rows(
            "Alerts that fire",
            "Of the pipeline. Delivery is not judged while one of these fires: "
            f"{', '.join(name.removeprefix('Audiopixel') for name in BLINDING)}.",
            [Query(q.firing('area="pipeline"'))],
            [Column("Alert", "alertname"), Column("Severity", "severity"), Column("Job", "job")],
            sort="Severity",
            alert="AudiopixelPipelineDown",
        ),
    ],
)


def pipeline() -> Dashboard:
    """The dashboard."""
    return board(
        UID,
        "Pipeline",
        "Whether the numbers can be trusted, and the part that is stuck if they cannot.",
        [_NOW, _INPUT, Row("Platforms", 8, 24, [platforms()]), _OUTPUT, EXPORTS, _STATE, _RUNS],
        job_metric="up",
        since="now-3h",
    )
