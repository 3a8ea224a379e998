"""Their rows against our day counts in Redis."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from connectors.redis import Client, read_rows, scan_index
from flows.errors import UNREADABLE, AudiopixelError
from flows.model.basis import BASES
from flows.model.plan import Plan
from flows.model.redis_keys import day_key, door_key, row_key
from flows.shown import shown
from flows.waterfall.parts import INVALID, OTHER_BASIS, Counts, Difference, signed
from flows.waterfall.theirs import COUNTED, FLIGHT, Claim

KEPT_DAYS: Final = 62
_SHOWN: Final = 40
_PARTS: Final = ("repeated", "too_late", "rejected", "orphans", "clock_moved", "outside_flight")
_OF_SENT: Final = ("repeated", INVALID, "too_late", "outside_flight")
_OF_A_DOOR: Final = {"unsigned": "unsigned", "invalid": "rejected"}
"""Reasons of a collector, by the part that they are."""
_NUMBER: Final = re.compile(r"-?\d{1,15}", re.ASCII)
_MOST: Final = 10**15
_counts_of = msgspec.json.Decoder(dict[str, Annotated[int, msgspec.Meta(gt=-_MOST, lt=_MOST)]]).decode
_LAST_MS: Final = 253_000_000_000_000
"""A time of the year 9987: no calendar goes far beyond it."""


class _Hash(NamedTuple):
    """A hash of Redis, whose fields may be damaged, or another's.

    Every method raises `AudiopixelError`, which names the field, where it is.
    """

    key: str
    fields: Mapping[str, str]

    def number(self, field: str) -> int:
        """The number of a field; 0 where there is none."""
        value = self.fields.get(field, "0")
        if _NUMBER.fullmatch(value) is None:
            raise self.damaged(field, "a whole number")
        return int(value)

    def counts(self, field: str) -> dict[str, int]:
        """The counts of a field, by name."""
        try:
            return _counts_of(self.fields.get(field, "{}"))
        except (*UNREADABLE, ValueError):
            raise self.damaged(field, "JSON, name to whole number") from None

    def damaged(self, field: str, takes: str) -> AudiopixelError:
        """The error that names a field."""
        held = shown(self.fields.get(field, ""), _SHOWN)
        return AudiopixelError(
            f"{self.key} {field} in Redis is damaged, or not of a flow: it holds {held!r} and takes {takes}: "
            "set it right, or delete it"
        )


def compare(
    client: Client, namespace: str, zone: ZoneInfo, plans: Mapping[str, Plan], claims: Sequence[Claim]
) -> list[Difference]:
    """The waterfall of each claim.

    Args:
        zone: of the calendar day.
        plans: by placement.

    Raises:
        RedisUnavailable: Redis does not serve.
        AudiopixelError: it holds no counts of a flow, or damaged ones.
    """
    today = _today(client, namespace, zone)
    of_campaign = placements_of(client, namespace, plans) if any(_wide(one) for one in claims) else {}
    return [
        _difference(client, namespace, plans, claim, today, of_campaign.get(claim.name, []), zone)
        for claim in claims
    ]


def _wide(claim: Claim) -> bool:
    return claim.scope == "campaign"


def _today(client: Client, namespace: str, zone: ZoneInfo) -> date:
    """The day of the flow's time."""
    (meta,) = _hashes(client, [f"{namespace}:meta"], ["watermark_ms"])
    if not (at_ms := meta.number("watermark_ms")):
        raise AudiopixelError(
            f"{meta.key} in Redis has no watermark_ms, so no flow has counted there yet: set "
            "AUDIOPIXEL_REDIS_URL and AUDIOPIXEL_NAMESPACE as the flow has them, or start it"
        )
    if not 0 < at_ms <= _LAST_MS:
        raise meta.damaged("watermark_ms", "ms since 1970")
    return _day_of(at_ms, zone)


def _hashes(client: Client, keys: Sequence[str], fields: Sequence[str] | None = None) -> list[_Hash]:
    return list(map(_Hash, keys, read_rows(client, keys, fields)))


def _day_of(ms: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone).date()


def placements_of(client: Client, namespace: str, plans: Mapping[str, Plan]) -> dict[str, list[str]]:
    """The placements of each campaign: by their plans, those of which no plan names a campaign or an
    advertiser by their rows.

    Raises:
        ConnectError: Redis cannot be read.
    """
    named = {name for name, plan in plans.items() if plan.campaign_id or plan.advertiser}
    rows = [name for name in scan_index(client, f"{namespace}:index:placement") if name not in named]
    keys = [row_key(namespace, "placement", name) for name in rows]
    labels = read_rows(client, keys, ["campaign_id"])
    pairs = [(plan.campaign_id, name) for name, plan in plans.items()]
    pairs += [(label.get("campaign_id"), name) for name, label in zip(rows, labels, strict=True)]
    found = defaultdict(list)
    for campaign, name in pairs:
        if campaign is not None:
            found[campaign].append(name)
    return found


