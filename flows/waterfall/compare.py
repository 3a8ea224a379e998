"""Compares rows of another party's report with our counts by day in Redis."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from connectors.redis import Client, read_rows, scan_index
from flows.errors import UNREADABLE, AudiopixelError
from flows.model.basis import BASES
from flows.model.plan import Plan
from flows.model.redis_keys import day_key, door_key, row_key
from flows.shown import shown
from flows.waterfall.publisher_counts import COUNTED, FLIGHT, Claim
from flows.waterfall.signed_parts import INVALID, OTHER_BASIS, Counts, Difference, signed

KEPT_DAYS: Final = 62
_SHOWN: Final = 40
_PARTS: Final = ("repeated", "too_late", "rejected", "orphans", "clock_moved", "outside_flight")
_OF_SENT: Final = ("repeated", INVALID, "too_late", "outside_flight")
_FLIGHT: Final = ("delivery.start_ms", "delivery.end_ms")
_PART_OF_REASON: Final = {"unsigned": "unsigned", "invalid": "rejected"}
"""The part of each of a collector's reasons of rejection."""
_NUMBER: Final = re.compile(r"-?\d{1,15}", re.ASCII)
_MOST: Final = 10**15
_counts_of = msgspec.json.Decoder(dict[str, Annotated[int, msgspec.Meta(gt=-_MOST, lt=_MOST)]]).decode
_COVERS_MS: Final = 15 * 60_000
"""The longest time by which a flight may begin before the deployment counts and still be covered. The row's
state has the same rule.
"""
_LAST_MS: Final = 253_000_000_000_000
"""A time of the year 9987, near the end of Python's calendar."""


class _Hash(NamedTuple):
    """A hash of Redis, whose fields may be damaged, or written by another program.

    Each method raises `AudiopixelError` for a damaged field, and names the field.
    """

    key: str
    fields: Mapping[str, str]

    def number(self, field: str) -> int:
        """The number of a field; 0 if the field is absent."""
        value = self.fields.get(field, "0")
        if _NUMBER.fullmatch(value) is None:
            raise self.damaged(field, "a whole number")
        return int(value)

    def time_ms(self, field: str) -> int:
        """The time of a field, in epoch ms."""
        if not 0 < (at_ms := self.number(field)) <= _LAST_MS:
            raise self.damaged(field, "ms since 1970")
        return at_ms

    def counts(self, field: str) -> dict[str, int]:
        """The counts of a field, by name."""
        try:
            return _counts_of(self.fields.get(field, "{}"))
        except (*UNREADABLE, ValueError):
            raise self.damaged(field, "JSON, name to whole number") from None

    def damaged(self, field: str, takes: str) -> AudiopixelError:
        """The error for a damaged field."""
        value = shown(self.fields.get(field, ""), _SHOWN)
        return AudiopixelError(
            f"{self.key} {field} in Redis is damaged, or not of a flow: "
            f"it holds {value!r} and takes {takes}: correct or delete it"
        )


def compare(
    client: Client, namespace: str, zone: ZoneInfo, plans: Mapping[str, Plan], claims: Sequence[Claim]
) -> list[Difference]:
    """The waterfall of each claim.

    Args:
        zone: the time zone of calendar days.
        plans: the plans by placement.

    Raises:
        RedisUnavailable: Redis does not answer.
        AudiopixelError: Redis has no counts of a flow, or damaged ones.
    """
    today, since_ms = _time(client, namespace, zone)
    by_campaign = placements_of(client, namespace, plans) if any(map(_is_campaign, claims)) else {}
    placements_of_claims = [
        by_campaign.get(claim.name, []) if _is_campaign(claim) else [claim.name] for claim in claims
    ]
    placements = {name for names in placements_of_claims for name in names}
    flights, rows = _flights_and_rows(client, namespace, plans, placements, zone)
    knowledge = _Knowledge(plans, flights, rows, today, since_ms, zone)
    return [
        _difference(client, namespace, knowledge, claim, names)
        for claim, names in zip(claims, placements_of_claims, strict=True)
    ]


class _Knowledge(NamedTuple):
    """The plans, flights and times by which all claims are compared.

    Attributes:
        plans: the plans by placement.
        flights: the flight of each placement, by its plan, else by its row.
        rows: the placements that have a row.
        today: the day of the flow's watermark.
        since_ms: the epoch ms since which the deployment counts; 0 if unknown.
    """

    plans: Mapping[str, Plan]
    flights: Mapping[str, _Flight]
    rows: Set[str]
    today: date
    since_ms: int
    zone: ZoneInfo


class _Flight(NamedTuple):
    """The first and last day of a flight, and its start."""

    first: date
    last: date
    start_ms: int


