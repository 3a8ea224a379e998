"""Touches of listeners and households, and the credits of conversions to touches.

Owns: touches and frequency by listener shard, touches by household shard, the credit book. Receives:
`TouchBatch`. Sends: `UnjoinedBatch` to its own household shards, `CreditBatch`.
Must not import: another stage, the engine.
"""

from __future__ import annotations

from flows.attribution.credit_book import CreditBook
from flows.attribution.credit_models import Rules
from flows.attribution.decisions import decision_record
from flows.attribution.households import HouseholdShard
from flows.attribution.listener_shard import ListenerShard
from flows.attribution.touches import Caps

__all__ = ["Caps", "CreditBook", "HouseholdShard", "ListenerShard", "Rules", "decision_record"]
