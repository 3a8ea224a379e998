"""Dashboards reach a Grafana through its API: first their folder, then each board. A failure is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_support import HOST, Site

from connectors.ports import free_ports
from dashboards.build import generated, write
from dashboards.push import PushError, push
from dashboards.site import BOARDS

Answer = Callable[[str, str], tuple[int, bytes]]


def grafana(*, folder: bool) -> Answer:
    """Answers as Grafana's documentation says, with or without the folder."""

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if path.startswith("/api/folders") and method == "GET":
            return (200, b'{"uid": "audiopixel"}') if folder else (404, b'{"message": "folder not found"}')
        if path == "/api/folders":
            return 200, b'{"uid": "audiopixel"}'
        if path == "/api/dashboards/db":
            return 200, b'{"status": "success", "url": "/d/uid/slug"}'
        return 500, b'{"message": "not asked for"}'

    return answer


@pytest.mark.parametrize("folder", [True, False])
def test_the_folder_is_made_once_and_the_four_dashboards_are_replaced(folder: bool) -> None:
    with Site(grafana(folder=folder)) as site:
        addresses = push(site.url, "secret-token")
    assert addresses == [f"{site.url}/d/uid/slug"] * 4
    made = [body for path, body in site.posted if path == "/api/folders"]
    assert made == ([] if folder else [{"uid": "audiopixel", "title": "audiopixel"}])
    sent = [body for path, body in site.posted if path == "/api/dashboards/db"]
    assert {body["dashboard"]["title"] for body in sent} == {
        "Trading desk",
        "Placement",
        "Pipeline",
        "Collector",
    }
    assert all(body["overwrite"] and body["folderUid"] == "audiopixel" for body in sent)
    assert {head["Authorization"] for head in site.heads} == {"Bearer secret-token"}


def test_all_dashboards_that_are_made_are_sent() -> None:
    assert [f"{name}.json" for name in BOARDS] == [name for name in generated() if name.endswith(".json")]


def test_a_refusal_quotes_grafanas_answer() -> None:
    with (
        Site(lambda *_: (403, json.dumps({"message": "Access denied"}).encode())) as site,
        pytest.raises(PushError, match=r"answered 403: .*Access denied"),
    ):
        push(site.url, "token")


def test_a_missing_grafana_is_an_error_of_one_line() -> None:
    (port,) = free_ports(1)
    done = command("push", "--url", f"http://{HOST}:{port}", "--token", "t")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{HOST}:{port} cannot be reached" in done.stderr


def test_without_a_token_nothing_is_sent() -> None:
    with Site(grafana(folder=True)) as site:
        done = command("push", "--url", site.url)
    assert done.returncode == 1
    assert "GRAFANA_TOKEN" in done.stderr
    assert site.heads == []


def test_a_missing_or_unreadable_dashboard_stops_the_push(tmp_path: Path) -> None:
    with Site(grafana(folder=True)) as site:
        with pytest.raises(PushError, match=r"trading-desk\.json is no dashboard"):
            push(site.url, "token", tmp_path)
        write(tmp_path)
        (tmp_path / "collector.json").write_text("{")
        with pytest.raises(PushError, match=r"collector\.json is no dashboard"):
            push(site.url, "token", tmp_path)
    assert site.heads == []


def test_built_dashboards_with_custom_links_are_sent(tmp_path: Path) -> None:
    mine = "https://mine.example/docs"
    assert command("build", "--to", str(tmp_path), "--docs-url", mine).returncode == 0
    with Site(grafana(folder=True)) as site:
        done = command("push", "--url", site.url, "--token", "t", "--from", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    sent = [json.dumps(body) for path, body in site.posted if path == "/api/dashboards/db"]
    assert len(sent) == len(BOARDS)
    assert all(mine in body for body in sent)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAFANA_")}
    return subprocess.run(
        [sys.executable, "-m", "dashboards", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
