"""Form of the fields that only a live flow can know: which feeds are silent, and which delivery is not judged
because of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flows.reconcile.fields import PLAN_CHANGED, UNJUDGED

REASONS: Final = ("feed_silent",)
KINDS: Final = ("partition", "platform", "sender")
"""The kinds of a unit of the feed; its key is `KIND:NAME`."""
_FORM: Final = "of the form"
_HASH: Final = re.compile("[0-9a-f]{16}")


def is_unit(text: str) -> bool:
    """True if a text is the key of a unit."""
    kind, _, name = text.partition(":")
    return kind in KINDS and name != ""


def unjudged(
    row: Mapping[str, str], planned: bool, replayed: bool, latest_ms: int
) -> Iterator[tuple[str, Any]]:
    """The expected fields on whether a row is judged; in a replay every planned row is."""
    judged, *why = UNJUDGED
    is_unjudged = planned and not replayed and row.get(judged) == "0"
    yield judged, ("0" if is_unjudged else "1") if planned else None
    by = row.get(why[-1], "")
    expected = (frozenset(REASONS), (1, latest_ms), by if is_unit(by) else _FORM)
    yield from zip(why, expected if is_unjudged else (None, None, None), strict=True)


def changed_plan(row: Mapping[str, str], placement: bool, latest_ms: int) -> Iterator[tuple[str, Any]]:
    """The expected fields on when a row's plan changed; only a placement's row has them."""
    when, before = PLAN_CHANGED
    changed = placement and when in row
    yield when, (1, latest_ms) if changed else None
    yield before, (1, 2**53) if changed and before in row else None


def silent(meta: Mapping[str, str], replayed: bool) -> dict[str, Any]:
    """The expected fields of `meta` on silent units; a replay has none."""
    silent_text = meta.get("silent")
    form = None if replayed or silent_text is None else silent_text if _is_silent(silent_text) else _FORM
    return {"silent": form, "silent_more": (1, 2**31) if form is not None and "silent_more" in meta else None}


def keyed(meta: Mapping[str, str]) -> dict[str, Any]:
    """The expected fields of `meta` that depend on a key, which no log has. More may be forgotten after the
    log's end. A flow whose partitions differ in that has none.
    """
    texts = {name: meta.get(name) for name in ("listener_key", "forgotten_sum")}
    return {name: one if one is None or _HASH.fullmatch(one) else _FORM for name, one in texts.items()}


def _is_silent(text: str) -> bool:
    try:
        units = json.loads(text)
    except ValueError:
        return False
    return isinstance(units, dict) and bool(units) and all(map(is_unit, units))
