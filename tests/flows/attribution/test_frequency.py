"""Counters of impressions by listener and campaign, against a dictionary, over snapshots and restarts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from flows.attribution.frequency import CLASS_OF, DAY_MS, MOST, REMEMBERED_DAYS, Frequency
from flows.model.conversion_columns import CLASSES
from flows.state import journal
from flows.state.journal import Files
from flows.state.saves import decode, encode

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


def up_to(
    frequency: Frequency, who: int, campaign: str, day: int, uncounted: Sequence[tuple[int, str, int]] = ()
) -> int:
    """A listener's frequency of a campaign by a day. `uncounted` are such impressions by listener, campaign
    and day.
    """
    listeners = np.array([one for one, _, _ in uncounted], np.uint64)
    ts = np.array([at * DAY_MS for _, _, at in uncounted], np.int64)
    of = np.array([CAMPAIGNS.index(name) for _, name, _ in uncounted], np.int64)
    asked = (np.array([who], np.uint64), np.array([day * DAY_MS], np.int64), [campaign])
    return int(frequency.up_to(*asked, (listeners, ts, CAMPAIGNS, of))[0])


@pytest.mark.parametrize("seed", range(20))
def test_the_frequency_by_a_moment_ignores_later_listens(seed: int) -> None:
    """Impressions of a year, with a pause of more than 60 days, counted up to a day and not beyond it."""
    rng = random.Random(seed)
    days = sorted(TODAY + rng.randrange(365) for _ in range(rng.choice((3, 30, 400))))
    days = [day for day in days if not 90 <= day - TODAY < 160]
    heard = [(rng.randint(1, 3), rng.choice(CAMPAIGNS), day) for day in days]
    for asked in range(TODAY, TODAY + 400, 7):
        model = Model()
        for one in heard:
            if one[2] <= asked:
                model.count(*one)
        counted = rng.choice([day for day in (TODAY, *days) if day <= asked])
        frequency = Frequency()
        known = [one for one in heard if one[2] < counted]
        ts = np.array([day * DAY_MS for _, _, day in known], np.int64)
        of = np.array([CAMPAIGNS.index(name) for _, name, _ in known], np.int64)
        frequency.count(np.array([who for who, _, _ in known], np.uint64), ts, CAMPAIGNS, of)
        rest = [one for one in heard if one[2] >= counted]
        rng.shuffle(rest)
        for who in (1, 2, 3):
            for campaign in CAMPAIGNS:
                count, latest = model.held.get((who, campaign), (0, 0))
                right = min(count, MOST) if asked - latest <= REMEMBERED_DAYS else 0
                assert up_to(frequency, who, campaign, asked, rest) == right


@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_frequency_equals_the_counted_listens_after_any_restart(
    seed: int, in_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 200)
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 2)
    rng = random.Random(seed)
    files, model, frequency, today = Files(tmp_path if in_files else None), Model(), Frequency(), TODAY
    shown: Counter[tuple[str, int]] = Counter()
    for _ in range(300):
        heard = [
            (rng.randint(1, 30), rng.choice(CAMPAIGNS), today - rng.choice((0, 0, 1, 9)))
            for _ in range(rng.randint(0, 20))
        ]
        ts = np.array([day * DAY_MS for _, _, day in heard], np.int64)
        of = np.array([CAMPAIGNS.index(campaign) for _, campaign, _ in heard], np.int64)
        who = np.array([one for one, _, _ in heard], np.uint64)
        for campaign, place, gained in frequency.count(who, ts, CAMPAIGNS, of):
            shown[campaign, place] += gained
        for one in sorted(heard, key=lambda one: one[2]):
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
            frequency.erase([gone])
            model.held = {key: of for key, of in model.held.items() if key[0] != gone}
        if rng.random() < 0.5:
            frequency.table.gather(files)
        if rng.random() < 0.5:
            state = encode(frequency.snapshot(files))
            files.keep(frequency.file_names())
            if rng.random() < 0.3:
                frequency = Frequency()
                frequency.restore(decode(state), files)
        assert len(frequency) == len(model.held)
        for (listener, campaign), (count, latest) in model.held.items():
            right = min(count, MOST) if today - latest <= REMEMBERED_DAYS else 0
            assert up_to(frequency, listener, campaign, today) == right
    assert {place for _, place in shown} == set(range(len(CLASSES)))
    assert any(tmp_path.iterdir()) == in_files
    assert CLASS_OF[255] == len(CLASSES) - 1


def test_campaigns_without_a_counter_are_dropped_on_any_day() -> None:
    """Anyone may invent names: each day some counters end, so the days without any never come."""
    frequency = Frequency()
    for today in range(TODAY, TODAY + 4 * REMEMBERED_DAYS):
        names = [f"{today}-{number}" for number in range(50)]
        who, of = np.arange(1, 51, dtype=np.uint64), np.arange(50)
        frequency.count(who, np.full(50, today * DAY_MS), names, of)
        frequency.sweep(today)
    assert len(frequency) == 50 * (REMEMBERED_DAYS + 1)
    assert len(frequency.campaigns) <= 2 * len(frequency)
    assert up_to_named(frequency, 7, f"{today}-6", today) == 1


def up_to_named(frequency: Frequency, who: int, campaign: str, day: int) -> int:
    """A listener's frequency of a campaign by a day, by the counters alone."""
    nobody = np.zeros(0, np.uint64), np.zeros(0, np.int64), (), np.zeros(0, np.int64)
    asked = np.array([who], np.uint64), np.array([day * DAY_MS], np.int64), [campaign]
    return int(frequency.up_to(*asked, nobody)[0])
