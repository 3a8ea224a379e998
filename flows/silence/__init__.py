"""Silence: finds the units of the feed that have stopped sending, while the flow reads all that there is.

Owns: the gaps of each unit by hours, and of each planned placement the units that send it. Receives: accepted
pixels by unit at each cut, impressions by placement and unit every ten seconds. Sends: `SilentUnit`s.
Must not import: another stage, the engine.
"""

from __future__ import annotations

from flows.silence.watch import Watch

__all__ = ["Watch"]
