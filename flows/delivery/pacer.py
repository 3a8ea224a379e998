"""Pacing of published rows: the delivery fields of planned placements and their campaigns, and the alerts
about changed states. While the numbers are not fit to judge by, no change is sent. The row then shows the
last alerted state (`delivery.alerted_state`), and the alert follows once the numbers are fit again.

The pacer works where all rows of a flush come together, so a campaign's pacing is of the same cut as its
placements' pacing. The plans are a file or a topic, read once a flush. While the source is missing or broken,
its last good version stays in force.

The row shards read the plans by themselves, at other moments and maybe in other processes. Each row therefore
names the flight that it counts by (`flows.model.messages.Delivered`). A placement whose row counts by another
flight than its plan's is *held*: it keeps its last delivery fields and causes no alert, until its row and its
plan agree. Only placements with moved flights are held, however often other plans change.

A row is *unjudged* while its numbers prove nothing about its delivery, as when its feed is silent. Its
numbers are published as usual, its state stays the same, and its alerts wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import structlog

from flows.delivery.moments import refusal
from flows.delivery.opening import Counting, Opening, opening
from flows.delivery.pacing import (
    QUIET,
    STILL,
    Counted,
    Delivery,
    State,
    Thresholds,
    pace,
    pace_campaign,
    state_change,
)
from flows.delivery.past_minutes import Look, Past, held_since, open_impressions
from flows.delivery.spend import Spend, spend, spend_texts, total_spend
from flows.delivery.stake import Stake, alert_money, at_stake, stake_texts, stakes
from flows.delivery.steady_states import Memory, steady, unmoved
from flows.model.dimensions import SCOPES
from flows.model.fields import DELIVERY, FIELDS, LABELS, NO_DELIVERY, decimal, empty
from flows.model.flight import MINUTE_MS
from flows.model.messages import Delivered
from flows.model.plan import Plan, PlanBook, PlanSource
from flows.sentence import Context, sentence

LAST_HOUR_AT: Final = FIELDS.index("1h.impressions")
LAST_FIVE_AT: Final = FIELDS.index("5m.impressions")
DELIVERY_AT: Final = FIELDS.index(DELIVERY[0])
DELIVERY_STATE: Final = "delivery.state"
DELIVERY_SINCE: Final = "delivery.since_ms"
ALERTED_STATE: Final = "delivery.alerted_state"
NEW: Final = "not_started"
"""The state in which a new plan begins."""
_NOTHING: Final = (None,) * len(FIELDS)
_PLACES: Final = {name: place for place, name in enumerate(FIELDS)}
CAMPAIGN_AT: Final = FIELDS.index(LABELS[0])
AS_OF_AT: Final = FIELDS.index("as_of_ms")
LIVE_MS: Final = 2 * MINUTE_MS
"""If the previous look at a row was no longer ago than this, a new state begins now."""
MAX_LOOKS: Final = 50_000
"""The greatest number of looks back in one call of `pace` for rows without trouble: enough for 500 states
that have held for a day.
"""
TROUBLED: Final = frozenset(("under", "at_risk", "over"))
MAX_SIBLINGS: Final = 50
"""The greatest number of a campaign's other placements that a sentence compares."""
_PLAN_TERMS_AT: Final = tuple(
    map(DELIVERY.index, ("delivery.booked", "delivery.start_ms", "delivery.end_ms"))
)

ENDED: Final = frozenset(("ended_short", "ended_unknown"))
Values = list[Any]
Key = tuple[str, str]
"""Scope and name of a row."""


class Unjudged(NamedTuple):
    """The reason why a placement's or a campaign's delivery is not judged, the beginning of this in epoch ms,
    and the unit of the feed that causes it.
    """

    reason: str
    since_ms: int
    by: str


class Paced(NamedTuple):
    """Rows with new delivery fields, as (scope, name, values), and the alerts of changed states. The row of a
    withdrawn plan has no delivery fields.
    """

    rows: list[tuple[str, str, Values]]
    alerts: list[dict[str, str]]


