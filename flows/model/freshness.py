"""The age of the flow's last write from which on every reader reports that delivery is not judged."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

FLUSH_STALE: Final = timedelta(seconds=30)
"""The limit that the page, `top`, the exporter, alerts and bidders' clients share. A healthy flow writes
twice a second; a flow that restarts after a crash is usually back within this time. The clients in `clients/`
and `examples/bidder.py` import nothing of ours, and repeat the value; a test compares them.
"""
FLUSH_STALE_S: Final = FLUSH_STALE.total_seconds()