def _difference(
    client: Client,
    namespace: str,
    plans: Mapping[str, Plan],
    claim: Claim,
    today: date,
    of_campaign: Sequence[str],
    zone: ZoneInfo,
) -> Difference:
    placements = of_campaign if _wide(claim) else [claim.name]
    planned = [plans[name] for name in placements if name in plans]
    tolerances = [plan.tolerance for plan in planned if plan.tolerance is not None]
    days = {name: _days(claim, plans.get(name), today, zone) for name in placements}
    if claim.counted == COUNTED[0]:
        counts = _counts(client, namespace, days, claim.basis)
    else:
        counts = _sent(client, namespace, days, claim)
    return Difference(
        scope=claim.scope,
        name=claim.name,
        when=FLIGHT if claim.day is None else claim.day.isoformat(),
        ours=counts.counted,
        theirs=claim.number,
        parts=signed(counts, claim.excludes),
        tolerance=min(tolerances, default=None),
        note=_note(claim, placements, [_day_of(plan.start_ms, zone) for plan in planned], days, today),
        counted=claim.metric,
    )


def _days(claim: Claim, plan: Plan | None, today: date, zone: ZoneInfo) -> list[date]:
    """The days that a claim is of, of a flight those that have begun and are kept."""
    if claim.day is not None:
        return [claim.day]
    if plan is None:
        return []
    first, last = _day_of(plan.start_ms, zone), min(_day_of(plan.end_ms - 1, zone), today)
    first = max(first, today - timedelta(days=KEPT_DAYS))
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _note(
    claim: Claim,
    placements: Sequence[str],
    begun: Sequence[date],
    days: Mapping[str, Sequence[date]],
    today: date,
) -> str:
    """The note on a claim's days; `begun` are the first ones of the placements' flights."""
    oldest = today - timedelta(days=KEPT_DAYS)
    if not placements:
        return "no placement of this campaign has a plan or a row"
    if claim.day is None and not begun:
        return "no plan: the flight is not known"
    first = min(begun) if claim.day is None else claim.day
    if first > today:
        return f"this {'flight' if claim.day is None else 'day'} has not begun"
    if first < oldest:
        return f"days before {oldest.isoformat()} are no longer kept"
    if claim.day is None and (left := len(placements) - len(begun)):
        return f"without a plan, so without a flight, and left out: {left} of {len(placements)} placements"
    if any(today in some for some in days.values()):
        return "today is not over: both counts still grow"
    return ""


def _rows(client: Client, namespace: str, days: Mapping[str, Sequence[date]]) -> list[_Hash]:
    return _hashes(client, [day_key(namespace, name, day) for name, some in days.items() for day in some])


def _sent(client: Client, namespace: str, days: Mapping[str, Sequence[date]], claim: Claim) -> Counts:
    """Our deliveries or downloads: each, or once a client by a window of the IAB."""
    of: Counter[str] = Counter()
    for row in _rows(client, namespace, days):
        of.update(row.counts("sent"))
    kind, ours = claim.counted, of[claim.metric]
    parts = Counter({name: of[f"{kind}_{name}"] for name in _OF_SENT})
    if claim.window is not None:
        parts["unkeyed"] = of[f"{kind}_unkeyed"]
        parts["same_client"] = of[kind] - ours - parts["unkeyed"]
    parts.update(_all_at_doors(client, namespace, days, f".{kind}"))
    return Counts(ours, parts)


def _all_at_doors(
    client: Client, namespace: str, days: Mapping[str, Sequence[date]], kind: str = ""
) -> Counter[str]:
    keys = [door_key(namespace, name, day.isoformat()) for name, some in days.items() for day in some]
    return sum((_at_doors(doors, kind) for doors in _hashes(client, keys)), Counter[str]())


def _counts(client: Client, namespace: str, days: Mapping[str, Sequence[date]], basis: str | None) -> Counts:
    parts: Counter[str] = Counter()
    invalid: Counter[str] = Counter()
    impressions = 0
    for row in _rows(client, namespace, days):
        impressions += row.number("impressions")
        parts.update({name: row.number(name) for name in _PARTS})
        if basis is not None:
            parts[OTHER_BASIS] += _of_others(row, basis)
        invalid.update(row.counts(INVALID))
    parts.update(_all_at_doors(client, namespace, days))
    return Counts(impressions, parts, invalid)


def _of_others(row: _Hash, basis: str) -> int:
    """A day's impressions inside the flight that are of another basis."""
    inside = row.number("impressions") - row.number("outside_flight")
    by_basis = row.counts("bases")
    usual = {BASES[0]: inside - sum(by_basis.values())}
    return inside - (usual | by_basis).get(basis, 0)


def _at_doors(doors: _Hash, kind: str) -> Counter[str]:
    """Count what collectors rejected of a kind on a day, by part; of impressions it is empty."""
    found: Counter[str] = Counter()
    for field in doors.fields:
        name, dot, what = field.partition("/")[0].partition(".")
        if name in _OF_A_DOOR and dot + what == kind:
            found[_OF_A_DOOR[name]] += doors.number(field)
    return found
