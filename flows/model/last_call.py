"""A call of the collectors, as the live page shows it: with our names and names of tags, and without any
identity.
"""

from __future__ import annotations

from typing import Final

import msgspec

MOST: Final = 100
"""The number of calls that a collector stores, and that the page shows."""
LONGEST: Final = 64
"""Letters of a text in a call."""
MOST_NAMES: Final = 5
"""Parameters of a call that are named because nothing reads them."""


class LastCall(msgspec.Struct, omit_defaults=True):
    """An event of a call, and its outcome.

    Attributes:
        at_ms: its receipt by the collector's clock.
        outcome: `stored`, `rejected`, `not_counted`, or `refused`.
        reason, field: the reason, and the field concerned.
        sender: `token/NAME`, `network/NET` or `dialect/NAME`.
        meant: the event that was meant, if one is near.
        consent: the reason of the decision on consent.
        invalid_traffic: the rule by which it counts as such.
        unread: parameters of its query that nothing reads.
        alike: calls of the same outcome and reason that are not kept, since the one that was kept before it.
    """

    at_ms: int
    outcome: str
    reason: str = ""
    field: str = ""
    event: str = ""
    meant: str = ""
    placement: str = ""
    campaign: str = ""
    sender: str = ""
    consent: str = ""
    invalid_traffic: str = ""
    unread: tuple[str, ...] = ()
    alike: int = 0


_DECODER: Final = msgspec.json.Decoder(list[LastCall])


def encoded(calls: list[LastCall]) -> str:
    """Calls as a field of Redis."""
    return msgspec.json.encode(calls).decode()


def decoded(text: str) -> list[LastCall]:
    """Calls of a field of Redis.

    Raises:
        msgspec.MsgspecError: the text holds none.
    """
    return _DECODER.decode(text)[:MOST]
