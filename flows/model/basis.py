"""The basis of an impression: the meaning of the word, among the field's, by which it counts."""

from __future__ import annotations

from typing import Final, Literal

from flows.model.clients import COLUMNS as BY_CLIENT

Basis = Literal["vast_impression", "audible_2s", "streamed_full", "ad_delivered", "download"]
BASES: Final = ("vast_impression", "audible_2s", "streamed_full", "ad_delivered", "download")
"""A basis's code is its place, part of the state's format. A pixel that names no basis has the first."""
CODES: Final = {name: code for code, name in enumerate(BASES)}
MIXED: Final = "mixed"
"""The basis of a row whose impressions have several."""
SIDES: Final = (
    *(f"impressions_{name}" for name in BASES[1:]),
    "deliveries",
    "confirmed_plays",
    *BY_CLIENT,
)
"""Columns of counts that most pixels lack, stored apart from the others. Impressions without a basis listed
here have the first one.
"""
DELIVERIES, CONFIRMED_PLAYS = len(BASES) - 1, len(BASES)
CLIENTS_AT: Final = CONFIRMED_PLAYS + 1
"""The first column of those of `flows.model.clients`."""
SEEN: Final = len(SIDES)
"""`SEEN + code` stands for a column: the row has a valid impression pixel of this basis."""
SIDE_WINDOWS: Final = ("1d", "flight")
"""The windows that they are published for."""
SHOWN: Final = (*(f"impressions_{name}" for name in BASES), *SIDES[DELIVERIES:], "play_through")
"""The published fields of such a window; a count that is 0 is absent."""
