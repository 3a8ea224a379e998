"""Writes a paragraph about a difference, to send to the party that counts otherwise."""

from __future__ import annotations

from typing import Final

from flows.waterfall.signed_parts import Band, Difference

_WHY: Final = {
    "repeated": "came again with a key that had counted before",
    "invalid_traffic": "are invalid traffic by the IAB's lists and rules",
    "too_late": "came after their minute was final",
    "unsigned": "had no valid signature and no plan",
    "rejected": "named this placement and were not valid",
    "unkeyed": "had no client that could be recognised",
    "same_client": "were of a client that the window had counted",
    "other_basis": "are impressions of another kind than you count",
    "orphans": "are plays that started and whose impression never came",
    "clock_moved": "are of another day by the clock of the caller",
    "outside_flight": "were outside the flight",
}
_BANDS: Final = {
    Band.FINE: "The difference is within what is usual.",
    Band.LOOK: "The difference is worth a look.",
    Band.BREACH: "The difference is over the tolerance.",
    Band.NONE: "",
}


def letter(row: Difference) -> str:
    """A paragraph for the publisher: both counts, the parts of the difference, and the unexplained rest.

    Ids in it are unescaped. Code that shows the paragraph must escape it.
    """
    counted = row.counted.replace("_", " ")
    when = "over the whole flight" if row.when == "flight" else f"on {row.when}"
    head = f"For {row.scope} {row.name} you report {row.theirs:,} {counted} {when}."
    if row.ours is None or row.difference is None or row.unexplained is None:
        return f"{head} Our number is not known: {row.note or 'nothing is counted'}."
    if not row.difference:
        return f"{head} We count the same."
    side = "fewer" if row.difference > 0 else "more"
    share = "" if row.share is None else f", {abs(row.share):.1%} of our count"
    sentences = [head, f"We count {row.ours:,}: {abs(row.difference):,} {side}{share}. {_BANDS[row.band]}"]
    parts = [
        f"{abs(part.impressions):,} {_WHY[part.kind]}{_reason(part.name)}, so we "
        f"{'leave them out' if part.impressions > 0 else 'count them and you may not'}"
        for part in row.parts
        if part.impressions
    ]
    if parts:
        sentences.append(f"Our records explain: {'; '.join(parts)}.")
    if row.unexplained:
        direction = "more" if row.unexplained > 0 else "fewer"
        sentences.append(
            f"{abs(row.unexplained):,} that you count {direction} are not explained by our records."
        )
        sentences.append("Please send us your count by hour, its time zone, and the rules of your filter.")
    if row.note:
        sentences.append(f"Note: {row.note}.")
    return " ".join(sentences)


def _reason(name: str) -> str:
    reason = name.partition(".")[2]
    return f" ({reason.replace('_', ' ')})" if reason else ""
