"""The dataflow, on one page.

```
 intake ─┬─ shard ──► plays ─┬─ to_rows ──────────────────────────► rows ─┬──► redis      fenced rows
         │  pixels, ticks    │  increments                ┌─ credited ┘  └──► minutes    placement-minutes
         │                   ├─ to_listeners ► attribution ► credits ───────► decisions  conversion-credits
         │                   │                └ households ┘
         │                   ├─ to_clients ──► clients ──────┘  downloads and deliveries, once a client
         │                   ├─ settled ──┐
         ├─ receipts ────────┼────────────┴► ledger ──► redis     received = accepted + repeated + rejected
         └─ refused ─────────┴─ late ─────────────────► rejected  dead letters
```

Each arrow is a stream of `flows.model.messages`. docs/architecture.md is the map of the steps and of their
state. Ticks travel after the pixels that they cover. The steps from plays on work once a cut, when the
ticks of all their senders have come. `plays` decides on a late pixel, which counts while its minute is open.
After that it is `too_late`: a dead letter by `late`, and a count of the ledger by `settled`.

Guarantee. Counts and source positions are saved together, so every pixel in the log counts once after any
crash. Redis rows are absolute and fenced: after a crash readers see nothing new until the replay has passed
the positions of the published rows. Dead letters, minutes and decisions are written at least once, and a
repeat has the key of the first. Files of `replay --out` are cut back to the save.

Limits. Pixels that Kafka deleted before they were read are lost: the flow stops, or counts what it skips if
the settings say so. A Redis failover that loses acknowledged writes shows older rows for up to one flush.

Run it with `audiopixel run`, on several machines with `--member`. Bytewax's own command works, too:

    python -m bytewax.run flows.pixels:flow -i N -a 'HOST:PORT;HOST:PORT'
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import bytewax.operators as op
import structlog
from bytewax.dataflow import Dataflow
from bytewax.operators import KeyedStream

from connectors.stream import ConnectError
from flows import logs
from flows.delivery import open_plans, require_label_plans
from flows.engine import (
    ALONE,
    AttributionLogic,
    ClientsLogic,
    CommitSink,
    CreditsLogic,
    HouseholdsLogic,
    LedgerLogic,
    LinesLogic,
    LinesSink,
    PixelSource,
    Place,
    PlaysLogic,
    RedisLogic,
    RedisSink,
    RowsLogic,
    Saved,
    Step,
    StopSignal,
    Trace,
    first_positions,
    kafka_input,
    place_of,
    preflight,
    publish_methodology,
    serve_metrics,
    settings_of_store,
)
from flows.errors import AudiopixelError
from flows.intake import DenyList
from flows.model.client_counts import ClientBatch, ClientCounts
from flows.model.messages import (
    CREDITS_SHARD,
    CreditBatch,
    Decided,
    Durable,
    Flush,
    Lines,
    Message,
    PartitionStates,
    Pixels,
    Receipt,
    RowBatch,
    Settled,
    ShardTick,
    TouchBatch,
    UnjoinedBatch,
    key_of,
    shard_key,
)
from flows.publish import Covered, ShownRows, TopicLines, seated
from flows.settings import Settings, load
from flows.settings.remedies import exit_code, with_remedy
from flows.state.keys import fingerprint

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Sinks:
    """The outputs of the flow, each None if it is switched off."""

    redis: RedisSink
    rejected: LinesSink | None = None
    minutes: LinesSink | None = None
    credits: LinesSink | None = None


@dataclass
class Saving:
    """The saved steps of a flow, while it is wired.

    Attributes:
        durable: the streams of durable pieces, one for each step.
        pieces: the (step, key) of each piece of a save.
    """

    source: PixelSource
    trace: Trace | None
    durable: list[KeyedStream[Durable | PartitionStates]] = field(default_factory=list)
    pieces: set[tuple[str, str]] = field(default_factory=set)

    def step(
        self, name: str, stream: KeyedStream[M], keys: Iterable[str], build: Callable[[Any], Step[M]]
    ) -> KeyedStream[Message]:
        """Add a step with state, which has all of `keys`."""

        def begun(_: None) -> Saved:
            step = Saved(self.source.saves, name, build)
            return step if self.trace is None else self.trace.watch(name, step)

        step = op.stateful_batch(name, stream, begun)
        self.pieces.update((name, key) for key in keys)
        self.durable.append(only(f"{name}_durable", step, Durable, PartitionStates))
        return step

    def lines(
        self,
        name: str,
        stream: KeyedStream[Lines],
        sink: LinesSink,
        senders: Iterable[int],
        ticks: bool = False,
    ) -> None:
        """Add an output of lines, from shards and, with `ticks`, from source partitions."""
        self.step(name, stream, ["all"], lambda state: LinesLogic(sink, senders, ticks, state))

    def commit(self) -> None:
        """Add the members' committers, after all steps."""
        durable = op.merge("durable", *self.durable)
        op.output("saves", durable, CommitSink(lambda: self.source.saves, frozenset(self.pieces)))


