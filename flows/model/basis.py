"""The basis of an impression: which of the field's meanings of the word the impression has."""

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
"""The fields that are published for `SIDE_WINDOWS`. A count of 0 is absent."""
SIDES: Final = SHOWN[1:-1]
"""Columns of counts that most pixels lack, stored apart from the others. The first basis has no column: it
has all other impressions.
"""
DELIVERIES, CONFIRMED_PLAYS = len(BASES) - 1, len(BASES)
CLIENTS_AT: Final = CONFIRMED_PLAYS + 1
"""The first of the columns of `flows.model.client_counts`."""
SEEN: Final = len(SIDES)
"""`SEEN + code` in place of a column says that the row has a valid impression pixel of this basis."""
SIDE_WINDOWS: Final = SIDE
"""The windows for which `SHOWN` is published."""
