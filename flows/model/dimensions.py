"""Dimensions of a pixel: the names of `flows.model.catalogue.fields.SCOPES`."""

from __future__ import annotations

from typing import Final

from flows.model.catalogue.fields import LISTED, SCOPE_FIELDS, SCOPE_NAMES

Dimensions = tuple[str | None, ...]
"""The names of `SCOPES` in which a pixel counts, without an app if apps have no rows."""

SCOPES: Final = SCOPE_NAMES
NAMES: Final = SCOPE_FIELDS
"""The fields of an event that name them."""
WITHOUT_APPS: Final = NAMES[:-1]
"""Those of a flow in which apps have no rows."""
LABELS: Final = LISTED
"""The scopes whose names a plan may list: where its ad may run, and with what."""


OTHER_NAME: Final = "other"
"""Scope of the rows in which the names beyond a scope's cap count; the name is that scope."""
