"""Dimensions of a pixel: the names of `flows.model.catalogue.fields.SCOPES`."""

from __future__ import annotations

from typing import Final

from flows.model.catalogue.fields import LISTED, SCOPE_FIELDS, SCOPE_NAMES

Dimensions = tuple[str | None, ...]
"""The names of a pixel by `SCOPES`, None if it has none; without the app if apps have no rows."""

SCOPES: Final = SCOPE_NAMES
NAMES: Final = SCOPE_FIELDS
"""The fields of an event that have the names of `SCOPES`."""
WITHOUT_APPS: Final = NAMES[:-1]
"""`NAMES` of a flow in which apps have no rows."""
LABELS: Final = LISTED
"""The scopes whose names a plan may list: where its ad may run, and which creatives."""
OTHER_NAME: Final = "other"
"""The scope of the rows that count the names beyond another scope's cap. The name of such a row is that
scope.
"""
