"""The age of the flow's last write from which on every reader says that delivery is not judged."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

FLUSH_STALE: Final = timedelta(seconds=30)
"""The one limit of the page, `top`, the exporter, alerts and bidders' clients. A healthy flow writes twice a
second; one that starts again after a crash is back within it, as a rule. The clients in `clients/` and
`examples/bidder.py` are of no package of ours, and spell it a second time: a test compares.
"""
FLUSH_STALE_S: Final = FLUSH_STALE.total_seconds()
