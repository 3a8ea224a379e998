"""A call to a collector, as the live page shows it: with our names and names of tags, and without any
identity.
"""

from __future__ import annotations

from typing import Final

import msgspec

MAX_CALLS: Final = 100
"""The greatest number of calls that a collector stores, and that the page shows."""
MAX_LETTERS: Final = 64
"""The greatest number of letters of a text in a call."""
MAX_UNREAD: Final = 5
"""The greatest number of unread parameters that a call names."""


class LastCall(msgspec.Struct, omit_defaults=True):
    """An event of a call, and its outcome.

    Attributes:
        at_ms: its receipt by the collector's clock, epoch ms.
        outcome: `stored`, `rejected`, `not_counted`, or `refused`.
        reason, field: the reason, and the field concerned.
        sender: `token/NAME`, `network/NET` or `dialect/NAME`.
        meant: the event that the caller probably meant, if its word is like that event's name.
        consent: the reason of the decision on consent.
        invalid_traffic: the rule by which it is invalid traffic.
        unread: parameters of its query that nothing reads.
        alike: calls of the same outcome and reason that were left out since the last one that was stored.
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
    return _DECODER.decode(text)[:MAX_CALLS]
