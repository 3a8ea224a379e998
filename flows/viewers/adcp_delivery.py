"""A media buy of AdCP from a campaign's row, and its packages from the rows of its placements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flows.model.catalogue.metrics import METRICS
from flows.model.delivery_fields import shown_state
from flows.model.fields import IMPRESSION_BASIS, quotient
from flows.viewers.reader import Unjudged
from flows.viewers.words import integer, number

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STATUS: Final = {
    "not_started": "pending_start",
    "complete": "completed",
    "ended_short": "completed",
    "ended_unknown": "completed",
    "paused": "paused",
}
"""AdCP's status of a media buy by delivery state; every other state is `active`."""
_PACKAGE: Final = {"complete": "goal_met", "ended_short": "flight_ended", "ended_unknown": "flight_ended"}
_FIELD_BY_NAME: Final = {name: metric.field("flight") for metric in METRICS for name in metric.adcp}
_QUARTILE_PREFIX: Final = "quartile_data."
_COUNTS: Final = {
    name: field for name, field in _FIELD_BY_NAME.items() if not name.startswith(_QUARTILE_PREFIX)
}
_QUARTILES: Final = {
    name.removeprefix(_QUARTILE_PREFIX): field
    for name, field in _FIELD_BY_NAME.items()
    if name not in _COUNTS
}
"""The fields of a row by their names in AdCP: of a delivery, and of its `quartile_data`."""

Row = Mapping[str, str]


