"""The only room that knows Bytewax: sources, steps, sinks, aligned barriers, running a flow, a cluster.

Owns: the aligners. Receives: an input. Sends: what the stages send.
Must not import: viewers, cli.
"""

from __future__ import annotations

from flows.engine.cluster import Cluster, end_with_supervisor, members
from flows.engine.committer import CommitSink
from flows.engine.cut_step import Step
from flows.engine.dealing import deal
from flows.engine.foundation import begun, fresh, lay, placed
from flows.engine.ledger_step import LedgerLogic
from flows.engine.place import ALONE, Place, place_of
from flows.engine.run import execute
from flows.engine.saved_step import Saved
from flows.engine.saves import Saves
from flows.engine.sinks import LinesLogic, LinesSink, RedisLogic, RedisSink
from flows.engine.source import PixelSource, StopSignal
from flows.engine.start import (
    FileOutput,
    kafka_input,
    keep_methodology,
    preflight,
    serve_metrics,
    tell_methodology,
)
from flows.engine.steps import (
    AttributionLogic,
    ClientsLogic,
    CreditsLogic,
    HouseholdsLogic,
    PlaysLogic,
    RowsLogic,
)
from flows.engine.trace import Trace
from flows.engine.waiting import ExitWhileWaiting

__all__ = [
    "ALONE",
    "AttributionLogic",
    "ClientsLogic",
    "Cluster",
    "CommitSink",
    "CreditsLogic",
    "ExitWhileWaiting",
    "FileOutput",
    "HouseholdsLogic",
    "LedgerLogic",
    "LinesLogic",
    "LinesSink",
    "PixelSource",
    "Place",
    "PlaysLogic",
    "RedisLogic",
    "RedisSink",
    "RowsLogic",
    "Saved",
    "Saves",
    "Step",
    "StopSignal",
    "Trace",
    "begun",
    "deal",
    "end_with_supervisor",
    "execute",
    "fresh",
    "kafka_input",
    "keep_methodology",
    "lay",
    "members",
    "place_of",
    "placed",
    "preflight",
    "serve_metrics",
    "tell_methodology",
]
