"""Every query of every panel on a stack that stands still: no panel divides by what has not moved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_support import Site, eventually, prometheus, scrape
from test_panels_data import TARGETS, chosen

from dashboards.rules import PLACEMENTS_JOB
from flows import metrics, process_metrics

pytestmark = pytest.mark.debian

SAID = {"placement": "p", "campaign": "c", "platform": "s", "currency": "GBP", "state": "under"}
DEFINED = (
    *metrics.PIPELINE,
    *metrics.PLACEMENT,
    *metrics.CAMPAIGN,
    *metrics.EXPORTER,
    *metrics.TAGS,
    *metrics.PLATFORM,
    *process_metrics.COLLECT,
    *process_metrics.EXPORT,
)


def still() -> bytes:
    """All metrics by their definitions; nothing counts."""
    lines = []
    for one in DEFINED:
        labels = ",".join(f'{name}="{SAID.get(name, "x")}"' for name in one.labels)
        if one.kind == "histogram":
            for bound in ("0.1", "+Inf"):
                lines.append(f'{one.name}_bucket{{{labels}{"," if labels else ""}le="{bound}"}} 7')
            lines += [f"{one.name}_{part}{{{labels}}} 7" for part in ("sum", "count")]
        else:
            lines.append(f"{one.name}{{{labels}}} 0.5")
    return "\n".join([*lines, ""]).encode()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus that has scraped it for some seconds."""
    with Site(lambda *_: (200, still())) as site:
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape(PLACEMENTS_JOB, site.port)]}
        with prometheus(tmp_path_factory.mktemp("prometheus"), config) as client:
            counted = {"query": "count_over_time(audiopixel_placement_starts_total[1m]) > 2"}
            eventually(lambda: client.get("/api/v1/query", params=counted).json()["data"]["result"])
            yield client


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_a_panel_of_an_idle_stack_shows_a_number_or_nothing(
    panel: dict[str, Any], target: dict[str, Any], idle: httpx.Client
) -> None:
    asked = {"query": chosen(target["expr"], "p"), "time": time.time()}
    found = idle.get("/api/v1/query", params=asked).raise_for_status().json()["data"]["result"]
    assert [series for series in found if series["value"][1] in ("NaN", "+Inf", "-Inf")] == [], asked["query"]