def build(
    source: PixelSource,
    sinks: Sinks,
    settings: Settings,
    covered: Covered | None = None,
    shown: ShownRows | None = None,
    trace: Trace | None = None,
) -> Dataflow:
    """Wire the flow. Nothing is connected yet.

    Args:
        covered: the minutes that earlier executions published; None for outputs that a restart cuts back.
        shown: the rows that earlier executions published, or None.
        trace: the trace of the calls of all steps, or None.
    """
    secret, wanted = source.listener_key, sinks.minutes is not None
    shards, keys = range(settings.shards), [shard_key(shard) for shard in range(settings.shards)]
    if trace is not None:
        trace.parts("intake", source)

    flow, saving = Dataflow("audiopixel"), Saving(source, trace)
    saved, lines = saving.step, saving.lines

    intake = op.input("intake", flow, source)

    pixels: KeyedStream[Pixels | ShardTick] = only("shard", intake, Pixels, ShardTick)
    plays = saved(
        "plays",
        pixels,
        keys,
        lambda state: PlaysLogic(settings, state, source.clock, secret, sinks.redis.pace),
    )

    touches = only("to_listeners", plays, TouchBatch)
    attribution = saved("attribution", touches, keys, lambda state: AttributionLogic(settings, state))
    unjoined = only("to_households", attribution, UnjoinedBatch)
    households = saved("households", unjoined, keys, lambda state: HouseholdsLogic(settings, state))
    sent = only("to_clients", plays, ClientBatch)
    clients = saved("clients", sent, keys, lambda state: ClientsLogic(settings, state))
    decided: KeyedStream[Decided | ClientCounts] = op.merge(
        "to_book",
        only("by_listener", attribution, Decided),
        only("by_household", households, Decided),
        only("by_client", clients, ClientCounts),
    )
    credits = saved("credits", decided, ["book"], lambda state: CreditsLogic(settings, state, secret))

    increments: KeyedStream[RowBatch | CreditBatch] = op.merge(
        "increments", only("to_rows", plays, RowBatch), only("credited", credits, CreditBatch)
    )
    rows = saved(
        "rows", increments, keys, lambda state: RowsLogic(settings, wanted, state, secret, covered, shown)
    )

    accounts: KeyedStream[Receipt | Settled] = op.merge(
        "accounts", only("receipts", intake, Receipt), only("settled", plays, Settled)
    )
    ledger = saved(
        "ledger",
        accounts,
        ["ledger"],
        lambda state: LedgerLogic(settings, state, source.place.members, source.saves.partitions),
    )

    flushes = op.merge(
        "flushes",
        only("row_flushes", rows, Flush),
        only("ledger_flushes", ledger, Flush),
        only("book_flushes", credits, Flush),
    )
    saved("redis", flushes, ["all"], lambda state: RedisLogic(sinks.redis, state))
    if sinks.credits is not None:
        lines("decisions", only("decided", credits, Lines), sinks.credits, [CREDITS_SHARD])
    if sinks.rejected is not None:
        letters = op.merge("letters", only("refused", intake, Lines), only("late", plays, Lines))
        lines("rejected", letters, sinks.rejected, shards, ticks=True)
    if sinks.minutes is not None:
        lines("minutes", only("due", rows, Lines), sinks.minutes, shards)
    saving.commit()
    return flow


def only(step_id: str, messages: KeyedStream[Message], *kinds: type[M]) -> KeyedStream[M]:
    """The messages of some kinds, each to its own key."""

    def keyed(items: list[tuple[str, Message]]) -> list[tuple[str, M]]:
        return [(key_of(message), message) for _, message in items if isinstance(message, kinds)]

    # By batches: a cut sends thousands of messages, and each passes six of these filters.
    return op.flat_map_batch(step_id, messages, keyed)


def flow(recompute: bool = False) -> Dataflow:
    """The flow of the settings for `python -m bytewax.run`. An error is shown as one line instead of
    Bytewax's traceback.
    """
    logs.configure()
    try:
        settings = load()
        preflight(settings, recompute)
        return live(settings, recompute, place_of(sys.argv))
    except (AudiopixelError, ConnectError) as error:
        sys.stderr.write(f"audiopixel: {with_remedy(error)}\n")
        raise SystemExit(exit_code(error)) from None


def live(
    settings: Settings,
    recompute: bool = False,
    place: Place = ALONE,
    begun: Callable[[], None] = lambda: None,
    trace: Trace | None = None,
) -> Dataflow:
    """The flow of the settings, from Kafka to Redis, dead letters and minutes. SIGTERM and SIGINT make it
    drain and end.

    Args:
        recompute: begin a new generation in Redis.
        place: the place of this process in a cluster.
        begun: is called once all of the cluster's processes have agreed on a save.
        trace: see `build`.

    Raises:
        SettingsError, PlanError, ConnectError, StateError: before anything starts.
    """
    key, settings = settings.secret_listener_key(), seated(settings_of_store(settings))
    source = kafka_input(settings, first_positions(settings.recovery_dir))
    stop = StopSignal()
    stop.on_signals()

    def stopping() -> bool:
        return stop.requested

    metrics = serve_metrics(settings, place.member)
    structlog.get_logger("flow").info(
        "starting", metrics=metrics, topic=settings.kafka_topic, recovery=str(settings.recovery_dir)
    )
    if place.member == 0:
        publish_methodology(settings)
    open_plans(settings)  # a topic of plans is read before the first pixel
    require_label_plans(settings)

    def topic(name: str) -> LinesSink:
        return LinesSink(lambda _: TopicLines(settings, name, stopping))

    return build(
        PixelSource(source, settings, key, stop, denied=DenyList(settings), begun=begun, place=place),
        Sinks(
            RedisSink(
                settings,
                source,
                recompute,
                lambda: TopicLines(settings, settings.kafka_alerts_topic, stopping),
                place.member,
                stop=stop,
                trace=trace,
                store_descriptions=publish_methodology,
                listener_key=fingerprint(key),
                switches=True,
            ),
            topic(settings.kafka_rejected_topic),
            topic(settings.kafka_minutes_topic),
            topic(settings.kafka_credits_topic),
        ),
        settings,
        Covered(settings, recompute),
        ShownRows(settings, recompute),
        trace,
    )
