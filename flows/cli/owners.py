"""The owners of the placements, by the plans that the flow reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.stream import ConnectError

if TYPE_CHECKING:
    from flows.settings import Settings
    from flows.viewers.access import Owners


def owners_of(settings: Settings, needed: bool = True) -> Owners | None:
    """The owners by the plans, which follow each change of the plans; None without plans.

    Args:
        needed: whether the plans must be readable now. If not, a placement belongs to the campaign of its
            latest pixel until the plans can be read.

    Raises:
        PlanError, ConnectError: the plans are needed and cannot be read.
    """
    if settings.plans is None:
        return None
    from flows.delivery import PlanReader, read_book
    from flows.viewers.access import Owner, Owners

    if needed:
        read_book(settings)
    plans = PlanReader(settings)

    def read() -> list[Owner] | None:
        try:
            book = plans.changed()
        except ConnectError:
            return None
        if book is None:
            return None
        unsure = [Owner("", campaign, None) for campaign in sorted(book.unsure)]
        return [*unsure, *(Owner(name, plan.campaign_id, plan.advertiser) for name, plan in book.items())]

    return Owners(read)
