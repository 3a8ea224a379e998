"""The dataflow, on one page.

```
 intake ─┬─ shard ──► plays ─┬─ to_rows ──────────────────────────► rows ─┬──► redis      fenced rows
         │  pixels, ticks    │  increments                ┌─ credited ┘  └──► minutes    placement-minutes
         │                   ├─ to_listeners ► attribution ► credits ───────► decisions  conversion-credits
         │                   ├─ settled ──┐
         ├─ receipts ────────┼────────────┴► ledger ──► redis     received = accepted + repeated + rejected
         └─ refused ─────────┴─ late ─────────────────► rejected  dead letters
```

Guarantee. State, source positions and what was counted are of one snapshot, so every pixel in the log counts
exactly once in the numbers, whatever dies and however often. Redis rows are absolute and fenced: after a
crash readers see nothing until the replay has passed what they had. Dead letters and minutes are at least
once, keyed so that repeats collapse; files under `replay --out` are cut back to the snapshot. Limits: what
Kafka has deleted before it was read is lost (the flow stops, or counts what it skips when told to); a Redis
failover that loses acknowledged writes shows older rows for up to one flush.

Run it with `audiopixel run`, on several machines with its `--member`. Bytewax's own door stays open:

    python -m bytewax.recovery DIR 8
    AUDIOPIXEL_RECOVERY_DIR=DIR python -m bytewax.run flows.pixels:flow -r DIR -s 10 -b 0 \\
        -i N -a 'HOST:PORT;HOST:PORT'
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import bytewax.operators as op
import structlog
from bytewax.dataflow import Dataflow

from connectors.stream import ConnectError
from flows import logs
from flows.delivery import plan_file
from flows.engine import (
    AttributionLogic,
    CreditsLogic,
    LedgerLogic,
    LinesSink,
    PixelSource,
    PlaysLogic,
    RedisSink,
    RowsLogic,
    StopSignal,
    kafka_input,
    preflight,
    serve_metrics,
)
from flows.engine import begun as begun_of
from flows.errors import AudiopixelError
from flows.intake import DenyList, late_letter
from flows.model.messages import (
    CreditBatch,
    CreditsOut,
    ForShard,
    Output,
    PlaysOut,
    Receipt,
    RowBatch,
    RowsOut,
    Settled,
    TouchBatch,
    shard_key,
)
from flows.publish import HURRY, PATIENCE, Covered, TopicLines
from flows.settings import Settings, load
from flows.settings.remedies import with_remedy

STEPS = (
    "intake",
    "plays",
    "attribution",
    "credits",
    "rows",
    "ledger",
    "redis",
    "rejected",
    "minutes",
    "decisions",
)
"""Steps with state: their names are keys of the recovery store, and never change."""

Messages = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Sinks:
    """Where the flow's outputs go; None: not wanted."""

    redis: RedisSink
    rejected: LinesSink | None = None
    minutes: LinesSink | None = None
    credits: LinesSink | None = None


