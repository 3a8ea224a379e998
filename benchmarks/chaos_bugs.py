"""Bugs done to a flow behind its back while it is dead, to see the chaos harness bark."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flows.settings.fields import Settings


def _stores(settings: Settings) -> list[Path]:
    assert settings.recovery_dir is not None
    return sorted(settings.recovery_dir.glob("*.sqlite3"))


def forget(settings: Settings, _: Any) -> None:
    """The plays of a shard are taken out of the recovery store."""
    query, lost = "DELETE FROM snaps WHERE step_id = 'audiopixel.plays' AND state_key = '0001'", 0
    for file in _stores(settings):
        with sqlite3.connect(file) as store:
            lost += store.execute(query).rowcount
    assert lost, "there was no snapshot yet"


def skip(settings: Settings, _: Any) -> None:
    """The saved position of the topic's first partition is moved on by 50 messages."""
    first, found = f"{settings.kafka_topic}/0", False
    for file in _stores(settings):
        with sqlite3.connect(file) as store:
            query = (
                "SELECT rowid, ser_change FROM snaps WHERE step_id = 'audiopixel.intake' AND state_key = ?"
            )
            for row, state in store.execute(query, [first]).fetchall():
                version, position, *rest = pickle.loads(state)
                found = True
                moved = pickle.dumps((version, position + 50, *rest))
                store.execute("UPDATE snaps SET ser_change = ? WHERE rowid = ?", [moved, row])
    assert found, "there was no snapshot yet"


def turn_back(settings: Settings, client: Any) -> None:
    """A row in Redis is turned back by one."""
    client.hincrby(f"{settings.namespace}:placement:{{pl-0000}}", "flight.impressions", -1)


BUGS: Final[dict[str, Callable[[Settings, Any], None]]] = {
    "forgotten": forget,
    "skipped": skip,
    "doctored": turn_back,
}
