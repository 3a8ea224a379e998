"""The alerts about collectors and about the tags that call them.

A collector that is down or refuses loses pixels for good, so its alerts are critical. Alerts about tags go to
traders, who placed the tags.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dashboards.rules import COLLECTOR_JOB, Alert, Group, Record, listed, number, shown
from flows import process_metrics as m
from flows.metrics import CLONED, SILENT_TAGS

FULL: Final = 0.5
"""Share of a spool from which an alert fires."""
UNREPLACED: Final = 0.05
"""Share of an hour's events with one unreplaced macro from which an alert fires."""
MIN_EVENTS: Final = 100
"""The fewest events of an hour by which macros, senders and consent are judged."""
REJECTED: Final = 0.05
"""Rejected share of a sender's calls of the last hour from which an alert fires."""
CLOCK_S: Final = 60
"""The offset of a clock, in s, from which an alert fires. A collector that is as far ahead of its machine's
clock changes its lane by itself, once Kafka has taken its stored events.
"""
FALLEN_CONSENT: Final = 0.8
"""Part of the usual share of consent below which an alert fires."""
OWN_FAULTS: Final = 'reason=~"store|clock|plans|busy"'
"""Refusals that are the collector's fault; the others are the caller's."""

EVENTS: Final = "pipeline:audiopixel_collect_events:increase1h"
GIVEN: Final = "pipeline:audiopixel_collect_consent_given:ratio_increase1h"
USUAL_GIVEN: Final = "pipeline:audiopixel_collect_consent_given:avg1d"

_BOARD: Final = "audiopixel-collector"
_UP: Final = f'up{{job="{COLLECTOR_JOB}"}}'
_NOT_GIVEN: Final = f'{m.COLLECT_CONSENT.name}{{reason!="given"}}'
_OWN_REFUSALS: Final = f"{m.COLLECT_REFUSED.name}{{{OWN_FAULTS}}}"
_SENT: Final = f"sum by (sender) (increase({m.COLLECT_SENDERS.name}[1h]))"
_REJECTED: Final = f'sum by (sender) (increase({m.COLLECT_SENDERS.name}{{outcome="rejected"}}[1h]))'
_SENDERS_REJECTED: Final = f'sum(increase({m.COLLECT_SENDERS.name}{{outcome="rejected",sender=%q}}[1h]))'
_REFUSED: Final = f"sum(increase({_OWN_REFUSALS}[5m]))"


def _at_instance(expr: str, form: str = "humanize") -> str:
    return number(expr, "instance", form)


RECORDS: Final = (
    Record(EVENTS, f"sum(increase({m.COLLECT_EVENTS.name}[1h]))"),
    Record(
        GIVEN,
        f"""sum(increase({m.COLLECT_CONSENT.name}{{reason="given"}}[1h]))
/ (sum(increase({m.COLLECT_CONSENT.name}[1h])) >= {MIN_EVENTS})""",
    ),
    Record(USUAL_GIVEN, f"avg_over_time({GIVEN}[1d] offset 1h)"),
)

