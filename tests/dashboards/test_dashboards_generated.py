"""The generated files are what their Python makes, and every panel says all that a panel must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_support import GENERATED

from dashboards.build import generated, stale, write
from dashboards.site import Site

DOCS = "https://desk.example.com/docs"
LINKED = generated(Site(docs=DOCS))
BOARDS = {
    name.removesuffix(".json"): json.loads(text)
    for name, text in sorted(LINKED.items())
    if name.endswith(".json")
}
PANELS = [
    pytest.param(board, panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]


def test_the_committed_files_are_current() -> None:
    assert stale() == []
    assert {path.name for path in GENERATED.iterdir()} == set(generated())


def test_check_fails_on_an_outdated_file_and_build_renews_it(tmp_path: Path) -> None:
    write(tmp_path)
    assert stale(tmp_path) == []
    (tmp_path / "rules.yml").write_text("groups: []\n")
    (tmp_path / "pipeline.json").unlink()
    assert stale(tmp_path) == ["rules.yml", "pipeline.json"]
    assert write(tmp_path) == ["rules.yml", "pipeline.json"]
    assert stale(tmp_path) == []


@pytest.mark.parametrize("words", [["build", "--to"], ["local"]], ids=lambda words: words[0])
@pytest.mark.parametrize("taken", ["a file", "a file above", "a directory in a file's place"])
def test_an_unwritable_target_is_an_error_of_one_line(words: list[str], taken: str, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    if taken == "a directory in a file's place":
        (directory / "rules.yml").mkdir(parents=True)
    else:
        directory.write_text("")
    to = directory / "below" if taken == "a file above" else directory
    done = subprocess.run(
        [sys.executable, "-m", "dashboards", *words, str(to)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"dashboards: {tmp_path}")


def test_check_exits_with_0_on_the_committed_files() -> None:
    done = subprocess.run([sys.executable, "-m", "dashboards", "check"], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_each_of_four_dashboards_links_to_the_others() -> None:
    assert {board["title"] for board in BOARDS.values()} == {
        *("Trading desk", "Placement", "Pipeline", "Collector")
    }
    for board in BOARDS.values():
        (link,) = board["links"]
        assert link["type"] == "dashboards"
        assert set(link["tags"]) <= set(board["tags"])


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_panels_have_numbers_of_their_own_and_do_not_overlap(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_a_panel_has_description_unit_thresholds_and_a_link(
    board: dict[str, Any], panel: dict[str, Any]
) -> None:
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    urls = [link["url"] for link in panel["links"]]
    assert urls
    assert all(url.startswith((f"{DOCS}/runbook.md#", f"{DOCS}/contracts.md")) for url in urls)
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == sorted(set(letters))


def test_links_lead_to_alerts_that_exist() -> None:
    rules = LINKED["rules.yml"]
    for param in PANELS:
        for link in param.values[1]["links"]:
            url = link["url"]
            assert "#" not in url or url in rules, param.id


def test_a_row_of_the_trading_desk_leads_into_its_placement() -> None:
    (table,) = (
        panel for panel in BOARDS["trading-desk"]["panels"] if panel["title"].startswith("Placements,")
    )
    overrides = table["fieldConfig"]["overrides"]
    (cell,) = (override for override in overrides if override["matcher"]["options"] == "Placement")
    (links,) = (item["value"] for item in cell["properties"] if item["id"] == "links")
    url = links[0]["url"]
    # Encoded: an id with `&` in it is not a parameter more.
    placement = "${__data.fields.Placement:percentencode}"
    assert url.startswith(f"/d/{BOARDS['placement']['uid']}?var-placement={placement}&")


def test_the_greatest_shortfall_comes_first() -> None:
    for panel in BOARDS["trading-desk"]["panels"]:
        if "most short first" in panel["title"]:
            assert panel["options"]["sortBy"] == [{"displayName": "Short by", "desc": True}]


def test_the_thresholds_come_from_the_flows_settings_unless_given(tmp_path: Path) -> None:
    (tmp_path / "audiopixel.toml").write_text("under = 0.7\nover = 1.3\n")
    command = [sys.executable, "-m", "dashboards", "build", "--to", "out"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for given, over in (([], "1.3"), (["--over", "1.2"], "1.2")):
        subprocess.run([*command, *given], check=True, timeout=60, cwd=tmp_path, env=env)
        assert f"indicator:max > {over})" in (tmp_path / "out" / "rules.yml").read_text()


def test_links_to_documents_use_the_configured_exporter(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dashboards", "build", "--to", "out"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "AUDIOPIXEL_DOCS_URL": f"{DOCS}/"}
    subprocess.run(command, check=True, timeout=60, cwd=tmp_path, env=env)
    for name, text in LINKED.items():
        assert (tmp_path / "out" / name).read_text() == text, name
    wrong = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=env | {"AUDIOPIXEL_DOCS_URL": "javascript:x"}
    )
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
