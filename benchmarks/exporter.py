"""Processor time of the exporter at 10,000 placements: its own, and that of Redis for it. The flow's process
does no work for it, so a flow that uses the rest of the machine would lose this time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.bars import finish
from benchmarks.measure import UNPLANNED, process_cpu_s
from benchmarks.plain_log import write_log
from connectors.embedded import EmbeddedValkey
from connectors.ports import free_ports
from flows.replay import replay
from flows.settings.fields import PREFIX
from flows.settings.loading import load

PLACEMENTS: Final = 10_700
EVENTS: Final = 1_000_000
"""They reach a little over 10,000 of the placements."""
SCRAPE_S: Final = 15.0
"""Prometheus's usual interval, and docker-compose.yml's."""
SCRAPES: Final = 2
LOOKS: Final = 3
_SECRET: Final = "only-for-the-bench"


def main() -> int:
    """Measure and print; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exporter", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="short: judge no bar")
    smoke = parser.parse_args().smoke
    placements, scrapes = (100, 1) if smoke else (PLACEMENTS, SCRAPES)
    with tempfile.TemporaryDirectory(prefix="audiopixel-exporter-") as name, EmbeddedValkey() as valkey:
        log = Path(name, "log.ndjson")
        write_log(log, 20_000 if smoke else EVENTS, placements=placements)
        replay([str(log)], load(redis_url=valkey.url, metrics_port=0, **UNPLANNED), b"sixteen secret b")
        with exporting(valkey.url) as (address, pid):
            body = gzip.decompress(get(f"{address}/metrics/placements"))  # the first builds the names
            found = body.count(b"\naudiopixel_placement_info{")
            render_s, size, scraped = _watched(pid, valkey.pid, address, scrapes)
            with _page(address):
                _, _, looked_at = _watched(pid, valkey.pid, address, scrapes)
        top_s = median(_top_s(valkey.url) for _ in range(LOOKS))
    cores = os.cpu_count() or 1
    figures = {"render_s": render_s, "scraped": scraped / cores, "page": looked_at / cores, "top_s": top_s}
    table = [
        ["placements", "a scrape, KiB", "a scrape, CPU s", "scraped", "the page open too", "`top --once`, s"],
        [
            f"{found:,}",
            f"{size >> 10:,}",
            f"{render_s:.2f}",
            f"{100 * scraped / cores:.2f} %",
            f"{100 * looked_at / cores:.2f} %",
            f"{top_s:.2f}",
        ],
    ]
    about = f"shares of {cores} cores, Redis included, a scrape every {SCRAPE_S:g} s; no row changes"
    return finish("exporter", about, table, figures, not smoke)


@contextmanager
def exporting(redis_url: str, **settings: str) -> Iterator[tuple[str, int]]:
    """Address and process of an exporter that answers."""
    (port,) = free_ports(1)
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "exporter", "--port", str(port)],
        env=_environment(redis_url) | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as exporter:
        try:
            address = f"http://127.0.0.1:{port}"
            while "starting":
                with suppress(OSError):
                    get(f"{address}/healthz")
                    break
                time.sleep(0.1)
            yield address, exporter.pid
        finally:
            exporter.terminate()


def _environment(redis_url: str) -> dict[str, str]:
    tokens = {"bench": {"sha256": sha256(_SECRET.encode()).hexdigest(), "read_all": True}}
    told = {f"{PREFIX}REDIS_URL": redis_url, f"{PREFIX}READ_TOKENS": json.dumps(tokens)}
    return told | {"PYTHONPATH": str(Path(__file__).parent.parent)}


def _top_s(redis_url: str) -> float:
    """Elapsed time of `audiopixel top --once` into a pipe, its start-up included."""
    began_s = time.monotonic()
    command = [sys.executable, "-m", "flows.cli", "top", "--once"]
    subprocess.run(command, env=_environment(redis_url), stdout=subprocess.PIPE, check=True)
    return time.monotonic() - began_s


def _watched(exporter: int, redis: int, address: str, scrapes: int) -> tuple[float, int, float]:
    """Processor time of the exporter a scrape, its bytes, and the share of a core that both took."""
    before_s, began_s = _cpu_s(exporter, redis), time.monotonic()
    rendering_s, size = 0.0, 0
    for number in range(1, scrapes + 1):
        at_s = _cpu_s(exporter)
        size = len(get(f"{address}/metrics/placements"))
        rendering_s += _cpu_s(exporter) - at_s
        time.sleep(max(0.0, began_s + number * SCRAPE_S - time.monotonic()))
    taken_s = _cpu_s(exporter, redis) - before_s
    return rendering_s / scrapes, size, taken_s / (time.monotonic() - began_s)


def _cpu_s(*pids: int) -> float:
    taken = [process_cpu_s(pid) for pid in pids]
    return sum(one for one in taken if one is not None)


def get(address: str) -> bytes:
    """The compressed body."""
    with urllib.request.urlopen(asking(address, {"Accept-Encoding": "gzip"}), timeout=300) as response:
        body: bytes = response.read()
        return body


def asking(address: str, headers: Mapping[str, str] | None = None) -> urllib.request.Request:
    """A request of a reader with a token."""
    shown = {"Authorization": f"Bearer bench.{_SECRET}"}
    return urllib.request.Request(address, headers={**shown, **(headers or {})})


@contextmanager
def _page(address: str) -> Iterator[None]:
    """Somebody looks at the page: its stream is read as fast as it comes."""
    with urllib.request.urlopen(asking(f"{address}/events"), timeout=60) as stream:

        def read() -> None:
            with suppress(OSError, ValueError, AttributeError):  # closed while it is read
                while stream.readline():
                    pass

        threading.Thread(target=read, daemon=True).start()
        yield


if __name__ == "__main__":
    sys.exit(main())
