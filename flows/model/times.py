"""The reading of times that pixels carry as texts."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:)(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII
)
_EPOCH = datetime(1970, 1, 1)


def rfc3339_ms(text: str) -> int | None:
    """Epoch milliseconds of an RFC 3339 string with its offset; None for any other text. A leap second is the
    first of the next minute.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    day, clock, second, fraction, offset = match.groups()
    leap = second == "60"
    try:
        # A conversion to UTC would raise if the result were outside the years 1 to 9999.
        since_epoch = datetime.fromisoformat(f"{day}T{clock}{'59' if leap else second}") - _EPOCH
        utc_offset = datetime.fromisoformat(f"1970-01-01T00:00:00{offset.upper()}").utcoffset()
    except ValueError:
        return None
    assert utc_offset is not None, "the pattern requires an offset"
    since_epoch += timedelta(seconds=leap) - utc_offset
    return since_epoch.days * 86_400_000 + since_epoch.seconds * 1000 + int(((fraction or "") + "000")[:3])
