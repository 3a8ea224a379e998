"""The work behind alerts: a flush in which many placements change their state stays short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from test_paced_rows import AT_MS, FLIGHT, MINUTE_MS, PLAN, SINCE_MS, Held, replaced

from flows.delivery.opening import Counting
from flows.delivery.pacer import CAMPAIGN_AT, LAST_HOUR_AT, Pacer
from flows.model.fields import FIELDS, empty
from flows.model.messages import Delivered
from flows.model.plan import PlanBook

COUNT = 60
KEYS = [*(("placement", f"p{number}") for number in range(COUNT)), ("campaign", "c")]
NEXT_MS = 31 * MINUTE_MS


@dataclass
class Images(Mapping[tuple[str, str], list[Any]]):
    """Rows of one campaign, which count how often one is unpacked."""

    last_hour: int
    unpacked: int = 0
    rows: dict[tuple[str, str], list[Any]] = field(default_factory=dict)

    def __getitem__(self, key: tuple[str, str]) -> list[Any]:
        if key not in KEYS:
            raise KeyError(key)
        self.unpacked += 1
        values = empty(AT_MS)
        values[LAST_HOUR_AT] = self.last_hour
        values[CAMPAIGN_AT] = "c" if key[0] == "placement" else None
        values[FIELDS.index("flight.pixels")] = 100
        return values

    def __contains__(self, key: object) -> bool:
        return key in KEYS

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(KEYS)

    def __len__(self) -> int:
        return len(KEYS)


def paced(last_hour: int) -> tuple[Pacer, int, list[dict[str, str]]]:
    """A pacer of `COUNT` placements that all become `complete` in one cut, the number of rows that this cut
    unpacked, and its alerts.
    """
    plans = [replaced(placement_id=f"p{number}") for number in range(COUNT)]
    pacer, images = Pacer(Held(PlanBook(plans)), FLIGHT), Images(last_hour)
    for number in range(COUNT):
        pacer.counted[f"p{number}"] = Delivered(*PLAN.minutes, 400)
    pacer.pace(images, images, AT_MS, Counting(SINCE_MS), True)
    for number in range(COUNT):
        pacer.counted[f"p{number}"] = Delivered(*PLAN.minutes, PLAN.booked)
    before = images.unpacked
    alerts = pacer.pace(images, images, AT_MS + NEXT_MS, Counting(SINCE_MS), True).alerts
    return pacer, images.unpacked - before, alerts


def test_an_alert_unpacks_only_rows_of_its_sentence() -> None:
    _, unpacked, alerts = paced(last_hour=300)
    assert len(alerts) == COUNT
    # Each row is paced once; a sentence may read its campaign's row, and the first of its 50 siblings.
    assert unpacked <= len(KEYS) + 3 * COUNT, unpacked


def test_the_states_of_a_save_stay_those_of_the_latest_cut() -> None:
    pacer, _, _ = paced(last_hour=300)
    saved = pacer.saved
    assert {(scope, name): state for scope, name, state, *_ in saved} == dict.fromkeys(KEYS, "complete")
    pacer._memory.clear()  # as the thread of the next cut does while a save is made
    pacer._since.clear()
    assert pacer.saved == saved