ALERTS: Final = (
    Alert(
        "AudiopixelCollectorDown",
        f"{_UP} == 0",
        "critical",
        "pipeline",
        f"Collector {shown('$labels.instance')} is down or not scraped",
        f"Prometheus reaches {number(f'sum({_UP})')} of "
        f"{number(f'count({_UP})')} collectors. Calls that no other collector answers are "
        "lost. What this one has stored stays on its spool and is sent when it is back.",
        timedelta(minutes=2),
        board=_BOARD,
    ),
    Alert(
        "AudiopixelCollectorRefusing",
        f"{_REFUSED} > 0",
        "critical",
        "pipeline",
        "Collectors refused {{ $value | printf `%.0f` }} events in five minutes",
        "They could store them neither in Kafka nor on the spool, had more calls in hand than they take, or "
        "had no plans to judge them by, and answered 503. Players and tags that do not retry lose their "
        "pixel. Reasons: "
        f"{listed(f'sum by (reason) (increase({_OWN_REFUSALS}[5m])) > 0', '.Labels.reason')}. The fullest "
        f"spool is at {number(f'100 * max({m.COLLECT_SPOOL_FULL.name})', form='printf `%.0f`')} %.",
        timedelta(minutes=1),
        board=_BOARD,
    ),
    Alert(
        "AudiopixelCollectorSpoolFilling",
        f"""{m.COLLECT_SPOOL_FULL.name} > {FULL}
or ({m.COLLECT_SPOOL_FULL.name} > 0.1 and predict_linear({m.COLLECT_SPOOL_FULL.name}[15m], 3600) > 1)""",
        "warning",
        "pipeline",
        f"The spool of {shown('$labels.instance')} is "
        f"{_at_instance(f'100 * {m.COLLECT_SPOOL_FULL.name}{{instance=%q}}', 'printf `%.0f`')} % full",
        f"{_at_instance(f'{m.COLLECT_RESTING.name}{{instance=%q}}')} events wait for Kafka, the oldest for "
        f"{_at_instance(f'{m.COLLECT_OLDEST.name}{{instance=%q}}', 'humanizeDuration')}. "
        "When the spool is full the collector refuses calls, and their pixels are lost.",
        timedelta(minutes=5),
        board=_BOARD,
    ),
    Alert(
        "AudiopixelCollectorClock",
        f"abs({m.COLLECT_CLOCK.name}) > {CLOCK_S}",
        "critical",
        "pipeline",
        f"The clock of collector {shown('$labels.instance')} is off by {{{{ $value | humanizeDuration }}}}",
        "It is compared with {{ if eq $labels.witness `wall` }}its machine's clock, which was set back. The "
        "collector waits for Kafka to take all that it has stored before it goes on by the right time"
        "{{ else }}the brokers' clocks: either its machine's clock is wrong, or theirs{{ end }}. Meanwhile "
        "its pixels may be too late to count.",
        timedelta(minutes=3),
        board=_BOARD,
    ),
    Alert(
        "AudiopixelCollectorCloned",
        f"max by (directory) ({CLONED.name}) > 0",
        "warning",
        "pipeline",
        f"Two collectors write as {shown('$labels.directory')}",
        f"The spool directory of collector {shown('$labels.directory')} was copied, with a disk or an image, "
        "and two processes write in its name. The pipeline waits for both of them, so nothing is lost. What "
        "was on the copied spool is sent twice, and counts once.",
        timedelta(minutes=5),
        board=_BOARD,
    ),
    Alert(
        "AudiopixelTagSilent",
        f'max({SILENT_TAGS.name}{{why="never_fired"}}) > 0',
        "warning",
        "tags",
        "{{ $value | printf `%.0f` }} placements have signed tags that have never fired",
        "The tags of {{ $value | printf `%.0f` }} placements were built over a day ago, and no pixel has "
        "come from them. Either the ads are not running, or the tags were not pasted as they were built.",
        timedelta(hours=1),
        board=_BOARD,
    ),
    Alert(
        "AudiopixelMacrosUnreplaced",
        f"""sum by (dialect, parameter) (increase({m.COLLECT_CLEANED.name}{{how="unreplaced"}}[1h]))
/ on () group_left () ({EVENTS} >= {MIN_EVENTS})
> {UNREPLACED}""",
        "warning",
        "tags",
        f"Tags of {shown('$labels.dialect')} arrive with the macro of {shown('$labels.parameter')} "
        f"unreplaced",
        "It is in {{ $value | humanizePercentage }} of the last hour's events. The vendor does not replace "
        f"this macro: {shown('$labels.parameter')} is missing from their pixels. `audiopixel tag --check "
        "URL` shows what the vendor supports.",
        timedelta(minutes=15),
        labels={},
        board=_BOARD,
    ),
    Alert(
        "AudiopixelSenderRejected",
        f"""{_REJECTED}
/ ({_SENT} >= {MIN_EVENTS})
> {REJECTED}""",
        "warning",
        "tags",
        f"{{{{ $value | humanizePercentage }}}} of the calls of {shown('$labels.sender')} are rejected",
        f"{number(_SENDERS_REJECTED, 'sender', 'printf `%.0f`')} of its calls of the last hour are no pixels "
        "and count nowhere. Reasons of all senders: "
        f"{listed(f'sum by (reason) (increase({m.COLLECT_REJECTED.name}[1h])) > 0', '.Labels.reason')}. "
        "`audiopixel rejected --sender NAME` lists them with examples.",
        timedelta(minutes=15),
        labels={},
        board=_BOARD,
    ),
    Alert(
        "AudiopixelConsentFalling",
        f"""{GIVEN} < {FALLEN_CONSENT} * {USUAL_GIVEN}
and count_over_time({GIVEN}[1d] offset 1h) >= 360""",
        "warning",
        "tags",
        "Consent has fallen to {{ $value | humanizePercentage }} of pixels",
        f"The average of the last day is {number(USUAL_GIVEN, form='humanizePercentage')}. Reach, frequency "
        "and conversions count consented listeners alone and fall with it; impressions and delivery do not. "
        "Most frequent reason without consent: "
        f"{{{{ range query `topk(1, sum by (reason) (increase({_NOT_GIVEN}[1h])))` }}}}"
        "{{ .Labels.reason }}{{ end }}.",
        timedelta(minutes=15),
        board=_BOARD,
    ),
)

COLLECTOR: Final = Group("audiopixel-collector", (*RECORDS, *ALERTS))
