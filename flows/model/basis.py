"""The basis of an impression: the meaning of the word, among the field's, by which it counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flows.model.catalogue.metrics import BASES as BASES
from flows.model.catalogue.metrics import SIDE, names
from flows.model.catalogue.metrics import SIDES as METRICS
from flows.model.catalogue.metrics import Basis as Basis

CODES: Final[Mapping[str, int]] = {name: code for code, name in enumerate(BASES)}
RANKS: Final = (2, 0, 1, 3, 4)
"""The rank of each basis, by its code; 0 is the strongest. Heard ranks before played, played before sent."""
STRONGEST: Final = tuple(sorted(BASES, key=lambda name: RANKS[CODES[name]]))
"""The bases by rank."""
MIXED: Final = "mixed"
"""The basis of a row whose impressions have several."""
SHOWN: Final = names(METRICS)
"""The published fields of `SIDE_WINDOWS`; a count that is 0 is absent."""
SIDES: Final = SHOWN[1:-1]
"""Columns of counts that most pixels lack, stored apart from the others. Impressions without a basis listed
here have the first one.
"""
DELIVERIES, CONFIRMED_PLAYS = len(BASES) - 1, len(BASES)
CLIENTS_AT: Final = CONFIRMED_PLAYS + 1
"""The first column of those of `flows.model.client_counts`."""
SEEN: Final = len(SIDES)
"""`SEEN + code` stands for a column: the row has a valid impression pixel of this basis."""
SIDE_WINDOWS: Final = SIDE
"""The windows that they are published for."""
