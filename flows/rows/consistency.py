"""Consistency of a platform: for each fact, the share of its plays that carry the fact. Platforms are
compared by these shares.
"""

from __future__ import annotations

from collections.abc import Sequence

from flows.model.counts import UNLINKED
from flows.model.events import COMPLETE, IMPRESSION, START
from flows.model.fields import ratio


def shares(counts: Sequence[int], with_listener: int) -> list[str | None]:
    """The values of `flows.model.fields.SHARES`.

    The plays of a window are the greater of its impressions and its starts: some platforms send no
    impressions, others no starts.

    Args:
        counts: of a window, in the order of `flows.model.fields.COUNTS`.
        with_listener: plays with a known listener.
    """
    reached = [counts[code] + counts[code + UNLINKED] for code in range(START, COMPLETE + 1)]
    plays = max(counts[IMPRESSION], reached[0])
    quartile_shares = [ratio(min(count, plays), plays) for count in reached]
    # Starts without a play id are not in `with_listener`, even if their listener is known.
    unknown = plays > counts[IMPRESSION] and counts[START + UNLINKED]
    listener_share = None if unknown else ratio(min(with_listener, plays), plays)
    return [*quartile_shares, listener_share, ratio(counts[START], reached[0])]
