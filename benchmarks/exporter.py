"""What the exporter takes of the machine at 10,000 placements: nothing of the flow's process, so what its own
and Redis's processes take for it is what a flow that has all the rest would lose.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks.measure import process_cpu_s
from connectors.embedded import EmbeddedValkey
from connectors.ports import free_ports
from flows.replay import replay
from flows.settings.fields import PREFIX
from flows.settings.loading import load
from flows.simulate.plain_log import write_log

PLACEMENTS: Final = 10_700
EVENTS: Final = 1_000_000
"""They reach a little over 10,000 of the placements."""
SCRAPE_S: Final = 15.0
"""Prometheus's usual interval, and docker-compose.yml's."""
SCRAPES: Final = 4
MAX_SHARE: Final = 0.02
MAX_RENDER_S: Final = 0.5


def main() -> int:
    """Measure and print; exit code 1 where a bar is missed."""
    with tempfile.TemporaryDirectory(prefix="audiopixel-exporter-") as name, EmbeddedValkey() as valkey:
        log = Path(name, "log.ndjson")
        write_log(log, EVENTS, placements=PLACEMENTS)
        replay([str(log)], load(redis_url=valkey.url, metrics_port=0), b"sixteen secret b")
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "flows.cli", "exporter", "--port", str(port)]
        with subprocess.Popen(
            command,
            env={f"{PREFIX}REDIS_URL": valkey.url, "PYTHONPATH": str(Path(__file__).parent.parent)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as exporter:
            try:
                address = f"http://127.0.0.1:{port}"
                while "starting":
                    with suppress(OSError):
                        _get(f"{address}/healthz")
                        break
                    time.sleep(0.1)
                body = gzip.decompress(_get(f"{address}/metrics/placements"))  # the first builds the names
                found = body.count(b"\naudiopixel_placement_info{")
                render_s, size, scraped = _watched(exporter.pid, valkey.pid, address)
                with _page(address):
                    _, _, looked_at = _watched(exporter.pid, valkey.pid, address)
            finally:
                exporter.terminate()
    cores = os.cpu_count() or 1
    print(f"{found:,} placements, {size >> 10:,} KiB a scrape: {render_s:.2f} CPU-s (<= {MAX_RENDER_S:g})")
    print(
        f"scraped every {SCRAPE_S:g} s, Redis included: {100 * scraped / cores:.2f} % of {cores} cores "
        f"(<= {100 * MAX_SHARE:g}); with the live page open {100 * looked_at / cores:.2f} %"
    )
    return int(render_s > MAX_RENDER_S or scraped / cores > MAX_SHARE)


def _watched(exporter: int, redis: int, address: str) -> tuple[float, int, float]:
    """Processor time of the exporter a scrape, its bytes, and the share of a core that both took."""
    before_s, began_s = _cpu_s(exporter, redis), time.monotonic()
    rendering_s, size = 0.0, 0
    for number in range(1, SCRAPES + 1):
        at_s = _cpu_s(exporter)
        size = len(_get(f"{address}/metrics/placements"))
        rendering_s += _cpu_s(exporter) - at_s
        time.sleep(max(0.0, began_s + number * SCRAPE_S - time.monotonic()))
    taken_s = _cpu_s(exporter, redis) - before_s
    return rendering_s / SCRAPES, size, taken_s / (time.monotonic() - began_s)


def _cpu_s(*pids: int) -> float:
    taken = [process_cpu_s(pid) for pid in pids]
    return sum(one for one in taken if one is not None)


def _get(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=20) as response:
        body: bytes = response.read()
        return body


@contextmanager
def _page(address: str) -> Iterator[None]:
    """Somebody looks at the page: its stream is read as fast as it comes."""
    with urllib.request.urlopen(f"{address}/events", timeout=60) as stream:

        def read() -> None:
            with suppress(OSError, ValueError, AttributeError):  # closed while it is read
                while stream.readline():
                    pass

        threading.Thread(target=read, daemon=True).start()
        yield


if __name__ == "__main__":
    sys.exit(main())
