"""A process that bids: `python -m benchmarks.bidder_reader URL FLUSHES FIELD… [--without-hiredis]`.

It prints `ready` when it has all rows, sees so many flushes, and prints what they took as a line of JSON. It
imports nothing of the flow, which would load hiredis.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

READS: Final = 1_000_000
PATIENCE_S: Final = 120.0


def main(url: str, flushes: int, fields: list[str]) -> None:
    """Read."""
    from audiopixel_client import Client

    client, seen = Client(url, fields), dict[int, float]()
    show = client._mirror.show

    def noted(rows: Any, reading: Any, flush: Any, whole: bool = False) -> None:
        show(rows, reading, flush, whole)
        seen.setdefault(flush[2], time.time())  # a look at `meta` while it is quiet shows no more

    client._mirror.show = noted  # type: ignore[method-assign]  # its moment is what is measured
    before = _resident_bytes()
    with client:
        names = list(client)
        assert names, client.error
        kib = (_resident_bytes() - before) / 1024 / len(names)
        assert client[names[0]].factor is not None, client[names[0]].reason
        read_us = min(_read_us(client, names) for _ in range(3))
        seen.clear()
        print("ready", flush=True)
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        while len(seen) < flushes:
            time.sleep(0.1)
            assert time.monotonic() < began_s + PATIENCE_S, (len(seen), client.error)
        core = (time.process_time() - began_cpu_s) / (time.monotonic() - began_s)
    print(json.dumps({"read_us": read_us, "core": core, "kib": kib, "seen": seen}), flush=True)


def _read_us(client: Any, names: list[str]) -> float:
    """The time of a row and its factor, by name."""
    times = max(1, READS // len(names))
    began_s = time.perf_counter()
    for _ in range(times):
        for name in names:
            client[name].factor  # noqa: B018 (its cost is what is measured)
    return (time.perf_counter() - began_s) / times / len(names) * 1e6


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "clients" / "python"))
    if "--without-hiredis" in sys.argv:
        sys.argv.remove("--without-hiredis")
        sys.modules["hiredis"] = None  # type: ignore[assignment]  # as if it were not installed
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
