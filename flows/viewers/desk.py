"""The rows of one reading, for `audiopixel top`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from flows.model.catalogue.fields import LABELS
from flows.model.delivery_fields import shown_state
from flows.shown import shown
from flows.viewers.reader import Rows
from flows.viewers.words import ATTENTION, number, state_words

CURRENCY: Final = 8
"""The greatest length of a shown currency, in characters."""


@dataclass(frozen=True, slots=True)
class Row:
    """A placement, campaign, creative or app.

    Attributes:
        scope: `placement`, `campaign`, `creative` or `app`.
        id: its id.
        fields: the fields of its hash in Redis.
    """

    scope: str
    id: str
    fields: Mapping[str, str]

    def get(self, name: str) -> float:
        """A field as a number; NaN for an absent one."""
        return number(self.fields.get(name))

    @property
    def state(self) -> str:
        """The delivery state, `none` without a plan, `unjudged` for a row that is not judged."""
        return shown_state(self.fields)

    @property
    def words(self) -> str:
        """The state in words."""
        return state_words(self.state, self.fields.get("delivery.unjudged_reason"))

    @property
    def delivered(self) -> float:
        """Impressions of the flight up to its plan's end; without a plan, all."""
        return self.get("delivery.delivered" if "delivery.booked" in self.fields else "flight.impressions")

    @property
    def short(self) -> float:
        """Impressions that are due and not delivered. Sums add shortfalls; a lead elsewhere does not offset
        them.
        """
        return max(0.0, self.get("delivery.short_by")) if "delivery.short_by" in self.fields else math.nan

    @property
    def stake(self) -> float:
        """Money that is short now; NaN without a price."""
        return self.get("delivery.at_stake")

    @property
    def stake_end(self) -> float:
        """Money that is projected to be short at the flight's end; NaN if unknown."""
        return self.get("delivery.at_stake_end")

    @property
    def blocked(self) -> float:
        """Impressions in blocked content; NaN if the number is not known."""
        return self.get("flight.blocked_impressions")

    def matches(self, words: Iterable[str]) -> bool:
        """True if every word, in lower case, is in its id, its labels or its state."""
        labels = (self.fields.get(label, "") for label in LABELS)
        text = "\n".join((self.id, *labels, self.words)).lower()
        return all(word in text for word in words)


_TIERS: Final = {state: tier for tier, states in enumerate(ATTENTION) for state in states}


def attention(row: Row, currency: str | None) -> tuple[float, float]:
    """The place of a row in the most urgent order: its tier, then the amount at stake. This is money if all
    plans have one `currency`, else impressions. A row with an unknown amount follows in its tier.
    """
    tier = _TIERS["blocked" if row.blocked > 0 else row.state]
    at_stake = row.stake if currency else row.short
    if math.isnan(at_stake):
        delivered = row.delivered
        return tier + 0.5, 0.0 if math.isnan(delivered) else -delivered
    return tier, -at_stake


@dataclass
class Desk:
    """The rows of one reading.

    Attributes:
        rows: the rows by scope.
        currency: the currency of all plans, if they agree.
        now_ms: wall clock, epoch ms.
    """

    rows: dict[str, list[Row]]
    currency: str | None = None
    now_ms: float = 0.0

    @classmethod
    def from_scopes(cls, scopes: Mapping[str, Rows], now_ms: float) -> Desk:
        """The placements, campaigns, creatives and apps.

        Args:
            scopes: the rows by scope, placements labelled with their campaigns (`Owners.labelled`).
            now_ms: wall clock, epoch ms.
        """
        plans = (fields for rows in scopes.values() for fields in rows.values())
        currencies = {fields["delivery.currency"] for fields in plans if "delivery.currency" in fields}
        rows = {
            scope: [Row(scope, name, fields) for name, fields in scopes.get(scope, {}).items()]
            for scope in ("placement", "campaign", "creative", "app")
        }
        return cls(rows, shown(currencies.pop(), CURRENCY) if len(currencies) == 1 else None, now_ms)