def _flights_and_rows(
    client: Client, namespace: str, plans: Mapping[str, Plan], names: Set[str], zone: ZoneInfo
) -> tuple[dict[str, _Flight], set[str]]:
    """The flights of placements, by their plans, else by their rows; and the placements that have a row."""
    keys = {name: row_key(namespace, "placement", name) for name in sorted(names)}
    row_hashes = _hashes(client, [*keys.values()], ["rev", *_FLIGHT])
    times = {name: (plans[name].start_ms, plans[name].end_ms) for name in keys if name in plans}
    for name, row in zip(keys, row_hashes, strict=True):
        if name not in times and all(field in row.fields for field in _FLIGHT):
            times[name] = row.time_ms(_FLIGHT[0]), row.time_ms(_FLIGHT[1])
    days = {
        name: _Flight(_day_of(start, zone), _day_of(end - 1, zone), start)
        for name, (start, end) in times.items()
    }
    return days, {name for name, row in zip(keys, row_hashes, strict=True) if row.fields}


def _is_campaign(claim: Claim) -> bool:
    return claim.scope == "campaign"


def _time(client: Client, namespace: str, zone: ZoneInfo) -> tuple[date, int]:
    """The day of the flow's watermark, and the epoch ms since which it counts; 0 if unknown."""
    (meta,) = _hashes(client, [f"{namespace}:meta"], ["watermark_ms", "counted_since_ms"])
    if not meta.number("watermark_ms"):
        raise AudiopixelError(
            f"{meta.key} in Redis has no watermark_ms, so no flow has counted there yet: set "
            "AUDIOPIXEL_REDIS_URL and AUDIOPIXEL_NAMESPACE as the flow has them, or start it"
        )
    return _day_of(meta.time_ms("watermark_ms"), zone), meta.number("counted_since_ms")


def _hashes(client: Client, keys: Sequence[str], fields: Sequence[str] | None = None) -> list[_Hash]:
    return list(map(_Hash, keys, read_rows(client, keys, fields)))


def _day_of(ms: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone).date()


def placements_of(client: Client, namespace: str, plans: Mapping[str, Plan]) -> dict[str, list[str]]:
    """The placements of each campaign: by their plans, or by their rows if no plan names a campaign or an
    advertiser.

    Raises:
        ConnectError: Redis cannot be read.
    """
    named = {name for name, plan in plans.items() if plan.campaign_id or plan.advertiser}
    rows = [name for name in scan_index(client, f"{namespace}:index:placement") if name not in named]
    keys = [row_key(namespace, "placement", name) for name in rows]
    labels = read_rows(client, keys, ["campaign_id"])
    pairs = [(plan.campaign_id, name) for name, plan in plans.items()]
    pairs += [(label.get("campaign_id"), name) for name, label in zip(rows, labels, strict=True)]
    by_campaign = defaultdict(list)
    for campaign, name in pairs:
        if campaign is not None:
            by_campaign[campaign].append(name)
    return by_campaign


def _difference(
    client: Client, namespace: str, knowledge: _Knowledge, claim: Claim, placements: Sequence[str]
) -> Difference:
    flights = {name: knowledge.flights[name] for name in placements if name in knowledge.flights}
    counts, note = None, _unknown(claim, placements, flights, knowledge)
    if not note:
        days = {name: _days(claim, flights.get(name), knowledge.today) for name in placements}
        rows = _rows(client, namespace, days)
        counted = {name for name, day_rows in rows.items() if any(row.fields for row in day_rows)}
        present = knowledge.rows | counted
        if missing := [name for name, its_days in days.items() if its_days and name not in present]:
            several = f"{len(missing)} of {len(placements)} placements"
            subject = several if _is_campaign(claim) else "this placement"
            note = f"Redis has neither a row nor a count of {subject}"
        else:
            all_rows = [row for day_rows in rows.values() for row in day_rows]
            counts = _counted(client, namespace, claim, days, all_rows)
            note = _note(claim, placements, flights, days, knowledge)
    tolerances = [knowledge.plans[name].tolerance for name in placements if name in knowledge.plans]
    return Difference(
        scope=claim.scope,
        name=claim.name,
        when=FLIGHT if claim.day is None else claim.day.isoformat(),
        ours=None if counts is None else counts.counted,
        theirs=claim.number,
        parts=[] if counts is None else signed(counts, claim.excludes),
        tolerance=min((one for one in tolerances if one is not None), default=None),
        note=note,
        counted=claim.metric,
    )


def _days(claim: Claim, flight: _Flight | None, today: date) -> list[date]:
    """The days of a claim. A claim for the flight has its days that have begun."""
    if claim.day is not None:
        return [claim.day]
    if flight is None:
        return []
    first, last = flight.first, min(flight.last, today)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _unknown(
    claim: Claim, placements: Sequence[str], flights: Mapping[str, _Flight], knowledge: _Knowledge
) -> str:
    """The reason for which our number of a claim is unknown; empty if it may be known."""
    oldest = knowledge.today - timedelta(days=KEPT_DAYS)
    if not placements:
        return "no placement of this campaign has a plan or a row"
    if claim.day is None and not flights:
        return "the flight is not known: neither a plan nor a row has it"
    start_ms = min((one.start_ms for one in flights.values()), default=0)
    first = min(one.first for one in flights.values()) if claim.day is None else claim.day
    if first > knowledge.today:
        return f"this {'flight' if claim.day is None else 'day'} has not begun"
    if first < oldest:
        return f"days before {oldest.isoformat()} are no longer kept"
    midnight_ms = int(datetime.combine(first, time(), knowledge.zone).timestamp() * 1000)
    if max(start_ms, midnight_ms) < knowledge.since_ms - _COVERS_MS:
        since = datetime.fromtimestamp(knowledge.since_ms / 1000, knowledge.zone).isoformat(" ", "minutes")
        return f"nothing before {since} was counted"
    return ""


