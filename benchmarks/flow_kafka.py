"""audiopixel from Kafka to Redis, catching up with a topic that holds the whole log: `audiopixel run`.

Measured from the last look before the first batch, 20 ms at most, to the last batch: a short log is consumed
within one look. The process then waits until Redis shows all of it, drains and ends.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.flow_file import KEY, warm_up
from benchmarks.measure import UNPLANNED, Answers, Job, Meter, Result
from benchmarks.published import flights
from connectors.redis.client import Client, connect
from flows.engine.execution import execute
from flows.instruments import instruments
from flows.metrics import RECEIVED
from flows.pixels import live
from flows.publish.handover import Handover
from flows.settings.fields import PREFIX
from flows.settings.loading import load

_POLL_S = 0.02
_PATIENCE_S = 600.0


def run(job: Job) -> Result:
    """Consume the topic; among the facts `visible_s`, until Redis showed all, and `waited_s`, the flow's
    waits for the writer before the last flush.
    """
    warm_up(job)
    shown = {
        "KAFKA_BROKERS": job.brokers,
        "REDIS_URL": job.redis_url,
        "NAMESPACE": f"bench:{Path(job.scratch).name}",
        "LISTENER_KEY": KEY.decode(),
        "RECOVERY_DIR": str(Path(job.scratch, "recovery")),
        "METRICS_PORT": "0",
        **{name.upper(): str(value) for name, value in UNPLANNED.items()},
    }
    os.environ.update({PREFIX + name: value for name, value in shown.items()})
    settings = load()
    watch = _Watch(job.events, connect(job.redis_url), settings.namespace, job.warm)
    watch.start()
    waits = _waits()
    execute(live(settings), recovery_dir=settings.recovery_dir)
    watch.join()
    if watch.failed:
        raise TimeoutError(watch.failed)
    facts = {"visible_s": watch.visible_s, "waited_s": sum(waits)}
    return watch.meter.result(job.events, Answers(flights(settings)), facts)


class _Watch(threading.Thread):
    """Times the consumption from beside the flow, and ends it when Redis shows all of it."""

    def __init__(self, events: int, client: Client, namespace: str, warm: str) -> None:
        super().__init__(daemon=True)
        self.meter, self.visible_s, self.failed = Meter(), 0.0, ""
        self._events, self._client, self._namespace, self._warm = events, client, namespace, warm
        self._deadline_s = time.monotonic() + _PATIENCE_S

    def run(self) -> None:
        try:
            self.meter.start()
            while not received(without=self._warm):
                self._wait()
                self.meter.start()
            while received(without=self._warm) < self._events:
                self._wait()
            self.meter.stop()
            stopped_s = time.perf_counter()
            while self._published() < self._events:
                self._wait()
            self.visible_s = self.meter.seconds + time.perf_counter() - stopped_s
        except Exception as error:
            self.failed = f"{type(error).__name__}: {error}"
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def _wait(self) -> None:
        if time.monotonic() > self._deadline_s:
            raise TimeoutError(f"not consumed within {_PATIENCE_S:.0f} s")
        time.sleep(_POLL_S)

    def _published(self) -> int:
        keys = self._client.scan_iter(f"{self._namespace}:partition:*")
        return sum(int(self._client.hget(key, "received") or 0) for key in keys)


def received(without: str) -> int:
    """Messages that this process's flow has read so far, those of one partition aside."""
    name = RECEIVED.name.removesuffix("_total")
    return sum(
        int(sample.value)
        for family in instruments().received.collect()
        for sample in family.samples
        if family.name == name and sample.labels["partition"] != without
    )


def _waits() -> list[float]:
    """Seconds of each wait for a flush that is not the last one, from now on in this process."""
    inner: Callable[[Handover, int], None] = Handover._wait
    waits: list[float] = []

    def timed(handover: Handover, most: int) -> None:
        began_s = time.perf_counter()
        inner(handover, most)
        if most:
            waits.append(time.perf_counter() - began_s)

    setattr(Handover, "_wait", timed)  # noqa: B010  (a private step has no metric)
    return waits
