"""Numbers on any two screens agree: page, `top`, `/v1`, its CSV and Prometheus at one version of the rows."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from access_support import access, app_of, asked, bearer
from page_support import desk_rows, put_desk
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from starlette.applications import Starlette

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect
from flows.settings import load
from flows.viewers import feed
from flows.viewers.columns import BY_KEY, FIELDS
from flows.viewers.desk import Desk
from flows.viewers.reader import RowsReader
from flows.viewers.series import CAMPAIGN_GAUGES, COUNTERS, GAUGES, UNITS

NODE = shutil.which("node")
PAGE = Path(feed.__file__).parent / "static"
SPACE = "screens"
TOP = {
    "short": "delivery.short_by",
    "stake": "delivery.at_stake",
    "stake_end": "delivery.at_stake_end",
    "delivered": "delivery.delivered",
    "booked": "delivery.booked",
    "pacing": "delivery.indicator",
    "ends": "delivery.end_ms",
    "blocked": "flight.blocked_impressions",
    "cost": "flight.cost",
    "hour": "1h.impressions",
}
"""Columns of `top`, by the field that each shows."""
Fields = dict[str, dict[str, float]]
"""Numbers of rows by name and field."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedValkey() as server:
        now_ms = int(time.time() * 1000)
        put_desk(server.url, SPACE, desk_rows(now_ms), now_ms)
        with Redis.from_url(server.url) as client:
            for key in client.scan_iter(f"{SPACE}:*"):
                if b":placement:{" in key or b":campaign:{" in key:
                    client.hset(key, mapping={"generation": 1, "fence": 2, "rev": 3})
        yield server.url


@pytest.fixture(scope="module")
def app(url: str) -> Starlette:
    return app_of(load(redis_url=url, namespace=SPACE), access())


def got(app: Starlette, path: str) -> str:
    (answer,) = asked(app, ("GET", path, bearer("all")))
    assert answer.status_code == 200, answer.text
    return answer.text


def numbers(row: dict[str, object]) -> dict[str, float]:
    found = {}
    for name, value in row.items():
        try:
            found[name] = float(value)  # type: ignore[arg-type]  # a text is none
        except (TypeError, ValueError):
            continue
    return found


@pytest.fixture(scope="module", params=["placement", "campaign"])
def scope(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def truth(app: Starlette, scope: str) -> Fields:
    """The answer of `/v1` for each row, at the version that all have."""
    listed = json.loads(got(app, f"/v1/{scope}s"))[f"{scope}s"]
    found = {}
    for one in listed:
        row = json.loads(got(app, f"/v1/{scope}s/{one['id']}"))
        assert row["version"] == {"generation": 1, "fence": 2, "rev": 3}
        found[one["id"]] = numbers(row["fields"])
        assert numbers(one["fields"]).items() <= found[one["id"]].items(), "a list says no more"
    assert found
    return found


def agree(truth: Fields, name: str, field: str, value: float) -> None:
    assert value == pytest.approx(truth[name][field], rel=1e-9, abs=1e-9), (name, field)


def test_csv_agrees_with_json(app: Starlette, scope: str, truth: Fields) -> None:
    lines = {line[scope]: line for line in csv.DictReader(io.StringIO(got(app, f"/v1/{scope}s?format=csv")))}
    assert lines.keys() == truth.keys()
    compared = 0
    for name, line in lines.items():
        (own,) = csv.DictReader(io.StringIO(got(app, f"/v1/{scope}s/{name}?format=csv")))
        for field in truth[name].keys() & line.keys():
            agree(truth, name, field, float(line[field]))
            agree(truth, name, field, float(own[field]))
            compared += 1
    assert compared > 10 * len(truth)


def test_the_page_agrees_with_json(app: Starlette, scope: str, truth: Fields) -> None:
    whole = json.loads(app.state.feed.whole()[1].partition(b"data: ")[2])
    rows = {
        name: numbers(dict(zip(whole["fields"], cells, strict=True)))
        for name, cells in whole["rows"][scope].items()
    }
    assert rows.keys() == truth.keys()
    for name, row in rows.items():
        opened = json.loads(got(app, f"/row?scope={scope}&id={name}"))
        told = json.loads(got(app, f"/v1/{scope}s/{name}"))
        assert opened["row"]["rev"] == "3"
        assert opened["sentence"] == told["sentence"]
        for field in row:
            agree(truth, name, field, row[field])
        for field in numbers(opened["row"]).keys() & truth[name].keys():
            agree(truth, name, field, float(opened["row"][field]))


def test_figures_computed_by_the_page_agree_with_json(app: Starlette, scope: str, truth: Fields) -> None:
    if NODE is None:
        pytest.skip("needs node: apt-get install nodejs")
    whole = app.state.feed.whole()[1].partition(b"data: ")[2].decode()
    script = f"""import {{ all, desk, short, stake, stakeEnd, delivered }} from "file://{PAGE}/data.js";
        all({whole});
        const found = {{}};
        for (const [id, row] of desk.rows.{scope})
          found[id] = [short(row), stake(row), stakeEnd(row), delivered(row)];
        console.log(JSON.stringify(found));"""
    done = subprocess.run([NODE, "--input-type=module", "-e", script], capture_output=True, text=True)
    found = json.loads(done.stdout or done.stderr)
    assert found.keys() == truth.keys()
    for name, values in found.items():
        for field, value in zip(
            ("delivery.short_by", "delivery.at_stake", "delivery.at_stake_end", "delivery.delivered"),
            values,
            strict=True,
        ):
            if field in truth[name]:
                agree(truth, name, field, value)


def test_top_agrees_with_json(url: str, scope: str, truth: Fields) -> None:
    client = connect(url)
    reader = RowsReader(client, SPACE, FIELDS, scopes=("placement", "campaign"), interval=timedelta(0))
    desk = Desk.from_scopes(reader.refresh().rows, time.time() * 1000)
    assert {row.id for row in desk.rows[scope]} == truth.keys()
    compared = 0
    for row in desk.rows[scope]:
        for key, field in TOP.items():
            if field in truth[row.id]:
                value = BY_KEY[key].value(row)
                assert isinstance(value, int | float)
                agree(truth, row.id, field, value)
                compared += 1
    assert compared > 5 * (len(truth) - 1)


def test_prometheus_agrees_with_json(app: Starlette, scope: str, truth: Fields) -> None:
    gauges = {**GAUGES, **COUNTERS} if scope == "placement" else CAMPAIGN_GAUGES
    samples = {
        (sample.name, sample.labels.get(scope)): sample.value
        for family in text_string_to_metric_families(got(app, "/metrics/placements"))
        for sample in family.samples
    }
    compared = 0
    for definition, field in gauges.items():
        for name in truth:
            value = samples.get((definition.name, name))
            if value is None or field not in truth[name]:
                continue
            unit = UNITS.get(field, str)
            assert value == pytest.approx(float(unit(_text(truth[name][field]))), rel=1e-9), (name, field)
            compared += 1
    assert compared >= 8 * (len(truth) - 1)


def _text(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
