"""`audiopixel compile`: compiles all kernels before the first start, which would wait for them."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from connectors.embedded import EmbeddedValkey, own_redis
from flows.settings import load
from flows.simulate import Traffic, run_log
from flows.state.kernel_cache import place_of_all

EVENTS: Final = 20_000
"""The number of simulated pixels, which reach the kernels of every stage."""
RATE: Final = 20.0
"""Pixels a second of event time. At a higher rate no conversion would follow a touch."""
MARK: Final = "compiled"
"""The name of the file that a complete run writes to the kernels' directory."""


def compiled() -> bool:
    """True if `compile_kernels` has run for these sources on this machine."""
    return (_directory() / MARK).exists()


def _directory() -> Path:
    return Path(place_of_all(Path(__file__).parent, os.environ.get("NUMBA_CACHE_DIR", "")))


def compile_kernels(redis_url: str | None = None) -> None:
    """Replay a small simulated log, which compiles every kernel that is not in the cache yet.

    The log, the settings and the namespace serve only this run.

    Args:
        redis_url: a Redis to write to; None for an embedded one.

    Raises:
        ConnectError: Redis does not answer.
    """
    # Both imports load the compiler, which `compiled` does not need.
    from connectors.kafka.prefetched import compile_loops
    from flows.replay import replay

    compile_loops()

    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="audiopixel-compile-")))
        if redis_url is None:
            redis_url = stack.enter_context(EmbeddedValkey(binary=own_redis())).url
        log = directory / "log.ndjson"
        traffic = Traffic(1, 40, RATE)
        run_log(log, traffic, EVENTS)
        with log.open("ab") as out:  # a collector's low marks use kernels of their own
            out.writelines(
                b'{"collector":"c%d","low_ms":%d}\n' % (n % 3, traffic.start_ms + n) for n in range(9)
            )
        namespace = f"audiopixel:compile:{secrets.token_hex(4)}"
        settings = load(redis_url=redis_url, metrics_port=0, namespace=namespace)
        replay([str(log)], settings, bytes(16), out=directory / "out", recovery_dir=directory / "recovery")
    (_directory() / MARK).touch()
