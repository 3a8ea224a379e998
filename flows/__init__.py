"""The flow: from an audio pixel to a number that a trader can trust.

```
 collector ─► Kafka ─► intake ─► plays ─► attribution ─► rows ─► publish   a pixel's way
                        decode    once     credit         sum     Redis    (with delivery: plans, pacing)
                                      └──► clients ──────┘                 downloads, once a client

 model  state  settings               the ground: shared words, tools of state, settings
 engine                               Bytewax; beside it, `flows.pixels` alone knows it
 viewers  reconcile  simulate         read Redis; recompute a log; make traffic whose truth is known
 demo  cli                            everything on one machine; the command line
```

The stages (intake, plays, attribution, clients, rows, delivery, publish) are siblings: none imports another,
and `publish` alone may use `delivery`. Messages between stages are in `flows.model.messages`, and
`flows.pixels` wires the stages on one page.

State is sharded, and moves on in cuts. A source partition sends a numbered tick behind its pixels; a tick of
all partitions is a cut, one exact prefix of every log. Whatever a stage publishes belongs to one cut.

A pixel that comes late, say a `complete`, is decided in `plays`. It counts in the minute of its play's start
while that minute is open, and the row's next revision has it. Once the minute is final, the pixel is
`too_late`: it goes to the dead letters and changes no rate. A `complete` that comes before its start is held.

docs/architecture.md walks the rooms in this order and ends with a glossary.
"""