def moment(epoch_ms: int) -> str:
    """A time in the form of AdCP: ISO 8601, in UTC, to the millisecond."""
    return (
        (_EPOCH + timedelta(milliseconds=epoch_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def whole_of(row: Row, name: str) -> int:
    """A whole number of a row; 0 without one."""
    return integer(row.get(name))


@dataclass(frozen=True)
class Buy:
    """A media buy, or a package of one.

    Args:
        row: the whole row of the campaign or the placement.
        final_ms: epoch ms before which every minute is final by the flow's watermark.
        lateness_ms: the time for which a minute stays provisional after its end.
    """

    name: str
    row: Row
    final_ms: int
    lateness_ms: int

    @property
    def currency(self) -> str:
        """The plan's currency; empty without one."""
        return self.row.get("delivery.currency", "")

    @property
    def priced(self) -> bool:
        """True if the cost is known."""
        return bool(self.currency) and "flight.cost" in self.row

    @property
    def start_ms(self) -> int:
        """The flight's first moment, epoch ms."""
        return whole_of(self.row, "delivery.start_ms")

    @property
    def end_ms(self) -> int:
        """The first moment after the flight, epoch ms."""
        return whole_of(self.row, "delivery.end_ms")

    @property
    def status(self) -> str:
        """AdCP's status of a media buy."""
        return _STATUS.get(self.row.get("delivery.state", ""), "active")

    @property
    def final(self) -> bool:
        """True if no pixel can change the flight any more."""
        through_ms = max(self.final_ms, whole_of(self.row, "final_through_ms"))
        return 0 < self.end_ms <= through_ms

    @property
    def unjudged(self) -> Unjudged | None:
        """The reason for which its row is not judged; None if it is. A row without a reason is not judged
        since it was written.
        """
        if shown_state(self.row) != "unjudged":
            return None
        since_ms = whole_of(self.row, "delivery.unjudged_since_ms") or whole_of(self.row, "updated_ms")
        return Unjudged(since_ms / 1000, self.row.get("delivery.unjudged_reason", "unjudged"))

    def health(self, late: bool) -> str:
        """AdCP's health of its delivery.

        Args:
            late: true if no delivery at all is judged now.
        """
        late = late or self.unjudged is not None
        if self.final:
            return "complete"
        return "waiting" if self.status == "pending_start" else "delayed" if late else "healthy"

    def revision(self) -> dict[str, int]:
        """The version and the times (epoch ms) of its row."""
        names = ("generation", "fence", "rev", "as_of_ms", "final_through_ms")
        return {name: whole_of(self.row, name) for name in names}

    def finality(self) -> dict[str, Any]:
        """The finality of the flight, with its moment by the log's own clock."""
        if not self.final:
            return {"is_final": False}
        return {"is_final": True, "finalized_at": moment(self.end_ms + self.lateness_ms)}

    def metrics(self) -> dict[str, Any]:
        """The metrics of the flight; unknown ones are absent."""
        counts = {name: number(self.row.get(field)) for name, field in _COUNTS.items()}
        metrics: dict[str, Any] = {name: value for name, value in counts.items() if 0 <= value < math.inf}
        if impressions := int(metrics.get("impressions", 0)):
            if "clicks" in metrics:
                metrics["ctr"] = float(quotient(int(metrics["clicks"]), impressions))
            if "spend" in metrics:
                metrics["cpm"] = float(quotient(round(metrics["spend"] * 10**9), impressions * 10**6))
        rate = number(self.row.get("flight.completions_per_impression"))
        if 0 <= rate <= 1:
            metrics["completion_rate"] = rate
        quartiles = {name: number(self.row.get(field)) for name, field in _QUARTILES.items()}
        if all(value == value for value in quartiles.values()):
            metrics["quartile_data"] = quartiles
        if self.row.get("conversion_currency") == self.currency:
            value, roas = (
                number(self.row.get("flight.conversion_value")),
                number(self.row.get("flight.return_on_ad_spend")),
            )
            metrics |= {"conversion_value": round(value / 1e6, 6)} if value >= 0 else {}
            metrics |= {"roas": roas} if roas >= 0 else {}
        reach, frequency = number(self.row.get("flight.reach")), number(self.row.get("flight.frequency"))
        if reach > 0:  # without a listener the reach is unknown: buyers would take a 0 as measured
            # A listener is a pseudonym: a device's or an account's, as the caller has it.
            metrics |= {"reach": reach, "reach_unit": "custom", "reach_window": {"kind": "cumulative"}}
            metrics |= {"frequency": frequency} if frequency >= 0 else {}
        elif (household_reach := number(self.row.get("flight.household_reach"))) >= 0:
            metrics |= {
                "reach": household_reach,
                "reach_unit": "households",
                "reach_window": {"kind": "cumulative"},
            }
        return metrics

    def _basis(self) -> dict[str, Any]:
        """The basis of its impressions, or `mixed`."""
        basis = self.row.get(IMPRESSION_BASIS)
        return {"ext": {"audiopixel": {IMPRESSION_BASIS: basis}}} if basis else {}

    def _pacing(self) -> dict[str, float]:
        index = number(self.row.get("delivery.indicator"))
        return {"pacing_index": index} if index >= 0 else {}

    def delivery(self, packages: Mapping[str, Row]) -> dict[str, Any]:
        """The delivery of a media buy with that of its packages that have a price.

        Args:
            packages: the rows of its placements.
        """
        package_buys = [
            Buy(name, row, self.final_ms, self.lateness_ms) for name, row in sorted(packages.items())
        ]
        return {
            "media_buy_id": self.name,
            "status": self.status,
            **self.finality(),
            **self._pacing(),
            "pricing_model": "cpm",
            "totals": self.metrics(),
            **self._basis(),
            "by_package": [buy.package() for buy in package_buys if buy.covered],
        }

    @property
    def covered(self) -> bool:
        """True if its numbers are in the delivery, for which AdCP requires a price."""
        return self.priced and "delivery.cpm" in self.row

    def package(self) -> dict[str, Any]:
        """The delivery of a package."""
        state = self.row.get("delivery.state", "")
        return {
            "package_id": self.name,
            **self.metrics(),
            **self._pacing(),
            "pricing_model": "cpm",
            "rate": number(self.row.get("delivery.cpm")),
            "currency": self.currency,
            "delivery_status": _PACKAGE.get(state, "delivering"),
            "paused": state == "paused",
            **self.finality(),
            "measurement_window": "final" if self.final else "live",
            **self._basis(),
        }


def coverage_of(
    buys: Sequence[Buy], packages: Mapping[str, Mapping[str, Row]], evaluated_at: str
) -> dict[str, Any]:
    """The media buys and packages with a delivery, and those that have none for lack of a price.

    Args:
        packages: the rows of the placements, by media buy and placement.
        evaluated_at: the time of the rows, in the form of AdCP.
    """
    covered, unpriced = dict[str, list[str]](), dict[str, list[str]]()
    for buy in buys:
        package_buys = [Buy(name, row, 0, 0) for name, row in sorted(packages.get(buy.name, {}).items())]
        covered[buy.name] = [package.name for package in package_buys if buy.priced and package.covered]
        unpriced[buy.name] = [
            package.name for package in package_buys if package.name not in covered[buy.name]
        ]
    unsupported = [buy.name for buy in buys if not buy.priced]
    partly = [buy.name for buy in buys if buy.priced and unpriced[buy.name]]
    full = [buy.name for buy in buys if buy.priced and not unpriced[buy.name]]
    whole = not unsupported and not partly
    return {
        "status": "full" if whole else "partial" if full or partly else "none",
        "evaluated_at": evaluated_at,
        "media_buy_ids": [buy.name for buy in buys],
        "fully_covered_media_buy_ids": full,
        "partially_covered_media_buy_ids": partly,
        "unsupported_media_buy_ids": unsupported,
        "unknown_media_buy_ids": [],
        "package_ids": sorted(name for names in (*covered.values(), *unpriced.values()) for name in names),
        "covered_package_ids": sorted(name for names in covered.values() for name in names),
        "unsupported_package_ids": sorted(name for names in unpriced.values() for name in names),
        "unknown_package_ids": [],
        "limitations": [
            {
                "reason": "offering_unsupported",
                "media_buy_id": name,
                **({"package_ids": unpriced[name]} if unpriced[name] else {}),
            }
            for name in (*unsupported, *partly)
        ],
    }
