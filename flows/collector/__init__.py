"""The pixel's door. HTTP calls become canonical events that are durable before they are answered.

Owns: the lanes with their spools, the clock, the ledger of calls. Receives: HTTP calls in vendors' dialects.
Sends: events, marks and dead letters to Kafka.
Door: none; `flows.cli` runs `serve`, and builds and checks tags by `tags` and `checker`.
Must not import: a stage, the engine.
"""
