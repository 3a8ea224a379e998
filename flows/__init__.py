"""The flow: from an audio pixel to a number that a trader can trust.

```
 collector ─► Kafka ─► intake ─► plays ─► attribution ─► rows ─► publish ─► Redis
                                   └──► clients ───────────┘   (with delivery)
```

The map is docs/architecture.md: a pixel's way through the rooms, the state that each room owns, the cases
of a late and of an early `complete`, saves, and a glossary. `flows.pixels` wires the stages on one page.

Three rules hold everywhere. No stage imports another; `flows.model.messages` has the messages between them.
Only `flows.engine` and `flows.pixels` use Bytewax. A stage publishes one cut at a time: one exact prefix of
every log.
"""