@dataclass
class Pacer:
    """Delivery of every planned placement.

    Args:
        source: the file or topic of the plans.
        zone: the time zone of the calendar days.
        states: the last alerted state of each placement.
        counted: the delivery by each placement's latest row, if that row has a plan.
        unjudged: the placements that are not judged; `pace` replaces them.
        past: minutes that were counted before the flow was live.
    """

    source: PlanSource
    thresholds: Thresholds
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    states: dict[str, str] = field(default_factory=dict)
    counted: dict[str, Delivered] = field(default_factory=dict)
    unjudged: Mapping[str, Unjudged] = field(default_factory=dict)
    _deliveries: dict[str, Delivery] = field(default_factory=dict)
    _openings: dict[str, Opening] = field(default_factory=dict)
    _refused: dict[str, int] = field(default_factory=dict)
    _spent: dict[str, Spend | None] = field(default_factory=dict)
    _stakes: dict[str, Stake | None] = field(default_factory=dict)
    _campaigns: dict[str, str] = field(default_factory=dict)
    _placements_of: dict[str, dict[str, None]] = field(default_factory=dict)
    _since: dict[Key, tuple[str, int]] = field(default_factory=dict)
    _shown_values: dict[Key, Values] = field(default_factory=dict)
    _unwritten: dict[Key, int] = field(default_factory=dict)
    _alerting: bool = True
    _memory: dict[Key, Memory] = field(default_factory=dict)
    _saved: tuple[dict[Key, Memory], dict[Key, tuple[str, int]]] = field(default_factory=lambda: ({}, {}))
    past: Past = field(default_factory=Past)
    _looks: int = 0
    _minute: int = -1
    _version: str = ""
    _counting: Counting = field(default_factory=lambda: Counting(0))

    @property
    def book(self) -> PlanBook:
        """The plans in force."""
        return self.source.book

    def refresh(self, now_ms: int) -> None:
        """Read the source if it has changed, and log each of its problems once. `now_ms` is monotonic."""
        for problem in self.source.refresh(now_ms):
            structlog.get_logger("plans").warning("plan not taken", problem=str(problem))

    def runs(self, name: str, now_ms: int) -> Plan | None:
        """The plan of a placement that may deliver at a watermark, else None. A flight may deliver if it has
        begun, has not ended, is not paused, and has delivered less than it booked.
        """
        plan, counted, paced = self.book.get(name), self.counted.get(name), self._deliveries.get(name)
        if plan is None or not plan.start_ms <= now_ms < plan.end_ms or plan.flight.paused(now_ms):
            return None
        least = 0 if counted is None else counted.impressions or 0
        least = least if paced is None else max(least, paced.least)
        return plan if least < plan.booked else None

    def recall(self, scope: str, name: str, fields: Mapping[str, str], same_generation: bool = True) -> None:
        """Load a placement's or a campaign's delivery from the row that an earlier execution wrote. Its plan
        may have been withdrawn since.

        Args:
            same_generation: whether the row is of the present generation.
        """
        if DELIVERY_STATE not in fields:
            return
        if DELIVERY_SINCE in fields:
            self._since.setdefault((scope, name), (fields[DELIVERY_STATE], int(fields[DELIVERY_SINCE])))
        self._shown_values.setdefault((scope, name), [fields.get(field) for field in DELIVERY])
        if same_generation:
            self._unwritten[scope, name] = as_of_ms = int(fields.get("as_of_ms") or 0)
            self._remember((scope, name), fields[DELIVERY_STATE], as_of_ms // MINUTE_MS * MINUTE_MS)
        if scope == SCOPES[0]:
            self.states[name], plan = fields.get(ALERTED_STATE, fields[DELIVERY_STATE]), self.book.get(name)
            campaign = (plan and plan.campaign_id) or fields.get(LABELS[0])
            if campaign is not None and name not in self._campaigns:
                self._join(name, campaign)

    def take_over(self, rows: Mapping[str, Mapping[str, str]]) -> None:
        """Take over the states that another flow has shown to readers.

        Args:
            rows: fields of its rows, by placement.
        """
        for name, row in rows.items():
            if DELIVERY_STATE in row:
                self.states[name] = row.get(ALERTED_STATE, row[DELIVERY_STATE])
        self._minute = -1  # the next call of `pace` paces all placements

    def restore(self, saved: Iterable[Sequence[Any]]) -> None:
        """Load the states of a save."""
        for scope, name, state, candidate, since_ms, border_ms, begun_ms in saved:
            self._memory[scope, name] = Memory(state, candidate, since_ms, border_ms)
            self._since.setdefault((scope, name), (state, begun_ms))
        self._save()

    @property
    def saved(self) -> tuple[tuple[Any, ...], ...]:
        """The states of a save, as of the latest `pace`, as plain values. A thread other than that of `pace`
        may read them.
        """
        (memory, since), no_state = self._saved, ("", 0)
        return tuple((*key, *state, since.get(key, no_state)[1]) for key, state in memory.items())

    def _save(self) -> None:
        # Only the dictionaries are copied: plain values of 10,000 plans take a hundred times as long.
        self._saved = dict(self._memory), dict(self._since)

    def _remember(self, key: Key, state: str, border_ms: int) -> None:
        """Store the state that readers have, if no save has a later one."""
        memory = self._memory.get(key)
        if memory is None or (memory.state != state and memory.border_ms <= border_ms):
            self._memory[key] = Memory(state, None, 0, border_ms)  # type: ignore[arg-type]  # a state by its contract

    def repeat(self, images: Mapping[Key, Values], changed: Iterable[Key]) -> Paced:
        """The changed rows with their last delivery fields, for a time in which no row can be paced. The
        first call also returns the recalled rows, since Redis may have an older copy of them. The next call
        of `pace` paces all rows.
        """
        due = set(changed) & self._shown_values.keys() | self._unwritten.keys()
        self._minute, paced = -1, Paced([self._unchanged_row(key, images) for key in sorted(due)], [])
        self._unwritten.clear()
        return paced

    def pace(
        self,
        images: Mapping[Key, Values],
        changed: Iterable[Key],
        now_ms: int,
        counting: Counting,
        alerting: bool,
        unjudged: Mapping[str, Unjudged] | None = None,
    ) -> Paced:
        """Pace the placements that changed, or all placements after a new minute, version of the plans or
        coverage.

        Args:
            images: values of the latest rows, by scope and name.
            changed: rows that changed since the last call, by scope and name.
            now_ms: watermark of the rows; the wall clock if there never was a pixel.
            counting: the coverage of the deployment; since now if there never was a message.
            alerting: whether changed states are alerted now; otherwise the alerts wait.
            unjudged: the placements that are not judged from now on; None if these are the same as before.
        """
        is_first, changed = self._minute < 0, set(changed)
        changed |= {(SCOPES[0], name) for name in self._rejudged(unjudged)}
        waited, turn = alerting and not self._alerting, (now_ms // MINUTE_MS, self.book.version, counting)
        all_due = waited or turn != (self._minute, self._version, self._counting)
        (self._minute, self._version, self._counting), self._alerting = turn, alerting
        self._unwritten.clear()
        self._looks = MAX_LOOKS
        paced = Paced([], [])
        # A placement without a plan may have changed a campaign with delivery fields, too.
        campaigns = {name for scope, name in changed & self._shown_values.keys() if scope == SCOPES[1]}
        shown_placements = (
            [name for scope, name in self._shown_values if scope == SCOPES[0]] if all_due else []
        )
        for name in sorted(set(shown_placements) - self.book.keys()):
            campaigns |= self._withdraw(name)
            paced.rows.append(self._placement(name, images, now_ms))
        for name in self.book:
            key = (SCOPES[0], name)
            if not all_due and key not in changed:
                continue
            if self._counts_other_flight(name, images):
                if key in images and (is_first or key in changed):
                    paced.rows.append(self._unchanged_row(key, images))
                continue
            campaigns |= self._pace(name, images, now_ms, paced, alerting)
        if all_due:  # also campaigns that their last planned placement left before this execution
            shown = {name for scope, name in self._shown_values if scope == SCOPES[1]}
            campaigns |= shown - self._placements_of.keys()
        for name in sorted(campaigns):
            if self._exists(name, images):
                paced.rows.append(self._campaign(name, images, now_ms))
        if campaigns or paced.rows:
            self._save()
        return paced

    def _rejudged(self, unjudged: Mapping[str, Unjudged] | None) -> set[str]:
        """Replace the placements that are not judged; returns the placements for which this is a change."""
        if unjudged is None or unjudged is self.unjudged:
            return set()
        before, self.unjudged = self.unjudged, unjudged
        return {name for name, _ in before.items() ^ unjudged.items()}

    def _exists(self, name: str, images: Mapping[Key, Values]) -> bool:
        """True if a campaign has a row. A campaign that no plan names has none between the end of its row and
        its next pixel: a row without counts would show them as 0.
        """
        key, plans = (SCOPES[1], name), map(self.book.get, self._placements_of.get(name, ()))
        return key in images or key in self._shown_values or any(plan and plan.campaign_id for plan in plans)

    def _counts_other_flight(self, name: str, images: Mapping[Key, Values]) -> bool:
        """True if a placement's row counts by another flight than its plan's, or splits the flight at another
        moment. A placement without a row has never had a pixel, so no flight of it is wrong.
        """
        counted = self.counted.get(name)
        if counted is None:
            return (SCOPES[0], name) in images
        plan = self.book[name]
        return (counted.start, counted.end, counted.parted) != (*plan.minutes, plan.parted_from)

    def _pace(
        self, name: str, images: Mapping[Key, Values], now_ms: int, paced: Paced, alerting: bool
    ) -> set[str]:
        """Pace a placement; returns its campaign, and its earlier campaign if it had another one."""
        plan, counted = self.book[name], self.counted.get(name)
        scope, _, values = self._placement(name, images, now_ms)
        flight_opening = opening(plan, counted, self._counting, now_ms, self.thresholds.gap)
        self._openings[name] = flight_opening
        self._refuse(plan, flight_opening, now_ms)
        held_state = self._held_state((scope, name))
        last_hour, last_five = values[LAST_HOUR_AT] or 0, values[LAST_FIVE_AT] or 0
        delivery = pace(
            plan,
            flight_opening.delivered,
            last_hour,
            now_ms,
            self.thresholds,
            flight_opening.recent,
            held_state,
            last_five,
        )
        delivery = delivery._replace(since_ms=flight_opening.since_ms)
        before, campaign = self._leave(name), plan.campaign_id or values[CAMPAIGN_AT]
        if campaign:
            self._join(name, campaign)
        values[CAMPAIGN_AT] = values[CAMPAIGN_AT] or campaign
        unjudged, last_look_ms = self.unjudged.get(name), self._last_look_ms((scope, name))
        delivery = self._steady((scope, name), delivery, unjudged, now_ms)
        alerting = alerting and unjudged is None
        alert = state_change(name, campaign, self.states.get(name), delivery, now_ms)  # type: ignore[arg-type]  # a state by its contract
        waits = delivery.state in QUIET or (alert is not None and not alerting)
        shown_state = self.states.get(name, NEW) if waits else delivery.state
        self._stakes[name] = stake = at_stake(plan, delivery, values)
        self.states[name], self._deliveries[name] = shown_state, delivery
        self._spent[name] = spent = spend(plan, flight_opening.delivered, flight_opening.counted, values)
        look = partial(self._look_back, name, flight_opening, last_hour, now_ms)
        since_ms = self._since_ms((scope, name), delivery, now_ms, last_look_ms, look)
        delivery_values = [
            *_delivery_values(delivery, since_ms, plan, plan.currency, stake, spent, shown_state, unjudged),
            *_opening_values(plan, flight_opening),
            *self._plan_change((scope, name), plan, now_ms),
        ]
        self._show((scope, name), values, delivery_values)
        paced.rows.append((scope, name, values))
        if alert is not None and alerting:
            owner = {"advertiser": plan.advertiser} if plan.advertiser is not None else {}
            begun = {"since_ms": str(since_ms)}
            words = {"sentence": self._sentence(name, values, campaign, images, now_ms)}
            paced.alerts.append(alert | begun | owner | alert_money(stake) | words)
        return {each for each in (before, campaign) if each}

    def _sentence(
        self, name: str, values: Values, campaign: str | None, images: Mapping[Key, Values], now_ms: int
    ) -> str:
        """The sentence of a placement, by the rows of placements and campaigns. The pacer has no rows of
        stations, platforms and tags.
        """
        placements = islice(self._placements_of.get(campaign or "", ()), MAX_SIBLINGS)
        siblings = {each: self._texts((SCOPES[0], each), images) for each in placements if each != name}
        campaign_texts = _Texts(NO_DELIVERY, lambda: images.get((SCOPES[1], campaign or "")) or _NOTHING)
        row_texts = _Texts(self._shown_values[SCOPES[0], name], lambda: values)
        return sentence(row_texts, Context(now_ms, self.zone, siblings, campaign_texts))

    def _texts(self, key: Key, images: Mapping[Key, Values]) -> _Texts:
        """The fields of an unchanged row."""
        return _Texts(self._shown_values.get(key, NO_DELIVERY), lambda: self._unchanged_row(key, images)[2])

    def _refuse(self, plan: Plan, flight_opening: Opening, now_ms: int) -> None:
        """Log once that a balance's moment does not split the counts, with the nearest moments that do."""
        name, until_ms = plan.placement_id, plan.delivered_before_until
        if flight_opening.unknown != "until" or until_ms is None:
            self._refused.pop(name, None)
        elif self._refused.get(name) != until_ms:
            self._refused[name] = until_ms
            words = refusal(until_ms, self._counting.since_ms, now_ms, self.zone)
            structlog.get_logger("plans").warning(
                "balance not taken", problem=f"{name}: delivered_before_until: {words}"
            )

    def _withdraw(self, name: str) -> set[str]:
        """Drop a placement whose plan is withdrawn; returns its campaign, if it has one."""
        tables: list[dict[str, Any]] = [self._deliveries, self._openings, self._refused]
        for table in [*tables, self._spent, self._stakes, self.states]:
            table.pop(name, None)
        self._since.pop((SCOPES[0], name), None)
        self._memory.pop((SCOPES[0], name), None)
        del self._shown_values[SCOPES[0], name]
        campaign = self._leave(name)
        return {campaign} if campaign else set()

    def _join(self, name: str, campaign: str) -> None:
        """Add a placement without a campaign to a campaign."""
        self._campaigns[name] = campaign
        self._placements_of.setdefault(campaign, {})[name] = None

    def _leave(self, name: str) -> str | None:
        """Remove a placement from its campaign; returns the campaign, None if the placement has none."""
        campaign = self._campaigns.pop(name, None)
        if campaign is not None:
            parts = self._placements_of[campaign]
            del parts[name]
            if not parts:
                del self._placements_of[campaign]
        return campaign

    def _placement(self, name: str, images: Mapping[Key, Values], now_ms: int) -> tuple[str, str, Values]:
        """The row of a placement at the watermark `now_ms`, without new delivery fields."""
        values = list(images.get((SCOPES[0], name)) or empty(now_ms))
        values[AS_OF_AT] = now_ms
        return SCOPES[0], name, values

    def _campaign(self, name: str, images: Mapping[Key, Values], now_ms: int) -> tuple[str, str, Values]:
        key = (SCOPES[1], name)
        values = list(images.get(key) or empty(now_ms))
        planned = self._placements_of.get(name, {})
        parts = [part for part in planned if part in self._deliveries]
        if len(parts) < len(planned) and key in self._shown_values:  # a placement is held since a restart
            self._show(key, values, self._shown_values[key])
        elif parts:
            deliveries = [self._deliveries[part] for part in parts]
            delivery = pace_campaign(deliveries, self.thresholds, self._held_state(key))
            unjudged = min(filter(None, map(self.unjudged.get, parts)), key=_unjudged_since_ms, default=None)
            last_look_ms = self._last_look_ms(key)
            delivery = self._steady(key, delivery, unjudged, now_ms)
            spent = total_spend(list(filter(None, map(self._spent.get, parts))))
            currency = None if spent is None else spent.currency
            stake = stakes(list(filter(None, map(self._stakes.get, parts))))
            look = partial(self._campaign_look_back, parts, images, now_ms)
            since_ms = self._since_ms(key, delivery, now_ms, last_look_ms, look)
            delivery_values = _delivery_values(
                delivery, since_ms, None, currency, stake, spent, None, unjudged
            )
            self._show(key, values, [*delivery_values, *self._campaign_opening_values(parts)])
        else:
            self._shown_values.pop(key, None)
            self._since.pop(key, None)
            self._memory.pop(key, None)
        return (*key, values)

    def _campaign_opening_values(self, parts: Iterable[str]) -> Values:
        """The opening fields of a campaign: the sum of its placements' balances, and their longest gap."""
        planned = [part for part in parts if part in self.book]
        balances = [self.book[part].delivered_before for part in planned]
        known_balances = [balance for balance in balances if balance is not None]
        gaps = [self._openings[part].gap_ms for part in planned if part in self._openings]
        gap = max(filter(None, gaps), default=None)
        return [sum(known_balances) if known_balances else None, None, None, gap, None, None, None]

    def _plan_change(self, key: Key, plan: Plan, now_ms: int) -> Values:
        """The moment of the latest change of a placement's plan, epoch ms, and the booking before it if the
        change was one of the booking. The row that readers have shows the earlier plan.
        """
        before = self._shown_values.get(key)
        if before is None:
            return [None, None]
        plan_terms = (plan.booked, plan.start_ms, plan.end_ms)
        shown_terms = tuple(int(before[place] or 0) for place in _PLAN_TERMS_AT)
        if shown_terms == plan_terms:
            return before[-2:]
        return [now_ms, shown_terms[0] if shown_terms[0] != plan.booked else None]

    def _held_state(self, key: Key) -> State:
        """The state that a row holds, around which its bands lie. A row without a state holds `on_track`."""
        memory = self._memory.get(key)
        return "on_track" if memory is None else memory.state

    def _steady(self, key: Key, delivery: Delivery, unjudged: Unjudged | None, now_ms: int) -> Delivery:
        """A delivery with the state that the row holds. An unjudged row holds its earlier state. States that
        do not depend on the numbers, such as a flight's end, change nevertheless.
        """
        memory, judged = self._memory.get(key), unjudged is None or delivery.delivered is None
        if memory is None or judged or {delivery.state, memory.state} & (STILL | QUIET):
            now = steady(delivery, memory, now_ms, self.thresholds.hold_ms)
        else:
            now = unmoved(memory, now_ms)
        self._memory[key] = now
        return delivery._replace(state=now.state)

    def _last_look_ms(self, key: Key) -> int:
        """The border of minutes of the last look at a row's state, epoch ms; 0 if there was none."""
        memory = self._memory.get(key)
        return 0 if memory is None else memory.border_ms

    def _since_ms(self, key: Key, delivery: Delivery, now_ms: int, last_look_ms: int, look: Look) -> int:
        """The watermark at which a row's state began. A plan may have moved, so this is not before the
        flight.

        Args:
            last_look_ms: the moment of the last look at the row's state; 0 if there was none.
            look: returns the delivery at a border of minutes.
        """
        state, since_ms = self._since.get(key, ("", now_ms))
        if state != delivery.state:
            since_ms = self._begun_ms(delivery, now_ms, last_look_ms, look)
        if delivery.state != "not_started":
            since_ms = max(since_ms, delivery.start_ms)
        since_ms = min(since_ms, now_ms)
        self._since[key] = delivery.state, since_ms
        return since_ms

    def _begun_ms(self, delivery: Delivery, now_ms: int, last_look_ms: int, look: Look) -> int:
        """The beginning of a new state, by the minutes that were counted since the last look; `now_ms` if
        these do not show a beginning.
        """
        if now_ms - last_look_ms <= LIVE_MS or delivery.state == "not_started":
            return now_ms
        if delivery.state in ENDED:
            return max(delivery.end_ms, last_look_ms)
        if not self.past.first or delivery.delivered is None:
            return now_ms
        if delivery.state not in TROUBLED and self._looks <= 0:
            return now_ms
        floor = max(last_look_ms, delivery.start_ms, delivery.since_ms) // MINUTE_MS
        hold = self.thresholds.hold_ms // MINUTE_MS
        border = held_since(delivery.state, look, max(floor, self.past.first), self.past.newest + 1, hold)
        return now_ms if border is None else border * MINUTE_MS

    def _look_back(
        self, name: str, flight_opening: Opening, last_hour: int, now_ms: int, border: int, held_state: State
    ) -> Delivery:
        """The delivery of a placement at a border of minutes, without the impressions after the border."""
        self._looks -= 1
        plan = self.book[name]
        end = plan.end_ms // MINUTE_MS
        later = self.past.after(name, border, end)
        later += open_impressions(self.past, name, last_hour, now_ms) if now_ms < plan.end_ms else 0
        at_ms = border * MINUTE_MS
        recent = Counted(flight_opening.recent.since_ms, max(0, flight_opening.recent.impressions - later))
        delivered = None if flight_opening.delivered is None else max(0, flight_opening.delivered - later)
        hour, five = (self.past.after(name, border - minutes, border) for minutes in (59, 4))
        delivery = pace(plan, delivered, hour, at_ms, self.thresholds, recent, held_state, five)
        return delivery._replace(since_ms=flight_opening.since_ms)

    def _campaign_look_back(
        self, parts: Sequence[str], images: Mapping[Key, Values], now_ms: int, border: int, held_state: State
    ) -> Delivery:
        """The delivery of a campaign at a border of minutes."""
        deliveries = []
        for part in parts:
            image = images.get((SCOPES[0], part))
            last_hour = (image[LAST_HOUR_AT] if image is not None else 0) or 0
            part_state = self._held_state((SCOPES[0], part))
            part_opening = self._openings[part]
            deliveries.append(self._look_back(part, part_opening, last_hour, now_ms, border, part_state))
        return pace_campaign(deliveries, self.thresholds, held_state)

    def _show(self, key: Key, values: Values, delivery: Values) -> None:
        self._shown_values[key] = delivery
        values[DELIVERY_AT : DELIVERY_AT + len(DELIVERY)] = delivery

    def _unchanged_row(self, key: Key, images: Mapping[Key, Values]) -> tuple[str, str, Values]:
        """The latest row, with the delivery fields that readers have."""
        values = list(images.get(key) or empty(self._unwritten.get(key, 0)))
        values[DELIVERY_AT : DELIVERY_AT + len(DELIVERY)] = self._shown_values.get(key, NO_DELIVERY)
        if key[0] == SCOPES[0]:
            values[CAMPAIGN_AT] = values[CAMPAIGN_AT] or self._campaigns.get(key[1])
        return (*key, values)


def _opening_values(plan: Plan, flight_opening: Opening) -> Values:
    """The values of `DELIVERY` about a placement's opening: its balance with moment and source, its gap, and
    the reason why the delivery is unknown.
    """
    return [
        plan.delivered_before,
        flight_opening.until_ms,
        plan.delivered_before_source,
        flight_opening.gap_ms,
        flight_opening.unknown,
    ]


class _Texts(Mapping[str, str]):
    """The fields of a row as texts, each made when it is read: a sentence reads some ten fields of a row.

    Args:
        delivery: the values of `DELIVERY`.
        row: returns all values; called when a field outside `DELIVERY` is read.
    """

    def __init__(self, delivery: Sequence[Any], row: Callable[[], Sequence[Any]]) -> None:
        self._delivery, self._row = delivery, row

    @cached_property
    def _values(self) -> Sequence[Any]:
        return self._row()

    def __getitem__(self, name: str) -> str:
        place = _PLACES[name]
        in_delivery = DELIVERY_AT <= place < DELIVERY_AT + len(DELIVERY)
        value = self._delivery[place - DELIVERY_AT] if in_delivery else self._values[place]
        if value is None:
            raise KeyError(name)
        return str(value)

    def __iter__(self) -> Iterator[str]:
        return (name for name in FIELDS if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _unjudged_since_ms(unjudged: Unjudged) -> int:
    return unjudged.since_ms


def _delivery_values(
    delivery: Delivery,
    since_ms: int,
    plan: Plan | None,
    currency: str | None,
    stake: Stake | None,
    spent: Spend | None,
    shown_state: str | None,
    unjudged: Unjudged | None,
) -> Values:
    """The values of `DELIVERY` up to those about the opening and the plan. A campaign has no target, price or
    alert: its `plan` and `shown_state` are None.
    """
    target = None if plan is None else plan.target_completion_rate
    cpm = None if plan is None or plan.cpm_micros is None else plan.cpm_micros / 1e6

    def number(value: float | None) -> str | None:
        return None if value is None else decimal(value)

    return [
        delivery.booked,
        delivery.delivered,
        number(delivery.expected),
        number(delivery.short_by),
        number(delivery.indicator),
        delivery.state,
        since_ms,
        number(delivery.projected),
        number(delivery.required_rate),
        delivery.start_ms,
        delivery.end_ms,
        number(delivery.remaining_ms / 1000),
        number(target),
        number(cpm),
        currency,
        *stake_texts(stake),
        *spend_texts(spent),
        shown_state if shown_state != delivery.state else None,
        int(unjudged is None),
        *(unjudged or (None, None, None)),
        delivery.since_ms,
    ]
