"""The bidder's client in each language under faults of a real writer and of Redis. No version falls, no
unusable row is shown as usable, and numbers are fresh within two seconds of the next flush.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from client_support import Look, Opens, Reader
from proxy import Proxy, end
from redis import Redis
from redis_support import eventually

from connectors.embedded import HOST, EmbeddedValkey
from connectors.redis.rows import RowStore
from flows.model.fields import FIELDS, empty
from flows.model.messages import Flush, PackedRow
from flows.model.ticks import Cut
from flows.publish import redis_writer
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.settings.loading import load

NAMESPACE = "faults:v1"
NAMES = [f"pl-{number}" for number in range(20)]
QUIET = {*NAMES[15:]}
"""Rows that change with a fault alone: no later message names them."""
STALE_S = 1.5
"""Instead of 30 s, so that faults outlast it."""
FRESH_S = 2.0
EVERY_S = 0.1
STATES = ("on_track", "under", "at_risk", "over", "paused", "complete", "unknown_before", "ended_unknown")
JUDGED = ("delivery.state", "delivery.judged", "flight.blocked_impressions")
FAULTS = ("killed", "killed", "emptied", "hangs", "fails_over", "unheard", "cut_off", "recomputed")


class Killed(Exception):
    """The flow ends here."""


class Switch(Proxy):
    """The address of whichever server is the primary."""

    def __init__(self, server: EmbeddedValkey) -> None:
        self.server = server
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def serve(self, client: socket.socket) -> None:
        """Pass bytes on, both ways."""
        with socket.create_connection((HOST, self.server.port)) as server:
            self.open.add(server)
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server)
            self.open.discard(server)

    def to(self, server: EmbeddedValkey) -> None:
        """Another primary; connections to the one before end."""
        self.server = server
        while self.open:
            end(self.open.pop())


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while some := source.recv(65_536):
            target.sendall(some)
    except OSError:
        pass
    end(source)
    end(target)


class Written(NamedTuple):
    """The versions of all rows after a flush that ended at a moment (epoch ms)."""

    at_ms: float
    versions: dict[str, tuple[int, ...]]


class Flow(threading.Thread):
    """Executions of a publisher, which writes rows all the time.

    Attributes:
        began_ms: when flushes began, whether or not they were completed.
        written: those that were.
    """

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self._url, self._folder, self._random = url, folder, random.Random(seed)
        self._number, self._directories = 0, 0
        self._orders = list[str]()
        self.over, self.done = threading.Event(), threading.Event()
        self.began_ms, self.written = list[float](), list[Written]()
        self.failed: BaseException | None = None
        self._begin(recompute=True)

    def _begin(self, recompute: bool = False) -> None:
        """Another execution; its first flush has all rows."""
        self._directories += recompute
        directory = self._folder / f"recovery-{self._directories}"
        known = {"redis_url": self._url, "namespace": NAMESPACE, "redis_timeout": "PT1S"}
        settings = load(**known, recovery_dir=directory)
        deadline_s = time.monotonic() + 20
        while True:
            self._publisher = Publisher(settings, ["log"], False, recompute and self._directories > 1)
            try:
                self._publisher.open()
                break
            except Exception:
                assert time.monotonic() < deadline_s
                time.sleep(0.1)
        self._fresh = set(NAMES)

    def order(self, what: str) -> None:
        """Do something at the next flush, and wait until it is done."""
        self.done.clear()
        self._orders.append(what)
        assert self.done.wait(20), (what, self.failed)

    def run(self) -> None:
        try:
            while not self.over.wait(EVERY_S):
                order = self._orders.pop() if self._orders else ""
                try:
                    self._flush(order)
                except Killed:
                    self._begin()
                if order == "recomputed":
                    self._publisher.close()
                    self._begin(recompute=True)
                if order:
                    self.done.set()
        except BaseException as error:
            self.failed = error

    def _flush(self, order: str) -> None:
        self._number += 1
        chosen = self._fresh | {name for name in NAMES if name not in QUIET and self._random.random() < 0.2}
        chosen |= QUIET if order else set()
        now_ms = time.time_ns() // 1_000_000
        some = [PackedRow("placement", name, now_ms, self._packed(now_ms)) for name in sorted(chosen)]
        cut = Cut(self._number, now_ms, False, (("log", self._number),), counted_since_ms=1)
        writer, write = self._publisher.writer, RowStore.write
        store = writer._store
        assert store is not None

        def disturbed(rows: Any, **more: Any) -> Any:
            del store.write  # type: ignore[method-assign]  # once
            if order == "killed":
                write(store, rows[: self._random.randrange(len(rows) + 1)], first=more["first"])
                raise Killed
            return write(store, rows, **{**more, "publish": None})

        if order in ("killed", "unheard"):
            store.write = disturbed  # type: ignore[method-assign]
        self.began_ms.append(time.time() * 1000)
        self._publisher.flush(cut, [Flush(0, cut, some)])
        self._fresh = set()
        if writer.decided == self._number:
            images = self._publisher.backlog.images
            versions = {name: images[f"{NAMESPACE}:placement:{{{name}}}"].version for name in NAMES}
            self.written.append(Written(time.time() * 1000, versions))

    def _packed(self, now_ms: int) -> bytes:
        draw, values = self._random, empty(now_ms)
        judged = draw.random() > 0.1
        told = {
            "delivery.state": draw.choice(STATES),
            "delivery.judged": int(judged),
            "delivery.unjudged_reason": None if judged else "feed_silent",
            "delivery.booked": 24_000,
            "delivery.delivered": self._number,
            "delivery.projected": str(self._number + 1_000 * draw.random()),
            "5m.impressions": draw.choice((0, 7, 8, 9)),
            "1h.impressions": 100,
            "flight.blocked_impressions": draw.choice((0, 0, 0, 3)),
        }
        for name, value in told.items():
            values[FIELDS.index(name)] = value
        return LAYOUTS["row"].pack(values)


class Stage:
    """A flow, two servers of which one is a replica, and a reader that never stops."""

    def __init__(self, folder: Path, opens: Opens, servers: tuple[EmbeddedValkey, ...], seed: int) -> None:
        self.servers, self.switch = servers, Switch(servers[0])
        self._follow(servers[1], servers[0])
        self.flow = Flow(self.switch.url, folder, seed)
        self.flow.start()
        eventually(lambda: self.flow.written)
        self._reader: Reader = opens(self.switch.url, namespace=NAMESPACE, stale_s=STALE_S)
        self.reads, self.looks = 0, list[Look]()
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def _watch(self) -> None:
        while not self._over.is_set():
            reads, looks = self._reader.watch(NAMES, JUDGED, 250)
            self.reads += reads
            self.looks += looks

    def close(self) -> None:
        self._over.set()
        self._watching.join(10)
        self.flow.over.set()
        self.flow.join(10)
        self.switch.__exit__()
        assert self.flow.failed is None

    @staticmethod
    def _follow(replica: EmbeddedValkey, primary: EmbeddedValkey) -> None:
        with closing(Redis(port=replica.port)) as client:
            client.replicaof(HOST, primary.port)
            eventually(lambda: client.info("replication")["master_link_status"] == "up")

    def fault(self, what: str) -> float:
        """Cause a fault. Returns the end of the first flush after it (epoch ms)."""
        if (happens := getattr(self, f"_{what}", None)) is not None:
            happens()
        else:
            self.flow.order(what)
        over = len(self.flow.written)
        eventually(lambda: len(self.flow.written) > over or self.flow.failed, 30)
        assert self.flow.failed is None
        return self.flow.written[over].at_ms

    def _emptied(self) -> None:
        with closing(Redis(port=self.switch.server.port)) as client:
            client.flushall()

    def _hangs(self) -> None:
        self.switch.server.pause()
        time.sleep(STALE_S + 1.0)
        self.switch.server.resume()

    def _cut_off(self) -> None:
        with closing(Redis(port=self.switch.server.port)) as client:
            client.client_kill_filter(_type="pubsub")

    def _fails_over(self) -> None:
        """To a replica that has not got the last flushes."""
        primary = self.switch.server
        (replica,) = (server for server in self.servers if server is not primary)
        with closing(Redis(port=replica.port)) as client:
            client.replicaof("NO", "ONE")
        there = len(self.flow.written)
        eventually(lambda: len(self.flow.written) > there + 3)
        self.switch.to(replica)
        self._follow(primary, replica)


@pytest.fixture
def stage(tmp_path: Path, opens: Opens, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Stage]]:
    monkeypatch.setattr(redis_writer, "LONGEST_PAUSE_S", 0.3)
    stages = list[Stage]()
    with EmbeddedValkey() as one, EmbeddedValkey() as other:

        def make(seed: int) -> Stage:
            stages.append(Stage(tmp_path, opens, (one, other), seed))
            return stages[0]

        yield make
        for stage in stages:
            stage.close()


def wrong(looks: list[Look], flow: Flow) -> Iterator[str]:
    """Each rule that a look has broken, in words."""
    seen = dict[str, tuple[int, ...]]()
    began, written = iter(flow.began_ms), iter(flow.written)
    last_began, next_began, old, following = 0.0, next(began), Written(0.0, {}), next(written)
    for look in sorted(looks, key=lambda look: look.first_ms):
        version = tuple(look.version)
        if version < seen.get(look.name, ()):
            yield f"{look.name} fell from {seen[look.name]} to {version}"
        seen[look.name] = version or seen.get(look.name, ())
    for look in sorted(looks, key=lambda look: look.last_ms):
        if look.reason is not None:
            continue
        state, judged, blocked = (look.fields[name] for name in JUDGED)
        if state in ("unknown_before", "ended_unknown") or judged != 1 or blocked != 0:
            yield f"usable, and {look.fields}"
        while next_began is not None and next_began <= look.last_ms:
            last_began, next_began = next_began, next(began, None)
        if look.last_ms - last_began > 1000 * STALE_S + 100:
            yield f"usable {look.last_ms - last_began:.0f} ms behind the last flush"
        while following is not None and following.at_ms < look.last_ms - 1000 * (STALE_S + 2.0):
            old, following = following, next(written, None)
        if tuple(look.version) < old.versions.get(look.name, ()):
            yield f"usable {look.name} of {look.version}, though {old.versions[look.name]} was long written"


def test_a_client_never_shows_a_row_unfit_for_action(stage: Callable[[int], Stage]) -> None:
    play, rng = stage(1), random.Random(1)
    faults = [*FAULTS, *FAULTS]
    rng.shuffle(faults)
    flushes = list[tuple[str, float]]()
    for fault in faults:
        time.sleep(rng.uniform(0.0, 0.5))
        flushes.append((fault, play.fault(fault)))
        time.sleep(FRESH_S / 2)
    eventually(lambda: play.reads >= 100_000, 60)
    time.sleep(FRESH_S)
    play._over.set()
    play._watching.join(10)

    assert play.flow.failed is None
    assert [*wrong(play.looks, play.flow)] == []
    waits = dict[str, list[float]]()
    for fault, at_ms in flushes:
        (behind,) = (one.versions for one in play.flow.written if one.at_ms == at_ms)
        fresh = dict[str, float]()
        for look in play.looks:
            if tuple(look.version) >= behind[look.name] and look.last_ms >= at_ms and look.reason != "stale":
                since_ms = max(0.0, look.first_ms - at_ms)
                fresh[look.name] = min(since_ms, fresh.get(look.name, since_ms))
        assert fresh.keys() == {*NAMES}
        waits.setdefault(fault, []).append(max(fresh.values()) / 1000)
    print(f"{play.reads:,} reads, {len(play.flow.written)} flushes; fresh behind a fault, in s at most:")
    print({fault: round(max(some), 2) for fault, some in waits.items()})
    assert max(max(some) for some in waits.values()) <= FRESH_S
    reasons = {look.reason for look in play.looks}
    assert reasons >= {None, "stale", "feed_silent", "blocked", "unknown_before"}
