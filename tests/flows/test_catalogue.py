"""The declarations of the catalogue lead to what is derived from them, each exactly once."""

from __future__ import annotations

from collections import Counter

import pytest

from flows import metrics
from flows.definition import PREFIX
from flows.model.catalogue.metrics import METRICS

SERIES = [(metric, series) for metric in METRICS for series in metric.series]


def test_each_series_of_the_catalogue_is_defined_once_with_the_field_that_it_shows() -> None:
    of_rows = (metrics.PLACEMENT, metrics.CAMPAIGN, metrics.PLATFORM, *metrics.BESIDE.values())
    defined = Counter((one.name, one.help, one.field) for of in of_rows for one in of)
    declared = Counter((PREFIX + one.name, one.help, metric.field(one.window)) for metric, one in SERIES)
    assert len(declared) > 50
    assert declared <= defined
    assert set(declared.values()) == {1}


def test_a_series_shows_a_window_that_its_metric_has() -> None:
    assert {
        one.name for metric, one in SERIES if metric.windows and one.window not in metric.windows
    } == set()


def test_the_series_of_a_field_is_found_by_it() -> None:
    assert metrics.PLACEMENT["flight.starts"].name == "audiopixel_placement_starts_total"
    for unknown in ("flight.shoes", ""):
        with pytest.raises(KeyError):
            metrics.PLACEMENT[unknown]
