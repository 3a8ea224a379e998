"""Plans, one for each placement. docs/plans.md has the columns and their values.

`flows.delivery.plan_files` reads files of plans, `flows.delivery.plan_topics` reads topics of plans.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import chain
from typing import Final, Literal, Protocol, get_args

import msgspec
import xxhash

from flows.model.dimensions import LABELS
from flows.model.flight import MINUTE_MS, Curve, Flight

From = Literal["server", "browser"]
"""The conversions that count: `server` for those of servers with a token alone, `browser` for those of public
tags, too.
"""
SERVER, BROWSER = get_args(From)


@dataclass(frozen=True)
class Plan:
    """The plan of a placement, as `plan_of` has checked it.

    Times are epoch milliseconds; `end_ms` and the ends of `pauses` are not included. `start_ms` and `end_ms`
    are whole minutes, as flights count. `unrounded_ms` has both as they were written, if these differ.
    `cpm_micros` are millionths of `currency`. `blocked_categories` are IAB ids in upper case, sorted.
    `advertiser` is the one whose read tokens see the placement. `tolerance` is the share by which another
    party's count may differ. `conversions_from` names the conversions of its campaign that count; with None
    the setting decides. `listed` has the names of each of `flows.model.dimensions.LABELS` that it may run on,
    sorted.

    `delivered_before` is the opening balance: impressions that were delivered up to `delivered_before_until`
    (epoch ms; None for the time when counting began), as `delivered_before_source` states. Without a balance
    `delivered_before` is None.
    """

    placement_id: str
    booked: int
    start_ms: int
    end_ms: int
    timezone: str | None = None
    campaign_id: str | None = None
    cpm_micros: int | None = None
    currency: str | None = None
    target_completion_rate: float | None = None
    curve: Curve = "even"
    pauses: tuple[tuple[int, int], ...] = ()
    blocked_categories: tuple[str, ...] = ()
    advertiser: str | None = None
    tolerance: float | None = None
    conversions_from: From | None = None
    listed: tuple[tuple[str, ...], ...] = ((),) * len(LABELS)
    delivered_before: int | None = None
    delivered_before_until: int | None = None
    delivered_before_source: str | None = None
    unrounded_ms: tuple[int, int] | None = field(default=None, compare=False)

    @cached_property
    def flight(self) -> Flight:
        """The flight's unpaused time and its curve, summed up once."""
        return Flight(self.start_ms, self.end_ms, self.pauses, self.curve, self.timezone or "UTC")

    @property
    def minutes(self) -> tuple[int, int]:
        """The flight in minutes since the epoch: its first minute, and the first minute that begins at its
        end or later.
        """
        return self.start_ms // MINUTE_MS, -(-self.end_ms // MINUTE_MS)

    @property
    def parted_from(self) -> int:
        """The minute since the epoch from which on impressions count in addition to the opening balance; 0
        without a balance, or if the balance ends within a minute.
        """
        minute, ms_of_minute = divmod(self.delivered_before_until or 0, MINUTE_MS)
        return 0 if ms_of_minute else minute


_FIELDS: Final = tuple(column.name for column in fields(Plan) if column.compare)
NAMED: Final = tuple(f"{label}s" for label in LABELS)
"""The columns of plans that list names of `LABELS`."""


class PlanBook(Mapping[str, Plan]):
    """The plans in force by placement. `version` is a hash of their content, equal for equal plans.

    Args:
        unsure: campaigns that refused plans may name.
    """

    def __init__(self, plans: Iterable[Plan] = (), unsure: Iterable[str] = ()) -> None:
        self.unsure = frozenset(unsure)
        self._plans = {plan.placement_id: plan for plan in plans}
        content = [[getattr(self._plans[name], field) for field in _FIELDS] for name in sorted(self._plans)]
        self.version: str = xxhash.xxh3_64_hexdigest(msgspec.json.encode(content))

    @cached_property
    def labels(self) -> tuple[frozenset[str], ...]:
        """The names that any plan lists, for each of `LABELS`; computed once."""
        plans = self._plans.values()
        return tuple(
            frozenset(chain.from_iterable(plan.listed[label] for plan in plans))
            for label in range(len(LABELS))
        )

    @cached_property
    def currencies(self) -> dict[str, str]:
        """The currency on which a campaign's plans agree, as far as they name one; computed once."""
        named: dict[str, set[str]] = {}
        for plan in self._plans.values():
            if plan.campaign_id is not None and plan.currency is not None:
                named.setdefault(plan.campaign_id, set()).add(plan.currency)
        return {campaign: currency for campaign, (currency, *others) in named.items() if not others}

    @cached_property
    def conversions_from(self) -> dict[str, From]:
        """The conversions that count, by campaign, for campaigns whose plans define this. If two plans
        disagree, only servers' conversions count, which is the safe choice. Computed once.
        """
        by_campaign: dict[str, From] = {}
        for plan in self._plans.values():
            if plan.campaign_id is not None and plan.conversions_from is not None:
                earlier = by_campaign.setdefault(plan.campaign_id, plan.conversions_from)
                by_campaign[plan.campaign_id] = (
                    SERVER if SERVER in (earlier, plan.conversions_from) else earlier
                )
        return by_campaign

    def __getitem__(self, placement_id: str) -> Plan:
        return self._plans[placement_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plans)

    def __len__(self) -> int:
        return len(self._plans)


class PlanSource(Protocol):
    """A source of plans, which may change at any time: `PlanFile`, `PlanTopic`."""

    @property
    def book(self) -> PlanBook:
        """The plans in force; replaced by `refresh`, never changed."""
        ...

    @property
    def ready(self) -> bool:
        """True if the plans have been read once."""
        ...

    def refresh(self, now_ms: int) -> Sequence[object]:
        """Read changes, without waiting. Returns each reason for which a part was left out, once; `str` of a
        reason is for people.
        """
        ...
