"""A pixel counts once, in its play's start cohort, unless it is too late.

Owns: the table of plays of a placement shard. Receives: `Pixels` and ticks. Sends: `RowBatch`, `TouchBatch`.
Must not import: another stage, the engine.
"""

from __future__ import annotations

from flows.plays.play_shard import PlayShard

__all__ = ["PlayShard"]
