"""The declarations of the catalogue lead to what is derived from them, each exactly once."""

from __future__ import annotations

from collections import Counter

import pytest

from flows import metrics
from flows.definition import PREFIX
from flows.model.catalogue.columns import COLUMNS, GROUPS, ORDERS
from flows.model.catalogue.metrics import METRICS
from flows.model.fields import FIELDS

SERIES = [(metric, series) for metric in METRICS for series in metric.series]


def test_each_catalogue_series_is_defined_once_with_its_field() -> None:
    of_rows = (metrics.PLACEMENT, metrics.CAMPAIGN, metrics.PLATFORM)
    defined = Counter((one.name, one.help, one.field) for of in of_rows for one in of)
    declared = Counter((PREFIX + one.name, one.help, metric.field(one.window)) for metric, one in SERIES)
    assert len(declared) > 50
    assert declared <= defined
    assert set(declared.values()) == {1}


def test_a_series_shows_a_window_of_its_metric() -> None:
    assert {
        one.name for metric, one in SERIES if metric.windows and one.window not in metric.windows
    } == set()


def test_the_series_of_a_field_is_found_by_it() -> None:
    assert metrics.PLACEMENT["flight.starts"].name == "audiopixel_placement_starts_total"
    for unknown in ("flight.shoes", ""):
        with pytest.raises(KeyError):
            metrics.PLACEMENT[unknown]


def test_columns_show_row_fields_in_groups() -> None:
    keys = [column.key for column in COLUMNS]
    assert len(keys) == len(set(keys))
    assert {field for column in COLUMNS for field in column.fields} <= set(FIELDS)
    assert {column.group for column in COLUMNS if column.rank} == set(GROUPS)
    assert {column.key for column in COLUMNS if not column.group} == {"state", "id"}


def test_an_order_is_by_a_column_in_its_own_direction() -> None:
    downward = {column.key: column.down for column in COLUMNS}
    assert {key: downward[key.removeprefix("-")] for key in ORDERS if key} == {
        key: key.startswith("-") for key in ORDERS if key
    }
