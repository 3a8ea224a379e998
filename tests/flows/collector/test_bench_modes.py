"""The benchmark of the collector: each mode's server answers a call, and a failed start shows an error."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from benchmarks.collector import MODES, served
from connectors.embedded import EmbeddedBroker
from flows.collector.doors import GIF


def test_each_mode_of_the_benchmark_answers_a_call(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        for mode in MODES:
            with served(mode, broker, tmp_path) as (port, _):
                url = f"http://127.0.0.1:{port}/p?e=start&pl=placement&p=play"
                with urllib.request.urlopen(url, timeout=10) as answer:
                    assert (mode, answer.status, answer.read()) == (mode, 200, GIF)


def test_the_error_of_a_server_that_does_not_start_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOPIXEL_COLLECT_VENDOR", "many")
    with (
        EmbeddedBroker() as broker,
        pytest.raises(RuntimeError, match="COLLECT_VENDOR"),
        served("kafka", broker, tmp_path),
    ):
        pass
