"""The bidder's client, in each language, by the same cases (clients/cases.json)."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from audiopixel_client.testing import Flow
from client_support import Opens
from redis import Redis

from connectors.embedded import EmbeddedValkey

CASES = json.loads((Path(__file__).parents[2] / "clients" / "cases.json").read_text())
WITHIN_S = 6.0


class Play:
    """A case, in a namespace of its own."""

    def __init__(self, url: str, opens: Opens, options: dict[str, Any]) -> None:
        self._url, self._namespace = url, f"case{uuid.uuid4().hex[:8]}:v1"
        self._opens = lambda: opens(url, namespace=self._namespace, **options)
        self._flow, self._reader = Flow(url, self._namespace), None

    def step(self, step: dict[str, Any]) -> None:
        """Run a step of a case. The client is opened at the first look, after the first flush."""
        match step:
            case {"see": rows}:
                self._reader = self._reader or self._opens()
                self._see(rows)
            case {"run": [generation, fence]}:
                self._flow = Flow(self._url, self._namespace, generation, fence)
            case {"publish": message}:
                with Redis.from_url(self._url) as redis:
                    redis.publish(f"{self._namespace}:updates", message)
            case {"retype": name}:
                with Redis.from_url(self._url) as redis:
                    redis.set(f"{self._namespace}:placement:{{{name}}}", "no hash")
            case {"empty": True}:
                with Redis.from_url(self._url) as redis:
                    redis.delete(*redis.scan_iter(f"{self._namespace}:*"))
            case {"flush": rows, **more}:
                if (age_ms := more.pop("watermark_age_ms", None)) is not None:
                    more["meta"] = {"watermark_ms": time.time_ns() // 1_000_000 - age_ms}
                self._flow.flush(rows, **more)

    def _see(self, rows: dict[str, Any]) -> None:
        """Wait until all is seen as it should be."""
        deadline_s, found = time.monotonic() + WITHIN_S, dict[str, Any]()
        while found != rows:
            assert time.monotonic() < deadline_s, json.dumps({"seen": found, "expected": rows}, indent=1)
            time.sleep(0.01)
            for name, wanted in rows.items():
                got = self._reader.read(name, [*wanted.get("fields", ())])
                found[name] = {key: got.get(key) for key in wanted}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_client_shows(case: dict[str, Any], opens: Opens, valkey: EmbeddedValkey) -> None:
    play = Play(valkey.url, opens, case.get("options", {}))
    for step in case["steps"]:
        play.step(step)
