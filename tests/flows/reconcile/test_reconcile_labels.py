"""The oracle and labels that no plan lists: as absent there as in the flow, whatever line they come in."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.redis.client import Client
from flows.cli.commands import app
from flows.cli.reconcile_settings import rules
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings.fields import Settings

T0 = 1_764_000_000_000
KEY = b"a key of sixteen bytes or more"
PLANS = [
    {"placement_id": "a", "campaign_id": "c", "platforms": ["web", "tv"], "stations": ["one", "semi;colon"]},
    {"placement_id": "quiet", "podcasts": ["pod"], "programs": ["one"], "creatives": ["spot"]},
]
FLIGHT = {"booked": 1000, "start": "2025-11-24T00:00Z", "end": "2025-11-26T00:00Z"}
NAMES: dict[str, tuple[str | None, ...]] = {
    "platform": ("web", "tv", "radio", None),
    "station": ("one", "semi;colon", "two", "pod", "One", "[STATION]", "x" * 128, None),
    "podcast": ("pod", "cast", None),
    "program": ("one", "two", None),
    "creative_id": ("spot", "jingle", None),
}
LISTED = {
    "platform": {"web", "tv"},
    "station": {"one", "semi;colon"},
    "podcast": {"pod"},
    "program": {"one"},
    "creative": {"spot"},
}


@pytest.fixture
def planned(tmp_path: Path, settings_of: Callable[..., Settings]) -> Settings:
    (tmp_path / "plans.json").write_text(json.dumps([FLIGHT | plan for plan in PLANS]))
    basis = {"radio": "audible_2s", "tv": "streamed_full"}
    return settings_of(plans=tmp_path / "plans.json", labels="planned", platform_basis=basis)


def log(directory: Path) -> Path:
    """All kinds of pixels, each with names of its own; some in lines that no fast way in reads."""
    source, lines = random.Random(7), list[dict[str, Any]]()
    for number in range(600):
        event = source.choice(
            ("impression", "impression", "start", "click", "download", "delivered", "conversion")
        )
        line = {"event": event, "event_id": f"e{number}", "ts": T0 + 900 * number, "consent": True}
        line |= {"placement_id": source.choice(("a", "b")), "campaign_id": "c", "user_agent": "Spotify/8.9"}
        line |= {"listener_id": f"l{source.randrange(9)}", "client_id": f"k{source.randrange(5)}"}
        line |= {name: source.choice(values) for name, values in NAMES.items()}
        if event == "conversion":
            line |= {
                "conversion": {"type": "purchase", "value": "2", "currency": "GBP"},
                "placement_id": None,
            }
        if source.random() < 0.3:
            line["play_id"] = f"p{source.randrange(90)}"
        if source.random() < 0.2:
            line["episode"] = "e1"
        if source.random() < 0.3:
            line["basis"] = source.choice(("download", "audible_2s"))
        if source.random() < 0.1:
            line["other"] = "a \t line that is not plain"
        lines.append({name: value for name, value in line.items() if value is not None})
    file = directory / "log.ndjson"
    file.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return file


def test_unlisted_labels_have_no_row_in_flow_and_oracle(
    planned: Settings,
    client: Client,
    tmp_path: Path,
    rows_of: Callable[[Settings, str], dict[str, dict[str, str]]],
) -> None:
    file = log(tmp_path)
    replay([str(file)], planned, KEY)
    known = rules(planned)
    truth = recompute([file], known)
    assert differences(truth, client, planned.namespace) == []
    for scope, names in LISTED.items():
        assert set(rows_of(planned, scope)) == names
    placements = rows_of(planned, "placement")
    labels = ("platform", "station", "podcast", "program", "creative_id")
    shown = {name: {row.get(name) for row in placements.values()} - {None} for name in labels}
    assert all(shown[name] <= LISTED[name.removesuffix("_id")] for name in labels), shown

    # All pixels count: the sums equal those of a flow without listed labels.
    anything = recompute([file], replace(known, labels="any"))
    for key in (("placement", "a"), ("placement", "b"), ("campaign", "c")):
        for name in ("flight.pixels", "flight.impressions", "flight.deliveries", "flight.reach"):
            assert truth.flight[key][name] == anything.flight[key][name] > 0, (key, name)
    different = {(one.scope, one.id) for one in differences(anything, client, planned.namespace)}
    assert {
        ("station", "two"),
        ("platform", "radio"),
        ("podcast", "cast"),
        ("creative", "jingle"),
    } < different


def test_the_command_takes_the_labels_of_the_settings(
    planned: Settings, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = log(tmp_path)
    replay([str(file)], planned, KEY)
    known = {
        "REDIS_URL": planned.redis_url.get_secret_value(),
        "NAMESPACE": planned.namespace,
        "PLANS": str(planned.plans),
        "PLATFORM_BASIS": json.dumps(planned.platform_basis),
        "LABELS": "planned",
    }
    for name, value in known.items():
        monkeypatch.setenv(f"AUDIOPIXEL_{name}", value)
    told = CliRunner().invoke(app, ["reconcile", str(file)])
    assert (told.exit_code, told.output.split(" in ")[0]) == (0, "0 differences"), told.output
    with monkeypatch.context() as without:
        without.delenv("AUDIOPIXEL_PLANS")
        told = CliRunner().invoke(app, ["reconcile", str(file)])
        assert (told.exit_code, "AUDIOPIXEL_PLANS is not set" in told.output) == (2, True)
    monkeypatch.setenv("AUDIOPIXEL_LABELS", "any")
    told = CliRunner().invoke(app, ["reconcile", str(file)])
    assert told.exit_code == 1
    assert "impressions_audible_2s" in told.output  # of a platform that no plan lists
