"""The oracle's own decoder: accepted pixels, and the first reason of a rejection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.reconcile.decode import Reader
from flows.reconcile.logs import lines_of


def pixel(event: str, **fields: Any) -> bytes:
    base = {"event_id": "e", "event": event, "ts": 1_764_000_000_000, "placement_id": "a", "play_id": "p"}
    return json.dumps(base | fields).encode()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b"[1]", "malformed"),
        (b'{"event_id":"\xff","event":"start"}', "malformed"),
        (b'{"event_id":"\\ud800","event":"start"}', "malformed"),
        (b'{"x":NaN}', "malformed"),
        (pixel("start", x="x" * 65_536), "malformed"),
        (pixel("start", event_id=7), "invalid"),
        (pixel("start", event_id="[ID]"), "invalid"),
        (pixel("start", event_id="x" * 129), "invalid"),
        (pixel("starts", event_id="-1"), "invalid"),
        (pixel("Start"), "unknown_event"),
        (pixel("starts", ts="x"), "unknown_event"),
        (pixel("start", ts=None), "invalid"),
        (pixel("start", ts=1.5), "invalid"),
        (pixel("start", ts=True), "invalid"),
        (pixel("start", ts="2026-11-24T10:00:00"), "invalid"),
        (pixel("start", ts="2026-02-30T10:00:00Z"), "invalid"),
        (pixel("start", placement_id="%5BPLACEMENT%5D"), "invalid"),
        (pixel("start", play_id="x" * 129), "invalid"),
        (pixel("start", consent="true"), "invalid"),
        (pixel("start", playhead_ms="12"), "invalid"),
        (pixel("start", content_category=["1", 2]), "invalid"),
        (pixel("conversion"), "invalid"),
        (pixel("conversion", conversion={"type": "theft"}), "invalid"),
        (pixel("start", station="x" * 129), "invalid"),
        (pixel("start", creative_id="[" + "x" * 128 + "]"), "invalid"),
        (pixel("start", ts=-5), "invalid"),
        (pixel("start", received_at=-1), "invalid"),
        (pixel("start", received_at=4_102_444_800_000), "invalid"),
        (pixel("start", playhead_ms=5.0), "invalid"),
        (pixel("start", conversion=[]), "invalid"),
        (pixel("start", placement_id="-1"), "invalid"),
        (pixel("start", play_id="x" * 128), ""),
        (pixel("start", placement_id="{}"), ""),
        (pixel("start", placement_id="%5B%5D"), ""),
        (pixel("start", ts=-5, received_at=1_764_000_000_000), ""),
        (pixel("start", playhead_ms=2**63, duration_ms=10**30), ""),
        (pixel("start", conversion={"type": "theft"}), ""),
        (pixel("start")[:-1] + b',"unknown":' + b"9" * 5_000 + b"}", ""),
        (pixel("start", user_agent="x" * 20_000, content_category="x" * 200), ""),
        (pixel("conversion", conversion={"type": "purchase", "value": "1,5"}), ""),
        (pixel("conversion", conversion={"type": "purchase", "value": True}), ""),
        (pixel("start", play_id="é" * 128), ""),
        (pixel("start", ts="2026-11-24t10:00:00.5+01:00", received_at="@RECEIVED@"), ""),
        (pixel("start", playhead_ms=-1, consent=None, unknown=[{}]), ""),
        (pixel("conversion", placement_id=None, conversion={"type": "purchase", "value": 1e-7}), ""),
    ],
)
def test_a_line_is_rejected_for_the_first_reason_that_holds(tmp_path: Path, line: bytes, why: str) -> None:
    log = tmp_path / "log.ndjson"
    log.write_bytes(line + b"\n")
    reader = Reader(consent_default=False, podcast_apps="overcast")
    pixels = sum(len(batch.pixels["pos"]) for batch in reader.read(0, log))
    assert reader.received == {0: 1}
    assert reader.rejected == ({(0, why): 1} if why else {})
    assert pixels == (not why)


def test_a_line_without_end_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    log.write_bytes(b"{}\n\nthe end")
    assert [*lines_of(log)] == [b"{}", b"", b"the end"]
    log.write_bytes(bytes(17 << 20))
    with pytest.raises(OSError, match="a line is over 16 MiB"):
        next(lines_of(log))
