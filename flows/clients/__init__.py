"""Downloads and deliveries once a client, by the three windows of the IAB.

Owns: clients' keys of the last day by client shard, and events until their minute is final. Receives:
`ClientBatch`. Sends: `ClientCounts`.
Must not import: another stage, the engine.
"""

from __future__ import annotations

from flows.clients.client_shard import ClientShard

__all__ = ["ClientShard"]
