"""The limit for a flow that writes nothing is the same for page, top, exporter, alerts and clients."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import audiopixel_client.rows as client_rows
import pytest

from dashboards.pipeline_rules import ALERTS
from flows.model.freshness import FLUSH_STALE, FLUSH_STALE_S
from flows.viewers import feed
from flows.viewers.reader import Snapshot
from flows.viewers.top_lines import unjudged, verdict

ROOT = Path(__file__).parents[3]


def text(path: str) -> str:
    return (ROOT / path).read_text()


def spelt(path: str, expression: str) -> set[float]:
    found = re.findall(expression, text(path))
    assert found, (path, expression)
    return {float(number.replace("_", "")) for number in found}


STALLED = next(alert for alert in ALERTS if alert.name == "AudiopixelPipelineStalled")
PLACES: dict[str, Callable[[], set[float]]] = {
    "the client for Python": lambda: {client_rows.STALE_S},
    "the client for Node": lambda: {
        ms / 1000 for ms in spelt("clients/node/rows.js", r"STALE_MS = ([\d_]+)")
    },
    "examples/bidder.py": lambda: {ms / 1000 for ms in spelt("examples/bidder.py", r"flushed_ms > ([\d_]+)")},
    "AudiopixelPipelineStalled": lambda: {
        float(s) for s in re.findall(r"flush_age_seconds:min (?:<=|>) (\d+)", STALLED.expr)
    },
    "docs/bidders.md": lambda: spelt("docs/bidders.md", r"is at most \*\*(\d+) s\*\* old"),
    "docs/contracts.md": lambda: spelt("docs/contracts.md", r"`flushed_ms` is more than (\d+) s old"),
    "docs/runbook.md": lambda: spelt(
        "docs/runbook.md",
        r"(?:[Nn]othing (?:has been|was) written (?:to Redis )?for|`flushed_ms` is less than) (\d+) s\b",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_copy_of_the_staleness_limit_is_equal(place: str) -> None:
    assert PLACES[place]() == {FLUSH_STALE_S}


def seen(age_s: float) -> Snapshot:
    written = {"watermark_ms": "990000", "flushed_ms": "1000000", "judged": "1"}
    return Snapshot(up=True, error="", read_s=1_000 + age_s, meta=written)


def test_all_viewers_stop_judging_above_the_same_limit() -> None:
    for age_s, judged in ((FLUSH_STALE_S, True), (FLUSH_STALE_S + 1, False)):
        snapshot, now_s = seen(age_s), 1_000 + age_s
        assert (snapshot.unjudged_at(now_s) is None) == judged
        assert (unjudged(snapshot, now_s) is None) == judged
        assert verdict(snapshot, now_s)[0].startswith("slow" if judged else "stalled")


def test_the_page_has_its_limit_from_the_server() -> None:
    assert feed._status(seen(1))["stale_s"] == FLUSH_STALE.total_seconds()
    assert text("flows/viewers/static/bar.js").count("> status.stale_s") == 2