def build(source: PixelSource, sinks: Sinks, settings: Settings, covered: Covered | None = None) -> Dataflow:
    """Wire the flow; connects to nothing.

    Args:
        covered: what earlier executions have told of minutes; None: where that is cut back at a restart.
    """
    keys = [shard_key(shard) for shard in range(settings.shards)]
    secret = source.listener_key

    def shard(output: Output) -> Iterable[tuple[str, ForShard]]:
        yield from ((keys[index], ForShard(index, pixels)) for index, pixels in output.pixels)
        if output.receipt is not None:
            yield from ((key, ForShard(index, output.receipt.tick)) for index, key in enumerate(keys))

    def receipt(output: Output) -> tuple[str, Receipt | Settled] | None:
        return None if output.receipt is None else ("ledger", output.receipt)

    def refused(output: Output) -> tuple[str, Messages] | None:
        return ("all", output.letters) if output.letters else None

    def late(item: tuple[str, PlaysOut]) -> tuple[str, Messages] | None:
        return ("all", [late_letter(one) for one in item[1].late]) if item[1].late else None

    def to_rows(item: tuple[str, PlaysOut]) -> Iterable[tuple[str, RowBatch | CreditBatch]]:
        return ((keys[batch.to], batch) for batch in item[1].batches)

    def to_listeners(item: tuple[str, PlaysOut]) -> Iterable[tuple[str, TouchBatch]]:
        return ((keys[batch.to], batch) for batch in item[1].touches)

    def credited(item: tuple[str, CreditsOut]) -> Iterable[tuple[str, RowBatch | CreditBatch]]:
        return ((keys[batch.to], batch) for batch in item[1].batches)

    def decisions(item: tuple[str, CreditsOut]) -> tuple[str, Messages] | None:
        return ("all", item[1].decisions) if item[1].decisions else None

    def settled(item: tuple[str, PlaysOut]) -> tuple[str, Receipt | Settled] | None:
        out = item[1]
        return None if out.cut is None else ("ledger", Settled(out.shard, out.cut, out.outcomes))

    def minutes(item: tuple[str, RowsOut]) -> tuple[str, Messages] | None:
        return ("all", item[1].minutes) if item[1].minutes else None

    flow = Dataflow("audiopixel")
    outputs = op.input("intake", flow, source)
    for_shards = op.flat_map("shard", outputs, shard)
    plays = op.stateful_batch(
        "plays", for_shards, lambda state: PlaysLogic(settings, state, source.clock, secret)
    )
    for_rows = op.flat_map("to_rows", plays, to_rows)
    wanted = sinks.minutes is not None
    for_listeners = op.flat_map("to_listeners", plays, to_listeners)
    decided = op.stateful_batch("attribution", for_listeners, lambda state: AttributionLogic(settings, state))
    to_book = op.map("to_book", decided, lambda item: ("book", item[1]))
    credits = op.stateful_batch("credits", to_book, lambda state: CreditsLogic(settings, state, secret))
    increments = op.merge("increments", for_rows, op.flat_map("credited", credits, credited))
    rows = op.stateful_batch(
        "rows", increments, lambda state: RowsLogic(settings, wanted, state, secret, covered)
    )
    accounts = op.merge(
        "accounts", op.filter_map("receipts", outputs, receipt), op.filter_map("settled", plays, settled)
    )
    ledger = op.stateful_batch("ledger", accounts, lambda state: LedgerLogic(settings, state))
    row_flushes = op.map("row_flushes", rows, lambda item: ("all", item[1].flush))
    book_flushes = op.map("book_flushes", credits, lambda item: ("all", item[1].flush))
    op.output("redis", op.merge("flushes", row_flushes, ledger, book_flushes), sinks.redis)
    if sinks.credits is not None:
        op.output("decisions", op.filter_map("decided", credits, decisions), sinks.credits)
    if sinks.rejected is not None:
        letters = op.merge(
            "letters", op.filter_map("refused", outputs, refused), op.filter_map("late", plays, late)
        )
        op.output("rejected", letters, sinks.rejected)
    if sinks.minutes is not None:
        op.output("minutes", op.filter_map("due", rows, minutes), sinks.minutes)
    return flow


def flow(recompute: bool = False) -> Dataflow:
    """The flow of the settings for `python -m bytewax.run`, which would show an error as a traceback: what is
    wrong is told in one line. Bytewax is to be told of the store in `AUDIOPIXEL_RECOVERY_DIR`.
    """
    logs.configure()
    try:
        settings = load()
        preflight(settings, recompute)
        return live(settings, recompute)
    except (AudiopixelError, ConnectError) as error:
        sys.stderr.write(f"audiopixel: {with_remedy(error)}\n")
        raise SystemExit(getattr(error, "exit_code", 1)) from None


def live(
    settings: Settings,
    recompute: bool = False,
    process: int = 0,
    begun: Callable[[], None] = lambda: None,
) -> Dataflow:
    """The flow of the settings: Kafka in; Redis, dead letters and minutes out. SIGTERM and SIGINT make it
    drain and end.

    Args:
        recompute: begin a new generation in Redis.
        process: this one's number in a cluster.
        begun: called when all of the cluster's processes are there.

    Raises:
        SettingsError, ConnectError: before anything starts.
    """
    key = settings.secret_listener_key()
    source = kafka_input(settings, begun_of(settings.recovery_dir))
    stop = StopSignal()
    stop.on_signals()

    def patience() -> timedelta:
        return HURRY if stop.asked else PATIENCE

    metrics = serve_metrics(settings, process)
    structlog.get_logger("flow").info(
        "starting", metrics=metrics, topic=settings.kafka_topic, recovery=str(settings.recovery_dir)
    )
    plan_file(settings)  # a topic of plans is read before the first pixel

    def topic(name: str) -> LinesSink:
        return LinesSink(lambda _: TopicLines(settings, name, patience))

    return build(
        PixelSource(source, settings, key, stop, denied=DenyList(settings), begun=begun),
        Sinks(
            RedisSink(
                settings,
                source,
                recompute,
                lambda: TopicLines(settings, settings.kafka_alerts_topic),
                process,
            ),
            topic(settings.kafka_rejected_topic),
            topic(settings.kafka_minutes_topic),
            topic(settings.kafka_credits_topic),
        ),
        settings,
        Covered(settings, recompute),
    )
