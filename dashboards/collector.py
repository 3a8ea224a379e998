"""The dashboard *Collector*: events that the collectors stored and refused, and the mistakes of callers."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from dashboards import queries as q
from dashboards.collector_rules import FULL
from dashboards.layout import Row, board
from dashboards.panels import AMBER, GREEN, RED, Query, Steps, lines, number
from flows import process_metrics as m

UID: Final = "audiopixel-collector"

_NONE: Final[Steps] = ((None, GREEN), (1, RED))
_SPOOL: Final[Steps] = ((None, GREEN), (0.1, AMBER), (FULL, RED))
_WAIT: Final[Steps] = ((None, GREEN), (60, AMBER), (300, RED))


def _rate_by(definition: m.Definition, by: str) -> Query:
    """A counter's rate by one label."""
    return Query(q.per_second(definition, by=by), f"{{{{{by}}}}}")


def _now() -> list[Panel]:
    consented = q.per_second(m.COLLECT_CONSENT, 'reason="given"')
    return [
        number(
            "Events a second",
            "Events of all calls, whatever became of them.",
            "cps",
            Query(q.per_second(m.COLLECT_EVENTS)),
        ),
        number(
            "Refused, 5 min",
            "Events answered 503 because neither Kafka nor the spool took them: they are lost unless the "
            "caller repeats them.",
            "locale",
            Query(f"sum(increase({q.select(m.COLLECT_REFUSED)}[5m]))"),
            steps=_NONE,
            alert="AudiopixelCollectorRefusing",
        ),
        number(
            "Fullest spool",
            "Share of its spool that the fullest collector uses; at 100 % it refuses.",
            "percentunit",
            Query(f"max({q.select(m.COLLECT_SPOOL_FULL)})"),
            steps=_SPOOL,
            alert="AudiopixelCollectorSpoolFilling",
        ),
        number(
            "Oldest stored event",
            "Age of the event that has waited longest for Kafka; rolling windows and pacing wait for it.",
            "s",
            Query(f"max({q.select(m.COLLECT_OLDEST)})"),
            steps=_WAIT,
            alert="AudiopixelCollectorHold",
        ),
        number(
            "Ready",
            "Share of the collectors to which a balancer may send calls.",
            "percentunit",
            Query(f"avg({q.select(m.COLLECT_READY)})"),
            steps=((None, RED), (1, GREEN)),
            alert="AudiopixelCollectorDown",
        ),
        number(
            "Consent given",
            "Share of the pixels that may be measured.",
            "percentunit",
            Query(f"{consented} / ({q.per_second(m.COLLECT_CONSENT)} > 0)"),
            alert="AudiopixelConsentFalling",
        ),
    ]


def _calls() -> list[Panel]:
    return [
        lines(
            "What became of the events",
            "Stored events are counted; the others are rejected, not counted or refused.",
            "cps",
            [_rate_by(m.COLLECT_EVENTS, "outcome"), Query(q.per_second(m.COLLECT_ACKNOWLEDGED), "in Kafka")],
            alert="AudiopixelCollectorRefusing",
        ),
        lines(
            "Rejected, by reason",
            "Events that are no pixels: the caller's mistake.",
            "cps",
            [_rate_by(m.COLLECT_REJECTED, "reason")],
        ),
        lines("Answers, by status", "Of all calls.", "cps", [_rate_by(m.COLLECT_ANSWERS, "status")]),
        lines(
            "Refused and not counted, by reason",
            "Refused events were not stored; calls that are not counted are nobody's listening.",
            "cps",
            [_rate_by(m.COLLECT_REFUSED, "reason"), _rate_by(m.COLLECT_NOT_COUNTED, "reason")],
            alert="AudiopixelCollectorRefusing",
        ),
        lines(
            "Events on the spool",
            "They are safe, and wait for Kafka.",
            "locale",
            [Query(f"sum by (instance) ({q.select(m.COLLECT_RESTING)})", "{{instance}}")],
            alert="AudiopixelCollectorSpoolFilling",
        ),
        lines(
            "Low mark, age by collector",
            "Age of the oldest event that is not in the log; pacing waits for it.",
            "s",
            [Query(f"time() - min by (instance) ({q.select(m.COLLECT_LOW)})", "{{instance}}")],
            steps=_WAIT,
            alert="AudiopixelCollectorHold",
        ),
    ]


def _stages() -> list[Panel]:
    return [
        lines(
            "Time of a call, by stage",
            "Mean of one call in 64. All stages but durable are work of this process's one core; durable "
            "waits for Kafka, or for the disk.",
            "s",
            [Query(q.mean(m.COLLECT_STAGE, "stage"), "{{stage}}")],
        ),
        lines(
            "Time of a call, by stage, of 99 in 100",
            "99 of 100 calls take no longer. Callers give up after one to five seconds.",
            "s",
            [Query(q.quantile(m.COLLECT_STAGE, 0.99, "stage"), "{{stage}}")],
        ),
    ]


def _callers() -> list[Panel]:
    rejected = q.per_second(m.COLLECT_SENDERS, 'outcome="rejected"', by="sender")
    unreplaced = q.per_second(m.COLLECT_CLEANED, 'how="unreplaced"', by="dialect")
    return [
        lines(
            "Unreplaced macros, by dialect",
            "Values that are still a macro, since the vendor did not replace it.",
            "cps",
            [Query(unreplaced, "{{dialect}}")],
            alert="AudiopixelMacrosUnreplaced",
        ),
        lines(
            "Rejected, by sender",
            "Share of each sender's calls that are no pixels.",
            "percentunit",
            [Query(f"{rejected} / ({q.per_second(m.COLLECT_SENDERS, by='sender')} > 0)", "{{sender}}")],
            alert="AudiopixelSenderRejected",
        ),
        lines(
            "Consent, by reason",
            "Each pixel's decision: given, or why not.",
            "cps",
            [_rate_by(m.COLLECT_CONSENT, "reason")],
            alert="AudiopixelConsentFalling",
        ),
        lines(
            "Invalid traffic, by reason",
            "Pixels kept out of every other number.",
            "cps",
            [_rate_by(m.COLLECT_INVALID, "reason")],
        ),
    ]


def collector() -> Dashboard:
    """The dashboard."""
    return board(
        UID,
        "Collector",
        "The collectors: calls, stored and refused events, events that wait, and the mistakes of callers.",
        [
            Row("Now", 4, 4, _now()),
            Row("Calls", 8, 8, _calls()),
            Row("Callers", 8, 6, _callers()),
            Row("Stages", 8, 12, _stages()),
        ],
        job_metric=m.COLLECT_EVENTS.name,
    )
