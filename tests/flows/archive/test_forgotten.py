"""Forgotten people leave every file of an archive, also after a kill during the rewrite."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from archive_support import CANARY, archived, messages_of, pixel, send, texts, topic_settings, whole
from test_writer import Dying, Killed  # type: ignore[import-not-found]

from connectors.embedded import EmbeddedBroker
from connectors.objects import Directory
from flows.archive.removal import removed_people
from flows.settings import Settings
from flows.state.people import People

Make = Callable[..., Settings]
NOW_MS = int(time.time() * 1000)
KEY = People(b"a key of the archive").listener(CANARY.encode())


def denied() -> np.ndarray:
    return np.array([KEY], np.uint64)


def named(root: Path) -> list[str]:
    return [path for path, body in texts(root).items() if CANARY.encode() in body]


def filled(broker: EmbeddedBroker, make: Make) -> Settings:
    settings = topic_settings(broker, make, archive_bytes=1 << 16)
    send(
        settings,
        [
            (n % 2, pixel(n, listener_id=CANARY if n % 50 < 2 else f"L{n}"), NOW_MS - 10_000 + n)
            for n in range(4_000)
        ],
    )
    return settings


@pytest.mark.parametrize("behind", [False, True])
def test_a_kill_leaves_no_half_file_and_the_next_run_no_canary(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path, behind: bool
) -> None:
    settings, killed = filled(broker, settings_of), 0
    for at in range(1, 14):
        root = tmp_path / f"{at}"
        archived(settings, root)
        before = [one[:3] for one in messages_of(Directory(root))]
        assert named(root)
        try:
            archived(settings, Dying(Directory(root), at, behind), denied)
        except Killed:
            killed += 1
            assert not [path for path in texts(root) if path.endswith(".part")]
            archived(settings, root, denied)
        assert named(root) == []
        whole(Directory(root))
        assert [one[:3] for one in messages_of(Directory(root))] == before, "lines and offsets stay"
    assert killed >= 10


def test_a_listed_person_stays_out_after_redis_loses_the_list(
    broker: EmbeddedBroker, settings_of: Make, tmp_path: Path
) -> None:
    settings = filled(broker, settings_of)
    archived(settings, tmp_path, denied)
    assert named(tmp_path) == []
    assert removed_people(Directory(tmp_path)).denied == {KEY}
    send(settings, [(0, pixel(n, listener_id=CANARY), NOW_MS) for n in range(20)])
    archived(settings, tmp_path)  # the list is empty now
    assert named(tmp_path) == []
    assert whole(Directory(tmp_path)).messages == 4_020


def test_a_bucket_has_no_canary_either(broker: EmbeddedBroker, settings_of: Make, s3: str) -> None:
    from connectors.buckets import objects

    settings, store = filled(broker, settings_of), objects(s3)
    archived(settings, store)
    assert any(CANARY.encode() in line for *_, line in messages_of(store))
    archived(settings, store, denied)
    assert not any(CANARY.encode() in line for *_, line in messages_of(store))
    assert whole(store).messages == 4_000
