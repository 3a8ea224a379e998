"""The curves that the exporter keeps in memory: their numbers, and their growth by the samples' own times."""

from __future__ import annotations

from flows.viewers.history import History


def test_what_is_due_is_told_to_the_impression_as_the_pane_beside_the_curve_tells_it() -> None:
    history = History()
    history.add(0.0, {"p": {"delivery.delivered": "33333335", "delivery.expected": "33333335.25"}})
    assert history.curve("p") == {"at_s": [0.0], "impressions": [33_333_335.0], "expected": [33_333_335.25]}
