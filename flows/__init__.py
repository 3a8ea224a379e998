"""The flow: from an audio pixel to a number that a trader can trust.

```
 intake ──► plays ──► attribution ──► rows ──► publish (with delivery)     the stages, in a pixel's order
    model, state, settings                                                 the ground that they share
    engine                                                                 Bytewax, and nothing else knows it
    viewers, reconcile, simulate, demo, cli                                beside the flow
```

The rule: stages are siblings. None imports another; what they send each other is in `flows.model.messages`.
`flows.pixels` wires them, on one page. docs/architecture.md walks the rooms in this order and ends with a
glossary.
"""
