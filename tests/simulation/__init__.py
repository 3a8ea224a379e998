"""The whole flow in one thread: every order of messages and every moment of a crash, by seed.

`world` has virtual time, the seeded choices and the faults. `engine` walks the flow's own `Dataflow` in place
of Bytewax; `member` puts its parts together. `log`, `redis_store`, `redis_client`, `topics` and `disk` stand
in for Kafka, Redis and the disk. `checker` and `model` say what is right. `history` makes a history of a
seed, `play` plays it, `shrink` makes one that fails short. `mutations` and `bugs_of_*` put bugs in.
"""
