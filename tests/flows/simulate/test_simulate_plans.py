"""Traffic to Kafka comes with plans that fit it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from connectors.embedded import EmbeddedBroker
from flows.delivery.plan_files import read_plans


def test_simulated_traffic_has_a_valid_plan_of_every_placement(tmp_path: Path) -> None:
    path = tmp_path / "plans.csv"
    with EmbeddedBroker() as broker:
        broker.create_topic("audio-pixels", 1)
        command = ["simulate", "kafka", "--seconds", "1", "--rate", "200", "--placements", "7"]
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *command, "--plans", str(path)],
            env={**os.environ, "AUDIOPIXEL_KAFKA_BROKERS": broker.bootstrap},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    book, problems = read_plans(path)
    assert not problems
    assert len(book) == 7
