"""A conversion after a change of the edge's key finds earlier listens, from the door to the decision."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from collector_support import NOW_MS, call, understanding, usual

from flows.collector.pseudonyms import Pseudonyms
from flows.replay import replay
from flows.settings.fields import Settings

OLD, NEW = b"the key of before, 16 bytes", b"the key of today, 16 bytes"
WITH_OLD = Pseudonyms(NEW, [OLD])


def event(pseudonyms: Pseudonyms, **parameters: Any) -> dict[str, Any]:
    """The messages that a door with these keys writes to the log."""
    found: dict[str, Any] = understanding(pseudonyms=pseudonyms).pixel(call(usual(**parameters))).event
    return found


@pytest.mark.parametrize(
    ("keys", "listener", "joined_by"),
    [
        (WITH_OLD, "listener-1", "listener"),
        (WITH_OLD, "", "household"),
        (Pseudonyms(NEW), "listener-1", None),
        (Pseudonyms(OLD), "listener-1", "listener"),
    ],
    ids=["the same listener", "a browser of the household", "the old key is lost", "no change"],
)
def test_a_conversion_after_a_key_change_is_joined_like_earlier_ones(
    keys: Pseudonyms,
    listener: str,
    joined_by: str | None,
    tmp_path: Path,
    settings_of: Callable[..., Settings],
) -> None:
    heard = event(Pseudonyms(OLD), e="impression", ts=str(NOW_MS - 60_000))
    bought = event(keys, e="conversion", ct="purchase", oid="o-1", pl="", p="", l=listener)
    log = tmp_path / "log.ndjson"
    log.write_text("".join(json.dumps(one) + "\n" for one in (heard, bought)))
    replay([str(log)], settings_of(), OLD, out=tmp_path / "out")
    (decided,) = map(json.loads, (tmp_path / "out" / "credits.ndjson").read_text().splitlines())
    assert decided["joined_by"] == joined_by
    assert [one["placement_id"] for one in decided["credits"]] == ["breakfast-uk"] * (joined_by is not None)
