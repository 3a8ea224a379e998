"""Counters of impressions by listener and campaign, against a dictionary, over snapshots and restarts."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flows import journal
from flows.frequency import CLASS_OF, CLASSES, DAY_MS, REMEMBERED_DAYS, Frequency
from flows.journal import Files
from flows.touches import CLICK, IMPRESSION

CAMPAIGNS = ("red", "blue", "green")
TODAY = 20_000


class Model:
    """Impressions and latest day, by listener and campaign."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, str], tuple[int, int]] = {}

    def count(self, who: int, campaign: str, day: int) -> None:
        count, latest = self.held.get((who, campaign), (0, day))
        if day - latest > REMEMBERED_DAYS:
            count = 0
        self.held[who, campaign] = (min(255, count + 1), max(latest, day))


@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_every_listener_has_had_what_was_counted_whatever_was_restarted(
    seed: int, in_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 200)
    monkeypatch.setattr(journal, "SLACK", 2)
    rng = random.Random(seed)
    files, model, frequency, today = Files(tmp_path if in_files else None), Model(), Frequency(), TODAY
    shown: Counter[tuple[str, int]] = Counter()
    for _ in range(300):
        heard = [
            (rng.randint(1, 30), rng.choice(CAMPAIGNS), today - rng.choice((0, 0, 1, 9)))
            for _ in range(rng.randint(0, 20))
        ]
        ts = np.array([day * DAY_MS for _, _, day in heard], np.int64)
        numbers = np.array([frequency.number(campaign) for _, campaign, _ in heard], np.uint32)
        kinds = np.array([rng.choice((IMPRESSION, IMPRESSION, CLICK)) for _ in heard], np.uint8)
        who = np.array([one for one, _, _ in heard], np.uint64)
        for campaign, place, gained in frequency.count(who, ts, kinds, numbers):
            shown[campaign, place] += gained
        for one, kind in zip(heard, kinds.tolist(), strict=True):
            if kind == IMPRESSION:
                model.count(*one)
        today += rng.choice((0, 0, 0, 1, 3, REMEMBERED_DAYS + 1)) if rng.random() < 0.2 else 0
        if rng.random() < 0.1:
            frequency.sweep(today)
            model.held = {
                key: (count, day)
                for key, (count, day) in model.held.items()
                if day + REMEMBERED_DAYS >= today
            }
        if rng.random() < 0.05:
            gone = rng.randint(1, 30)
            frequency.forget([gone])
            model.held = {key: of for key, of in model.held.items() if key[0] != gone}
        if rng.random() < 0.5:
            state = pickle.dumps(frequency.snapshot(files))
            files.keep(frequency.journal.names())
            if rng.random() < 0.3:
                frequency = Frequency()
                frequency.restore(pickle.loads(state), files)
        assert len(frequency) == len(model.held)
        for (listener, campaign), (count, _) in model.held.items():
            assert frequency.of(listener, campaign) == count
    assert {place for _, place in shown} == set(range(len(CLASSES)))
    assert any(tmp_path.iterdir()) == in_files
    assert CLASS_OF[255] == len(CLASSES) - 1