def _note(
    claim: Claim,
    placements: Sequence[str],
    flights: Mapping[str, _Flight],
    days: Mapping[str, Sequence[date]],
    knowledge: _Knowledge,
) -> str:
    """The note on a verdict."""
    notes = []
    if claim.day is None and (unplanned := len(placements) - len(flights)):
        notes.append(
            f"without a plan, so without a flight, and left out: {unplanned} of {len(placements)} placements"
        )
    if any(knowledge.today in its_days for its_days in days.values()):
        notes.append("today is not over: both counts still grow")
    if flights.keys() - knowledge.plans.keys():
        notes.append("the plans are not read here, so their tolerances are not known")
        if claim.day is None:
            counted = [day for its_days in days.values() for day in its_days]
            notes.append(f"the flight is that in Redis: our count is of {min(counted)} to {max(counted)}")
    return "; ".join(notes)


def _rows(client: Client, namespace: str, days: Mapping[str, Sequence[date]]) -> dict[str, list[_Hash]]:
    """The day counts of each placement."""
    keys = [(name, day_key(namespace, name, day)) for name, its_days in days.items() for day in its_days]
    rows: dict[str, list[_Hash]] = {name: [] for name in days}
    for (name, _), row in zip(keys, _hashes(client, [key for _, key in keys]), strict=True):
        rows[name].append(row)
    return rows


def _counted(
    client: Client, namespace: str, claim: Claim, days: Mapping[str, Sequence[date]], rows: Sequence[_Hash]
) -> Counts:
    """Our counts of the same events as a claim, with the doors' rejections of them."""
    of_impressions = claim.counted == COUNTED[0]
    counts = _impressions(rows, claim) if of_impressions else _sent(rows, claim)
    parts = Counter(counts.parts)
    parts.update(_all_at_doors(client, namespace, days, "" if of_impressions else f".{claim.counted}"))
    return replace(counts, parts=parts)


def _sent(rows: Sequence[_Hash], claim: Claim) -> Counts:
    """Our deliveries or downloads: all of them, or once a client by a window of the IAB."""
    sums: Counter[str] = Counter()
    for row in rows:
        sums.update(row.counts("sent"))
    kind, ours = claim.counted, sums[claim.metric]
    parts = Counter({name: sums[f"{kind}_{name}"] for name in _OF_SENT})
    if claim.window is not None:
        parts["unkeyed"] = sums[f"{kind}_unkeyed"]
        parts["same_client"] = sums[kind] - ours - parts["unkeyed"]
    return Counts(ours, parts)


def _impressions(rows: Sequence[_Hash], claim: Claim) -> Counts:
    """Our impressions, with the parts of a difference from theirs."""
    parts: Counter[str] = Counter()
    invalid: Counter[str] = Counter()
    impressions = 0
    for row in rows:
        impressions += row.number("impressions")
        parts.update({name: row.number(name) for name in _PARTS})
        if claim.basis is not None:
            parts[OTHER_BASIS] += _of_other_bases(row, claim.basis)
        invalid.update(row.counts(INVALID))
    return Counts(impressions, parts, invalid)


def _all_at_doors(
    client: Client, namespace: str, days: Mapping[str, Sequence[date]], kind: str
) -> Counter[str]:
    keys = [door_key(namespace, name, day.isoformat()) for name, its_days in days.items() for day in its_days]
    return sum((_at_doors(doors, kind) for doors in _hashes(client, keys)), Counter[str]())


def _of_other_bases(row: _Hash, basis: str) -> int:
    """The impressions of a day that are inside the flight and of another basis."""
    inside = row.number("impressions") - row.number("outside_flight")
    by_basis = row.counts("bases")
    usual = {BASES[0]: inside - sum(by_basis.values())}
    return inside - (usual | by_basis).get(basis, 0)


def _at_doors(doors: _Hash, kind: str) -> Counter[str]:
    """The collectors' rejections of a kind on a day, by part. The kind of impressions is empty."""
    parts: Counter[str] = Counter()
    for field in doors.fields:
        name, dot, door_kind = field.partition("/")[0].partition(".")
        if name in _PART_OF_REASON and dot + door_kind == kind:
            parts[_PART_OF_REASON[name]] += doors.number(field)
    return parts
