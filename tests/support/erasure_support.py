"""A stand-in for a flow that follows the deny-list: it writes what a flow writes of it into Redis."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from connectors.redis.client import Client, connect
from flows.model.redis_keys import deny_key, erased_key
from flows.model.ticks import sum_of
from flows.settings import Settings
from flows.state.keys import fingerprint


def write_meta(client: Client, settings: Settings, secret: str, age_s: float = 0.0, **more: str) -> None:
    """Write what `meta` says of a flow that wrote last some seconds ago."""
    flushed_ms = int((time.time() - age_s) * 1000)
    said = {"listener_key": fingerprint(secret.encode()), "flushed_ms": str(flushed_ms), **more}
    client.hset(f"{settings.namespace}:meta", mapping=said)


@contextmanager
def confirming(settings: Settings, secret: str, accounts: bool = True) -> Iterator[None]:
    """A flow that confirms whatever comes onto the list; without `accounts` by the sum alone."""
    ended = threading.Event()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)

    def follow() -> None:
        known, cut = set[str](), 0
        while True:
            listed, cut = set(client.hkeys(deny_key(settings.namespace))), cut + 1
            if accounts and (new := listed - known):
                found = {"touches": 3, "campaigns": 1, "conversions": 0}
                one = json.dumps({"cut": f"cut-{cut}", "at_ms": int(time.time() * 1000), "found": found})
                of_cut = {"at_ms": int(time.time() * 1000), "watermark_ms": 1, "positions": {"t/0": cut}}
                mapping = dict.fromkeys(new, one) | {f"cut-{cut}": json.dumps(of_cut)}
                client.hset(erased_key(settings.namespace), mapping=mapping)
            known |= listed
            total = f"{sum_of(int(one, 16) for one in listed):016x}"
            write_meta(client, settings, secret, forgotten_sum=total)
            if ended.wait(0.05):
                return

    thread = threading.Thread(target=follow)
    write_meta(client, settings, secret)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        client.close()
