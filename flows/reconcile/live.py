"""The form of fields that the log does not determine: the silent units of the feed, the unjudged deliveries,
the changes of plans, and keyed hashes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flows.reconcile.fields import PLAN_CHANGED, UNJUDGED

REASONS: Final = ("feed_silent",)
KINDS: Final = ("partition", "platform", "sender")
"""The kinds of the feed's units. The key of a unit is `KIND:NAME`."""
_FORM: Final = "of the form"
"""The expectation for a text of a wrong form, which no published text equals."""
_HASH: Final = re.compile("[0-9a-f]{16}")


def is_unit(text: str) -> bool:
    """True if a text is the key of a unit."""
    kind, _, name = text.partition(":")
    return kind in KINDS and name != ""


def unjudged_fields(
    row: Mapping[str, str], planned: bool, replayed: bool, latest_ms: int
) -> Iterator[tuple[str, Any]]:
    """The expected fields on whether a row is judged. In a replay every planned row is judged.

    Args:
        latest_ms: the latest moment at which the row can have become unjudged.
    """
    judged, *reasons = UNJUDGED
    is_unjudged = planned and not replayed and row.get(judged) == "0"
    yield judged, ("0" if is_unjudged else "1") if planned else None
    unit = row.get(reasons[-1], "")
    expected = (frozenset(REASONS), (1, latest_ms), unit if is_unit(unit) else _FORM)
    yield from zip(reasons, expected if is_unjudged else (None, None, None), strict=True)


def plan_change_fields(
    row: Mapping[str, str], is_placement: bool, latest_ms: int
) -> Iterator[tuple[str, Any]]:
    """The expected fields on the latest change of a plan; only a placement's row has them."""
    moment, booked_before = PLAN_CHANGED
    has_changed = is_placement and moment in row
    yield moment, (1, latest_ms) if has_changed else None
    yield booked_before, (1, 2**53) if has_changed and booked_before in row else None


def silent_fields(meta: Mapping[str, str], replayed: bool) -> dict[str, Any]:
    """The expected fields of `meta` on silent units; a replay has none."""
    silent_text = meta.get("silent")
    form = None if replayed or silent_text is None else silent_text if _is_silent(silent_text) else _FORM
    return {"silent": form, "silent_more": (1, 2**31) if form is not None and "silent_more" in meta else None}


def keyed_fields(meta: Mapping[str, str]) -> dict[str, Any]:
    """The expected fields of `meta` that depend on a key: no log has it.

    After the log's end more listeners may be erased. A flow whose partitions have different erasures
    publishes no such field.
    """
    texts = {name: meta.get(name) for name in ("listener_key", "forgotten_sum")}
    return {name: text if text is None or _HASH.fullmatch(text) else _FORM for name, text in texts.items()}


def _is_silent(text: str) -> bool:
    try:
        units = json.loads(text)
    except ValueError:
        return False
    return isinstance(units, dict) and bool(units) and all(map(is_unit, units))
